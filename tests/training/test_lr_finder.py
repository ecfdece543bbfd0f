"""find_lr leaves everything as it found it, on every way out."""

import signal

import numpy as np
import pytest
import torch
from helpers import QUIET, everything, same
from fastai.callback.core import Callback
from fastai.callback.training import GradientAccumulation
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import accuracy
from torch import nn
from torch.utils.data import TensorDataset

from fastai_tl.core.errors import StateError
from fastai_tl.training.lr_finder import find_lr
from fastai_tl.freezing.freeze import freeze_to
from fastai_tl.freezing.layer_groups import GroupSpec
from fastai_tl.freezing.guard import FreezeGuard
from fastai_tl.core.progress import quiet
from fastai_tl.training.plan import Plan
from fastai_tl.training.stage import Stage
from fastai_tl.core.snapshot import deferred_interrupt
from fastai_tl.training.run_plan import run_plan

N = 30


def learner(n=48, bs=8, cbs=()):
    "A small network with batch norm and dropout, trained a little, frozen to its head"
    ds = TensorDataset(torch.randn(n, 3, 8, 8), torch.randint(0, 3, (n,)))
    net = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU()),
        nn.Sequential(nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8)),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(8, 3)),
    )
    dls = DataLoaders.from_dsets(ds, ds, bs=bs, num_workers=0, device="cpu")
    dls.c = 3
    learn = Learner(
        dls, net, CrossEntropyLossFlat(), splitter=GroupSpec.of(net), metrics=accuracy, cbs=[FreezeGuard(), *cbs]
    )
    with quiet(learn):
        learn.fit(1, 1e-3)  # optimizer state and a recorder with a history
    freeze_to(learn, 1)
    with quiet(learn):
        learn.fit(1, 1e-3)
    return learn


@pytest.fixture(scope="module")
def shared():
    torch.manual_seed(0)
    return learner()


@pytest.mark.parametrize("at", range(N))
@pytest.mark.parametrize("event", ["before_batch", "after_pred", "after_backward", "after_step", "after_batch"])
def test_interrupt_at_every_iteration(shared, at, event):
    class Interrupt(Callback):
        order, seen = 57, -1  # before the sweep's own callback, which ends the last batch

    def stop(self):
        self.seen += 1
        if self.seen == at:
            raise KeyboardInterrupt

    setattr(Interrupt, event, stop)
    cb = Interrupt()
    shared.add_cb(cb)
    before = everything(shared)
    with pytest.raises(KeyboardInterrupt):
        find_lr(shared, num_it=N, on_progress=QUIET)
    same(before, everything(shared))
    shared.remove_cb(cb)


@pytest.mark.parametrize("at", [0, 3, 11, 29])
def test_a_real_ctrl_c(shared, at):
    def report(done, total, note):
        if done == at + 1:
            signal.raise_signal(signal.SIGINT)

    before = everything(shared)
    with pytest.raises(KeyboardInterrupt):
        find_lr(shared, num_it=N, on_progress=report)
    same(before, everything(shared))


def test_ctrl_c_while_restoring_waits():
    "An interrupt during the restore itself arrives when it is complete; one that the process ignores stays ignored"
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        done = []
        with pytest.raises(KeyboardInterrupt), deferred_interrupt():
            signal.raise_signal(signal.SIGINT)
            done.append(1)
        assert done
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with deferred_interrupt():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, old)


@pytest.mark.parametrize("error", [ValueError("bad picture"), RuntimeError("out of memory")])
def test_an_error_inside(shared, error):
    def report(done, total, note):
        if done == 5:
            raise error

    before = everything(shared)
    with pytest.raises(type(error), match=str(error)):
        find_lr(shared, num_it=N, on_progress=report)
    same(before, everything(shared))


@pytest.mark.medium
@pytest.mark.parametrize(
    "kw", [{}, {"seeds": 3}, {"group": "head"}, {"end_lr": 1e6}, {"start_lr": 1e-3, "num_it": 200}]
)
def test_a_normal_end(shared, kw):
    before = everything(shared)
    res = find_lr(shared, **{"num_it": N, **kw}, on_progress=QUIET)
    same(before, everything(shared))
    assert len(res.sweeps) == kw.get("seeds", 1) and (
        res.suggested is None or res.band[0] <= res.suggested <= res.band[1]
    )


@pytest.mark.medium
def test_a_learner_without_an_optimizer_has_none_after():
    learn = learner()
    learn.opt = None
    before = everything(learn)
    find_lr(learn, num_it=20, on_progress=QUIET)
    same(before, everything(learn))


@pytest.mark.medium
def test_seeds_make_it_repeatable(shared):
    a, b = (find_lr(shared, num_it=N, seeds=2, on_progress=QUIET) for _ in range(2))
    for x, y in zip(a.sweeps, b.sweeps):
        np.testing.assert_array_equal(x, y)
    assert not np.array_equal(a.sweeps[0], a.sweeps[1])


def test_only_the_group_trains(shared):
    seen = {}

    class Look(Callback):
        order = 90

        def before_step(self):
            seen.setdefault("lrs", []).append([h["lr"] for h in self.opt.hypers])

    shared.add_cb(Look())
    find_lr(shared, num_it=20, group="head", on_progress=QUIET)
    shared.remove_cb(Look)
    lrs = np.array(seen["lrs"])
    assert (lrs[:, :-1] == 0).all() and (np.diff(lrs[:, -1]) > 0).all()


def test_nothing_to_train_is_an_error_with_the_cure():
    learn = learner()
    for p in learn.model.parameters():
        p.requires_grad_(False)
    with pytest.raises(StateError, match="freeze_to"):
        find_lr(learn, on_progress=QUIET)
    tiny = learner(n=48)
    tiny.dls.train.bs = 64
    with pytest.raises(StateError, match="bs="):
        find_lr(tiny, on_progress=QUIET)
    with pytest.raises(StateError, match="bs="):
        run_plan(tiny, Plan((Stage("a", "all", 1, 1e-3),)), on_progress=QUIET)


@pytest.mark.medium
def test_works_with_gradient_accumulation():
    learn = learner(cbs=[GradientAccumulation(16)])
    before = everything(learn)
    find_lr(learn, num_it=20, on_progress=QUIET)
    same(before, everything(learn))


def test_works_in_a_folder_that_cannot_be_written(tmp_path):
    learn = learner()
    learn.path = tmp_path / "not" / "there"
    find_lr(learn, num_it=20, on_progress=QUIET)
    assert not (tmp_path / "not").exists()


def test_one_fall_among_several_sweeps_is_not_reliable():
    from fastai_tl.training.lr_finder import _result

    lrs = np.geomspace(1e-6, 10, 75)
    rng = np.random.default_rng(0)
    flat = lambda: 2 + 0.3 * rng.standard_normal(75)
    fall = 2.3 - 1.5 / (1 + np.exp(-3 * (np.log10(lrs) + 3))) + 0.01 * rng.standard_normal(75)
    assert _result(lrs, [fall], None).reliable
    r = _result(lrs, [fall, flat(), flat()], None)
    assert not r.reliable and "1 of 3" in r.reason
    assert _result(lrs, [fall, fall, flat()], None).reliable


def test_a_frozen_group_is_refused():
    learn = learner()
    freeze_to(learn, "head")
    with pytest.raises(StateError, match="is frozen"):
        find_lr(learn, num_it=N, group=0, on_progress=QUIET)
