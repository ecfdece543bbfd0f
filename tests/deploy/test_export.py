import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from helpers import QUIET
from fastai.vision.augment import RandomResizedCrop, Resize, aug_transforms
from PIL import Image
from torch import nn

from fastai_tl.deploy import onnx_export
from fastai_tl.deploy.manifest import CARD, MANIFEST, ONNX, PARTS, SAMPLE, SAMPLE_OUTPUT, WEIGHTS, changed_files
from fastai_tl.deploy.export import ExportError, export, export_again
from fastai_tl.deploy.torch_predictor import load_predictor
from fastai_tl.core.errors import FileError, InputError, KitWarning, StateError
from fastai_tl.evaluation.classification import evaluate
from fastai_tl.training.plan import Plan
from fastai_tl.datasets.picture_folder import ClassOf, picture_dls
from fastai_tl.datasets.samples import sample_path, split_sample
from fastai_tl.core.images import MAX_PIXELS, PictureError, open_picture
from fastai_tl.deploy.onnx_runtime import load_onnx
from fastai_tl.training.run_plan import run_plan
from fastai_tl.models.transfer_learner import transfer_learner


def make(arch="mobilenet_v3_small", head=None, n_in=3, weights=None, **kw):
    train, valid = split_sample(sample_path("clipart"), 2)
    dls = picture_dls(train, valid[::8], ClassOf(sample_path("clipart")), size=48, bs=8, path=".", channels=n_in, **kw)
    learn = transfer_learner(dls, arch, pretrained=False, weights=weights, head=head)
    for m in learn.model.modules():  # running statistics that are not those of a new network
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            m.running_mean.uniform_(-0.1, 0.1)
    return learn


def plain(learn, folder, **kw):
    return export(learn, folder, onnx=False, **kw)


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    "An export of a small network with everything, its Learner and its Evaluation"
    torch.manual_seed(0)
    learn = make("resnet_mini")
    history = run_plan(learn, Plan.head_only(1, lr=1e-2), on_progress=QUIET)
    ev = evaluate(learn, on_progress=QUIET)
    return export(learn, tmp_path_factory.mktemp("mini") / "m", history=history, evaluation=ev), learn, ev


@pytest.fixture
def copied(mini, tmp_path):
    "A copy of it to damage"
    shutil.copytree(mini[0], tmp_path / "m")
    return tmp_path / "m"


def fitted(folder, name, data):
    "Write a file, and make the manifest fit"
    import hashlib

    (folder / name).write_bytes(data)
    m = json.loads((folder / MANIFEST).read_text())
    m["files"][name] = dict(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
    (folder / MANIFEST).write_text(json.dumps(m))


def stacked(predictions):
    return np.stack([p.probabilities for p in predictions])


# What is written


@pytest.mark.medium
@pytest.mark.parametrize(
    "arch, head, onnx",
    [
        ("resnet_mini", None, True),
        pytest.param("mobilenet_mini", "linear", True, marks=pytest.mark.onnx),
        pytest.param("tf_efficientnet_lite0", None, True, marks=pytest.mark.onnx),
        ("tf_efficientnet_lite0", None, False),
        ("mobilenet_v3_small", None, False),
        ("resnet18", "linear", False),
        ("mobilenet_v2", None, False),
        ("vgg11_bn", "linear", False),
    ],
)
def test_the_folder_gives_the_learners_predictions(tmp_path, arch, head, onnx, capsys):
    learn = make(arch, head)
    states = torch.random.get_rng_state(), [dl.rng.getstate() for dl in learn.dls.loaders]
    folder = export(learn, tmp_path / "a" / "model", onnx)
    assert torch.equal(states[0], torch.random.get_rng_state()) and states[1] == [
        dl.rng.getstate() for dl in learn.dls.loaders
    ]
    assert sorted(p.name for p in folder.iterdir()) == sorted(set(PARTS) - ({ONNX} if not onnx else set()))
    assert all(p.stat().st_mode & 0o044 == 0o044 for p in folder.iterdir()), "others may read the model"
    ev = evaluate(learn, on_progress=QUIET)
    for backend in ("torch", "onnx") if onnx else ("torch",):
        got = load_predictor(folder, backend).predict(ev.items, bs=5)
        np.testing.assert_allclose(stacked(got), ev.probs, atol=1e-4 if backend == "onnx" else 1e-5, rtol=0)
        assert got[0].label == ev.vocab[ev.preds[0]]
    assert capsys.readouterr().out == "", "nothing to say"


@pytest.mark.medium
def test_manifest_and_card_hold_what_a_reader_needs(mini):
    folder, learn, ev = mini
    m = json.loads((folder / MANIFEST).read_text())
    assert m["freeze"] == ["freeze_to(learn, 'head', bn='frozen')"]
    assert m["classes"] == list(learn.dls.vocab) and m["data"] == dict(train=16, valid=len(ev.items))
    assert m["training"][0]["stage"]["train"] == "head" and len(m["training"][0]["values"]) == 1
    assert (
        m["metrics"]["accuracy"] == ev.accuracy
        and m["metrics"]["interval"] == list(ev.interval())
        and m["metrics"]["items"] == ev.n
    )
    assert (
        set(m["files"]) == set(PARTS) - {MANIFEST} and changed_files(folder) == [] and m["onnx"]["difference"] <= 1e-4
    )
    assert {"torch", "fastai", "fastai-tl", "onnxruntime"} <= set(m["versions"])
    out = json.loads((folder / SAMPLE_OUTPUT).read_text())
    for backend in ("torch", "onnx"):
        np.testing.assert_allclose(
            load_predictor(folder, backend).predict(folder / SAMPLE).probabilities,
            out["probabilities"],
            atol=1e-4,
            rtol=0,
        )
    card = (folder / CARD).read_text()
    for text in (
        *m["classes"],
        f"{ev.accuracy:.1%}",
        "16 pictures to train",
        "load_onnx",
        "no licence",
        "resnet\\_mini",
    ):
        assert text in card, text


@pytest.mark.medium
def test_an_evaluation_of_other_weights_is_refused(mini, tmp_path):
    with pytest.raises(InputError, match="other weights"):
        plain(make("resnet_mini"), tmp_path / "m", evaluation=mini[2])
    assert not list(tmp_path.iterdir())


@pytest.mark.medium
def test_nothing_of_this_machine_is_in_the_folder(mini):
    for f in (ONNX, MANIFEST, CARD):
        raw = (mini[0] / f).read_bytes()
        for s in (str(Path(torch.__file__).parent), str(sample_path("clipart")), "site-packages"):
            assert s.encode() not in raw, (f, s)


def test_a_weights_file_is_named_without_its_folder(tmp_path):
    from safetensors.torch import save_file

    from fastai_tl.models.mini_nets import mini_net

    save_file(mini_net("resnet_mini").state_dict(), tmp_path / "mine.safetensors")
    folder = plain(make("resnet_mini", weights=tmp_path / "mine.safetensors"), tmp_path / "m")
    text = (folder / MANIFEST).read_text() + (folder / CARD).read_text()
    assert "mine.safetensors" in text and str(tmp_path) not in text


@pytest.mark.medium
def test_a_network_without_onnx_is_exported_all_the_same(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(onnx_export, "LARGEST", 10**6)
    folder = export(make("resnet_mini"), tmp_path / "m")
    m = json.loads((folder / MANIFEST).read_text())
    assert (
        "GB" in m["onnx"]["error"]
        and m["onnx"]["file"] is None
        and not (folder / ONNX).exists()
        and "without ONNX" in capsys.readouterr().out
    )
    assert "GB" in (folder / CARD).read_text() and load_predictor(folder).predict(folder / SAMPLE)
    with pytest.raises(FileError, match="GB"):
        load_predictor(folder, "onnx")


@pytest.mark.medium
def test_a_failed_export_leaves_the_old_one(tmp_path):
    learn = make()
    folder = plain(learn, tmp_path / "m")
    old = (folder / WEIGHTS).read_bytes()
    learn.model[0].register_forward_hook(lambda m, i, o: o * 2)
    with pytest.raises(ExportError):
        plain(learn, folder, force=True)
    assert (folder / WEIGHTS).read_bytes() == old and [p.name for p in tmp_path.iterdir()] == ["m"]
    load_predictor(folder)


KILLED = """
import os, signal, sys
sys.path[:0] = [{tests!r}, {tests!r} + '/..']
import torch
torch.set_num_threads(1)
import test_export as t
from fastai_tl.deploy import export as d, staged_folder as folders
learn, exchange = t.make("resnet_mini"), folders._exchange
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
def then_die(*a): exchange(*a); die()
steps = [(d, "_write_card_and_manifest", die), (d, "_verify", die), (folders, "_exchange", die)]
for module, name, f in [*steps, (folders, "_exchange", then_die)]:
    if not (pid := os.fork()):
        setattr(module, name, f)
        t.plain(learn, {folder!r}, force=True); os._exit(0)
    created = lambda: t.json.loads(open({folder!r}+"/manifest.json").read())["created"]
    print(os.waitpid(pid, 0)[1], t.changed_files({folder!r}), created(), flush=True)
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000,) * 2)   # stands for a full disk
try: t.plain(learn, {folder!r}, force=True)
except t.FileError as e: print(e.args[0], t.changed_files({folder!r}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere two renames take the place of one exchange")
def test_an_export_that_is_killed_leaves_a_whole_model(mini, copied, tmp_path):
    """kill -9 with the weights written, with everything written, before and after the new folder takes the place of
    the old one
    """
    old = json.loads((copied / MANIFEST).read_text())["created"]
    code = KILLED.format(tests=str(Path(__file__).parent), folder=str(copied))
    r = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    *lines, full = [s.split() for s in r.stdout.splitlines()]
    assert [s[:2] for s in lines] == [["9", "[]"]] * 4, r.stdout
    assert [s[2] == old for s in lines] == [True, True, True, False], r.stdout
    assert "Cannot write " in " ".join(full) and full[-1] == "[]", "a full disk leaves it whole, too"
    assert load_predictor(copied).predict(copied / SAMPLE).label in mini[1].dls.vocab
    assert plain(mini[1], copied, force=True) == copied and changed_files(copied) == [], (
        "and the next export goes its way"
    )


@pytest.mark.medium
def test_places_that_cannot_be_written(mini, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.chdir(tmp_path / "real")
    for folder, text in [
        (tmp_path / "file" / "m", "cannot be written"),
        (".", "working folder"),
        ("..", "already holds"),
        (tmp_path / "file", "already"),
    ]:
        with pytest.raises(FileError, match=text):
            plain(mini[1], folder)
    monkeypatch.chdir(tmp_path)
    plain(mini[1], "link")
    assert (tmp_path / "link").is_symlink() and changed_files(tmp_path / "real") == []


@pytest.mark.medium
def test_what_lies_beside_a_model_is_not_lost(mini, copied):
    (copied / "notes.txt").write_text("mine")
    with pytest.raises(FileError, match="notes.txt"):
        plain(mini[1], copied, force=True)
    assert (copied / "notes.txt").read_text() == "mine" and (copied / ONNX).exists()


@pytest.mark.medium
def test_learn_export_is_untouched(mini, tmp_path):
    from fastai.learner import Learner, load_learner

    _, learn, ev = mini
    assert Learner.export.__module__ == "fastai.learner"
    learn.export(tmp_path / "pickle.pkl")
    again = load_learner(tmp_path / "pickle.pkl")
    with again.no_bar():
        np.testing.assert_allclose(again.predict(ev.items[0])[2], ev.probs[0], atol=1e-5)


# What is refused


@pytest.mark.medium
def test_what_cannot_be_described_is_refused(tmp_path):
    mine = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(576, 8))
    with pytest.raises(ExportError, match="head"):
        plain(make(head=mine), tmp_path / "m")
    learn = make()
    learn.model = nn.Sequential(*learn.model.children())
    with pytest.raises(ExportError, match="transfer_learner"):
        plain(learn, tmp_path / "m")
    for tfms, text in [
        (dict(item_tfms=[Resize(48), _Invert()]), "_Invert"),
        (dict(item_tfms=RandomResizedCrop(48), batch_tfms=aug_transforms(size=40, mode="nearest")), r"size=\(40, 40\)"),
    ]:
        with pytest.warns(KitWarning, match=text):
            learn = make(**tfms)
        with pytest.raises(ExportError, match=text):
            plain(learn, tmp_path / "m")
    learn = make()
    learn.loss_func = nn.BCEWithLogitsLoss()
    with pytest.raises(ExportError, match="BCEWithLogitsLoss"):
        plain(learn, tmp_path / "m")
    learn = make()
    learn.model[0].register_forward_hook(lambda m, i, o: o * 2)
    with pytest.raises(ExportError, match="differ"):
        plain(learn, tmp_path / "m")
    assert not list(tmp_path.iterdir()), "nothing is left behind"


def test_diverged_weights_are_not_exported(tmp_path):
    learn = make("resnet_mini")
    with torch.no_grad():
        next(learn.model[1].parameters()).fill_(float("nan"))
    with pytest.raises(StateError, match="finite"):
        plain(learn, tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_pictures_that_are_opened_in_another_way_are_refused(tmp_path):
    "An opener of one's own, here one that follows EXIF, cannot be known outside"
    from fastai.data.block import CategoryBlock, DataBlock, TransformBlock
    from fastai.vision.core import PILImage
    from PIL import ImageOps

    def upright(p):
        return PILImage(ImageOps.exif_transpose(Image.open(p)).convert("RGB"))

    root = sample_path("clipart")
    from fastai.data.transforms import IntToFloatTensor

    block = DataBlock(
        (TransformBlock(upright, batch_tfms=IntToFloatTensor), CategoryBlock),
        get_items=lambda r: sorted(r.glob("*/*1.jpg")),
        get_y=ClassOf(root),
        item_tfms=Resize(48),
    )
    learn = transfer_learner(block.dataloaders(root, bs=8, num_workers=0), "resnet_mini", pretrained=False)
    with pytest.raises(ExportError, match="upright"):
        plain(learn, tmp_path / "m")


@pytest.mark.medium
def test_a_table_of_pictures_can_be_exported(tmp_path):
    "fastai's DataLoaders from a data frame: the items are rows, not paths"
    import pandas as pd
    from fastai.vision.data import ImageDataLoaders

    root = sample_path("clipart")
    files = sorted(root.glob("*/*.jpg"))[::12]
    df = pd.DataFrame(
        dict(
            file=[str(f.relative_to(root)) for f in files],
            label=[f.parent.name for f in files],
            late=[i % 3 == 0 for i in range(len(files))],
        )
    )
    dls = ImageDataLoaders.from_df(df, root, valid_col="late", item_tfms=Resize(48), bs=4, num_workers=0)
    learn = transfer_learner(dls, "resnet_mini", pretrained=False)
    pred = load_predictor(plain(learn, tmp_path / "m"))
    with learn.no_bar():
        assert pred.predict(files[0]).label == learn.predict(files[0])[0]


# Pictures


# fastai resamples validation pictures, too, by the identity
@pytest.mark.medium
@pytest.mark.parametrize("augment, tol", [(None, 1e-5), (aug_transforms(), 1e-3)])
@pytest.mark.parametrize("method", ["crop", "squish", "pad"])
def test_preprocessing_is_replayed_for_any_shape(tmp_path, method, augment, tol):
    learn = make(item_tfms=Resize((48, 64), method=method), batch_tfms=augment)
    pred = load_predictor(plain(learn, tmp_path / "m"))
    pics = [
        Image.fromarray(np.random.default_rng(i).integers(0, 255, s, dtype=np.uint8))
        for i, s in enumerate([(90, 61, 3), (61, 90, 3), (64, 48)])
    ]
    for im in pics:
        with learn.no_bar():
            want = learn.predict(np.asarray(im.convert("RGB")))[2]
        np.testing.assert_allclose(pred.predict(im).probabilities, want, rtol=0, atol=tol)


def odd_files(folder):
    """Pictures that are often read wrongly: turned by EXIF, 1 bit, grey with transparency, a palette, transparent,
    animated, CMYK, one pixel, thin
    """
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 255, (60, 40, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x112] = 6
    for name, im, more in [
        ("turned.jpg", rgb, dict(exif=exif)),
        ("bit.png", rgb.convert("1"), {}),
        ("la.png", rgb.convert("LA"), {}),
        ("palette.gif", rgb.convert("P"), {}),
        ("clear.png", Image.fromarray(rng.integers(0, 255, (60, 40, 4), dtype=np.uint8)), {}),
        ("film.gif", rgb, dict(save_all=True, append_images=[rgb.rotate(180)])),
        ("print.jpg", rgb.convert("CMYK"), {}),
        ("dot.png", rgb.crop((0, 0, 1, 1)), {}),
        ("thin.png", rgb.crop((0, 0, 1, 60)), {}),
    ]:
        im.save(folder / name, **more)
        yield folder / name


@pytest.mark.medium
@pytest.mark.parametrize("n_in", [1, 3, 4])
def test_odd_pictures_are_read_as_in_training(tmp_path, n_in):
    learn = make("resnet_mini", n_in=n_in)
    folder = export(learn, tmp_path / "m", onnx=n_in != 3)
    files = list(odd_files(tmp_path))
    with learn.no_bar(), learn.no_logging():
        want = learn.get_preds(dl=learn.dls.test_dl(files, num_workers=0))[0].numpy()
    for backend in ("torch", "onnx") if n_in != 3 else ("torch",):
        np.testing.assert_allclose(stacked(load_predictor(folder, backend).predict(files)), want, atol=1e-4, rtol=0)
    assert len({tuple(w) for w in want}) > 6, "the pictures differ, so reading one for another would show"


@pytest.mark.medium
def test_arrays_and_pillow_images_of_any_channels(mini):
    "Paths, Pillow images, arrays and bytes of the same picture get the same answer, alone and in a list"
    from fastai_tl.core.images import open_bytes

    rng = np.random.default_rng(0)
    for backend in ("torch", "onnx"):
        pred = load_predictor(mini[0], backend)
        for shape, mode in [
            ((50, 40), "L"),
            ((50, 40, 1), "L"),
            ((50, 40, 2), "LA"),
            ((50, 40, 3), "RGB"),
            ((50, 40, 4), "RGBA"),
            ((1, 1, 3), "RGB"),
        ]:
            a = rng.integers(0, 255, shape, dtype=np.uint8)
            im = Image.fromarray(a.squeeze(-1) if shape[-1] == 1 and len(shape) == 3 else a)
            assert im.mode == mode
            clear = im.convert("RGBA")
            rgb = Image.alpha_composite(Image.new("RGBA", im.size, "white"), clear).convert("RGB")
            np.testing.assert_allclose(pred.predict(a).probabilities, pred.predict(rgb).probabilities, atol=1e-6)
            np.testing.assert_allclose(
                stacked(pred.predict([a, im, np.asarray(rgb)])),
                stacked([pred.predict(im)] * 3),
                atol=1e-5,
            )
        raw = (mini[0] / SAMPLE).read_bytes()
        np.testing.assert_allclose(
            pred.predict(open_bytes(raw)).probabilities, pred.predict(mini[0] / SAMPLE).probabilities, atol=1e-6
        )


@pytest.mark.medium
def test_what_is_no_picture_is_named(mini, tmp_path):
    pred = load_predictor(mini[0])
    eps = tmp_path / "program.eps"
    Image.new("RGB", (9, 9)).save(eps, "EPS")
    (tmp_path / "words.png").write_text("words")
    (tmp_path / "torn.jpg").write_bytes((sample_path("clipart") / "bird" / "eagle_01.jpg").read_bytes()[:900])
    os.mkfifo(tmp_path / "pipe.jpg")
    for f in ("program.eps", "words.png", "torn.jpg", "gone.jpg", "pipe.jpg", ""):
        with pytest.raises(PictureError, match=f or "not a file"):
            pred.predict([mini[0] / SAMPLE, tmp_path / f])
    with pytest.raises(PictureError, match="name of a file"):
        pred.predict("a\0b")


@pytest.mark.medium
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_huge_pictures(mini, tmp_path):
    pred = load_predictor(mini[0])
    Image.new("1", (10_000, 10_000), 1).save(tmp_path / "hundred_megapixels.png")
    assert pred.predict(tmp_path / "hundred_megapixels.png").label in pred.classes
    Image.new("1", (14_000, 14_000)).save(tmp_path / "huge.png")
    assert 14_000**2 > MAX_PIXELS
    with pytest.raises(PictureError, match="huge.png"):
        pred.predict(tmp_path / "huge.png")
    old, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with pytest.raises(PictureError, match="14,000 x 14,000"):
            open_picture(tmp_path / "huge.png")
    finally:
        Image.MAX_IMAGE_PIXELS = old


@pytest.mark.medium
def test_a_thread_of_pixels_does_not_fill_the_memory(tmp_path):
    "Padded to a square it would have 3,600 megapixels; cropped to one, none"
    for method in ("pad", "crop"):
        pred = load_predictor(plain(make("resnet_mini", item_tfms=Resize((16, 48), method=method)), tmp_path / method))
        with pytest.raises(PictureError, match="too narrow"):
            pred.predict(Image.new("L", (60_000, 1) if method == "pad" else (1, 1)))


# Folders that were changed


def test_manifest_is_checked(copied):
    good = json.loads((copied / MANIFEST).read_text())
    w = good["files"][WEIGHTS]

    def part(name, **k):
        return json.dumps(good | {name: good[name] | k})

    for bad, text in [
        ("{", "damaged"),
        (json.dumps(good | {"format": "other/9"}), "other/9"),
        ("[]", "format"),
        ("[" * 100_000, "damaged"),
        (json.dumps(good | {"format": "fastai_tl/7"}), "Update"),
        ("9" * 10_000, "damaged"),
        (" " * (17 << 20), "larger than"),
        (part("files", **{WEIGHTS: w | {"sha256": "0" * 64}}), "checksum"),
        (part("files", **{WEIGHTS: w | {"bytes": 2**39}}), "bytes"),
        (part("files", **{"../../x": w}), "folder itself"),
        (part("files", **{"/etc/passwd": w}), "folder itself"),
        (part("architecture", arch="torchvision/vit_h_14"), "claims"),
        (part("architecture", arch="torchvision/resnet18"), "do not fit"),
        (part("architecture", arch="os.system"), "no backbone"),
        (part("architecture", n_out=10**9), "classes"),
        (part("preprocessing", size=[10**6, 10**6]), "pixels"),
        (part("preprocessing", method="__import__"), "method"),
    ]:
        (copied / MANIFEST).write_text(bad)
        with pytest.raises((FileError, InputError), match=text):
            load_predictor(copied)


@pytest.mark.medium
def test_a_model_of_the_first_format_still_loads(mini, tmp_path):
    "Format 1 was two files, and fewer fields"
    folder, learn, ev = mini
    m = json.loads((folder / MANIFEST).read_text())
    (tmp_path / "m").mkdir()
    shutil.copy(folder / WEIGHTS, tmp_path / "m")
    old = dict(
        format="fastai_tl/1",
        **{k: m[k] for k in ("created", "architecture", "classes", "versions")},
        preprocessing={k: v for k, v in m["preprocessing"].items() if k != "exif"},
        weights=dict(file=WEIGHTS, sha256=m["files"][WEIGHTS]["sha256"], tensors=m["weights"]["tensors"]),
    )
    (tmp_path / "m" / MANIFEST).write_text(json.dumps(old))
    np.testing.assert_allclose(stacked(load_predictor(tmp_path / "m").predict(ev.items)), ev.probs, atol=1e-5, rtol=0)
    with pytest.raises(FileError, match="no ONNX"):
        load_predictor(tmp_path / "m", "onnx")
    export_again(tmp_path / "m", tmp_path / "new")
    for backend in ("torch", "onnx"):
        np.testing.assert_allclose(
            stacked(load_predictor(tmp_path / "new", backend).predict(ev.items)), ev.probs, atol=1e-4, rtol=0
        )
    plain(learn, tmp_path / "m", force=True)
    assert json.loads((tmp_path / "m" / MANIFEST).read_text())["format"] == "fastai_tl/3"


class Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def test_bad_weight_files(copied):
    import pickle

    raw = (copied / WEIGHTS).read_bytes()
    torch.save(Evil(), "evil.pth")
    for data in (
        pickle.dumps(Evil()),
        Path("evil.pth").read_bytes(),
        raw[:1000],
        raw[:-1],
        b"",
        b"\xff" * 8 + raw[8:],
        (10**8).to_bytes(8, "little") + raw[8:],
        raw + b"x",
    ):
        fitted(copied, WEIGHTS, data)
        with pytest.raises(FileError, match="no safetensors file"):
            load_predictor(copied)
    assert not Path("pwned").exists()
    with pytest.raises(FileError, match="is missing"):
        (copied / WEIGHTS).unlink()
        load_predictor(copied)


def test_onnx_that_reads_other_files_or_loops_is_refused(copied):
    net = onnx.load(copied / ONNX)
    onnx.save(net, copied / ONNX, save_as_external_data=True, location="outside.bin", size_threshold=0)
    fitted(copied, ONNX, (copied / ONNX).read_bytes())
    with pytest.raises(FileError, match="another file"):
        load_predictor(copied, "onnx")
    net = onnx.load(copied / ONNX)  # its tensors come back from beside it
    body = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["c"], ["d"])], "forever", [], [])
    net.graph.node.append(onnx.helper.make_node("Loop", ["", ""], ["e"], body=body))
    fitted(copied, ONNX, net.SerializeToString())
    with pytest.raises(FileError, match="graphs inside"):
        load_predictor(copied, "onnx")


def test_onnx_must_take_what_the_manifest_says(copied):
    good = onnx.load(copied / ONNX)
    net = onnx.ModelProto()
    net.CopyFrom(good)
    net.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 99
    fitted(copied, ONNX, net.SerializeToString())
    with pytest.raises(FileError):
        load_predictor(copied, "onnx")
    fitted(copied, ONNX, good.SerializeToString())
    m = json.loads((copied / MANIFEST).read_text())
    (copied / MANIFEST).write_text(
        json.dumps(m | dict(classes=["a", "b"], architecture=m["architecture"] | {"n_out": 2}))
    )
    with pytest.raises(StateError, match="2 classes"):
        load_predictor(copied, "onnx").predict(copied / SAMPLE)
    with pytest.raises(FileError, match="do not fit"):
        load_predictor(copied)


def test_a_link_out_of_the_folder_is_not_followed(copied, tmp_path):
    shutil.move(copied / WEIGHTS, tmp_path / "away")
    (copied / WEIGHTS).symlink_to(tmp_path / "away")
    with pytest.raises(FileError, match="link"):
        load_predictor(copied)


@pytest.mark.medium
def test_no_pickle_is_read_or_written(tmp_path, monkeypatch):
    import pickle

    learn = make()
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("torch.load"))
    monkeypatch.setattr(torch, "save", lambda *a, **k: pytest.fail("torch.save"))
    monkeypatch.setattr(pickle, "loads", lambda *a, **k: pytest.fail("pickle.loads"))
    load_predictor(plain(learn, tmp_path / "m"))


# What is installed, and what is asked for


@pytest.mark.medium
def test_onnx_needs_neither_torch_nor_fastai(mini):
    "In an interpreter in which importing them fails"
    folder, _, ev = mini
    code = f"""
import sys
heavy = 'torch', 'torchvision', 'fastai', 'fastcore', 'timm', 'safetensors', 'pandas', 'scipy', 'matplotlib', 'onnx'
for n in heavy: sys.modules[n] = None
from fastai_tl.deploy.onnx_runtime import load_onnx
ps = load_onnx({str(folder)!r}).predict({[str(p) for p in ev.items]!r})
import json; print(json.dumps([[float(v) for v in p.probabilities] for p in ps]))
"""
    r = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    np.testing.assert_allclose(np.array(json.loads(r.stdout)), ev.probs, atol=1e-4, rtol=0)


def linked(site, *names):
    "A folder for packages with these distributions, and what they need, and nothing else"
    import importlib.metadata as im

    todo, seen = list(names), set()
    while todo:
        if (name := todo.pop().lower()) in seen:
            continue
        seen.add(name)
        try:
            dist = im.distribution(name)
        except im.PackageNotFoundError:
            continue
        todo += [re.match(r"[\w.-]+", r)[0] for r in dist.requires or [] if "extra ==" not in r]
        for top in {f.parts[0] for f in dist.files if f.parts[0] != ".."}:
            src, to = Path(dist.locate_file(top)), site / top
            if not to.exists() and src.exists():
                to.symlink_to(src)


@pytest.mark.medium
def test_onnx_in_an_environment_without_torch_and_fastai(mini, tmp_path):
    "An interpreter whose packages are NumPy, Pillow, onnxruntime with what they need, and this one"
    site = tmp_path / "site"
    folder, _, ev = mini
    site.mkdir()
    linked(site, "numpy", "pillow", "onnxruntime")
    (site / "fastai_tl").symlink_to(Path(onnx_export.__file__).parents[1])
    code = f"""
import sys; sys.path.insert(0, {str(site)!r})
import importlib.util as u, json
heavy = 'torch', 'torchvision', 'fastai', 'fastcore', 'timm', 'safetensors', 'pandas', 'yaml', 'onnx'
assert not [n for n in heavy if u.find_spec(n)]
from fastai_tl.deploy.onnx_runtime import load_onnx
said = load_onnx({str(folder)!r}).predict({[str(p) for p in ev.items]!r})
print(json.dumps([[float(v) for v in p.probabilities] for p in said]))
"""
    r = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert r.returncode == 0, r.stderr
    np.testing.assert_allclose(np.array(json.loads(r.stdout)), ev.probs, atol=1e-4, rtol=0)


@pytest.mark.medium
def test_missing_extras_are_named(mini, tmp_path):
    """In an interpreter that does not find onnx, onnxscript and onnxruntime; everything else works, and exports say
    what is not there
    """
    code = f"""
import sys
class Without:
    "Finders that do not see some packages"
    def __init__(self, finder): self.finder = finder
    def find_spec(self, name, *a):
        hidden = name.partition('.')[0] in ('onnx', 'onnxruntime', 'onnxscript')
        return None if hidden else self.finder.find_spec(name, *a)
    def __getattr__(self, k): return getattr(self.finder, k)
sys.meta_path[:] = [Without(f) for f in sys.meta_path]
from fastai_tl.deploy.onnx_runtime import ExtraError
from fastai_tl.deploy.export import export_again
from fastai_tl.deploy.torch_predictor import load_predictor
from fastai_tl.deploy.onnx_export import check_onnx_extra
again = export_again({str(mini[0])!r}, {str(tmp_path / "again")!r})
print(load_predictor(again).predict({str(mini[0] / SAMPLE)!r}).label)
print(load_predictor({str(mini[0])!r}).predict({str(mini[0] / SAMPLE)!r}).label)
for f in (lambda: load_predictor({str(mini[0])!r}, 'onnx'), check_onnx_extra):
    try: f()
    except ExtraError as e: assert "pip install 'fastai-tl[onnx]'" in e.args[0] and e.extra=='onnx'; print('named')
"""
    r = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert r.returncode == 0 and r.stdout.split()[-2:] == ["named", "named"], r.stdout + r.stderr
    assert (
        "exported without ONNX: writing it needs onnx, onnxscript, onnxruntime: pip install 'fastai-tl[onnx]'."
        in r.stdout
    )


@pytest.mark.medium
def test_wrong_arguments_are_named(mini):
    folder = mini[0]
    for backend in ("torch", "onnx"):
        pred = load_predictor(folder, backend)
        assert pred.predict([]) == []
        for images, text in [
            (3, "int"),
            ({"a": 1}, "dict"),
            (np.zeros((2, 4, 4, 3), np.uint8), "list"),
            (np.zeros((4, 4, 3), np.float32), "uint8"),
            (np.zeros((0, 4, 3), np.uint8), "not a picture"),
        ]:
            with pytest.raises(InputError, match=text):
                pred.predict(images)
        with pytest.raises(InputError, match="bs=0"):
            pred.predict([folder / SAMPLE], bs=0)
    for kw, text in [
        (dict(backend="tf"), "backend"),
        (dict(device="quantum"), "quantum"),
        (dict(backend="onnx", device="cuda"), "cpu"),
    ]:
        with pytest.raises(InputError, match=text):
            load_predictor(folder, **kw)
    assert (
        load_onnx(folder, threads=1).predict(folder / SAMPLE).top(2)[0][0]
        == load_predictor(folder).predict(str(folder / SAMPLE)).label
    )


from fasttransform import DisplayedTransform  # noqa: E402


class _Invert(DisplayedTransform):
    "A transform that a manifest does not know"

    order = 2

    def encodes(self, x: Image.Image):
        return x
