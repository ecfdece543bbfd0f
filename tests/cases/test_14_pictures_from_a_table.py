"""Pictures from a table. Public reports: fastai/fastai#3538 (`ImageClassifierCleaner` fails where the loaders have a
DataFrame); Blaizzy/mlx-vlm PR #1933 (features cached by file name: new picture, old answer).
"""

import os
import shutil

import pandas as pd
import pytest
import torch
from fastai.data.block import CategoryBlock, DataBlock
from fastai.data.transforms import ColReader, IndexSplitter
from fastai.vision.augment import Resize
from fastai.vision.core import PILImage
from fastai.vision.data import ImageBlock, ImageDataLoaders
from helpers import QUIET
from PIL import Image

from fastai_tl.all import EvaluatePanel, KitError, diagnose, evaluate, frozen_cache, sample_path, transfer_learner
from fastai_tl.core.item_files import clear_hashes, file_hash, load_hashes


@pytest.fixture
def pictures(tmp_path):
    "14 pictures in two classes, and a table of them"
    for c in ("bird", "flower"):
        (tmp_path / "p" / c).mkdir(parents=True)
        for f in sorted((sample_path() / c).glob("*.jpg"))[:14]:
            shutil.copy(f, tmp_path / "p" / c)
    files = sorted((tmp_path / "p").rglob("*.jpg"))
    return tmp_path, pd.DataFrame([dict(file=str(f.relative_to(tmp_path)), label=f.parent.name) for f in files])


def from_table(root, df, tfm=None, get_x=None, block=ImageBlock):
    if get_x is None:
        get_x = ColReader("file", pref=root)
    data = DataBlock(
        (block, CategoryBlock), get_x=get_x, get_y=ColReader("label"), splitter=IndexSplitter([1, 3, 15, 17]),
        item_tfms=tfm or Resize(32, method="squish"),
    )  # fmt: skip
    return data.dataloaders(df, bs=4, num_workers=0, device="cpu", path=root)


def keys_of(learn, store):
    with frozen_cache(learn, store=store), learn.no_bar():
        learn.fit(1, 1e-4)
    return sorted(p.name for p in store.iterdir() if p.is_dir())


@pytest.mark.medium
def test_the_case(pictures):
    root, df = pictures
    dls = ImageDataLoaders.from_df(df, root, valid_pct=0.3, seed=0, item_tfms=Resize(48), bs=4, num_workers=0)
    learn = transfer_learner(dls, "resnet_mini")
    ev = evaluate(learn, on_progress=QUIET)
    assert all(p.is_file() for p in ev.items)
    html = ev.to_html(root / "e.html").read_text()
    assert html.count("data:image/jpeg") > 0 and ev.plot_worst().axes[0].images
    panel = EvaluatePanel(learn, result=ev)
    panel.tabs.selected_index = 1
    assert "data:image/jpeg" in panel.parts[1].gallery.shots.value
    panel.close()
    before = keys_of(learn, root / "st")
    Image.new("RGB", (90, 90), "red").save(root / df.file[9])
    after = keys_of(learn, root / "st")
    assert set(before) < set(after)


@pytest.mark.medium
@pytest.mark.parametrize("get_x", [None, lambda row: f"{os.environ['PICTURES']}/{row['file']}"])
def test_bytes_decide_not_names_and_times(pictures, monkeypatch, get_x):
    "The same size and time of change, other bytes; other times and another folder, the same bytes"
    root, df = pictures
    monkeypatch.setenv("PICTURES", str(root))
    learn = transfer_learner(from_table(root, df, get_x=get_x), "resnet_mini")
    first, f = keys_of(learn, root / "st"), root / df.file[9]
    for p in root.rglob("*.jpg"):
        os.utime(p)
    assert keys_of(learn, root / "st") == first, "touched, not changed"
    st, data = f.stat(), bytearray(f.read_bytes())
    data[-30] ^= 1
    f.write_bytes(data)
    os.utime(f, ns=(st.st_atime_ns, st.st_mtime_ns))
    assert f.stat().st_size == st.st_size and len(keys_of(learn, root / "st")) == len(first) + 1
    if get_x is not None:
        return
    both, again = keys_of(learn, root / "st"), shutil.copytree(root / "p", root / "moved" / "p").parent
    moved = transfer_learner(from_table(again, df), "resnet_mini")
    assert keys_of(moved, root / "st") == both, "the same pictures in another folder"
    clear_hashes()
    load_hashes(root / "st")
    monkeypatch.setattr("builtins.open", None)  # known by size and times, so not read again
    assert file_hash(f) == file_hash(again / df.file[9])


@pytest.mark.medium
def test_features_in_memory_follow_the_files(pictures):
    root, df = pictures
    learn = transfer_learner(from_table(root, df), "resnet_mini")
    with frozen_cache(learn) as cache, learn.no_bar():
        learn.fit(1, 1e-4)
        old = [cache.table(dl).rows(range(dl.n)).clone() for dl in cache.loaders]
        Image.new("RGB", (128, 128), "red").save(root / df.file[20])  # not among the first items
        learn.fit(1, 1e-4)
        new = [cache.table(dl).rows(range(dl.n)) for dl in cache.loaders]
    assert not torch.equal(old[0], new[0]) and torch.equal(old[1], new[1])


@pytest.mark.medium
def test_files_that_are_not_known_are_not_stored_for(pictures):
    root, df = pictures

    def mine(number):
        return PILImage.create(root / df.file[int(number)])

    numbers = df.assign(number=range(len(df)))
    from fastai.data.block import TransformBlock
    from fastai.data.transforms import IntToFloatTensor

    block = TransformBlock(type_tfms=mine, batch_tfms=IntToFloatTensor)
    learn = transfer_learner(from_table(root, numbers, get_x=ColReader("number"), block=block), "resnet_mini")
    with pytest.raises(KitError, match="not known"):
        keys_of(learn, root / "st")


@pytest.mark.medium
def test_a_crop_is_random_only_where_it_can_move(pictures):
    root, df = pictures
    learn = transfer_learner(from_table(root, df, Resize(48)), "resnet_mini")
    assert keys_of(learn, root / "st"), "all pictures are square"
    Image.new("RGB", (128, 90), "red").save(root / df.file[20])
    with pytest.raises(KitError, match=r"Resize\(method='crop'\) crops at a random place.*squish"):
        keys_of(learn, root / "st")


@pytest.mark.medium
def test_the_doctor_finds_a_copy_that_a_function_names(pictures):
    root, df = pictures
    shutil.copy(root / df.file[0], root / df.file[1])
    dls = from_table(root, df, get_x=lambda row: root / row["file"])
    assert any(f.code == "duplicates" for f in diagnose(dls).findings)
