"Files of weights that others have written, models inside wrappers, and exported models that are trained further"

import shutil

import pytest
import torch
from helpers import QUIET
from torch import nn

from fastai_tl.all import (
    continue_from,
    export,
    find_lr,
    folder_dls,
    freeze_to,
    run_plan,
    sample_dls,
    sample_path,
    transfer_learner,
)
from fastai_tl.core.errors import InputError, StateError
from fastai_tl.models.pretrained_weights import WeightsError, unwrapped
from fastai_tl.models.registry import plain_net
from fastai_tl.training.plan import Plan


@pytest.fixture(scope="module")
def dls():
    return sample_dls(size=32, n_per_class=4)


@pytest.fixture(scope="module")
def mini():
    return plain_net("kit/resnet_mini").state_dict()


def with_prefix(pre, state):
    return {pre + k: v for k, v in state.items()}


def test_what_scripts_put_around_weights_is_taken_off():
    s = {"conv.weight": torch.ones(1), "fc.bias": torch.zeros(1)}
    averaged = {"conv.weight": torch.full((1,), 2.0), "fc.bias": torch.zeros(1)}
    for state in (
        s,
        with_prefix("module.", s),
        with_prefix("_orig_mod.module.", s),
        dict(model=with_prefix("_orig_mod.", s), optimizer={"state": {}}, epoch=3),
        dict(state_dict=with_prefix("model.", s)),
        dict(n_averaged=torch.tensor(4), **with_prefix("module.", s)),
    ):
        assert unwrapped(state) == s
    assert unwrapped(dict(state_dict=s, model_ema=with_prefix("module.", averaged))) == averaged


def test_the_body_is_strict(dls, mini):
    first = next(k for k in mini if k.endswith("weight") and mini[k].ndim == 4)
    for state, why in [
        ({k: v for k, v in mini.items() if k != first}, "1 missing"),
        ({**mini, first: mini[first][:-1]}, "1 of another shape"),
        ({**mini, "body.strange.weight": torch.ones(1)}, "1 not known to it"),
    ]:
        torch.save(state, "w.pth")
        with pytest.raises(WeightsError, match=why):
            transfer_learner(dls, "resnet_mini", weights="w.pth")
    torch.save([1], "w.pth")
    with pytest.raises(WeightsError, match="holds a list"):
        transfer_learner(dls, "resnet_mini", weights="w.pth")


def folder_of(folder, **classes):
    "A folder with a class for each of these, of a few sample images each"
    for name, source in classes.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for file in sorted((sample_path() / source).glob("*.jpg"))[:8]:
            shutil.copy(file, folder / name)
    return folder_dls(folder, size=32, bs=4)


@pytest.mark.medium
def test_an_exported_model_is_a_start(tmp_path):
    dls = folder_of(tmp_path / "two", bird="bird", flower="flower")
    learn = transfer_learner(dls, "resnet_mini")
    with torch.no_grad():
        for t in learn.model.parameters():
            t.add_(0.01)
    folder = export(learn, tmp_path / "model", onnx=False)
    body = transfer_learner(dls, "resnet_mini", weights=folder).model[0].state_dict()
    assert all(torch.equal(t, body[n]) for n, t in learn.model[0].state_dict().items())
    again = continue_from(folder, dls)
    assert all(torch.equal(t, again.model.state_dict()[n]) for n, t in learn.model.state_dict().items())
    assert not next(again.model[0].parameters()).requires_grad
    # one class more, in the middle of the others
    more = folder_of(tmp_path / "three", bird="bird", car="fruit", flower="flower")
    new, before = (m.model[-1][-1].weight for m in (continue_from(folder, more), learn))
    assert new.shape[0] == 3 and torch.equal(new[[0, 2]], before) and new[1].abs().sum() > 0
    with pytest.raises(InputError, match="classes that the data lacks: flower.*weights="):
        continue_from(folder, folder_of(tmp_path / "other", bird="bird", car="fruit"))


def test_wrapped_models_are_unwrapped_or_refused_in_words(dls):
    learn = transfer_learner(dls, "resnet_mini")
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    for wrapped in (torch.compile(net), nn.DataParallel(net)):
        own = transfer_learner(dls, wrapped, normalize=((0.5,) * 3, (0.5,) * 3))
        assert type(own.model[0]).__name__ == type(transfer_learner(dls, net, normalize=False).model[0]).__name__
    whole = learn.model
    for learn.model, cure in (
        (torch.compile(whole), "learn.model._orig_mod"),
        (nn.DataParallel(whole), "learn.model.module"),
    ):
        for call in (
            lambda: freeze_to(learn, "head"),
            lambda: find_lr(learn, on_progress=QUIET),
            lambda: run_plan(learn, Plan.head_only(1, lr=1e-3), on_progress=QUIET),
        ):
            with pytest.raises(StateError, match=cure):
                call()
