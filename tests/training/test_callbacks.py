"Every callback that fastai ships, with sweeps, evaluation, the stages of a run, resume and the feature cache"

import os
from pathlib import Path

import fastai.callback.all as shipped
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.schedule import SchedCos
from helpers import QUIET, everything, fit, same, still_learner
from torch import nn

from fastai_tl.cache.callback import frozen_cache
from fastai_tl.cache.split_point import NoCache
from fastai_tl.core.callbacks import WATCHERS, is_kind
from fastai_tl.core.errors import StateError
from fastai_tl.evaluation.classification import evaluate
from fastai_tl.freezing.fingerprint import fingerprint
from fastai_tl.training.lr_finder import find_lr
from fastai_tl.training.plan import Plan
from fastai_tl.training.run_control import Control
from fastai_tl.training.run_plan import run_plan
from fastai_tl.training.stage import Stage

PLAN = Plan((Stage("head", epochs=3, lr=1e-2), Stage("all", "all", 2, 1e-3, schedule="constant")))


class Recurrent(nn.Sequential):
    "A network that can be reset, and gives its output with two others, as fastai's language models do"

    def reset(self):
        pass

    def forward(self, x):
        out = super().forward(x)
        return out, out, out


def csv_rows(learn, h):
    assert pd.read_csv("history.csv").epoch.tolist() == [0, 1, 2, 0, 1]


def saved(learn, h):
    assert torch.equal(torch.load("models/model.pth")["2.2.weight"], learn.model[2][2].weight)


def stopped_early(learn, h):
    assert [len(s.values) for s in h.stages] == [2, 2]
    assert [s.ended for s in h.stages] == ["ended after epoch 2 by a callback", ""]


def slower(learn, h):
    assert learn.opt.hypers[-1]["lr"] == pytest.approx(1e-4)
    assert "no effect on lr in stage 'head'" in h.notes[0]


def left_out(learn, h):
    assert h.notes == [
        "ShowGraphCallback is left out, as the run shows a bar of its own; history.plot() draws the losses."
    ]


def collected(learn, h):
    xb, *_ = learn.collect_data.data[0]
    assert len(learn.collect_data.data) == 2 * (3 + 2) and xb[0].shape[1:] == (3, 8, 8)


def short(learn, h):
    assert [len(s.losses) for s in h.stages] == [3, 2]


def hooked(learn, h):
    stats = learn.activation_stats.stats
    assert len(stats) == 6 and all(len(batch) == 7 and None not in batch for batch in stats)


def fetched(learn, h):
    assert len(learn.fetch_preds.preds[0]) == 12


def scheduled(learn, h):
    assert learn.opt.hypers[0]["wd"] == pytest.approx(0.2, abs=1e-2) and not h.notes


def nothing(learn, h):
    assert len(h.to_frame()) == 5


IMAGES, HOOKS = "keeps the images", "looks into frozen layers"
MIXES, HOW = "mixes images", "changes how the frozen layers run"
USED = "rows of features"
# by name: how it is made, what a run with it has to show, and what becomes of the cache
SHIPPED = dict(
    Callback=(shipped.Callback, nothing, USED),
    TrainEvalCallback=(shipped.TrainEvalCallback, nothing, USED),
    FetchPredsCallback=(shipped.FetchPredsCallback, fetched, USED),
    CollectDataCallback=(shipped.CollectDataCallback, collected, IMAGES),
    MixedPrecision=(shipped.MixedPrecision, nothing, USED),
    HookCallback=(lambda: shipped.HookCallback(hook=lambda m, i, o: None), nothing, HOOKS),
    ActivationStats=(shipped.ActivationStats, hooked, HOOKS),
    MixUp=(shipped.MixUp, nothing, MIXES),
    CutMix=(shipped.CutMix, nothing, MIXES),
    ProgressCallback=(shipped.ProgressCallback, nothing, USED),
    ShowGraphCallback=(shipped.ShowGraphCallback, left_out, USED),
    CSVLogger=(shipped.CSVLogger, csv_rows, USED),
    ParamScheduler=(lambda: shipped.ParamScheduler({"wd": SchedCos(0.1, 0.2)}), scheduled, USED),
    TerminateOnNaNCallback=(shipped.TerminateOnNaNCallback, nothing, USED),
    TrackerCallback=(shipped.TrackerCallback, nothing, USED),
    EarlyStoppingCallback=(
        lambda: shipped.EarlyStoppingCallback(min_delta=9, patience=1, reset_on_fit=True),
        stopped_early,
        USED,
    ),
    SaveModelCallback=(shipped.SaveModelCallback, saved, USED),
    ReduceLROnPlateau=(lambda: shipped.ReduceLROnPlateau(min_delta=9, patience=1), slower, USED),
    ModelResetter=(shipped.ModelResetter, nothing, USED),
    RNNCallback=(shipped.RNNCallback, nothing, USED),
    RNNRegularizer=(lambda: shipped.RNNRegularizer(alpha=1, beta=1), nothing, USED),
    ShortEpochCallback=(lambda: shipped.ShortEpochCallback(0.2), short, USED),
    GradientAccumulation=(lambda: shipped.GradientAccumulation(16), nothing, USED),
    GradientClip=(shipped.GradientClip, nothing, USED),
    BnFreeze=(shipped.BnFreeze, nothing, USED),
    MCDropoutCallback=(shipped.MCDropoutCallback, nothing, HOW),
    ChannelsLast=(shipped.ChannelsLast, nothing, HOW),
)
REFUSED = dict(
    GatherPredsCallback=(shipped.GatherPredsCallback, "evaluate(learn)"),
    LRFinder=(shipped.LRFinder, "find_lr(learn)"),
    MixHandler=(shipped.MixHandler, "base of MixUp and CutMix"),
    ModelToHalf=(shipped.ModelToHalf, "needs a GPU"),
    NonNativeMixedPrecision=(shipped.NonNativeMixedPrecision, "needs a GPU"),
)


def learner(name, cbs=(), **kw):
    "A small Learner with callbacks, and what those for recurrent networks cannot do without"
    learn = still_learner(n=24, path=Path("."), **kw)
    if name in ("ModelResetter", "RNNCallback", "RNNRegularizer"):
        learn.model.__class__ = Recurrent
        if name != "RNNCallback":
            learn.add_cb(shipped.RNNCallback())
    learn.add_cbs(cbs)
    return learn


def attributes(cb):
    return {k: v for k, v in vars(cb).items() if k not in ("learn", "run")}


class AskForStop(Callback):
    "Stop in the middle of the second epoch"

    def __init__(self, control):
        self.control = control

    def after_pred(self):
        if self.training and self.train_iter == 4:
            self.control.stop()


def test_every_callback_of_fastai_is_tried():
    here = {n for n, v in vars(shipped).items() if isinstance(v, type) and issubclass(v, Callback)}
    assert here == {*SHIPPED, *REFUSED}


@pytest.mark.medium
@pytest.mark.parametrize("name", SHIPPED)
def test_it_is_there_for_each_training_and_for_no_sweep_or_evaluation(name):
    make, shows, cache = SHIPPED[name]
    cb = make()
    learn = learner(name, cbs=cb)
    learn.create_opt()
    before, state = everything(learn), attributes(cb)
    find_lr(learn, num_it=3, on_progress=QUIET)
    evaluate(learn, on_progress=QUIET)
    same(everything(learn), before)
    if is_kind(cb, *WATCHERS):
        assert attributes(cb) == state
    assert os.listdir() == []
    history = run_plan(learn, PLAN, on_progress=QUIET)
    shows(learn, history)
    assert cache in history.stages[0].cache


# these remember something, draw random numbers, or decide which batches there are
STATEFUL = (
    "CutMix CSVLogger EarlyStoppingCallback SaveModelCallback ReduceLROnPlateau RNNRegularizer ShortEpochCallback "
    "GradientAccumulation"
)


@pytest.mark.medium
@pytest.mark.parametrize("name", STATEFUL.split())
def test_a_run_that_is_stopped_and_goes_on_elsewhere_ends_the_same(name):
    make, shows, _ = SHIPPED[name]
    learn, control = learner(name, cbs=make()), Control()
    run_plan(learn, PLAN, on_progress=QUIET)
    run_plan(learner(name, cbs=[make(), AskForStop(control)]), PLAN, "ckpt", control=control, on_progress=QUIET)
    again = learner(name, seed=1, cbs=make())
    shows(again, run_plan(again, PLAN, "ckpt", resume=True, on_progress=QUIET))
    assert fingerprint(again) == fingerprint(learn)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_train_is_refused_with_the_cure(name):
    make, cure = REFUSED[name]
    learn = learner(name, cbs=make())
    for call in (lambda: run_plan(learn, PLAN, on_progress=QUIET), lambda: find_lr(learn, on_progress=QUIET)):
        with pytest.raises(StateError, match=f"{name} cannot be a callback of a Learner that trains: .*") as e:
            call()
        assert cure in str(e.value) and f"learn.remove_cb({name})" in str(e.value)


def test_a_run_takes_callbacks_of_its_own():
    learn = learner("CSVLogger")
    run_plan(learn, PLAN, cbs=shipped.CSVLogger(), on_progress=QUIET)
    csv_rows(learn, None)
    assert not hasattr(learn, "csv_logger")


def test_rows_that_a_killed_process_wrote_after_its_checkpoint_are_not_kept():
    control = Control()
    run_plan(
        learner("CSVLogger", cbs=[shipped.CSVLogger(), AskForStop(control)]),
        PLAN,
        "ckpt",
        control=control,
        on_progress=QUIET,
    )
    with open("history.csv", "a") as f:
        f.write("1,9,9,9,00:00\n")
    again = learner("CSVLogger", cbs=shipped.CSVLogger())
    history = run_plan(again, PLAN, "ckpt", on_progress=QUIET)
    csv_rows(again, history)
    assert again.csv_logger.read_log().train_loss.max() < 9
    run_plan(again, PLAN, on_progress=QUIET)  # another run: another file, as fastai has it
    csv_rows(again, None)
    again.csv_logger.append = True
    run_plan(again, Plan.head_only(1, lr=1e-3), on_progress=QUIET)  # appended as fastai does it, with a header
    assert len(Path("history.csv").read_text().splitlines()) == 6 + 2


def test_weights_of_another_run_are_not_loaded_into_one_that_is_stopped():
    learn = learner("SaveModelCallback")
    learn.save("model")
    control = Control()
    learn.add_cbs([shipped.SaveModelCallback(), AskForStop(control)])
    plan = Plan.head_only(3, lr=1e-2)
    with_stop = run_plan(learn, plan, control=control, on_progress=QUIET)
    learn.remove_cb(AskForStop)
    before = fingerprint(learn)
    assert not with_stop.finished and before != fingerprint(learner("SaveModelCallback"))
    history = run_plan(learn, plan, on_progress=QUIET)
    assert history.finished and len(history.sessions) == 2


class Fails(Callback):
    def before_fit(self):
        raise ValueError("on purpose")


def test_an_evaluation_in_which_a_callback_fails_leaves_the_learner_usable():
    learn = learner("Callback")
    before = everything(learn)
    with learn.added_cbs(Fails()):
        for _ in range(2):  # fastai's lock is free again
            with pytest.raises(ValueError, match="on purpose"):
                evaluate(learn, on_progress=QUIET)
    same(everything(learn), before)
    assert len(evaluate(learn, on_progress=QUIET).targets) == 12


class LooksAtImages(Callback):
    def after_pred(self):
        self.shape = self.xb[0].shape


def test_a_callback_of_ones_own_that_reads_images_gets_images():
    learn = learner("Callback", cbs=LooksAtImages())
    history = run_plan(learn, Plan.head_only(2, lr=1e-2), on_progress=QUIET)
    assert "LooksAtImages.after_pred reads the images" in history.stages[0].cache
    assert learn.looks_at_images.shape[1:] == (3, 8, 8)


def test_a_fit_inside_frozen_cache_names_the_callback_that_forbids_it():
    learn = learner("Callback")
    with frozen_cache(learn, on_progress=QUIET):
        fit(learn, 1)
        for cb, why in [(shipped.CollectDataCallback(), IMAGES), (shipped.ActivationStats(), HOOKS)]:
            with pytest.raises(NoCache, match=why):
                fit(learn, 1, cbs=cb)
        cb._remove()  # fastai leaves its hooks behind
        fit(learn, 1, cbs=shipped.SaveModelCallback())


def test_tensorboard_logs_each_training_and_no_sweep():
    pytest.importorskip("tensorboard")
    from fastai.callback.tensorboard import TensorBoardCallback, TensorBoardProjectorCallback
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    cbs = [TensorBoardCallback("log", trace_model=False, log_preds=False), TensorBoardProjectorCallback("projector")]
    learn = learner("Callback", cbs=cbs)
    find_lr(learn, num_it=3, on_progress=QUIET)
    evaluate(learn, on_progress=QUIET)
    assert os.listdir() == []
    history = run_plan(learn, PLAN, on_progress=QUIET)
    assert USED in history.stages[0].cache
    assert os.listdir() == ["log"]
    log = EventAccumulator("log").Reload()
    assert len(log.Scalars("valid_loss")) == 5


def test_wandb_has_nothing_to_do_in_a_sweep():
    pytest.importorskip("wandb")
    from fastai.callback.wandb import WandbCallback

    learn = learner("Callback", cbs=WandbCallback(log_preds=False))
    find_lr(learn, num_it=3, on_progress=QUIET)  # needs no wandb.init()
    evaluate(learn, on_progress=QUIET)
    assert os.listdir() == []
