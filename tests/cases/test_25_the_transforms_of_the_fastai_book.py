"""The transforms of the fastai book: exported and replayed, or reported when the Learner is made"""

import numpy as np
import pytest
import torch
from fastai.data.transforms import Normalize
from fastai.vision.augment import (
    RandomCrop,
    RandomResizedCrop,
    RandomResizedCropGPU,
    RatioResize,
    Resize,
    aug_transforms,
)
from fastai.vision.data import ImageDataLoaders
from PIL import Image

from fastai_tl.core.errors import KitWarning
from fastai_tl.core.images import preprocess
from fastai_tl.deploy.export import ExportError, export, preprocessing
from fastai_tl.deploy.manifest import spec_problem
from fastai_tl.deploy.torch_predictor import load_predictor
from fastai_tl.models.transfer_learner import transfer_learner

pytestmark = pytest.mark.medium
SHAPES = [(70, 50), (50, 70), (61, 61), (200, 40), (33, 90), (64, 64)]  # width and height


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("book")
    for c, name in enumerate(("a", "b")):
        (folder / name).mkdir()
        for i, (w, h) in enumerate(SHAPES):
            a = np.random.default_rng(10 * c + i).integers(0, 256, (h // 4 + 1, w // 4 + 1, 3), dtype=np.uint8)
            Image.fromarray(a).resize((w, h), Image.Resampling.BICUBIC).save(folder / name / f"{i}.png")
    return folder


def book(folder, item_tfms, batch_tfms=()):
    batch_tfms = [*batch_tfms, Normalize.from_stats([0.2] * 3, [0.3] * 3, cuda=False)]
    return ImageDataLoaders.from_folder(
        folder, valid_pct=0.5, seed=0, item_tfms=item_tfms, batch_tfms=batch_tfms, bs=4, num_workers=0
    )


RECIPES = {
    "chapter 2": (RandomResizedCrop(48, min_scale=0.5), aug_transforms()),
    "chapter 5": (Resize(60), aug_transforms(size=48, min_scale=0.75)),
    "presizing by more than half": (Resize(115), aug_transforms(size=48)),
    "oblong": (Resize((60, 80)), aug_transforms(size=(32, 48))),
    "oblong with a square part": (Resize((60, 80)), aug_transforms(size=48, min_scale=0.5)),
    "part of the middle": (Resize(60), [RandomResizedCropGPU(40, valid_scale=0.75)]),
    "oblong crop": (RandomResizedCrop((48, 32), val_xtra=0.3), ()),
    "no margin": (RandomResizedCrop(48, val_xtra=0), aug_transforms(size=48)),
    "crop of a crop": (RandomResizedCrop(60), aug_transforms(size=48, min_scale=0.75)),
    "old recipe": ([Resize(64), RandomCrop(48)], aug_transforms()),
    "two cuts": ([Resize(64), RandomCrop((50, 41)), RandomCrop((31, 40))], ()),
    "squish": (Resize(48, "squish"), aug_transforms()),
    "pad": (Resize(48, "pad", pad_mode="zeros"), aug_transforms(size=64)),
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_what_validation_sees_is_replayed(folder, recipe):
    dls = book(folder, *recipe)
    spec = preprocessing(dls)
    assert spec_problem(spec) is None
    want = torch.cat([b[0] for b in dls.valid]).numpy()
    got = np.stack([preprocess(p, spec) for p in dls.valid_ds.items])
    assert got.shape == want.shape == (6, 3, *spec["size"])
    assert np.abs(got - want).max() < 1e-4


@pytest.mark.parametrize("name", ["chapter 2", "chapter 5"])
def test_a_model_folder_answers_as_the_learner(folder, tmp_path, name):
    learn = transfer_learner(book(folder, *RECIPES[name]), "resnet_mini", normalize=([0.2] * 3, [0.3] * 3))
    files = list(learn.dls.valid_ds.items)
    want = learn.get_preds(dl=learn.dls.test_dl(files))[0].numpy()
    out = export(learn, tmp_path / "m", onnx=False)
    got = np.stack([p.probabilities for p in load_predictor(out).predict(files)])
    np.testing.assert_allclose(got, want, atol=1e-4)
    assert ("cut out" if name == "chapter 2" else "brought to 48 x 48") in (out / "README.md").read_text()


def test_what_cannot_be_replayed_is_said_when_the_learner_is_made(folder, tmp_path):
    class Mine(Resize):
        def encodes(self, x: Image.Image):
            return x.resize((48, 48)).rotate(90)

    for item_tfms, batch_tfms, name in (
        (Mine(48), (), "Mine"),
        ([Resize(60), RatioResize(48)], (), "RatioResize"),
        (Resize(60), aug_transforms(size=48, mode="nearest"), "with size=.48, 48."),
    ):
        dls = book(folder, item_tfms, batch_tfms)
        with pytest.warns(KitWarning, match=f"{name}.*cannot be replayed.*export refuses"):
            learn = transfer_learner(dls, "resnet_mini", normalize=([0.2] * 3, [0.3] * 3))
        with pytest.raises(ExportError, match=name):
            export(learn, tmp_path / "m", onnx=False)


@pytest.mark.parametrize(
    "change, said",
    [
        (dict(resize_to=[60]), "resize_to"),
        (dict(window=[0, 0, 48]), "window"),
        (dict(window=[13, 0, 48, 48]), "inside"),
        (dict(window=[0, 0, 0, 48]), "inside"),
        (dict(resize_to=None), "inside"),
        (dict(window="all"), "window"),
    ],
)
def test_a_manifest_with_other_steps_is_refused(change, said):
    spec = dict(size=[48, 48], method="squish", resize_to=[60, 60], window=[6, 6, 48, 48])
    assert spec_problem(spec) is None
    assert said in spec_problem(spec | change)
