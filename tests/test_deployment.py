import json

import numpy as np
import pytest
import torch
from conftest import QUIET
from fastai.vision.augment import Resize, aug_transforms
from PIL import Image
from torch import nn

from fastai_tl.deployment import MANIFEST, WEIGHTS, ExportError, export, load_predictor
from fastai_tl.errors import FileError
from fastai_tl.evaluation import evaluate
from fastai_tl.samples import ClassOf, picture_dls, sample_path, split_sample
from fastai_tl.zoo import transfer_learner


def make(arch="mobilenet_v3_small", head=None, **kw):
    train, valid = split_sample(sample_path("clipart"), 2)
    dls = picture_dls(train, valid[::8], ClassOf(sample_path("clipart")), size=48, bs=8, path=".", **kw)
    learn = transfer_learner(dls, arch, pretrained=False, head=head)
    for m in learn.model.modules():  # running statistics that are not those of a new network
        if isinstance(m, nn.modules.batchnorm._BatchNorm): m.running_mean.uniform_(-.1, .1)
    return learn


@pytest.mark.parametrize("arch, head", [("mobilenet_v3_small", None), ("resnet18", "linear"), ("mobilenet_v2", None), ("vgg11_bn", "linear"),
                                        ("tf_efficientnet_lite0", None)])
def test_the_folder_gives_the_learners_predictions(tmp_path, arch, head):
    learn = make(arch, head)
    folder = export(learn, tmp_path / "a" / "model")
    assert sorted(p.name for p in folder.iterdir()) == [MANIFEST, WEIGHTS]
    assert all(p.stat().st_mode & 0o044 == 0o044 for p in folder.iterdir()), "others may read the model"
    ev = evaluate(learn, on_progress=QUIET)
    got = load_predictor(folder).predict(ev.items)
    np.testing.assert_allclose(np.stack([g.probabilities for g in got]), ev.probs, atol=1e-5)
    assert got[0].label == ev.vocab[ev.preds[0]]


@pytest.mark.parametrize("augment, tol", [(None, 1e-5), (aug_transforms(), 1e-3)])  # fastai resamples validation pictures, too, by the identity
@pytest.mark.parametrize("method", ["crop", "squish", "pad"])
def test_preprocessing_is_replayed_for_any_shape(tmp_path, method, augment, tol):
    learn = make(item_tfms=Resize((48, 64), method=method), batch_tfms=augment)
    pred = load_predictor(export(learn, tmp_path / "m"))
    pics = [Image.fromarray(np.random.default_rng(i).integers(0, 255, s, dtype=np.uint8)) for i, s in enumerate([(90, 61, 3), (61, 90, 3), (64, 48)])]
    for im in pics:
        with learn.no_bar(): want = learn.predict(np.asarray(im.convert("RGB")))[2]
        np.testing.assert_allclose(pred.predict(im).probabilities, want, rtol=0, atol=tol)


def test_what_cannot_be_described_is_refused(tmp_path):
    mine = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(576, 8))
    with pytest.raises(ExportError, match="head"): export(make(head=mine), tmp_path / "m")
    learn = make()
    learn.model = nn.Sequential(*learn.model.children())
    with pytest.raises(ExportError, match="transfer_learner"): export(learn, tmp_path / "m")
    learn = make(item_tfms=[Resize(48), _Invert()])
    with pytest.raises(ExportError, match="_Invert"): export(learn, tmp_path / "m")
    learn = make()
    learn.model[0].register_forward_hook(lambda m, i, o: o * 2)
    with pytest.raises(ExportError, match="differ"): export(learn, tmp_path / "m")
    assert not list(tmp_path.iterdir()), "nothing is left behind"


def test_a_failed_export_leaves_the_old_one(tmp_path):
    learn = make()
    folder = export(learn, tmp_path / "m")
    old = (folder / WEIGHTS).read_bytes()
    learn.model[0].register_forward_hook(lambda m, i, o: o * 2)
    with pytest.raises(ExportError): export(learn, folder, force=True)
    assert (folder / WEIGHTS).read_bytes() == old and [p.name for p in tmp_path.iterdir()] == ["m"]
    load_predictor(folder)


def test_manifest_is_checked(tmp_path):
    folder = export(make(), tmp_path / "m")
    good = json.loads((folder / MANIFEST).read_text())
    for bad, text in [("{", "damaged"), (json.dumps(good | {"format": "other/9"}), "other/9"), ("[]", "format"),
                      (json.dumps(good | {"weights": good["weights"] | {"sha256": "0"}}), "checksum")]:
        (folder / MANIFEST).write_text(bad)
        with pytest.raises(FileError, match=text): load_predictor(folder)


def test_no_pickle_is_read_or_written(tmp_path, monkeypatch):
    import pickle
    learn = make()
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("torch.load"))
    monkeypatch.setattr(torch, "save", lambda *a, **k: pytest.fail("torch.save"))
    monkeypatch.setattr(pickle, "loads", lambda *a, **k: pytest.fail("pickle.loads"))
    load_predictor(export(learn, tmp_path / "m"))


from fasttransform import DisplayedTransform  # noqa: E402


class _Invert(DisplayedTransform):
    "A transform that a manifest does not know"
    order = 2

    def encodes(self, x: Image.Image): return x
