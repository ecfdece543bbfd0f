import warnings

import pytest
from PIL import Image

from fastai_tl.core.errors import InputError, KitWarning
from fastai_tl.datasets.picture_folder import FolderError, folder_dls, read_folder
from fastai_tl.datasets.samples import by_root, name_root, sample_dls, sample_path, split_sample


def test_the_set_ships_with_its_readme():
    path = sample_path("clipart")
    assert "Public Domain" in (path / "README.md").read_text()
    assert len(list(path.glob("*/*.jpg"))) == 302


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("n", [None, 5, 12])
def test_no_variant_on_both_sides(seed, n):
    train, valid = split_sample(sample_path("clipart"), n, seed)
    for d in (p for p in sample_path("clipart").iterdir() if p.is_dir()):
        roots = by_root(d.glob("*.jpg"))
        t, v = ({r for r, ps in roots.items() if set(ps) & set(side)} for side in (train, valid))
        assert not t & v and len(t) <= 0.6 * len(roots)
        assert not {name_root(p.stem) for p in train if p.parent == d} & {
            name_root(p.stem) for p in valid if p.parent == d
        }
        assert sum(p.parent == d for p in valid) >= 6
        if n:
            assert sum(p.parent == d for p in train) == n


def test_variants_that_names_hide_stay_together():
    mammals = by_root(sample_path("clipart").glob("mammal/*.jpg"))
    assert any(
        {"b_w_tiger_susan_park_01", "color_tiger_susan_park_01"} <= {p.stem for p in ps} for ps in mammals.values()
    )


def test_validation_does_not_depend_on_how_much_is_trained():
    assert split_sample(sample_path("clipart"), 3)[1] == split_sample(sample_path("clipart"), 8)[1]


def test_bad_numbers():
    for kw in ({"size": 2}, {"bs": 1}, {"n_per_class": 0}, {"n_per_class": 100}, {"name": "clipat"}):
        with pytest.raises(InputError):
            sample_dls(**kw)


@pytest.fixture
def folder(tmp_path):
    for c, n in (("cat", 6), ("dog", 5)):
        for i in range(n):
            f = tmp_path / "pets" / c / "deep" / f"{i}.png"
            f.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (30, 20), (40 * i, 90, 10)).save(f)
    return tmp_path / "pets"


def test_unreadable_pictures_are_named_and_counted(folder):
    (folder / "cat" / "torn.jpg").write_bytes((folder / "cat" / "deep" / "0.png").read_bytes()[:40])
    (folder / "dog" / "empty.png").touch()
    with pytest.warns(KitWarning, match="2 unreadable.*torn.jpg.*empty.png"):
        dls = folder_dls(folder, size=32)
    assert len(dls.train_ds) + len(dls.valid_ds) == 11 and list(dls.vocab) == ["cat", "dog"]


def test_hidden_folders_and_other_files_are_ignored(folder):
    (folder / ".ipynb_checkpoints").mkdir()
    (folder / "notes.txt").write_text("hello")
    (folder / "cat" / "notes.txt").write_text("hello")
    with warnings.catch_warnings():
        warnings.simplefilter("error", KitWarning)
        assert list(folder_dls(folder, size=32).vocab) == ["cat", "dog"]


def test_a_small_training_set_makes_the_batch_smaller(folder):
    dls = folder_dls(folder, size=32, bs=64)
    assert dls.train.bs == len(dls.train_ds) == 9 and len(dls.train) == 1


def test_what_cannot_be_used_says_what_to_change(tmp_path, folder):
    cases = {
        "no such folder": tmp_path / "gone",
        "is a file": folder / "cat" / "deep" / "0.png",
        "no pictures": tmp_path / "empty",
        "beside each other": folder / "cat" / "deep",
    }
    (tmp_path / "empty").mkdir()
    for text, path in cases.items():
        with pytest.raises(FolderError, match=text):
            read_folder(path)
    (folder / "bird").mkdir()
    Image.new("RGB", (9, 9)).save(folder / "bird" / "only.png")
    with pytest.raises(FolderError, match="'bird' has 1"):
        read_folder(folder)
