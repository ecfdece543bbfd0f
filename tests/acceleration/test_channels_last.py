"""Channels last where layers train on a CPU: what it gives, and when it is not used."""

import gc
import weakref

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.vision.augment import aug_transforms
from fasttransform import Transform
from helpers import QUIET, fit, moved, still_learner, tensors
from torch import nn

from fastai_tl.acceleration import channels_last as module
from fastai_tl.acceleration.channels_last import channels_last, runs_channels_last
from fastai_tl.cache import callback
from fastai_tl.cache.callback import cache_of, frozen_cache
from fastai_tl.cache.feature_cache import FrozenCache
from fastai_tl.cache.items import loader_reason
from fastai_tl.core.random_state import reseed
from fastai_tl.datasets.samples import sample_dls
from fastai_tl.freezing.freeze import freeze_to, hold_stats
from fastai_tl.models.transfer_learner import transfer_learner
from fastai_tl.training.plan import Plan
from fastai_tl.training.run_control import Control
from fastai_tl.training.run_plan import run_plan
from fastai_tl.training.stage import Stage


class Conv(nn.Module):
    "A convolution and its batch norm, with what is done to the input in `before`"

    def __init__(self, before=lambda x: x):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.bn = nn.BatchNorm2d(6)
        self.before = before
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.bn(self.conv(self.before(x))).relu().mean((2, 3)))


def some(n=4):
    return (torch.randn(n, 3, 8, 8, dtype=torch.float64),)


def test_only_images_are_laid_out():
    x = torch.randn(2, 3, 4, 5)
    assert channels_last(x).stride() == (60, 1, 15, 3) and torch.equal(channels_last(x), x)
    for other in (torch.randn(2, 3), torch.zeros(2, 3, 4, 5, dtype=torch.long), "text", None):
        same = channels_last(other)
        assert same is other or same.stride() == other.stride()


@pytest.mark.medium
def test_a_network_goes_when_its_learner_goes():
    m = Conv().double()
    assert runs_channels_last(m, some())
    r = weakref.ref(m)
    del m
    gc.collect()
    assert r() is None


@pytest.mark.parametrize(
    "before", [lambda x: x.view(len(x) * 3, -1).view(x.shape), lambda x: x.as_strided(x.shape, (192, 64, 8, 1))]
)
def test_a_network_that_depends_on_the_layout_keeps_its_own(before):
    "It fails, or gives other numbers"
    m = Conv(before).double().eval()
    assert not runs_channels_last(m, some())
    assert not any(o._forward_hooks or "forward" in vars(o) for o in m.modules())


def test_no_convolutions_and_half_precision_are_left_alone():
    assert not runs_channels_last(nn.Sequential(nn.Linear(3, 2)), some())
    assert not runs_channels_last(Conv().bfloat16(), some())
    m = Conv().double()
    with torch.autocast("cpu", torch.bfloat16):
        assert not runs_channels_last(m, some())
    assert not runs_channels_last(m, some(), skip=m.modules())


def test_it_is_tried_once_for_each_shape_and_leaves_no_trace(monkeypatch):
    n, run = [], module._try
    monkeypatch.setattr(module, "_try", lambda *a: n.append(1) or run(*a))
    m = Conv().double().train()
    before = {k: v.clone() for k, v in m.state_dict().items()}
    for x in (some(), some(2), (torch.randn(2, 3, 9, 9, dtype=torch.float64),)):
        assert runs_channels_last(m, x)
    assert len(n) == 2 and m.training and all(torch.equal(v, before[k]) for k, v in m.state_dict().items())
    m.head = nn.Sequential(m.head)
    assert runs_channels_last(m, some()) and len(n) == 3  # another network


@pytest.mark.medium
@pytest.mark.parametrize("arch", ["tf_efficientnet_lite0", "resnet18", "mobilenet_v3_small", "densenet121"])
def test_outputs_and_gradients_are_those_of_the_network(arch):
    "In double precision, where no rounding hides or makes a difference"
    torch.manual_seed(0)
    learn = transfer_learner(sample_dls("clipart", size=64, n_per_class=4, bs=8), arch, pretrained=False)
    m = learn.model.double().eval().requires_grad_(True)
    xb = (torch.randn(4, 3, 64, 64, dtype=torch.float64),)
    assert runs_channels_last(m, xb)
    ps = list(m.parameters())

    def step(xb):
        out = m(*xb)
        return out, torch.autograd.grad(out.square().sum(), ps, allow_unused=True)

    a, b = step(xb), step(tuple(map(channels_last, xb)))
    torch.testing.assert_close(a[0], b[0], rtol=1e-9, atol=1e-10)
    for s, t in zip(a[1], b[1]):
        if s is not None:
            torch.testing.assert_close(s, t, rtol=1e-6, atol=1e-8 * max(1.0, float(s.abs().max())))


def conv_learner(**kw):
    "Two groups that train, so that there is something to be quick about"
    learn = still_learner(**kw)
    freeze_to(learn, 0)
    hold_stats(learn)
    return learn


@pytest.mark.medium
def test_run_plan_uses_it_and_leaves_nothing_behind(monkeypatch):
    seen = []

    class Look(Callback):
        order = 2000

        def before_batch(self):
            assert "forward" not in vars(self.model)  # so that a copy or an export here is of the network alone

        def after_pred(self):
            seen.append([m for m in self.model.modules() if "forward" in vars(m)])

    a, b = conv_learner(), conv_learner()
    b.model[0].register_forward_pre_hook(lambda m, args: seen.append(args[0].stride()[1]))
    plan = Plan((Stage("all", "all", 2, 1e-3, hold_stats=True),))
    reseed(a, 3)
    run_plan(a, plan, cache=False, on_progress=QUIET)
    b.add_cb(Look())
    reseed(b, 3)
    run_plan(b, plan, on_progress=QUIET)
    in_fit = [o for i, o in enumerate(seen[:-1]) if isinstance(seen[i + 1], list)]
    assert in_fit == [1] * (2 * (6 + 4)) and all(not o for o in seen if isinstance(o, list))
    for k, t in tensors(a.model).items():
        torch.testing.assert_close(t, tensors(b.model)[k], rtol=1e-3, atol=1e-4)
    assert not [m for m in b.model.modules() if "forward" in vars(m)] and cache_of(b) is None


def test_an_error_in_the_network_leaves_no_forward_behind():
    learn = conv_learner()
    n = [0]

    def fail(m, args):
        n[0] += 1
        if n[0] == 12:
            raise ValueError("no more")

    learn.model[2].register_forward_pre_hook(fail)
    with pytest.raises(ValueError, match="no more"):
        run_plan(learn, Stage("all", "all", 3, 1e-3, hold_stats=True), on_progress=QUIET)
    assert not [m for m in learn.model.modules() if "forward" in vars(m)]


@pytest.mark.medium
def test_frozen_cache_uses_it_only_on_request(monkeypatch):
    asked = []
    monkeypatch.setattr(callback, "runs_channels_last", lambda *a: asked.append(1) or runs_channels_last(*a))
    a, b, c = still_learner(), still_learner(), still_learner()
    for learn in (a, b, c):
        freeze_to(learn, 1)
        reseed(learn, 3)
    fit(a)
    reseed(b, 3)
    with frozen_cache(b, on_progress=QUIET):
        fit(b)
    assert not asked
    reseed(c, 3)
    with frozen_cache(c, on_progress=QUIET, quick=True):
        fit(c)
    assert asked
    for k, t in tensors(a.model).items():
        torch.testing.assert_close(t, tensors(b.model)[k], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(t, tensors(c.model)[k], rtol=1e-3, atol=1e-4)


def image_learner(seed=0, **kw):
    torch.manual_seed(seed)
    learn = transfer_learner(sample_dls("clipart", size=64, n_per_class=6, bs=8, **kw), "resnet_mini", pretrained=False)
    freeze_to(learn, 0)
    reseed(learn, seed)
    return learn


@pytest.mark.medium
@pytest.mark.parametrize("kw", [{}, dict(batch_tfms=aug_transforms(max_rotate=15, max_zoom=1.2))])
def test_augmented_images_train_the_same(kw):
    "Transforms draw the same numbers as without"
    plan = Plan((Stage("all", "all", 3, 1e-4, hold_stats=True),))
    a, b = image_learner(**kw), image_learner(**kw)
    reseed(a, 3)
    x = run_plan(a, plan, cache=False, on_progress=QUIET)
    reseed(b, 3)
    y = run_plan(b, plan, on_progress=QUIET)
    np.testing.assert_allclose(x.stages[0].losses, y.stages[0].losses, rtol=2e-3, atol=1e-4)
    assert a.dls.train.rng.getstate() == b.dls.train.rng.getstate()


def test_items_that_are_others_in_each_epoch_are_read_anew():
    "A dataset that somebody turns to another page between two epochs, and a loader of texts, which cuts them anew"

    class Pages(list):
        page = 0

        def __getitem__(self, i):
            return torch.full((3, 8, 8), float(self.page)), torch.tensor(i % 3)

    class Turn(Callback):
        def before_epoch(self):
            self.dls.train.dataset.page += 1

    seen = []

    class Look(Callback):
        def after_pred(self):
            if self.training:
                seen.append(float(self.x.mean()))

    learn = still_learner(cbs=[Turn(), Look()])
    learn.dls = DataLoaders.from_dsets(Pages([0] * 16), Pages([0] * 8), bs=8, num_workers=0, device="cpu")
    freeze_to(learn, 0)
    run_plan(learn, Stage("all", "all", 3, 1e-4), on_progress=QUIET)
    assert seen == [1, 1, 2, 2, 3, 3]
    from fastai.text.data import LMDataLoader

    texts = LMDataLoader([(torch.arange(30) % 7,)] * 8, bs=2, seq_len=5)
    assert "each epoch" in loader_reason(learn, texts)[0]


GRADUAL = Plan.gradual(epochs=2, last_epochs=1, lr=1e-3)


@pytest.mark.medium
@pytest.mark.parametrize("at", [3, 13, 18, 28, 40])
def test_gradual_unfreezing_resumes_to_the_last_bit(at, tmp_path):
    whole = still_learner(stride=2)
    a = run_plan(whole, GRADUAL, on_progress=QUIET)
    learn, control, n = still_learner(stride=2), Control(), []
    run_plan(
        learn,
        GRADUAL,
        tmp_path,
        control=control,
        on_progress=lambda d, t, note: (("left" in note and n.append(1)), len(n) == at and control.stop()),
    )
    again = still_learner(stride=2)
    b = run_plan(again, GRADUAL, tmp_path, on_progress=QUIET)
    assert b.finished and not moved(tensors(whole.model), again.model)
    for s, t in zip(a.stages, b.stages):
        np.testing.assert_array_equal(s.values, t.values)


@pytest.mark.filterwarnings("ignore:Every batch has one item:fastai_tl.core.errors.KitWarning")
def test_images_of_different_sizes_one_by_one_still_train():
    learn = sizes_learner()
    assert run_plan(learn, Plan((Stage("all", "all", 2, 1e-4, hold_stats=True),)), on_progress=QUIET).finished


def sizes_learner():
    class Sizes(list):
        def __getitem__(self, i):
            return torch.randn(3, 8 + i, 8), torch.tensor(i % 3)

    learn = still_learner(bs=8)
    learn.dls = DataLoaders.from_dsets(Sizes([0] * 6), Sizes([0] * 4), bs=1, num_workers=0, device="cpu")
    for m in learn.model.modules():
        if isinstance(m, nn.BatchNorm1d):
            m.momentum = None
    learn.model[2][3] = nn.Identity()  # a batch norm wants two
    freeze_to(learn, 0)
    return learn


def test_a_network_that_asserts_something_of_the_batch_still_trains():
    class Eights(nn.Module):
        def forward(self, x):
            assert not self.training or len(x) % 8 == 0
            return x

    learn = conv_learner(n=48)
    learn.model[2].insert(0, Eights())
    assert run_plan(learn, Stage("all", "all", 2, 1e-4, hold_stats=True), on_progress=QUIET).finished


@pytest.mark.medium
def test_a_head_that_wants_its_features_side_by_side_gets_them():
    "The body ends in something contiguous, which features that are laid out with channels last would not be"

    class Flat(nn.Module):
        def forward(self, x):
            return x.contiguous()

    class View(nn.Module):
        def forward(self, x):
            return x.view(len(x), -1, x.shape[-1]).view(x.shape)

    a, b = still_learner(stride=2), still_learner(stride=2)
    for learn in (a, b):
        learn.model[0].append(Flat())
        learn.model[1].insert(0, View())
        freeze_to(learn, 1)
        reseed(learn, 3)
        run_plan(learn, Stage("tune", 1, 3, 1e-3, hold_stats=True), cache=learn is b and "auto", on_progress=QUIET)
    for k, t in tensors(a.model).items():
        torch.testing.assert_close(t, tensors(b.model)[k], rtol=1e-3, atol=1e-4)


@pytest.mark.medium
def test_a_transform_that_writes_into_the_items_writes_into_a_copy_of_them():
    def darker(b):
        for o in b:
            o[0].floor_divide_(2)
        return b

    a, b = image_learner(), image_learner()
    seen = {}
    for k, learn in ((0, a), (1, b)):
        learn.dls.train.before_batch.add(Transform(darker))
        reseed(learn, 3)
        h = run_plan(learn, Stage("all", "all", 3, 1e-4, hold_stats=True), cache=bool(k) and "auto", on_progress=QUIET)
        seen[k] = h.stages[0].losses
    np.testing.assert_allclose(seen[0], seen[1], rtol=5e-3, atol=1e-3)


@pytest.mark.medium
def test_what_was_refused_is_asked_once_a_fit(monkeypatch):
    n, renew = [], FrozenCache.renew
    monkeypatch.setattr(FrozenCache, "renew", lambda self: n.append(1) or renew(self))
    learn = image_learner(batch_tfms=aug_transforms())
    h = run_plan(learn, Plan((Stage("a", "head", 3, 1e-3), Stage("b", "head", 2, 1e-3))), on_progress=QUIET)
    assert len(n) == 2 and all("random" in s.cache for s in h.stages)


def test_one_epoch_is_not_cached():
    h = run_plan(still_learner(), Plan.gradual(epochs=1, last_epochs=1, lr=1e-3), on_progress=QUIET)
    assert [s.cache for s in h.stages[:2]] == ["one epoch gains nothing"] * 2
