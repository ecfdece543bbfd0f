"""The `dls` that the user still holds give the figures that the Learner's own give"""

import pytest
import torch
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.data.transforms import Normalize
from fastai.learner import Learner
from fastai.metrics import accuracy
from fastai.vision.learner import vision_learner
from torchvision.models import resnet18

from fastai_tl.core.errors import InputError, KitWarning
from fastai_tl.evaluation.classification import evaluate
from fastai_tl.models.learner import loader_for
from fastai_tl.models.transfer_learner import transfer_learner
from helpers import few_images

pytestmark = pytest.mark.medium


@pytest.fixture(scope="module")
def dls():
    return few_images()


@pytest.fixture(scope="module")
def learn(dls):
    torch.manual_seed(0)
    return transfer_learner(dls, "resnet_mini", metrics=accuracy)


def norms(dl):
    return [t for t in dl.after_batch.fs if isinstance(t, Normalize)]


def same_answers(a, b):
    torch.testing.assert_close(torch.as_tensor(a), torch.as_tensor(b), rtol=0, atol=1e-6)


def test_the_users_dls_judge_and_predict_as_the_learners_own(dls, learn):
    files = list(learn.dls.valid_ds.items)
    same_answers(evaluate(learn, dls.valid).probs, evaluate(learn).probs)
    a, b = (learn.get_preds(dl=d.test_dl(files))[0] for d in (learn.dls, dls))
    same_answers(a, b)
    assert norms(dls.valid) == norms(dls.train) == []  # the user's stay as they are


def test_fastais_own_calls_see_the_same(dls, learn):
    same_answers(learn.validate(dl=dls.valid), learn.validate())
    same_answers(evaluate(learn, dls.valid).probs, learn.get_preds(dl=dls.valid)[0])


def test_a_loader_normalised_for_another_network_is_normalised_anew(dls, learn):
    other = transfer_learner(dls, "resnet18", pretrained=False)
    with pytest.warns(KitWarning, match="normalised for another network"):
        same_answers(evaluate(learn, other.dls.valid).probs, evaluate(learn).probs)
    assert len(norms(other.dls.valid)) == 1


def test_fastais_vision_learner_is_judged_on_the_same_images_too(dls):
    theirs = few_images()
    learn = vision_learner(theirs, resnet18, pretrained=False)  # fastai writes Normalize into `theirs`
    theirs.add_tfms([Normalize.from_stats([0.5] * 3, [0.5] * 3, cuda=False)], "after_batch")
    same_answers(evaluate(learn, dls.valid).probs, evaluate(learn).probs)


def plain(learn, scaled):
    "Images of the validation set as plain tensors: no transform of fastai reaches them"
    if scaled:
        x = torch.cat([b[0] for b in learn.dls.valid]).as_subclass(torch.Tensor)
    else:
        norm = norms(learn.dls.valid)[0]
        x = torch.cat([norm.decode(b[0]) for b in learn.dls.valid]).as_subclass(torch.Tensor).clamp(0, 1)
    y = torch.cat([b[1] for b in learn.dls.valid]).as_subclass(torch.Tensor)
    return list(zip(x, y))


@pytest.mark.parametrize("make", [DataLoader, torch.utils.data.DataLoader])
def test_plain_tensors_that_are_not_scaled_are_refused_with_the_cure(learn, make):
    dl = make(plain(learn, scaled=False), batch_size=8)
    with pytest.raises(InputError, match=r"values from 0.* to 1.*learn.dls.test_dl\(items, with_labels=True\)"):
        learn.validate(dl=dl)
    same_answers(learn.validate(dl=make(plain(learn, scaled=True), batch_size=8)), learn.validate())


def test_a_learner_on_plain_tensors_goes_on_as_it_was(learn):
    items = plain(learn, scaled=False)
    dls = DataLoaders.from_dsets(items, items, bs=8, num_workers=0, device="cpu")
    with pytest.warns(KitWarning, match="plain tensors"):
        other = transfer_learner(dls, "resnet_mini", n_out=8)
    assert other.validate() == other.validate(dl=dls.valid)


def test_a_plain_learner_without_normalisation_is_left_alone(dls):
    learn = Learner(dls, torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(8)), torch.nn.CrossEntropyLoss())
    assert loader_for(learn, dls.valid) is dls.valid
    other = few_images()
    assert loader_for(learn, other.valid) is other.valid
