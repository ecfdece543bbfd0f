"""The same network, faster on processors: what it gives, and when it keeps its hands off; pictures that are opened
once; features of later stages.
"""

import gc
import weakref

import numpy as np
import pytest
import torch
from helpers import QUIET, Passes, fit, moved, still_learner, tensors
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.vision.augment import aug_transforms
from fasttransform import Transform
from torch import nn

from fastai_tl.cache.items import KeptItems, items_reason, loader_reason
from fastai_tl.training.run_control import Control
from fastai_tl.cache.feature_cache import FrozenCache
from fastai_tl.cache.callback import cache_of, frozen_cache
from fastai_tl.freezing.freeze import freeze_to, hold_stats
from fastai_tl.training.plan import Plan
from fastai_tl.core.progress import quiet
from fastai_tl.acceleration.fast_forward import Quick, quick_for
from fastai_tl.datasets.samples import sample_dls
from fastai_tl.core.snapshot import reseed
from fastai_tl.training.stage import Stage
from fastai_tl.training.run_plan import run_plan
from fastai_tl.models.transfer_learner import transfer_learner


class Conv(nn.Module):
    "A convolution and its norm, with what comes between them in `around`"

    def __init__(self, around, conv=nn.Conv2d):
        super().__init__()
        self.conv = conv(3, 6, 3, padding=1)
        self.bn = nn.BatchNorm2d(6)
        self.around = around
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.around(self, x).mean((2, 3)))


def plain(m, x):
    return m.bn(m.conv(x)).relu()


def twice(m, x):
    y = m.conv(x)
    return m.bn(y) + y


def shared(m, x):
    return m.bn(m.bn(m.conv(x)))


def through(what):
    return lambda m, x: m.bn(what(m.conv(x)))  # which may hand the same tensor on


def inplace(m, x):
    y = m.conv(x)
    y += 1
    return m.bn(y)


def compared(m, x):
    y = m.conv(x)
    return m.bn(y) * (y > 0)


def in_training(m, x):
    y = m.conv(x)
    return m.bn(y) + y if m.training else m.bn(y)


def other_in_training(m, x):
    y = m.conv(x)
    return m.bn(x.repeat(1, 2, 1, 1) if m.training else y)


def kept(m, x):
    m.seen = m.conv(x)
    return m.bn(m.seen)


def again(m, x):
    return torch.utils.checkpoint.checkpoint(lambda x: m.bn(m.conv(x)), x, use_reentrant=False)


def viewed(m, x):
    return m.bn(m.conv(x.view(len(x) * 3, -1).view(x.shape)))


class Standardized(nn.Conv2d):
    "Weights without mean, as in networks without norms: what is in the weights is not what is multiplied"

    def forward(self, x):
        return nn.functional.conv2d(x, self.weight - self.weight.mean(), self.bias, self.stride, self.padding)


def some(n=4):
    return (torch.randn(n, 3, 8, 8, dtype=torch.float64),)


@pytest.mark.parametrize(
    "around, conv, pairs",
    [
        (plain, nn.Conv2d, 1),
        (twice, nn.Conv2d, 0),
        (shared, nn.Conv2d, 0),
        (plain, Standardized, 0),
        (through(nn.ReLU(inplace=True)), nn.Conv2d, 0),
        (through(nn.Dropout2d(0.3)), nn.Conv2d, 0),
        (through(nn.Identity()), nn.Conv2d, 1),
        *((f, nn.Conv2d, 0) for f in (inplace, compared, in_training, other_in_training, kept, again)),
    ],
)
def test_only_a_norm_that_alone_sees_its_convolution_is_joined(around, conv, pairs):
    torch.manual_seed(0)
    # norms as new: joining them wrongly would give the same numbers now, but not later
    m = Conv(around, conv).double().eval()
    q = quick_for(m, some(), 8)
    assert len(q.joined) == pairs and q.last
    assert not any(o._forward_hooks or o._forward_pre_hooks or "forward" in vars(o) for o in m.modules())


def test_a_network_goes_when_its_learner_goes():
    m = Conv(plain).double()
    assert quick_for(m, some(), 8)
    r = weakref.ref(m)
    del m
    gc.collect()
    assert r() is None


def test_a_network_that_wants_its_own_layout_gets_it():
    m = Conv(viewed).double().eval()
    q = quick_for(m, some(), 8)
    assert not q.last and len(q.joined) == 1
    x = some()
    with q.on():
        torch.testing.assert_close(m(*q.inputs(x)), m(*x))


def test_no_convolutions_and_half_precision_are_left_alone():
    assert quick_for(nn.Sequential(nn.Linear(3, 2)), some(), 8) is None
    assert quick_for(Conv(plain).bfloat16(), some(), 8) is None
    m = Conv(plain).double()
    with torch.autocast("cpu", torch.bfloat16):
        assert quick_for(m, some(), 8) is None
    assert quick_for(m, some(), 8, skip=m.modules()) is None


@pytest.mark.parametrize(
    "arch", ["tf_efficientnet_lite0", "resnet18", "mobilenet_v3_small", "densenet121", "vgg11_bn", "shufflenet_v2_x1_0"]
)
def test_outputs_and_gradients_are_those_of_the_network(arch):
    "In double precision, where no rounding hides or makes a difference: the joined network is the same function"
    torch.manual_seed(0)
    learn = transfer_learner(sample_dls("clipart", size=64, n_per_class=4, bs=8), arch, pretrained=False)
    freeze_to(learn, 0)
    hold_stats(learn)
    m = learn.model.double().train()
    for b in m.modules():
        if not isinstance(b, nn.BatchNorm2d):
            continue
        b.running_mean.normal_(0, 0.1)
        b.running_var.uniform_(0.5, 1.5)
        b.weight.data.uniform_(0.5, 1.5)
        b.bias.data.normal_(0, 0.1)
    for d in m.modules():
        if isinstance(d, nn.Dropout):
            d.p = 0.0
    xb = (torch.randn(4, 3, 64, 64, dtype=torch.float64),)
    before = {k: v.clone() for k, v in m.state_dict().items()}
    q = quick_for(m, xb, 8)
    assert q is not None and len(q.joined) >= 3
    ps = [p for p in m.parameters() if p.requires_grad]

    def step(run):
        for b in m.modules():
            if isinstance(b, nn.BatchNorm1d):
                b.reset_running_stats()  # those of the head follow the batches
        out = run()
        return out, torch.autograd.grad(out.square().sum(), ps)

    a = step(lambda: m(*xb))
    with q.on():
        assert any("forward" in vars(o) for o in m.modules())
        b = step(lambda: m(*q.inputs(xb)))
    torch.testing.assert_close(a[0], b[0], rtol=1e-9, atol=1e-10)
    for s, t in zip(a[1], b[1]):
        torch.testing.assert_close(s, t, rtol=1e-6, atol=1e-8 * max(1.0, float(s.abs().max())))
    assert not any("forward" in vars(o) or o._forward_hooks for o in m.modules())
    assert all(
        torch.equal(v, m.state_dict()[k]) for k, v in before.items() if "head" not in k and not k.startswith("1.")
    )


def test_norms_that_follow_the_batches_and_layers_that_are_watched_run_as_ever():
    torch.manual_seed(0)
    m = Conv(plain).double().train()
    q, x = quick_for(m, some(), 8), some()
    with q.on():
        assert "forward" not in vars(m.bn)
        m(*x)
    assert int(m.bn.num_batches_tracked) == 1
    m.eval()
    seen = []
    h = m.conv.register_forward_hook(lambda mod, a, y: seen.append(y))
    with q.on():
        m(*x)
    torch.testing.assert_close(seen[0], nn.Conv2d.forward(m.conv, *x))
    h.remove()
    with q.on():
        assert "forward" in vars(m.bn)


def test_a_hook_around_one_of_the_two_sees_what_it_always_saw():
    class Around(Conv):
        def __init__(self):
            super().__init__(plain)
            self.inner = nn.Sequential(self.conv)
            del self.conv

        def forward(self, x):
            return self.head(self.bn(self.inner(x)).relu().mean((2, 3)))

    torch.manual_seed(0)
    m, x, seen = Around().double().eval(), some(), []
    with torch.no_grad():
        m.bn.running_mean.normal_()
        m.bn.running_var.uniform_(0.5, 2)
    q = quick_for(m, some(), 8)
    assert len(q.joined) == 1
    want = m(*x)
    with q.on():
        torch.testing.assert_close(m(*q.inputs(x)), want)
    m.inner.register_forward_hook(lambda mod, a, y: seen.append(y))
    with q.on():
        m(*q.inputs(x))
    torch.testing.assert_close(seen[0], m.inner[0](*x))


def test_weights_that_change_are_seen():
    m = Conv(plain).double().eval()
    q, x = quick_for(m, some(), 8), some()
    for _ in range(2):
        q.begin()  # as at the start of an epoch and of validation
        with q.on(), torch.no_grad():
            got = m(*x)
        torch.testing.assert_close(got, m(*x), rtol=1e-9, atol=1e-10)
        for p in m.parameters():
            p.data.mul_(1.5)  # as fastai's optimizers write, past torch's count of versions


def conv_learner(**kw):
    "Two groups that train, so that there is something to be quick about"
    learn = still_learner(**kw)
    freeze_to(learn, 0)
    hold_stats(learn)
    return learn


def test_run_plan_is_quick_and_leaves_nothing_behind(monkeypatch):
    seen = []

    class Look(Callback):
        order = 2000

        def before_batch(self):
            assert "forward" not in vars(self.model)  # so that a copy or an export here is of the network alone

        def after_pred(self):
            seen.append([m for m in self.model.modules() if "forward" in vars(m)])

    a, b = conv_learner(), conv_learner()
    on = Quick.on
    monkeypatch.setattr(Quick, "on", lambda self: seen.append("on") or on(self))
    plan = Plan((Stage("all", "all", 2, 1e-3, hold_stats=True),))
    reseed(a, 3)
    run_plan(a, plan, cache=False, on_progress=QUIET)
    b.add_cb(Look())
    reseed(b, 3)
    run_plan(b, plan, on_progress=QUIET)
    # each batch, and a trial
    assert seen.count("on") == 2 * (6 + 4) + 1 and all(not o for o in seen if isinstance(o, list))
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


def test_frozen_cache_is_quick_only_on_request():
    a, b, c = still_learner(), still_learner(), still_learner()
    for learn in (a, b, c):
        freeze_to(learn, 1)
    reseed(a, 3)
    fit(a)
    reseed(b, 3)
    with frozen_cache(b, on_progress=QUIET):
        fit(b)
    reseed(c, 3)
    with frozen_cache(c, on_progress=QUIET, quick=True) as cache:
        fit(c)
        assert cache.may_quick
    for k, t in tensors(a.model).items():
        torch.testing.assert_close(t, tensors(b.model)[k], rtol=1e-4, atol=1e-5)
    for k, t in tensors(a.model).items():
        torch.testing.assert_close(t, tensors(c.model)[k], rtol=1e-3, atol=1e-4)


# ---------------------------------------------------------------- pictures that are opened once


class Opened:
    "How often the items of a loader were opened"

    def __init__(self, dl):
        self.n = 0
        tfms = dl.dataset.tls[0].tfms

        def encodes(x):
            self.n += 1
            return x

        tfms.fs = [*tfms.fs, Transform(encodes)]


def picture_learner(seed=0, **kw):
    torch.manual_seed(seed)
    learn = transfer_learner(sample_dls("clipart", size=64, n_per_class=6, bs=8, **kw), "resnet_mini", pretrained=False)
    freeze_to(learn, 0)
    reseed(learn, seed)
    return learn


@pytest.mark.parametrize("kw", [{}, dict(batch_tfms=aug_transforms(max_rotate=15, max_zoom=1.2))])
def test_pictures_are_opened_once_and_augmented_each_time(kw):
    "Only what happens to a picture by itself is kept; transforms of a batch draw the same numbers as without"
    plan = Plan((Stage("all", "all", 3, 1e-4, hold_stats=True),))
    a, b = picture_learner(**kw), picture_learner(**kw)
    reseed(a, 3)
    x = run_plan(a, plan, cache=False, on_progress=QUIET)
    reseed(b, 3)
    n, o = b.dls.train.n, Opened(b.dls.train)
    y = run_plan(b, plan, on_progress=QUIET)
    assert n <= o.n < 2 * n + 20  # some are opened before, to look at them
    np.testing.assert_allclose(x.stages[0].losses, y.stages[0].losses, rtol=2e-3, atol=1e-4)
    assert a.dls.train.rng.getstate() == b.dls.train.rng.getstate()


def test_what_is_random_or_no_tensor_is_not_kept():
    from fastai.vision.augment import RandomResizedCrop

    learn = picture_learner(item_tfms=RandomResizedCrop(64, min_scale=0.3))
    assert "same each time" in items_reason(learn.dls.train, True)
    h = run_plan(learn, Stage("all", "all", 2, 1e-4), on_progress=QUIET)
    assert h.finished
    dl = DataLoaders.from_dsets([("a", 1)] * 8, [("a", 1)] * 8, bs=4, num_workers=0).train
    assert "fastai's" in items_reason(dl, True)
    assert "worker" in items_reason(sample_dls("clipart", size=32, n_per_class=2, num_workers=1).train, True)


def test_items_that_are_others_in_each_epoch_are_not_kept():
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
    assert "own way" in items_reason(texts, True) and "each epoch" in loader_reason(learn, texts)[0]


def test_room_is_kept():
    dl = sample_dls("clipart", size=32, n_per_class=4, bs=8).train
    one = sum(t.numel() * t.element_size() for t in dl.do_item(0))
    kept, o = KeptItems(dl, int(3.5 * one)), Opened(dl)
    for _ in range(3):
        for i in range(5):
            kept(i)
    assert len(kept.items) == 3 and o.n == 5 + 2 * 2 and kept.used == 3 * one
    # the last is dropped, as in training
    assert sum(len(b[0]) for b in kept.batches(iter(range(20)), True)) == 20 // 8 * 8


def test_other_transforms_and_pictures_are_noticed():
    learn = picture_learner()
    with frozen_cache_of(learn) as cache:
        with quiet(learn):
            learn.fit(2, 1e-5)
            kept = cache.items[id(learn.dls.train)]
            learn.fit(2, 1e-5)
            assert cache.items[id(learn.dls.train)] is kept
            from fastai.vision.augment import Resize

            learn.dls.train.after_item.fs[[type(f).__name__ for f in learn.dls.train.after_item.fs].index("Resize")] = (
                Resize(48, "squish")
            )
            learn.fit(2, 1e-5)
            assert cache.items.get(id(learn.dls.train)) is not kept


def frozen_cache_of(learn):
    from fastai_tl.cache.callback import cached

    return cached(learn, "auto", planned=10**6)


# ---------------------------------------------------------------- features of later stages, made on the way

GRADUAL = Plan.gradual(epochs=1, last_epochs=1, lr=1e-3)


def test_gradual_unfreezing_runs_the_body_once():
    a, b = still_learner(stride=2), still_learner(stride=2)
    reseed(a, 3)
    x = run_plan(a, GRADUAL, cache=False, on_progress=QUIET)
    p = Passes(b)
    reseed(b, 3)
    y = run_plan(b, GRADUAL, on_progress=QUIET)
    assert ["rows of features" in s.cache for s in y.stages] == [True, True, False]
    for s, t in zip(x.stages, y.stages):
        np.testing.assert_allclose(s.values, t.values, rtol=1e-3)
    assert p.n < 50 + 25 + (48 + 25) + 60  # once for the first two stages, once for the last, and some looks
    assert cache_of(b) is None


def test_a_layer_that_moves_in_between_is_not_taken_from_the_trail():
    """Somebody writes into a frozen layer between two stages: what was stored on the way is no longer what the
    network gives
    """

    class Meddle(Callback):
        def after_fit(self):
            if self.n_epoch == 1 and not self.done:
                self.done = True
                with torch.no_grad():
                    self.model[0][0].weight.mul_(1.5)

        done = False

    a, b = still_learner(stride=2, cbs=Meddle()), still_learner(stride=2, cbs=Meddle())
    for learn in (a, b):
        learn.remove_cb(learn.freeze_guard)
    reseed(a, 3)
    x = run_plan(a, GRADUAL, cache=False, on_progress=QUIET)
    reseed(b, 3)
    y = run_plan(b, GRADUAL, on_progress=QUIET)
    for s, t in zip(x.stages, y.stages):
        np.testing.assert_allclose(s.values, t.values, rtol=1e-3)


@pytest.mark.parametrize("at", [3, 8, 13, 18, 25])
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


# ---------------------------------------------------------------- what once went wrong


@pytest.mark.filterwarnings("ignore:Every batch has one item:fastai_tl.core.errors.KitWarning")
def test_pictures_of_different_sizes_one_by_one_still_train():
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


def test_a_layer_on_the_way_that_runs_only_in_training():
    class Aux(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Conv2d(6, 6, 1)

        def forward(self, x):
            return x + 0 * self.lin(x) if self.training else x

    a, b = still_learner(stride=2), still_learner(stride=2)
    plan = Plan((Stage("a", 1, 1, 1e-3), Stage("b", ("0.3", "1", "2"), 1, 1e-3), Stage("c", "all", 1, 1e-3)))
    for learn in (a, b):
        torch.manual_seed(0)
        learn.model[0].append(Aux())
        learn.create_opt()
        freeze_to(learn, "head")
        reseed(learn, 3)
        assert run_plan(learn, plan, cache=learn is b and "auto", on_progress=QUIET).finished
    for k, t in tensors(a.model).items():
        torch.testing.assert_close(t, tensors(b.model)[k], rtol=1e-3, atol=1e-4)


def test_a_transform_that_writes_into_the_items_writes_into_a_copy():
    def darker(b):
        for o in b:
            o[0].floor_divide_(2)
        return b

    a, b = picture_learner(), picture_learner()
    seen = {}
    for k, learn in ((0, a), (1, b)):
        learn.dls.train.before_batch.add(Transform(darker))
        reseed(learn, 3)
        h = run_plan(learn, Stage("all", "all", 3, 1e-4, hold_stats=True), cache=bool(k) and "auto", on_progress=QUIET)
        seen[k] = h.stages[0].losses
    np.testing.assert_allclose(seen[0], seen[1], rtol=5e-3, atol=1e-3)


def test_shapes_are_part_of_the_question():
    m = Conv(plain).double()
    # 96 numbers come out, and there are 162 weights
    few = quick_for(m, (torch.randn(2, 3, 2, 2, dtype=torch.float64),), 4)
    many = quick_for(m, some(), 4)
    assert (len(few.joined), len(many.joined)) == (0, 1)
    assert len(quick_for(m, (torch.randn(2, 3, 2, 2, dtype=torch.float64),), 4).joined) == 0


def test_what_was_refused_is_asked_once_a_fit(monkeypatch):
    n, renew = [], FrozenCache.renew
    monkeypatch.setattr(FrozenCache, "renew", lambda self: n.append(1) or renew(self))
    learn = picture_learner(batch_tfms=aug_transforms())
    h = run_plan(learn, Plan((Stage("a", "head", 3, 1e-3), Stage("b", "head", 2, 1e-3))), on_progress=QUIET)
    assert len(n) == 2 and all("random" in s.cache for s in h.stages)


def test_large_features_are_not_made_for_one_epoch():
    learn = still_learner()  # 6x6x6 numbers after the first layers, 3x8x8 in a picture
    h = run_plan(learn, GRADUAL, on_progress=QUIET)
    assert "rows of features" in h.stages[0].cache and "more numbers than a picture" in h.stages[1].cache
