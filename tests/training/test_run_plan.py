"""A run of a plan survives what comes in between: interrupts anywhere, NaN, no memory, no disk, damaged and foreign
checkpoints.
"""

import json
import random
import resource
import signal
import threading
import time
from functools import partial

import numpy as np
import pytest
import torch
from helpers import QUIET, everything, moved, noisy_learner, same, tensors, wait_until
from fastai.callback.core import Callback
from fastai.callback.tracker import EarlyStoppingCallback
from fastai.callback.training import GradientAccumulation, GradientClip
from fastai.optimizer import OptimWrapper, SGD
from fastai.torch_core import set_seed
from torch import nn

from fastai_tl.training.checkpoint import CheckpointError, CheckpointMismatch, FolderStore
from fastai_tl.training.run_control import Control, noted_interrupts
from fastai_tl.core.errors import InputError, KitWarning, StateError
from fastai_tl.training.lr_finder import LRFinderResult, find_lr
from fastai_tl.freezing.fingerprint import frozen_names
from fastai_tl.freezing.freeze import set_frozen
from fastai_tl.training.plan import Plan
from fastai_tl.training.run_faults import NotFinite, OutOfMemory
from fastai_tl.training.stage import PlanError, Stage
from fastai_tl.training.run_plan import run_plan

PLAN = Plan(
    (
        Stage("probe", "head", 1, 1e-2),
        Stage("tune", "all", 2, "find", lr_mult=10, hold_stats=True),
        Stage("operate", ("1",), 1, "same", schedule="flat_cos"),
    )
)
EVENTS = (
    "before_fit",
    "before_epoch",
    "before_train",
    "before_batch",
    "after_pred",
    "after_loss",
    "before_backward",
    "after_backward",
    "before_step",
    "after_step",
    "after_batch",
    "after_train",
    "before_validate",
    "after_validate",
    "after_epoch",
    "after_fit",
)
N_BATCHES = 4 * 4  # 4 epochs of 4 training batches


def fresh(seed=0, **kw):
    learn = noisy_learner(n=32, seed=seed, **kw)
    set_seed(7)
    return learn


@pytest.fixture(scope="module")
def baseline():
    "Weights and history of the run that nothing happens to"
    learn = fresh()
    history = run_plan(learn, PLAN, on_progress=QUIET)
    return tensors(learn.model), history


def assert_as_baseline(learn, history, baseline):
    assert moved(baseline[0], learn.model) == []
    assert history.finished and [s.values for s in history.stages] == [s.values for s in baseline[1].stages]
    for a, b in zip(history.stages, baseline[1].stages):
        np.testing.assert_array_equal(a.losses, b.losses)
        np.testing.assert_array_equal(a.lr_curve, b.lr_curve)


class Strike(Callback):
    "Interrupt at the `at`-th time that `event` happens"

    def __init__(self, event, at, how, order):
        self.at = at
        self.how = how
        self.count = 0
        self.order = order
        setattr(self, event, self.strike)

    def strike(self):
        self.count += 1
        if self.count == self.at:
            if self.how == "raise":
                raise KeyboardInterrupt
            signal.raise_signal(signal.SIGINT)
            if self.how == "twice":
                signal.raise_signal(signal.SIGINT)


# 36 times 10 random interrupts, and 154 of find_lr in test_lr_finder.py; make test runs 30 of the 360
@pytest.mark.medium
@pytest.mark.parametrize("seed", [pytest.param(i, marks=[pytest.mark.interrupts] if i >= 3 else []) for i in range(36)])
def test_random_interrupts_lose_nothing(seed, baseline, tmp_path):
    rnd = random.Random(seed)
    hits = 0
    for i in range(14):
        if hits == 10:
            break
        event, how, where = (
            rnd.choice(EVENTS),
            rnd.choice(["raise", "signal", "signal", "twice"]),
            rnd.choice(["memory", "folder", "other process"]),
        )
        often = 4 if "fit" in event else 5 if event.endswith(("epoch", "train", "validate")) else 100
        at, order = rnd.randint(1, often), rnd.choice([-50, 40, 70, 2000])
        folder = None if where == "memory" else tmp_path / str(i)
        learn, cb = fresh(), Strike(event, at, how, order)
        learn.add_cb(cb)
        try:
            history = run_plan(learn, PLAN, folder, rnd.choice([1, 3, "epoch"]), on_progress=QUIET)
        except KeyboardInterrupt:
            hits += 1
            learn.remove_cb(cb)
            if where == "other process":
                learn = fresh(seed=rnd.randint(1, 99))  # other random weights, other random states
            history = run_plan(learn, PLAN, folder, on_progress=QUIET)
            # nothing was saved yet if it came in the first setup
            assert len(history.sessions) == 2 or history.sessions[0]["start"] == [0, 0, 0]
        assert_as_baseline(learn, history, baseline)
        if folder is not None and any(folder.glob(".last.*.partial")):
            pytest.fail("a half checkpoint is left")
    assert hits >= 5


@pytest.mark.medium
def test_a_first_ctrl_c_costs_no_batch(baseline):
    learn = fresh()
    cb = Strike("after_pred", 7, "signal", 0)  # in the midst of the third batch of the second epoch, sweeps not counted
    learn.add_cb(cb)
    with pytest.raises(KeyboardInterrupt, match="goes on from there"):
        run_plan(learn, Plan((Stage("a", "head", 3, 1e-2),)), on_progress=QUIET)
    learn.remove_cb(cb)
    history = run_plan(learn, Plan((Stage("a", "head", 3, 1e-2),)), on_progress=QUIET)
    assert sum(s["batches"] for s in history.sessions) == 12


@pytest.mark.medium
@pytest.mark.parametrize(
    "kw",
    [
        dict(cbs=[GradientAccumulation(20)]),
        dict(cbs=[EarlyStoppingCallback(patience=9), GradientClip]),
        dict(opt_func=SGD),
        dict(opt_func=partial(OptimWrapper, opt=torch.optim.AdamW)),
        dict(opt_func=partial(OptimWrapper, opt=torch.optim.SGD)),
        dict(wd=0.0),
    ],
    ids=["accumulation", "tracker", "SGD", "torch AdamW", "torch SGD", "no decay"],
)
@pytest.mark.parametrize("at", [3, 6])
def test_resuming_is_exact_with_other_optimizers_and_callbacks(kw, at, tmp_path):
    plan = Plan((Stage("a", "all", 2, 1e-2),))
    make = lambda: fresh(
        **{
            k: [type(c)(20) if isinstance(c, GradientAccumulation) else c for c in v] if k == "cbs" else v
            for k, v in kw.items()
        }
    )
    whole = make()
    run_plan(whole, plan, on_progress=QUIET)
    learn, control, n = make(), Control(), []
    run_plan(
        learn, plan, tmp_path, control=control, on_progress=lambda *a: (n.append(1), len(n) == at and control.stop())
    )
    again = make()
    again.model[2][3].weight.data.zero_()
    assert run_plan(again, plan, tmp_path, on_progress=QUIET).finished
    assert moved(tensors(whole.model), again.model) == []


@pytest.mark.medium
def test_a_plan_by_layers_and_one_with_each_resume(tmp_path):
    for i, plan in enumerate([Plan.layer_decay(2, lr=1e-2), Plan.gradual(lr=1e-2, last_epochs=1)]):
        whole = fresh()
        run_plan(whole, plan, on_progress=QUIET)
        steer(fresh(), plan, 10, "stop", checkpoint=tmp_path / str(i))
        again = fresh(seed=3)
        assert (
            run_plan(again, plan, tmp_path / str(i), on_progress=QUIET).finished
            and moved(tensors(whole.model), again.model) == []
        )


# ---------------------------------------------------------------- steering


def steer(learn, plan, at, what, *args, **kw):
    "Run a plan, and ask `what` of its Control when `at` batches are reported"
    control, n = Control(), []

    def report(*a):
        n.append(1)
        if len(n) == at:
            getattr(control, what)(*args)

    return run_plan(learn, plan, control=control, on_progress=report, **kw)


@pytest.mark.medium
def test_stop_and_stop_after_epoch():
    plan = Plan((Stage("a", "head", 3, 1e-2),))
    learn = fresh()
    h = steer(learn, plan, 2, "stop")
    assert not h.finished and h.sessions[-1]["batches"] == 2 and h.actions[0]["action"] == "stop"
    h = steer(learn, plan, 1, "stop_after_epoch")
    assert not h.finished and len(h.stages[0].values) == 1 and [s["batches"] for s in h.sessions] == [2, 2]
    h = run_plan(learn, plan, on_progress=QUIET)
    assert h.finished and [s["batches"] for s in h.sessions] == [2, 2, 8] and "3 sessions" in repr(h)


@pytest.mark.medium
def test_pause_from_another_thread_waits_between_batches():
    learn, control, seen = fresh(), Control(), []
    plan = Plan((Stage("a", "head", 3, 1e-2),))

    def report(done, *a):
        seen.append(done)
        if len(seen) == 3:
            control.pause()

    def other():
        wait_until(lambda: control.state == "paused", 60)
        n = len(seen)
        time.sleep(0.3)
        states.append((control.state, len(seen) - n))
        control.resume()

    states, t = [], threading.Thread(target=other)
    t.start()
    h = run_plan(learn, plan, control=control, on_progress=report)
    t.join()
    assert states == [("paused", 0)] and h.finished and control.state == "finished"
    assert [a["action"] for a in h.actions] == ["pause", "resume"]
    whole = fresh()
    run_plan(whole, plan, on_progress=QUIET)
    assert moved(tensors(whole.model), learn.model) == []
    with pytest.raises(StateError, match="has ended"):
        control.stop()
    with pytest.raises(StateError, match="takes one of its own"):
        run_plan(learn, plan, control=control, on_progress=QUIET)


def test_a_run_in_a_worker_thread_is_stopped_from_the_main_one():
    learn, control, out = fresh(), Control(), []
    t = threading.Thread(
        target=lambda: out.append(
            run_plan(learn, Plan((Stage("a", "head", 10000, 1e-3),)), control=control, on_progress=QUIET)
        )
    )
    t.start()
    wait_until(lambda: control.state != "ready")
    control.stop()
    t.join(30)
    assert not t.is_alive() and not out[0].finished


@pytest.mark.medium
def test_a_new_rate_takes_hold_at_the_next_batch():
    class Rates(Callback):
        order = 90

        def before_fit(self):
            self.seen = []

        def before_step(self):
            self.seen.append([h["lr"] for h in self.opt.hypers])

    learn = fresh(cbs=[Rates()])
    steer(learn, Plan((Stage("a", "all", 2, 1e-2, lr_mult=100, schedule="constant"),)), 3, "set_lr", 1e-3)
    np.testing.assert_allclose(learn.rates.seen[2], [1e-4, 1e-3, 1e-2])
    np.testing.assert_allclose(learn.rates.seen[3], [1e-5, 1e-4, 1e-3])
    learn = fresh(cbs=[Rates()])
    steer(learn, Plan((Stage("a", "all", 2, 1e-2),)), 3, "set_lr", {"0": 5e-3})
    plain = fresh(cbs=[Rates()])
    run_plan(plain, Plan((Stage("a", "all", 2, 1e-2),)), on_progress=QUIET)
    ratio = np.array(learn.rates.seen) / np.array(plain.rates.seen)
    np.testing.assert_allclose(ratio[:3], 1)
    np.testing.assert_allclose(ratio[3:, 0], 0.5)
    np.testing.assert_allclose(ratio[3:, 1:], 1)
    with pytest.raises(InputError):
        steer(learn, Plan((Stage("a", "all", 2, 1e-2),)), 1, "set_lr", {"nine": 5e-3})


@pytest.mark.medium
def test_unfreeze_next_frees_one_group_and_survives_a_resume(tmp_path):
    plan = Plan((Stage("a", "head", 3, 1e-2),))
    whole = fresh()
    before = tensors(whole.model)
    h = steer(whole, plan, 2, "unfreeze_next")
    assert {k[0] for k in moved(before, whole.model)} == {"1", "2"} and h.actions[0]["value"] == "1"
    learn, control, n = fresh(), Control(), []

    def report(*a):
        n.append(1)
        len(n) == 2 and control.unfreeze_next()
        len(n) == 3 and control.stop()

    run_plan(learn, plan, tmp_path, control=control, on_progress=report)
    again = fresh()
    run_plan(again, plan, tmp_path, on_progress=QUIET)
    assert moved(tensors(whole.model), again.model) == []
    assert not any(n.startswith("1.") and not n.startswith("1.1.") for n in frozen_names(again))


def test_requests_before_the_start_are_checked_and_carried_out():
    control = Control()
    control.set_lr({"nine": 1.0})
    learn = fresh()
    before = tensors(learn.model)
    with pytest.raises(InputError, match="no group 'nine'"):
        run_plan(learn, PLAN, control=control, on_progress=QUIET)
    assert moved(before, learn.model) == []
    control = Control()
    control.stop()
    assert run_plan(learn, PLAN, control=control, on_progress=QUIET).sessions[-1]["batches"] == 1


# ---------------------------------------------------------------- what goes wrong in a batch


class Poison(Callback):
    "Make the loss NaN at one batch"

    order = -5

    def __init__(self, at, what):
        self.at, self.what = at, what

    def before_batch(self):
        if self.training and self.train_iter == self.at and self.what == "input":
            self.learn.xb = (self.xb[0] * float("nan"),)

    def after_loss(self):
        if self.training and self.train_iter == self.at and self.what == "loss":
            self.learn.loss_grad = self.loss_grad * float("inf")
            self.learn.loss = self.loss_grad.clone()


@pytest.mark.medium
@pytest.mark.parametrize("what,cause", [("input", "the batch itself"), ("loss", "the learning rate")])
@pytest.mark.parametrize("folder", [True, False])
def test_nan_stops_at_once_and_gives_the_last_good_weights(what, cause, folder, tmp_path):
    plan = Plan((Stage("a", "all", 3, 1e-2),))
    half = fresh()
    steer(half, plan, 6, "stop_after_epoch")
    learn = fresh(cbs=[Poison(6, what)])
    attrs = set(vars(learn))
    with pytest.raises(NotFinite, match="back at stage 1 of 1 'a', epoch 2") as e:
        run_plan(learn, plan, tmp_path if folder else None, on_progress=QUIET)
    assert (
        (e.value.stage, e.value.epoch, e.value.batch) == ("a", 2, 3)
        and e.value.causes[0].startswith(cause)
        and len(e.value.args) == 1
    )
    assert moved(tensors(half.model), learn.model) == [] and set(vars(learn)) <= attrs | {"final_record", "smooth_loss"}
    learn.remove_cb(Poison)
    assert run_plan(learn, plan, tmp_path if folder else None, on_progress=QUIET).finished


def test_a_rate_that_is_too_high_ends_in_nan_and_says_so():
    learn = fresh(opt_func=SGD)
    with pytest.raises(NotFinite, match="learning rate"):
        run_plan(learn, Plan((Stage("a", "all", 30, 1e20, schedule="constant"),)), on_progress=QUIET)
    assert all(torch.isfinite(t).all() for t in learn.model.parameters())


def test_no_memory_gives_the_weights_back_and_suggests_a_smaller_batch():
    class Huge(nn.Module):
        "Asks the allocator for more than any machine has, at the sixth batch"

        n = 0

        def forward(self, x):
            if not self.training or len(x) != 8:
                return x  # a look at one or two pictures
            Huge.n += 1
            if Huge.n == 6:
                torch.empty(2**55)
            return x

    plan = Plan((Stage("a", "all", 3, 1e-2),))
    learn = fresh()
    learn.model[2].insert(2, Huge())
    with pytest.raises(OutOfMemory, match="bs=4") as e:
        run_plan(learn, plan, on_progress=QUIET)
    assert e.value.batch_size == 8 and "epoch 2" in str(e.value) and e.value.__cause__ is not None
    assert run_plan(learn, plan, on_progress=QUIET).finished


def test_an_error_leaves_nothing_behind():
    class Broken(Callback):
        order = 5

        def before_batch(self):
            if self.training and self.train_iter == 5:
                raise ValueError("a picture cannot be read")

        def before_fit(self):
            self.old, self.learn.loss_func = self.loss_func, lambda *a: self.old(*a)

        def after_fit(self):
            self.learn.loss_func = self.old

    learn = fresh()
    cb, loss = Broken(), learn.loss_func
    learn.add_cb(cb)
    cbs = list(learn.cbs)
    with pytest.raises(ValueError, match="cannot be read"):
        run_plan(learn, Plan((Stage("a", "all", 3, 1e-2),)), on_progress=QUIET)
    assert learn.loss_func is loss and list(learn.cbs) == cbs and learn.create_mbar is True
    learn.remove_cb(cb)
    learn.fit(1)  # all in order


# ---------------------------------------------------------------- checkpoints


@pytest.mark.medium
def test_a_full_disk_does_not_end_the_training(tmp_path):
    "The limit on the size of a file is the operating system's own refusal, as a full disk is"
    plan = Plan((Stage("a", "all", 3, 1e-2),))
    learn = fresh(ballast=50_000)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)

    def report(done, *a):  # from the second epoch on no file may grow beyond 100 kB
        if done == 7:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, old[1]))

    try:
        with pytest.warns(KitWarning, match="Training goes on, but no checkpoint could be written"):
            history = run_plan(learn, plan, tmp_path, on_progress=report)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert history.finished and any("no checkpoint" in n for n in history.notes) and "no checkpoint" in repr(history)
    whole = fresh(ballast=50_000)
    run_plan(whole, plan, on_progress=QUIET)
    assert moved(tensors(whole.model), learn.model) == []
    assert not list(tmp_path.glob("*.partial"))
    again = fresh(ballast=50_000, seed=4)  # the last good one is whole
    history = run_plan(again, plan, tmp_path, on_progress=QUIET)
    assert moved(tensors(whole.model), again.model) == []
    assert history.sessions[-1]["start"] == [0, 1, 0]


def stopped(folder, at=7, plan=PLAN):
    steer(fresh(), plan, at, "stop", checkpoint=folder, checkpoint_every=1)


@pytest.mark.medium
@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b[:-100],
        lambda b: b[:40],
        lambda b: b"",
        lambda b: b"not this",
        lambda b: b[:-2000] + bytes([b[-2000] ^ 1]) + b[-1999:],
    ],
)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(damage, baseline, tmp_path):
    stopped(tmp_path)
    file = tmp_path / "last.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    learn = fresh(seed=2)
    with pytest.warns(KitWarning, match="the one before it is"):
        history = run_plan(learn, PLAN, tmp_path, on_progress=QUIET)
    assert_as_baseline(learn, history, baseline)
    (tmp_path / "last.safetensors").write_bytes(b"x")
    (tmp_path / "previous.safetensors").write_bytes(b"y")
    with pytest.raises(CheckpointError, match="resume=False"):
        run_plan(learn, PLAN, tmp_path, on_progress=QUIET)


@pytest.mark.medium
def test_another_format_version_is_refused(tmp_path):
    from safetensors import safe_open
    from safetensors.torch import save_file

    stopped(tmp_path)
    for name in ("last", "previous"):
        with safe_open(str(tmp_path / f"{name}.safetensors"), "pt") as f:
            meta, ts = f.metadata(), {k: f.get_tensor(k) for k in f.keys()}
        save_file(ts, tmp_path / f"{name}.safetensors", meta | {"version": "99"})
    with pytest.raises(CheckpointError, match="its format is 99"):
        run_plan(fresh(), PLAN, tmp_path, on_progress=QUIET)


@pytest.mark.medium
@pytest.mark.parametrize(
    "make,plan,says",
    [
        (fresh, Plan((*PLAN.stages[:2], Stage("operate", ("1",), 3, "same"))), "stage 3 'operate': epochs was 1, is 3"),
        (fresh, Plan(PLAN.stages[:2]), "3 stages there, 2 here"),
        (lambda: noisy_learner(n=40), PLAN, "data: training items was 32, is 40"),
        (lambda: noisy_learner(n=32, bs=4), PLAN, "data: batch size was 8, is 4"),
        (lambda: fresh(ballast=10), PLAN, "model: 2.ballast was not there"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_with_the_difference(make, plan, says, tmp_path):
    stopped(tmp_path)
    held = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    learn = make()
    before = everything(learn)
    with pytest.raises(CheckpointMismatch) as e:
        run_plan(learn, plan, tmp_path, on_progress=QUIET)
    assert says in str(e.value) and any(says in d for d in e.value.differences) and "resume=False" in str(e.value)
    after = everything(learn)
    for k in ("tensors", "requires_grad", "cbs", "loss", "dls"):
        same(before[k], after[k], k)
    assert held == {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert run_plan(learn, plan, tmp_path, resume=False, on_progress=QUIET).finished


@pytest.mark.medium
def test_resume_words(tmp_path, baseline, capsys):
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        run_plan(fresh(), PLAN, tmp_path / "new", resume=True, on_progress=QUIET)
    with pytest.raises(InputError, match="resume='yes'"):
        run_plan(fresh(), PLAN, tmp_path, resume="yes")
    with pytest.raises(InputError, match="'5 min'"):
        run_plan(fresh(), PLAN, tmp_path, "often")
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        run_plan(fresh(), PLAN, tmp_path / "file", on_progress=QUIET)
    stopped(tmp_path / "run")
    learn = fresh(seed=5)
    history = run_plan(learn, PLAN, tmp_path / "run")
    assert (
        "Going on at stage 2 of 3 'tune'" in capsys.readouterr().out
        or "Going on" in str(history.sessions)
        or len(history.sessions) == 2
    )
    assert_as_baseline(learn, history, baseline)
    other = fresh(seed=6)
    loaded = run_plan(other, PLAN, tmp_path / "run")  # finished: nothing is left to do
    assert "is finished" in capsys.readouterr().out
    assert_as_baseline(other, loaded, baseline)
    assert FolderStore(tmp_path / "run").load()[1] is not None


@pytest.mark.medium
def test_a_run_in_memory_goes_on_only_if_nothing_changed():
    plan = Plan((Stage("a", "head", 3, 1e-2),))
    learn = fresh()
    steer(learn, plan, 3, "stop")
    with torch.no_grad():
        learn.model[2][3].bias.add_(1.0)  # somebody trained it meanwhile
    assert len(run_plan(learn, plan, on_progress=QUIET).sessions) == 1
    steer(learn, plan, 3, "stop")
    assert len(run_plan(learn, Plan((Stage("a", "head", 2, 1e-2),)), on_progress=QUIET).sessions) == 1
    steer(learn, plan, 3, "stop")
    assert len(run_plan(learn, plan, resume=False, on_progress=QUIET).sessions) == 1


@pytest.mark.medium
def test_files_and_their_number(tmp_path):
    seen = set()
    run_plan(fresh(), PLAN, tmp_path, 2, on_progress=lambda *a: seen.update(p.name for p in tmp_path.iterdir()))
    older = {n for n in seen if n.startswith("best-")}  # best weights that the last or the previous one needs
    assert seen - older == {"last.safetensors", "previous.safetensors", "best.safetensors"}
    best = FolderStore(tmp_path).load("best")
    assert json.dumps(best[1]) and best[1]["monitor"] == "valid_loss"


def test_checkpoints_by_time(tmp_path):
    times = []

    def report(*a):
        times.append((tmp_path / "last.safetensors").stat().st_mtime_ns)
        time.sleep(0.03)

    run_plan(fresh(), Plan((Stage("a", "head", 2, 1e-2),)), tmp_path, "0.05 s", on_progress=report)
    assert len(set(times)) >= 3


def test_frozen_tensors_are_guarded_in_a_run():
    from fastai_tl.freezing.fingerprint import FrozenMoved

    class Meddler(Callback):
        def after_step(self):
            with torch.no_grad():
                self.learn.model[0][0].weight.add_(1)

    learn = fresh(cbs=[Meddler()])
    before = tensors(learn.model)
    with pytest.raises(FrozenMoved, match="0.0.weight"):
        run_plan(learn, Plan((Stage("a", "head", 2, 1e-2),)), on_progress=QUIET)
    assert moved(before, learn.model) == []  # put back


@pytest.mark.medium
def test_pinned_layers_stay_frozen_through_a_plan(tmp_path):
    learn = fresh()
    set_frozen(learn, "0", pin=True)
    before = tensors(learn.model)
    steer(learn, PLAN, 6, "stop", checkpoint=tmp_path)
    run_plan(learn, PLAN, tmp_path, on_progress=QUIET)
    assert {k.split(".")[0] for k in moved(before, learn.model)} == {"1", "2"}


@pytest.mark.medium
def test_the_finder_of_plain_fastai_gives_its_start_as_advice_ours_does_not():
    learn = fresh()
    res = find_lr(learn, num_it=8, on_progress=QUIET)
    assert (
        res.suggested is None
        and res.suggestions == {}
        and "too few batches" in res.reason
        and "not reliable" in res._repr_html_()
    )
    for n in range(2, 30):
        find_lr(learn, num_it=n, on_progress=QUIET)  # never an error


@pytest.mark.medium
def test_progress_counts_all_stages_and_says_how_long():
    calls = []
    run_plan(fresh(), PLAN, on_progress=lambda *a: calls.append(a))
    batches = [c for c in calls if "sweep" not in c[2]]
    assert [c[0] for c in batches] == list(range(1, 4 * 6 + 1)) and {c[1] for c in calls} == {4 * 6}
    assert (
        "stage 3/3 operate, epoch 1/1" in batches[-1][2]
        and ", 0:00 left" in batches[-1][2]
        and any("tune: sweep" in c[2] for c in calls)
    )


def test_resuming_is_exact_on_augmented_pictures(tmp_path):
    """fastai's own random augmentation, of items and of batches, on real pictures, with dropout and batch norm in
    the head
    """
    from fastai.vision.augment import RandomResizedCrop, aug_transforms
    from fastai.vision.data import ImageDataLoaders

    from fastai_tl.datasets.samples import sample_path
    from fastai_tl.models.transfer_learner import transfer_learner

    def make(seed=0):
        set_seed(seed)
        dls = ImageDataLoaders.from_folder(
            sample_path("clipart"),
            valid_pct=0.8,
            seed=1,
            bs=8,
            num_workers=0,
            item_tfms=RandomResizedCrop(48),
            device="cpu",
            batch_tfms=aug_transforms(size=48),
        )
        learn = transfer_learner(dls, "tf_efficientnet_lite0")
        learn.dls.valid.n = 8  # one batch is enough
        set_seed(seed)
        return learn

    plan = Plan((Stage("head", "head", 1, 1e-2), Stage("late", "stage7", 1, 1e-3, hold_stats=True)))
    whole = make()
    history = run_plan(whole, plan, on_progress=QUIET)
    n = len(whole.dls.train)
    for i, at in enumerate([3, n, n + 1, n + 4]):
        folder = tmp_path / str(i)
        assert not steer(make(), plan, at, "stop", checkpoint=folder).finished
        again = make(seed=i + 5)
        resumed = run_plan(again, plan, folder, on_progress=QUIET)
        assert moved(tensors(whole.model), again.model) == [] and [s.values for s in resumed.stages] == [
            s.values for s in history.stages
        ]


# ---------------------------------------------------------------- rates that nobody looked at

CURVE = dict(lrs=np.array([]), losses=np.array([]), sweeps=[], suggestions={})
FLAT = LRFinderResult(
    **CURVE,
    suggested=0.4,
    band=(0.04, 4.0),
    reason="the loss does not fall",
    rule="a tenth of the one at which the loss rises, 4.0e+00",
)


def sweeps_give(monkeypatch, *results):
    "Sweeps end in these, one after the other"
    left = list(results)
    monkeypatch.setattr("fastai_tl.training.lr_finder.find_lr", lambda learn, **kw: left.pop(0))


@pytest.mark.medium
def test_a_rate_that_is_not_reliable_is_at_most_a_tenth_of_the_one_before_and_is_said_at_once(
    monkeypatch, capsys, tmp_path
):
    plan = Plan((Stage("probe", "head", 1, 1e-2), Stage("operate", ("1",), 1)))
    sweeps_give(monkeypatch, FLAT)
    notes = []
    h = run_plan(fresh(), plan, on_progress=lambda done, total, note: notes.append(note))
    rec = h.stages[1]
    assert (
        rec.finder.suggested == 1e-3
        and rec.lrs[1] == 1e-3
        and not rec.finder.reliable
        and rec.finder.band[0] <= 1e-3 <= rec.finder.band[1]
    )
    says = (
        "operate: the sweep is not reliable (the loss does not fall); lr 1.0e-03 is used, a tenth of that of the "
        "stage before, 1.0e-02. Give lr=… in the stage"
    )
    assert says in repr(h) and any(says in n for n in notes)
    assert says not in capsys.readouterr().out  # somebody else shows it
    sweeps_give(monkeypatch, FLAT)
    run_plan(fresh(), plan, tmp_path)
    out = capsys.readouterr().out
    assert any(line.split("\r")[-1].startswith(says) for line in out.split("\n"))  # a line of its own beside the bar
    assert says in repr(run_plan(fresh(), plan, tmp_path, on_progress=QUIET))  # and from the checkpoint


def test_no_rate_at_all_after_a_stage_is_a_tenth_of_that_too(monkeypatch):
    sweeps_give(monkeypatch, LRFinderResult(**CURVE, suggested=None, band=None, reason="the loss rises from the start"))
    h = run_plan(
        fresh(), Plan((Stage("probe", "head", 1, slice(1e-4, 1e-2)), Stage("tune", "all", 1))), on_progress=QUIET
    )
    assert h.stages[1].lrs[-1] == 1e-3


def test_a_first_stage_and_a_curve_that_shows_its_rate_are_believed(monkeypatch):
    good = LRFinderResult(**CURVE, suggested=0.02, band=(0.002, 0.2))
    sweeps_give(monkeypatch, FLAT, good)
    h = run_plan(fresh(), Plan((Stage("probe", "head", 1), Stage("tune", "all", 1))), on_progress=QUIET)
    assert [s.lrs[-1] for s in h.stages] == [0.4, 0.02] and "a tenth of the one at which the loss rises" in repr(h)


@pytest.mark.accuracy
@pytest.mark.parametrize("preset", ["lp_ft", "layer_decay", "surgical", "fine_tune"])
def test_later_stages_do_not_ruin_a_head(preset):
    "Digits, 10 a class: with the rule of before, half a decade below the rise, surgical lost 6 to 12 points"
    from fastai_tl.datasets.samples import sample_dls
    from fastai_tl.models.transfer_learner import transfer_learner

    for seed in range(2):
        set_seed(seed)
        learn = transfer_learner(sample_dls("digits", size=28, n_per_class=10, channels=1), "resnet_mini")
        h = run_plan(learn, getattr(Plan, preset)(*["layer1"] * (preset == "surgical")), on_progress=QUIET)
        head, end = h.stages[0].values[-1][2], learn.validate()[1]
        assert end > head - 0.04, (preset, seed, head, end)


@pytest.mark.medium
def test_presets_train_all_layers_at_a_part_of_the_rate_that_the_head_was_given(monkeypatch):
    good = LRFinderResult(**CURVE, suggested=0.02, band=(0.002, 0.2))
    for preset, by in [(Plan.fine_tune, 2), (partial(Plan.lp_ft, 5), 20)]:
        for lr in ("find", 0.02):
            sweeps_give(monkeypatch, good)  # one sweep only
            h = run_plan(fresh(), preset(epochs=1, lr=lr), on_progress=QUIET)
            assert [s.lrs[-1] for s in h.stages] == [0.02, 0.02 / by]
    with pytest.raises(PlanError, match="this is the first"):
        Plan((Stage("a", lr="same/2"),))
    with pytest.raises(PlanError, match="'same/10'"):
        Stage("a", lr="same/0")


@pytest.mark.medium
def test_the_table_shows_the_rate_that_trained_in_each_epoch_and_what_was_asked_for(tmp_path):
    h = run_plan(
        fresh(), Plan((Stage("probe", "head", 1, 1e-2), Stage("operate", ("1",), 1, {"1": 3e-3}))), on_progress=QUIET
    )
    assert list(h.to_frame().lr) == [1e-2, 3e-3]  # not the head's, which is frozen
    plan = Plan((Stage("a", "head", 3, 1e-2), Stage("b", "all", 1, "same")))
    h = steer(fresh(), plan, 10, "set_lr", 1e-3)  # in the second epoch
    assert list(h.to_frame().lr) == [1e-2, 1e-3, 1e-3, 1e-3] and "a, epoch 2, batch 4: lr to 0.001" in repr(h)
    learn, control, n = fresh(), Control(), []

    def report(*a):
        n.append(1)
        len(n) == 10 and control.set_lr(1e-3)
        len(n) == 15 and control.stop()

    run_plan(learn, plan, tmp_path, control=control, on_progress=report)
    again = run_plan(fresh(seed=3), plan, tmp_path, on_progress=QUIET)
    pd = again.to_frame()
    assert list(pd.lr) == [1e-2, 1e-3, 1e-3, 1e-3] and "lr to 0.001" in repr(again)
    h = steer(fresh(), Plan((Stage("a", "all", 1, slice(1e-4, 1e-2)), Stage("b", "all", 1, "same"))), 2, "set_lr", 1e-3)
    np.testing.assert_allclose(h.stages[1].lrs, [1e-5, 1e-4, 1e-3])
    h = steer(fresh(), Plan((Stage("a", "all", 1, 1e-2), Stage("b", "all", 1, "same/2"))), 2, "set_lr", {"0": 1e-3})
    np.testing.assert_allclose(h.stages[1].lrs, [5e-4, 5e-3, 5e-3])


@pytest.mark.medium
def test_nothing_that_control_was_asked_for_goes_without_a_word(capsys):
    h = steer(fresh(), Plan((Stage("a", "all", 1, 1e-2),)), 2, "unfreeze_next")
    assert "a, epoch 1, batch 2: nothing to free, as no group is frozen" in repr(h)
    h = steer(fresh(), Plan((Stage("a", "head", 1, 1e-2),)), 2, "set_lr", {"0": 1e-3})
    assert "set_lr for 0, which is frozen" in repr(h) and "0 to 0.001" in repr(h)
    h = steer(fresh(), Plan((Stage("a", "head", 1, 1e-2),)), 2, "unfreeze_next")
    assert "1 freed" in repr(h) and "1 freed" in h._repr_html_()


def test_wrong_calls_say_what_to_give():
    learn = fresh()
    assert run_plan(learn, Stage("a", "head", 1, 1e-2), on_progress=QUIET).finished  # one stage alone
    assert Plan(Stage("a")) == Plan((Stage("a"),))
    for plan in ("plan.yaml", [Stage("a")], None):
        with pytest.raises(InputError, match="give a plan"):
            run_plan(learn, plan, on_progress=QUIET)
    with pytest.raises(InputError, match=r"control=Control\(\)"):
        run_plan(learn, PLAN, control=Control, on_progress=QUIET)
    with pytest.raises(PlanError, match="Did you mean 'epochs'") as e:
        Stage("a", epoch=3)
    assert e.value.field == "epoch" and e.value.stage == "a"
    with pytest.raises(PlanError, match="a plan takes stages"):
        Plan("plan.yaml")
    for kw in (dict(seeds=1.5), dict(seeds=0), dict(num_it=10.5), dict(seeds=True)):
        with pytest.raises(InputError, match="whole number"):
            find_lr(learn, on_progress=QUIET, **kw)


@pytest.mark.medium
def test_lines_stand_alone_and_values_print_short(tmp_path, capsys):
    stopped(tmp_path)
    h = run_plan(fresh(), PLAN, tmp_path)
    run_plan(fresh(), PLAN, tmp_path)
    lines = [line.split("\r")[-1] for line in capsys.readouterr().out.split("\n")]
    assert any(line.startswith("Going on at stage 2") for line in lines) and any(
        line.startswith("This run is finished") for line in lines
    )
    assert (
        len(repr(h.stages[0])) < 200
        and "array" not in repr(h.stages)
        and repr(h.stages[0]).startswith("StageRecord('probe': 1 epoch, lr 0.01, train_loss")
    )
    assert repr(Control()) == "Control(ready)"
    for name in dir(Control):
        if not name.startswith("_"):
            assert getattr(Control, name).__doc__, name


@pytest.mark.medium
def test_the_label_of_a_plot_is_inside_the_figure(tmp_path):
    from matplotlib import pyplot as plt

    ax = find_lr(fresh(), num_it=25, on_progress=QUIET).plot()
    ax.figure.savefig(tmp_path / "a.png")
    box = ax.xaxis.label.get_window_extent()
    assert box.y0 >= 0 and ax.yaxis.label.get_window_extent().x0 >= 0
    plt.close(ax.figure)


@pytest.mark.medium
def test_no_gradient_is_looked_at_for_a_checkpoint_that_is_not_written(monkeypatch, baseline):
    "Of the beginning of a validation only counters and random states are kept; a stop in it is as exact as ever"
    from fastai_tl.training import run_checkpoint

    calls = []
    real = run_checkpoint.gradient_tensors
    monkeypatch.setattr(run_checkpoint, "gradient_tensors", lambda *a: calls.append(1) or real(*a))
    learn = fresh()
    run_plan(learn, PLAN, on_progress=QUIET)
    between = len(PLAN.stages) - 1
    assert len(calls) == 1 + 4 + between + 1  # at the start, after each epoch, between stages, at the end
    for at in (5, 6, 23):  # in validations
        learn = fresh()
        assert not steer(learn, PLAN, at, "stop").finished
        assert_as_baseline(learn, run_plan(learn, PLAN, on_progress=QUIET), baseline)


def test_a_first_interrupt_is_noted_and_a_second_one_raises():
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), noted_interrupts() as interrupts:
        assert not interrupts
        signal.raise_signal(signal.SIGINT)
        assert len(interrupts) == 1
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is handler
