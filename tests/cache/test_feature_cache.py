"""Features of frozen layers: training on them is training on the pictures, whatever happens meanwhile."""

import copy
import random
import signal
from contextlib import nullcontext, suppress

import numpy as np
import pytest
import torch
from helpers import QUIET, Passes, everything, fit, moved, noisy_learner, same, still_learner, tensors
from fastai.callback.core import Callback
from fastai.callback.mixup import CutMix, MixUp
from fastai.callback.tracker import SaveModelCallback
from fastai.interpret import ClassificationInterpretation
from fastai.learner import Learner, load_learner
from fastai.metrics import accuracy
from fastai.vision.augment import aug_transforms
from fasttransform import Transform
from torch import nn

from fastai_tl.training.run_control import Control
from fastai_tl.deploy.export import export
from fastai_tl.deploy.torch_predictor import load_predictor
from fastai_tl.core.errors import InputError, StateError
from fastai_tl.cache.callback import FeatureLoader, cache_of, frozen_cache
from fastai_tl.training.lr_finder import find_lr
from fastai_tl.freezing.fingerprint import FrozenMoved
from fastai_tl.freezing.freeze import freeze_to, unfreeze
from fastai_tl.acceleration.fused_adam import FusedStep
from fastai_tl.core.learner_lock import Busy
from fastai_tl.training.plan import Plan
from fastai_tl.cache.split_point import NoCache
from fastai_tl.core.progress import quiet
from fastai_tl.datasets.picture_folder import ClassOf, picture_dls
from fastai_tl.datasets.samples import sample_path, split_sample
from fastai_tl.core.random_state import reseed
from fastai_tl.training.stage import Stage
from fastai_tl.training.run_plan import run_plan
from fastai_tl.models.transfer_learner import transfer_learner


# ---------------------------------------------------------------- the same numbers


@pytest.mark.medium
@pytest.mark.parametrize("where", ["head", 1, 2])
@pytest.mark.parametrize("n", [50, 48, 5])
def test_training_on_features_is_training_on_pictures(where, n):
    plain, ours = still_learner(n, bs=4), still_learner(n, bs=4)
    for learn in (plain, ours):
        freeze_to(learn, where)
        reseed(learn, 3)
    fit(plain, 3)
    reseed(ours, 3)
    with frozen_cache(ours, on_progress=QUIET):
        p = Passes(ours)
        fit(ours, 3)
    if where != 1:
        assert p.n == n + n // 2  # each picture once
    for a, b in zip(plain.model.state_dict().values(), ours.model.state_dict().values()):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(plain.recorder.values, ours.recorder.values, rtol=1e-4)
    np.testing.assert_allclose(np.array(plain.recorder.losses), np.array(ours.recorder.losses), rtol=1e-4)
    assert plain.dls.train.rng.getstate() == ours.dls.train.rng.getstate()


def test_random_states_are_those_of_the_uncached_fit():
    states = []
    for cached in (False, True):
        learn = still_learner()
        if cached:
            with frozen_cache(learn, on_progress=QUIET):
                fit(learn)
        else:
            fit(learn)
        states.append(
            (
                random.getstate(),
                np.random.get_state()[1].tolist(),
                torch.random.get_rng_state(),
                learn.dls.train.rng.getstate(),
            )
        )
    same(*[dict(enumerate(s)) for s in states])


def test_the_learner_is_as_it_was_but_trained():
    learn = still_learner()
    learn.create_opt()
    before = everything(learn)
    forwards = [m.__dict__.get("forward") for m in learn.model.modules()]
    with frozen_cache(learn, on_progress=QUIET) as c:
        same(before, everything(learn) | dict(cbs=before["cbs"], attrs=before["attrs"]))
        fit(learn)
        assert "rows of 8" in repr(c)
    after = everything(learn)
    assert after["cbs"] == before["cbs"] and not [a for a in after["attrs"] if "cache" in a or "fused" in a]
    assert [m.__dict__.get("forward") for m in learn.model.modules()] == forwards
    assert all(not m._forward_hooks for m in learn.model.modules())
    assert not any(isinstance(dl, FeatureLoader) for dl in learn.dls.loaders)
    assert (
        [k for k in moved(before["tensors"], learn.model) if not k.startswith("2.")]
        == []
        != moved(before["tensors"], learn.model)
    )


# ---------------------------------------------------------------- what the user may do inside


@pytest.mark.medium
def test_unfreezing_inside_is_noticed():
    plain, ours = still_learner(), still_learner()
    for learn, ctx in ((plain, None), (ours, frozen_cache(ours, on_progress=QUIET))):
        reseed(learn, 7)
        c = ctx.__enter__() if ctx else None
        fit(learn)
        freeze_to(learn, 1)
        fit(learn)
        if c:
            assert c.split.path.startswith("0")
        unfreeze(learn)
        fit(learn)
        if c:
            assert c.split is None and "train" in c.why and "not cached" in c.notes
        freeze_to(learn, "head")
        fit(learn)
        if c:
            assert c.split.path == "2.1"
            ctx.__exit__(None, None, None)
    for a, b in zip(plain.model.state_dict().values(), ours.model.state_dict().values()):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.medium
def test_unfreezing_everything_within_an_epoch_goes_on_with_images():
    class Release(Callback):
        def after_batch(self):
            if self.training and self.iter == 1:
                unfreeze(self.learn)

    plain, ours = still_learner(cbs=Release()), still_learner(cbs=Release())
    for learn, ctx in ((plain, nullcontext()), (ours, frozen_cache(ours, on_progress=QUIET))):
        reseed(learn, 7)
        with ctx as c:
            fit(learn)
    assert c.split is None and "no longer cached" in c.notes
    for a, b in zip(plain.model.state_dict().values(), ours.model.state_dict().values()):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.medium
@pytest.mark.parametrize("how", ["load", "data", "swap", "transform"])
def test_features_are_never_stale(how, tmp_path):
    plain, ours = still_learner(path=tmp_path), still_learner(path=tmp_path)
    for learn in (plain, ours):
        other = still_learner(seed=5, path=tmp_path)
        other.save("other", with_opt=False)

        def change(learn=learn, other=other):
            if how == "load":
                learn.load("other", with_opt=False)
            if how == "data":
                learn.model[0][0].weight.data.mul_(1.5)  # torch's counters do not see it
            if how == "swap":
                learn.model = other.model
            if how == "transform":
                learn.dls.loaders[0].after_batch.add(Brighter())
            if how == "swap":
                learn.create_opt()

        reseed(learn, 7)
        if learn is plain:
            fit(learn)
            change()
            fit(learn)
        else:
            with frozen_cache(learn, on_progress=QUIET):
                fit(learn)
                change()
                fit(learn)
    assert all(
        torch.allclose(a, b, rtol=1e-3, atol=1e-4)
        for a, b in zip(plain.model.state_dict().values(), ours.model.state_dict().values())
    )


class Brighter(Transform):
    def encodes(self, x: torch.Tensor):
        return x + 1 if x.is_floating_point() else x


@pytest.mark.medium
def test_pictures_are_never_answered_from_training_features(small_dls, tmp_path):
    learn = transfer_learner(small_dls, "resnet_mini", path=tmp_path)
    with frozen_cache(learn, on_progress=QUIET):
        fit(learn, 1)
        trained = copy.deepcopy(learn.model)
        ref = Learner(small_dls, trained, learn.loss_func, metrics=accuracy)
        ref.dls = learn.dls
        with quiet(learn), quiet(ref):
            item = learn.dls.valid_ds.items[3]
            torch.testing.assert_close(learn.predict(item)[2], ref.predict(item)[2])
            for kw in (
                dict(),
                dict(ds_idx=0),
                dict(dl=learn.dls.valid),
                dict(dl=learn.dls.valid, reorder=False, with_input=True),
                dict(dl=learn.dls.test_dl(learn.dls.valid_ds.items[:3])),
            ):
                a, b = learn.get_preds(**kw), ref.get_preds(**kw)
                for x, y in zip(a, b):
                    if x is not None:
                        torch.testing.assert_close(x, y)
            torch.testing.assert_close(learn.tta(n=1)[0], ref.tta(n=1)[0])
            interp = ClassificationInterpretation.from_learner(learn)
            assert interp.confusion_matrix().sum() == len(learn.dls.valid_ds)
            np.testing.assert_allclose(learn.validate(), ref.validate(), rtol=1e-5)
        x = learn.dls.valid.one_batch()[0]
        learn.model.eval()
        torch.testing.assert_close(learn.model(x), trained.eval()(x))


@pytest.mark.medium
def test_checkpoints_and_exports_inside_hold_the_whole_model(small_dls, tmp_path):
    learn = transfer_learner(small_dls, "resnet_mini", path=tmp_path)
    seen = []

    class During(Callback):
        order = 60

        def after_pred(self):
            if self.training and self.epoch == 0 and self.iter == 1:
                copied = copy.deepcopy(self.learn.model)
                seen.append([k for m in copied.modules() for k in vars(m) if k == "forward"])

    with frozen_cache(learn, on_progress=QUIET):
        fit(learn, 2, cbs=[SaveModelCallback(monitor="valid_loss", fname="best"), During()])
        learn.save("whole")
        learn.export("whole.pkl")
        export(learn, tmp_path / "deployed")
        with quiet(learn):
            want = learn.get_preds()[0]
    assert seen == [[]]
    for f in ("best", "whole"):
        state = torch.load(tmp_path / "models" / f"{f}.pth", weights_only=False)
        assert set(state.get("model", state)) == set(learn.model.state_dict())
    with pytest.warns(UserWarning):
        again = load_learner(tmp_path / "whole.pkl")
    assert not [cb for cb in again.cbs if type(cb).__module__ == "fastai_tl.cache.callback"]
    again.dls = learn.dls
    with quiet(again):
        torch.testing.assert_close(again.get_preds()[0], want)
    assert load_predictor(tmp_path / "deployed").predict(learn.dls.valid_ds.items[0]) is not None


@pytest.mark.parametrize("mix", [MixUp, CutMix])
def test_mixing_is_refused(mix):
    learn = still_learner()
    with frozen_cache(learn, on_progress=QUIET):
        fit(learn, 1)
        loss = learn.loss_func
        with pytest.raises(NoCache, match=f"{mix.__name__} mixes"):
            fit(learn, 1, cbs=mix())
        learn.loss_func = loss
    learn = still_learner(cbs=mix())
    with pytest.raises(NoCache, match="mixes"), frozen_cache(learn):
        pass


@pytest.mark.medium
def test_a_callback_that_changes_the_inputs_is_found():
    class Scale(Callback):
        def before_batch(self):
            self.learn.xb = (self.xb[0] * 2,)

    class InPlace(Callback):
        def before_batch(self):
            self.xb[0].mul_(2)

    for cb in (Scale, InPlace):
        learn = still_learner()
        with frozen_cache(learn, on_progress=QUIET), pytest.raises(StateError, match="changed the inputs"):
            fit(learn, 1, cbs=cb())
        assert not [m for m in learn.model.modules() if "forward" in vars(m)]
        plain, ours = still_learner(cbs=cb()), still_learner(cbs=cb())
        for learn, cache in ((plain, False), (ours, "auto")):
            reseed(learn, 7)
            h = run_plan(learn, Stage("a", "head", 2, 1e-2), cache=cache, on_progress=QUIET)
        assert f"{cb.__name__}.before_batch" in h.stages[0].cache
        for k, t in tensors(plain.model).items():
            torch.testing.assert_close(t, tensors(ours.model)[k], rtol=1e-3, atol=1e-5)


def test_a_hook_that_would_see_nothing_is_refused():
    learn = still_learner()
    h = learn.model[0].register_forward_hook(lambda *a: None)
    with pytest.raises(NoCache, match="has a hook"), frozen_cache(learn):
        pass
    h.remove()
    with frozen_cache(learn, on_progress=QUIET):
        fit(learn, 1)
        h = learn.model[0].register_forward_hook(lambda *a: None)
        with pytest.raises(NoCache, match="has a hook"):
            fit(learn, 1)
        h.remove()
        fit(learn, 1)


# ---------------------------------------------------------------- refusals


@pytest.mark.medium
def test_what_is_random_is_refused(small_dls):
    train, valid = split_sample(sample_path("clipart"), 4)
    dls = picture_dls(
        train, valid[::8], ClassOf(sample_path("clipart")), size=48, bs=8, path=".", batch_tfms=aug_transforms()
    )
    learn = transfer_learner(dls, "resnet_mini")
    state = everything(learn)
    with pytest.raises(NoCache, match="views=4"), frozen_cache(learn):
        pass
    same(state, everything(learn))
    learn = still_learner()
    learn.model[0].append(nn.Dropout(0.1))
    with frozen_cache(learn) as c:
        assert c.split.path == "0.2" and c.split.shape == (6, 6, 6)  # up to the dropout
    with frozen_cache(learn, hold_random=True) as c:
        assert c.split.path == "2.1"
    learn = still_learner()
    unfreeze(learn)
    with pytest.raises(NoCache, match="first layers train"), frozen_cache(learn):
        pass
    for kw in (dict(views=0), dict(views=1.5), dict(memory_limit=0), dict(dtype=torch.int8)):
        with pytest.raises(InputError), frozen_cache(still_learner(), **kw):
            pass
    with frozen_cache(still_learner()) as c, pytest.raises(StateError, match="already"), frozen_cache(c.learn):
        pass


def test_batch_norm_that_follows_the_batches_is_refused():
    learn = still_learner()
    freeze_to(learn, "head", bn="train")
    with frozen_cache(learn) as c:
        assert c.split.path == "0.0"  # only the convolution before it
    learn = still_learner()
    freeze_to(learn, "head", bn="affine")
    with frozen_cache(learn) as c:
        assert c.split.path == "0.0"  # its weights train


def test_items_of_random_content_are_refused():
    learn = noisy_learner()
    freeze_to(learn, "head")
    with pytest.raises(NoCache, match="random"), frozen_cache(learn):
        pass
    with pytest.raises(NoCache, match="random"):
        run_plan(learn, Stage("a", "head", 2, 1e-2), cache=True, on_progress=QUIET)
    h = run_plan(learn, Stage("a", "head", 2, 1e-2), on_progress=QUIET)
    assert "random" in h.stages[0].cache
    with pytest.raises(InputError, match="cache='yes'"):
        run_plan(learn, Stage("a", "head", 2, 1e-2), cache="yes", on_progress=QUIET)


# ---------------------------------------------------------------- run_plan and find_lr

PLAN = Plan((Stage("probe", "head", 3, "find"), Stage("tune", 1, 2, "same/10"), Stage("all", "all", 1, 1e-3)))


@pytest.mark.medium
def test_a_plan_gives_the_same_with_and_without():
    plain, ours = still_learner(), still_learner()
    reseed(plain, 7)
    a = run_plan(plain, PLAN, cache=False, on_progress=QUIET)
    p = Passes(ours)
    reseed(ours, 7)
    b = run_plan(ours, PLAN, on_progress=QUIET)
    for x, y in zip(a.stages, b.stages):
        np.testing.assert_allclose(x.values, y.values, rtol=1e-3)
    for x, y in zip(plain.model.state_dict().values(), ours.model.state_dict().values()):
        torch.testing.assert_close(x, y, rtol=1e-3, atol=1e-4)
    assert (
        "after 2.1" in b.stages[0].cache
        and "after 0" in b.stages[1].cache
        and "nothing is frozen" in b.stages[2].cache
        and a.stages[0].cache == ""
    )
    assert p.n < 2 * (75 + 48 + 4) * 8 / 3
    assert cache_of(ours) is None


@pytest.mark.medium
@pytest.mark.parametrize("at", [5, 8, 11, 16, 20, 26, 30])
def test_resuming_with_the_cache_is_exact(at, tmp_path):
    plan = Plan((Stage("probe", "head", 2, 1e-2), Stage("tune", 1, 2, 1e-3), Stage("all", "all", 1, 1e-3)))
    whole = still_learner()
    a = run_plan(whole, plan, on_progress=QUIET)
    learn, control, n = still_learner(), Control(), []
    run_plan(
        learn,
        plan,
        tmp_path,
        control=control,
        on_progress=lambda d, t, note: (("left" in note and n.append(1)), len(n) == at and control.stop()),
    )
    again = still_learner(seed=4)
    b = run_plan(again, plan, tmp_path, on_progress=QUIET)
    assert b.finished and len(b.sessions) == 2 and moved(tensors(whole.model), again.model) == []
    assert [s.values for s in a.stages] == [s.values for s in b.stages] and "after 2.1" in b.stages[0].cache


# a word before the first, then 7 batches of training data; the same for 4 of validation data
@pytest.mark.medium
@pytest.mark.parametrize("at", [1, 8, 9, 13])
@pytest.mark.parametrize("how", ["stop", "interrupt"])
def test_a_stop_does_not_wait_for_the_features(at, how, tmp_path):
    plan = Plan((Stage("probe", "head", 3, 1e-2),))
    whole = still_learner()
    made = []
    a = run_plan(whole, plan, on_progress=lambda d, t, note: made.append(note) if note.startswith("caching") else None)
    learn, control, seen = still_learner(), Control(), []
    ask = control.stop if how == "stop" else lambda: signal.raise_signal(signal.SIGINT)

    def report(d, t, note):
        seen.append(note)
        if note.startswith("caching") and sum(o.startswith("caching") for o in seen) == at:
            ask()

    assert len(made) == 13
    with suppress(KeyboardInterrupt):
        assert not run_plan(learn, plan, tmp_path, control=control, on_progress=report).finished
    assert seen[-1].startswith("caching") and cache_of(learn) is None
    again = still_learner(seed=4)
    b = run_plan(again, plan, tmp_path, on_progress=QUIET)
    assert (
        b.finished
        and moved(tensors(whole.model), again.model) == []
        and [s.values for s in a.stages] == [s.values for s in b.stages]
    )


def test_a_stop_while_features_of_a_released_group_are_made():
    plan, control, seen = Plan((Stage("probe", "head", 4, 1e-2),)), Control(), []

    def report(d, t, note):
        seen.append(note)
        trained = sum("left" in o for o in seen)
        if trained == 9 and "left" in note:
            control.unfreeze_next()
        if trained == 9 and note.startswith("caching") and not control.pending:
            control.stop()

    h = run_plan(still_learner(), plan, control=control, on_progress=report)
    assert not h.finished and [a["action"] for a in h.actions] == ["unfreeze_next", "stop"]
    i = max(i for i, o in enumerate(seen) if o.startswith("caching"))
    assert len(seen) - i <= 2  # the batch that was asked for, of pictures


@pytest.mark.medium
@pytest.mark.parametrize("stop", [None, 13, 19])
def test_unfreezing_in_the_midst_of_a_cached_stage(stop, tmp_path):
    plan = Plan((Stage("probe", "head", 4, 1e-2),))

    def run(learn, cache, stop=None, folder=None):
        control, n = Control(), []
        reseed(learn, 7)

        def report(d, t, note):
            if d in n:
                return
            n.append(d)
            if d == 9:
                control.unfreeze_next()
            if d == stop:
                control.stop()

        return run_plan(learn, plan, folder, control=control, cache=cache, on_progress=report)

    plain, ours = still_learner(), still_learner()
    a, b = run(plain, False), run(ours, "auto")
    assert a.actions == b.actions and b.actions[0]["value"] == "1"
    for x, y in zip(plain.model.state_dict().values(), ours.model.state_dict().values()):
        torch.testing.assert_close(x, y, rtol=1e-3, atol=1e-4)
    assert "after 2.1" in b.stages[0].cache and "after 0" in b.stages[0].cache
    assert not torch.equal(ours.model[1][0].weight, still_learner().model[1][0].weight)
    if stop:
        run(still_learner(), "auto", stop, tmp_path)
        again = still_learner(seed=2)
        assert run_plan(again, plan, tmp_path, on_progress=QUIET).finished
        assert moved(tensors(ours.model), again.model) == []


@pytest.mark.medium
def test_find_lr_is_the_same_and_leaves_nothing():
    learn = still_learner()
    learn.create_opt()
    before = everything(learn)
    a = find_lr(learn, num_it=60, cache=False, on_progress=QUIET)
    p = Passes(learn)
    b = find_lr(learn, num_it=60, cache=True, on_progress=QUIET)
    assert p.n < 50 + 50
    del learn.model[0][0].__dict__["forward"]
    same(before, everything(learn))
    np.testing.assert_allclose(a.losses, b.losses, rtol=1e-4)
    with frozen_cache(learn, on_progress=QUIET):
        c = find_lr(learn, num_it=60, on_progress=QUIET)
        d = find_lr(learn, num_it=60, cache=False, on_progress=QUIET)
    np.testing.assert_allclose(a.losses, c.losses, rtol=1e-4)
    np.testing.assert_array_equal(a.losses, d.losses)
    assert find_lr(learn, num_it=8, on_progress=QUIET).losses is not None  # not worth it


@pytest.mark.parametrize(
    "event",
    [
        "before_batch",
        "after_pred",
        "after_loss",
        "after_backward",
        "before_step",
        "after_step",
        "after_batch",
        "before_validate",
        "after_epoch",
        "before_train",
        "after_fit",
    ],
)
@pytest.mark.parametrize("exc", [KeyboardInterrupt, RuntimeError])
def test_an_error_anywhere_leaves_a_whole_learner(event, exc):
    class Strike(Callback):
        def __init__(self, order):
            self.order = order

    for order in (-50, 50):
        learn = still_learner()
        learn.create_opt()
        before = everything(learn)

        def strike():
            raise exc("stop")

        cb = Strike(order)
        setattr(cb, event, strike)
        with pytest.raises(exc), frozen_cache(learn, on_progress=QUIET):
            fit(learn, 1, cbs=cb)
        after = everything(learn)
        assert [i for i in before["cbs"] if i not in after["cbs"]] == [] and not [
            k for k in vars(learn) if "cache" in k
        ]
        assert not [m for m in learn.model.modules() if "forward" in vars(m) or m._forward_hooks]
        x = learn.dls.valid.one_batch()[0]
        assert learn.model.eval()(x).shape == (8, 3)


def test_interrupted_while_features_are_made():
    learn = still_learner()
    before = everything(learn)
    n = []

    def report(*a):
        n.append(1)
        if len(n) == 3:
            raise KeyboardInterrupt("stop")

    with pytest.raises(KeyboardInterrupt), frozen_cache(learn, on_progress=report):
        fit(learn)
    after = everything(learn)
    same(before["tensors"], after["tensors"])
    assert not [m for m in learn.model.modules() if "forward" in vars(m) or m._forward_hooks]
    a, b = fit(still_learner()), still_learner()
    with frozen_cache(b, on_progress=QUIET):
        fit(b)
    assert not [
        k
        for k in moved(tensors(a.model), b.model)
        if not torch.allclose(a.model.state_dict()[k], b.model.state_dict()[k], atol=1e-4)
    ]


@pytest.mark.medium
def test_the_guard_still_guards():
    class Meddler(Callback):
        def after_batch(self):
            self.model[0][1].running_mean.add_(0.01)

    class Sly(Callback):
        def after_batch(self):
            self.model[0][0].weight.data.add_(0.01)

    for cb, epochs in ((Meddler, 1), (Sly, 2)):
        learn, n = still_learner(), []
        with frozen_cache(learn, on_progress=QUIET), pytest.raises(FrozenMoved, match="0.[01]"):
            fit(learn, 2, cbs=[cb(), Callback(after_epoch=lambda self, n=n: n.append(1))])
        # at the end of the first, where torch has counted the writes; else at the end of the fit
        assert len(n) == epochs
    learn = still_learner()
    with frozen_cache(learn, on_progress=QUIET):
        fit(learn, 2)
    assert learn.freeze_guard.checked == len(list(learn.model[:2].state_dict()))


def test_owned_learners_are_refused():
    learn = still_learner()

    class Other(Callback):
        def after_batch(self):
            import threading

            def f():
                try:
                    with frozen_cache(self.learn):
                        pass
                except Busy as e:
                    self.found = e

            t = threading.Thread(target=f)
            t.start()
            t.join()

    cb = Other()
    learn.add_cb(cb)
    run_plan(learn, Stage("a", "head", 1, 1e-2), on_progress=QUIET)
    assert isinstance(cb.found, Busy)


class Watch(Callback):
    "Writes down every event that it has a method for, and adds a second watcher in the second epoch"

    def __init__(self, log, name, order, more=False):
        self.log = log
        self.name_ = name
        self.order = order
        self.more = more

    def before_epoch(self):
        if self.more and self.epoch == 1:
            self.learn.add_cb(Watch(self.log, "late", 3))

    def before_batch(self):
        self.log.append((self.name_, "before_batch", self.training))

    def after_pred(self):
        self.log.append((self.name_, "after_pred", tuple(self.learn.pred.shape)))

    def after_step(self):
        self.log.append((self.name_, "after_step"))

    def after_batch(self):
        self.log.append((self.name_, "after_batch", self.iter))


class CallsItself(Callback):
    def __init__(self, log):
        self.log = log

    def __call__(self, name):
        self.log.append(("own", name))


def test_callbacks_are_asked_at_the_same_events_in_the_same_order():
    logs = []
    for cached in (False, True):
        learn, log = still_learner(), []
        cbs = [
            Watch(log, "b", 20, more=True),
            Watch(log, "a", -20),
            CallsItself(log),
            Callback(after_loss=lambda self, log=log: log.append("function")),
        ]
        with frozen_cache(learn, on_progress=QUIET) if cached else nullcontext(), learn.no_bar(), learn.no_logging():
            learn.fit(3, cbs=cbs)
        logs.append(log)
    assert logs[0] == logs[1] and {"late", "function", "own"} <= {o if isinstance(o, str) else o[0] for o in logs[0]}


class SaveAtOnce(Callback):
    order = 70

    def after_batch(self):
        learn = self.learn
        if self.iter == 1 and self.training and learn.remove_cb(self):
            learn.export(self.file)


@pytest.mark.medium
def test_a_learner_exported_within_a_batch_of_features_holds_nothing_of_the_cache(small_dls, tmp_path):
    learn, cb = transfer_learner(small_dls, "resnet_mini"), SaveAtOnce()
    cb.file = tmp_path / "learner.pkl"
    with frozen_cache(learn, on_progress=QUIET), learn.no_bar(), learn.no_logging():
        learn.fit(1, cbs=cb)
    again = load_learner(cb.file)
    assert again.predict(learn.dls.valid_ds.items[0])[2].shape == (learn.dls.c,)


@pytest.mark.medium
@pytest.mark.parametrize("built", [False, True])
def test_a_sweep_on_features_finds_what_one_on_pictures_finds(built):
    want = find_lr(still_learner(), num_it=60, cache=False, on_progress=QUIET)
    learn = still_learner()
    with frozen_cache(learn, on_progress=QUIET) if built else nullcontext():
        before = everything(learn)
        got = find_lr(learn, num_it=60, on_progress=QUIET)
        same(before, everything(learn))
    n = min(len(want.losses), len(got.losses), 40)
    np.testing.assert_allclose(got.losses[:n], want.losses[:n], rtol=1e-3)
    assert got.suggested == pytest.approx(want.suggested, rel=0.05) and not learn._grab_cbs(FusedStep)
