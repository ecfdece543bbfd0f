"AugmentPanel without a browser: what it shows, and that looking changes no later run"

import pytest
import torch
from fastai.vision.augment import aug_transforms
from helpers import everything, noisy_learner, same

from fastai_tl.core.learner_lock import owned
from fastai_tl.datasets.samples import sample_dls
from fastai_tl.models.transfer_learner import transfer_learner
from fastai_tl.panels.augment import AugmentPanel, views_of
from fastai_tl.training.augment import augmented, mild_augment


@pytest.fixture
def learn():
    return transfer_learner(sample_dls(size=32, bs=8, n_per_class=4), "resnet_mini")


def test_views_are_those_of_training_and_looking_changes_nothing(learn):
    before = everything(learn)
    panel = AugmentPanel(learn)
    panel.area.value = 0.2
    panel.another.click()
    same(before, everything(learn))
    assert panel.index == 1 and panel.say_box.value == ""
    x = views_of(learn.dls.train, 1, panel.tfms)
    whole = views_of(learn.dls.train, 1, [], 1)[0]
    name = learn.dls.train.dataset.items[1].name
    assert name in panel.views.value and panel.views.value.count("<img") == 9
    assert all(0 <= v.min() and v.max() <= 1 and not torch.equal(v, whole) for v in x)


def test_controls_that_are_off_show_the_image_as_it_is(learn):
    panel = AugmentPanel(learn)
    panel.flip.value, panel.area.value, panel.light.value = False, 1.0, 0.0
    x = views_of(learn.dls.train, 0, panel.tfms)
    whole = views_of(learn.dls.train, 0, [], 1)[0]
    assert all(torch.allclose(v, whole, atol=1e-3) for v in x)


def test_the_code_gives_the_same_transforms(learn):
    panel = AugmentPanel(learn, name="model")
    panel.flip.value, panel.area.value, panel.light.value = False, 0.35, 0.0
    line = panel.code.splitlines()[0]
    call = line[line.index("mild_augment(") : -2]
    assert eval(call, dict(mild_augment=lambda **kw: kw)) == dict(flip=False, min_area=0.35, lighting=0.0)
    assert line.startswith("with augmented(model.dls.train, ")
    with augmented(learn.dls.train, eval(call, dict(mild_augment=mild_augment))):
        torch.manual_seed(0)
        assert learn.dls.train.one_batch()[0].shape[-2:] == (32, 32)


def test_a_loader_that_varies_its_images_is_shown_as_it_is():
    dls = sample_dls(size=32, bs=8, n_per_class=4, batch_tfms=aug_transforms(max_rotate=30))
    panel = AugmentPanel(transfer_learner(dls, "resnet_mini"))
    assert panel.tfms == [] and panel.controls.layout.display == "none"
    assert "varies its images itself" in panel.views.value and panel.views.value.count("<img") == 8


def test_items_that_fastai_cannot_vary_are_refused_with_a_cure():
    panel = AugmentPanel(noisy_learner())
    assert "TensorImage" in panel.say_box.value and "folder_dls" in panel.say_box.value
    assert panel.views.value == ""


def test_while_another_training_runs_it_waits(learn):
    with owned(learn, "TrainPanel"):
        panel = AugmentPanel(learn)
        panel.another.click()
    panel.refresh()
    assert panel.views.value.count("<img") == 9
