"A rare class: found, weighted in the loss, and exact on cached features."

import warnings

import pytest
import torch
from helpers import QUIET, fit
from fastai.losses import CrossEntropyLossFlat
from fastai.vision.augment import Resize
from fastai.vision.data import ImageDataLoaders

from fastai_tl.cache.callback import frozen_cache
from fastai_tl.core.errors import InputError, KitWarning
from fastai_tl.core.random_state import reseed
from fastai_tl.datasets.picture_folder import ClassOf, picture_dls
from fastai_tl.datasets.samples import sample_path, split_sample
from fastai_tl.diagnosis.doctor import diagnose
from fastai_tl.models.transfer_learner import transfer_learner


@pytest.fixture
def rare():
    "13 training images of one class, 1 of another"
    root = sample_path("clipart")
    train, valid = split_sample(root, 13)
    of = lambda files, *names: [p for p in files if p.parent.name in names]
    train = of(train, "bird") + of(train, "flower")[:1]
    return picture_dls(train, of(valid, "bird", "flower")[::4], ClassOf(root), size=32, bs=8, path=".")


def test_the_finding_names_both_classes_and_the_cure(rare):
    found = next(f for f in diagnose(rare).findings if f.code == "imbalance")
    assert "'bird' has 13" in found.what and "'flower' has 1" in found.what and "balance='classes'" in found.cure
    with pytest.warns(KitWarning, match="imbalance|'flower' has 1"):
        transfer_learner(rare, "resnet_mini")


def test_each_class_counts_the_same_and_nothing_is_found(rare):
    learn = transfer_learner(rare, "resnet_mini", balance="classes")
    weight = learn.loss_func.func.weight
    torch.testing.assert_close(weight * torch.tensor([13.0, 1.0]), torch.tensor([7.0, 7.0]))
    assert not [f for f in diagnose(learn).findings if f.code == "imbalance"]


@pytest.mark.medium
def test_cached_features_give_the_same_weights(rare):
    learners = []
    for cached in (False, True):
        torch.manual_seed(0)
        learn = transfer_learner(rare, "resnet_mini", head="linear", balance="classes")
        reseed(learn, 1)
        if cached:
            with frozen_cache(learn, on_progress=QUIET):
                fit(learn, 2)
        else:
            fit(learn, 2)
        learners.append(learn)
    for a, b in zip(*(o.model.state_dict().values() for o in learners)):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)  # Adam enlarges what rounding leaves


def test_what_cannot_be_balanced_is_refused(rare):
    for kw in (dict(balance="class"), dict(balance="classes", loss_func=CrossEntropyLossFlat())):
        with pytest.raises(InputError, match="balance"):
            transfer_learner(rare, "resnet_mini", **kw)
    files = sorted(sample_path("clipart").glob("*/*.jpg"))[:20]
    numbers = ImageDataLoaders.from_lists(
        ".", files, [float(i) for i in range(20)], bs=4, item_tfms=Resize(32), num_workers=0
    )
    with pytest.raises(InputError, match="one class each"):
        transfer_learner(numbers, "resnet_mini", balance="classes")


@pytest.mark.medium
def test_a_head_that_is_solved_counts_classes_as_the_loss_does(rare):
    from fastai_tl.training.probe import probe

    heads = []
    for make, kw in (("classes", {}), (None, dict(balance="classes")), (None, {})):
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", KitWarning)
            learn = transfer_learner(rare, "resnet_mini", head="linear", balance=make)
        probe(learn, strength=1.0, on_progress=QUIET, **kw)
        heads.append(learn.model[1][-1].weight.detach().clone())
    torch.testing.assert_close(heads[0], heads[1])
    assert not torch.allclose(heads[0], heads[2], rtol=1e-2)
