"""New loaders for a Learner that is trained: larger images, other classes, a network of one size"""

import pytest
import torch
from fastai.data.core import DataLoaders
from fastai.data.transforms import Normalize

from fastai_tl.core.errors import InputError
from fastai_tl.datasets.picture_folder import picture_dls
from fastai_tl.datasets.samples import sample_path, split_sample
from fastai_tl.deploy.export import export
from fastai_tl.deploy.torch_predictor import load_predictor
from fastai_tl.diagnosis.doctor import diagnose
from fastai_tl.evaluation.classification import evaluate
from fastai_tl.models.transfer_learner import transfer_learner
from fastai_tl.training.lr_finder import find_lr
from helpers import QUIET, few_images

pytestmark = pytest.mark.medium


@pytest.fixture
def learn():
    return transfer_learner(few_images(32), "resnet_mini")


def norms(dls):
    return [sum(isinstance(t, Normalize) for t in dl.after_batch.fs) for dl in dls.loaders]


def test_larger_images_are_normalised_everywhere(learn, tmp_path):
    larger = few_images(48)
    learn.dls = larger
    assert norms(learn.dls) == [1, 1] and norms(larger) == [0, 0]
    evaluate(learn)
    find_lr(learn, num_it=4, on_progress=QUIET)
    spec = load_predictor(export(learn, tmp_path / "m", onnx=False)).manifest["preprocessing"]
    assert spec["size"] == [48, 48] and spec["mean"] == pytest.approx(learn.model.recipe["mean"])
    assert not [f for f in diagnose(learn).findings if "normal" in f.code]


def test_loaders_put_back_are_the_same_objects(learn):
    before = learn.dls
    learn.dls = DataLoaders(*few_images(48).loaders)
    learn.dls = before
    assert learn.dls is before


def test_a_loader_exchanged_inside_is_normalised_for_the_pass(learn):
    raw = few_images(32)
    want = evaluate(learn).probs
    learn.dls.loaders[1] = raw.valid  # nothing sees this
    torch.testing.assert_close(learn.get_preds(dl=raw.valid)[0].numpy(), want)


@pytest.fixture
def other_classes():
    folder = sample_path("clipart")
    train, valid = split_sample(folder, 4)
    name = lambda p: {"bird": "new bird"}.get(p.parent.name, p.parent.name)
    return picture_dls(train, valid[::8], name, size=32, bs=8, path=".")


def test_other_classes_of_the_same_number_are_refused_with_both_lists(learn, other_classes, tmp_path):
    learn.dls = other_classes
    file = other_classes.valid_ds.items[0]
    for use in (
        lambda: evaluate(learn),
        lambda: find_lr(learn, num_it=4, on_progress=QUIET),
        lambda: learn.validate(),
        lambda: learn.predict(file),
        lambda: learn.fit(1),
        lambda: export(learn, tmp_path / "m", onnx=False),
    ):
        with pytest.raises(InputError, match=r"'new bird'.*the Learner has 'bird'.*transfer_learner\(dls, arch\)"):
            use()


def test_a_network_of_one_size_says_which():
    learn = transfer_learner(few_images(32), "timm/vit_tiny_patch16_224", pretrained=False)
    learn.dls = few_images(48)
    with pytest.raises(InputError, match=r"48×48 pixels: this network was built for 32×32.*Resize\(\(32, 32\)\)"):
        evaluate(learn)


def test_new_data_is_opened_as_the_first_was(learn, tmp_path):
    from fastai.vision.data import ImageDataLoaders
    from PIL import Image

    for name in ("bird", "bug"):
        (tmp_path / name).mkdir()
        for i in range(4):
            Image.new("RGBA", (32, 32), (255, 0, 0, 0)).save(tmp_path / name / f"{i}.png")  # all of it transparent
    new = ImageDataLoaders.from_folder(tmp_path, valid_pct=0.5, seed=0, bs=2, num_workers=0)
    white = (1 - learn.model.recipe["mean"][1]) / learn.model.recipe["std"][1]
    red = new.valid.one_batch()[0]
    assert red[:, 0].min() > red[:, 1].max()
    seen = []
    learn.model[0].register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    learn.get_preds(dl=new.test_dl(list(new.valid_ds.items)))
    evaluate(learn, new.valid)
    learn.dls = new
    seen.append(learn.dls.valid.one_batch()[0])
    for x in seen:
        torch.testing.assert_close(x[:, 1], torch.full_like(x[:, 1], white), check_dtype=False)
    assert torch.equal(new.valid.one_batch()[0], red)  # the user's own stay as they are
