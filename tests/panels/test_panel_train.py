"""TrainPanel: a run in a thread that can be watched, steered, stopped and gone on with; the same numbers as
run_plan.
"""

import gc
import time
import weakref

import pytest
import torch
from helpers import QUIET, noisy_learner, wait_until

from fastai_tl.all import *  # noqa: F403 (what `.code` uses)
from fastai_tl.all import Plan, Stage, fingerprint, layer_groups, run_plan
from fastai_tl.core.errors import StateError
from fastai_tl.core.learner_lock import Busy, owner_of
from fastai_tl.panels.jobs import job_of
from fastai_tl.panels.freeze import FreezePanel
from fastai_tl.panels.train import TrainPanel

PLAN = Plan((Stage("probe", "head", 2, 1e-2), Stage("tune", "all", 2, 1e-3, lr_mult=10)))
LONG = Plan((Stage("probe", "head", 200, 1e-2),))


@pytest.fixture
def learn():
    return noisy_learner()


@pytest.fixture
def panel(learn):
    p = TrainPanel(learn, PLAN)
    yield p
    if p.running:
        p.stop()
        p.wait()
    p.close()


@pytest.mark.medium
def test_the_same_numbers_as_run_plan(panel, learn):
    torch.manual_seed(3)
    twin = noisy_learner()
    history = run_plan(twin, PLAN, on_progress=QUIET)
    learn = noisy_learner()  # made last: random states are those the twin began with
    panel = TrainPanel(learn, PLAN)
    panel.start_button.click()
    mine = panel.wait()
    assert mine.finished and fingerprint(learn) == fingerprint(twin)
    assert [s.values for s in mine.stages] == [s.values for s in history.stages]
    epochs = panel.job.log.epochs()
    assert [e for e, _ in epochs] == [1, 2, 3, 4]
    assert [list(v.values()) for _, v in epochs] == [r for s in history.stages for r in s.values]
    assert (
        len(panel.job.log.loss) == 4 * 6 and "Finished" in panel.say_box.value and panel.table.value.count("<tr>") == 5
    )


def test_the_row_of_a_stage_with_one_epoch(learn):
    panel = TrainPanel(learn, Plan((Stage("head", "head", 1, 1e-2), Stage("tune", "all", 2, 1e-3))))
    panel.start()
    mine = panel.wait()
    assert [e for e, _ in panel.job.log.epochs()] == [1, 2, 3]
    assert [list(v.values()) for _, v in panel.job.log.epochs()] == [r for s in mine.stages for r in s.values]
    panel.close()


def test_while_it_trains_nothing_else_may(panel, learn):
    panel.plan = LONG
    panel.start()
    wait_until(lambda: panel.job.log.done > 3)
    with pytest.raises(Busy, match="TrainPanel is using this Learner, probe, epoch"):
        learn.validate()
    with pytest.raises(StateError, match="being run"):
        panel.plan = PLAN
    other = FreezePanel(learn)
    other.presets["All"].click()
    assert "TrainPanel is using" in other.say_box.value and not learn.model[0][0].weight.requires_grad
    panel.stop()
    panel.wait()
    assert owner_of(learn) is None
    learn.validate()
    other.close()


def test_stop_reaches_the_loop_within_one_batch_and_start_goes_on(panel, learn):
    panel.plan = LONG
    panel.start_button.click()
    wait_until(lambda: panel.job.log.done > 5)
    panel.stop_button.click()
    seen = panel.job.log.done
    assert not panel.wait().finished
    assert panel.job.log.done - seen <= 1 and "continues from there" in panel.say_box.value
    assert panel.start_button.description == "Resume" and not panel.start_button.disabled and panel.stop_button.disabled
    first = panel.history.sessions[-1]["batches"]
    panel.start_button.click()
    wait_until(lambda: panel.job.log.done > seen + 5)
    panel.stop_button.click()
    assert panel.wait().sessions[0]["batches"] == first and len(panel.history.sessions) == 2


@pytest.mark.medium
def test_stop_during_a_sweep(panel, learn):
    panel.plan, before = Plan((Stage("a", "head", 2),)), fingerprint(learn)
    panel.start()
    wait_until(lambda: "sweep" in panel.job.note)
    panel.stop_button.click()
    panel.wait()
    assert "Stopped while" in panel.say_box.value and fingerprint(learn) == before and owner_of(learn) is None
    assert panel.start().wait(60) is True and panel.history.finished


def test_pause(panel, learn):
    panel.plan = LONG
    panel.start()
    wait_until(lambda: panel.job.log.done > 3)
    panel.pause_button.click()
    assert panel.pause_button.description == "Continue"
    wait_until(lambda: panel.job.control.state == "paused")
    done = panel.job.log.done
    time.sleep(0.1)
    assert panel.job.log.done == done
    panel.pause_button.click()
    assert panel.pause_button.description == "Pause"
    wait_until(lambda: panel.job.log.done > done)


def test_stop_after_epoch(panel, learn):
    panel.plan = LONG
    panel.start()
    wait_until(lambda: panel.job.log.done > 1)
    panel.last_button.click()
    history = panel.wait()
    assert not history.finished and history.sessions[-1]["batches"] % 6 == 0


@pytest.mark.medium
def test_rate_and_unfreeze_next(panel, learn):
    panel.plan = Plan((Stage("probe", "head", 200, 1e-2, schedule="constant"),))
    freezer = FreezePanel(learn)
    panel.start()
    wait_until(lambda: panel.job.log.done > 1)
    panel.rate.value = 3e-3
    panel.rate_button.click()
    wait_until(lambda: panel.job.log.lr[-1] == 3e-3)
    panel.free_button.click()
    wait_until(lambda: learn.model[1][0].weight.requires_grad)
    wait_until(lambda: not freezer.map.groups[1]["state"] == "frozen")  # the other panel shows it
    panel.rate.value = -1
    panel.rate_button.click()
    assert "above 0" in panel.say_box.value
    panel.stop()
    panel.wait()
    assert "# while it ran, stage 1" in panel.code and "set_lr(0.003)" in panel.code
    freezer.close()


def test_an_error_in_training_is_shown_with_its_cure(panel, learn):
    panel.plan = Plan((Stage("hot", "head", 2, 1e30, schedule="constant"),))
    before = fingerprint(learn)
    panel.start()
    panel.job.wait()
    assert (
        "The loss became" in panel.say_box.value
        and "is too high" in panel.say_box.value
        and 'role="alert"' in panel.say_box.value
    )
    assert fingerprint(learn) == before and owner_of(learn) is None and not panel.start_button.disabled


def test_a_plan_that_does_not_fit(panel):
    panel.plan = Plan((Stage("a", "nowhere", 1, 1e-3),))
    panel.start()
    panel.job.wait()
    assert "nowhere" in panel.say_box.value and "The groups are" in panel.say_box.value


def test_start_twice_and_controls_without_a_run(panel, learn):
    panel.pause_button.click()
    assert "Press Start" in panel.say_box.value
    panel.plan = LONG
    panel.start()
    with pytest.raises(Busy):
        TrainPanel(learn, LONG).start()
    assert job_of(learn) is panel.job


def test_a_second_panel_shows_the_run_under_way_and_a_later_one_the_last(panel, learn):
    panel.plan = LONG
    panel.start()
    wait_until(lambda: panel.job.log.done > 8)
    second = TrainPanel(learn)
    assert (
        second.job is panel.job
        and second.plan == LONG
        and second.start_button.disabled
        and len(second.loss.series[0][0]) > 0
    )
    second.stop_button.click()
    panel.wait()
    assert second.start_button.description == panel.start_button.description == "Resume"
    third = TrainPanel(learn)
    assert third.history is panel.history and len(third.loss.series[0][0]) > 0
    second.close()
    third.close()


@pytest.mark.medium
def test_code_runs(panel, learn):
    panel.start()
    panel.wait()
    fresh = noisy_learner()
    space = {"learn": fresh}
    exec(panel.code, globals(), space)
    assert space["history"].finished and fingerprint(fresh) != fingerprint(noisy_learner())


@pytest.mark.medium
def test_closing_while_it_trains_leaves_the_training_alone(learn):
    p = TrainPanel(learn, LONG)
    job, ref = p.start(), weakref.ref(p)
    wait_until(lambda: job.log.done > 2)
    p.close()
    del p
    gc.collect()
    assert ref() is None
    done = job.log.done
    wait_until(lambda: job.log.done > done + 3)
    job.stop()
    assert job.wait(30) and job.error is None


def test_two_panels_of_one_learner(panel, learn):
    panel.plan = LONG
    other = TrainPanel(learn, LONG)
    panel.start()
    wait_until(lambda: panel.job.log.done > 2)
    assert other.job is panel.job
    with pytest.raises(Busy):
        other.start()
    assert other.job is panel.job and other.running
    panel.close()
    other.refresh()
    other.stop_button.click()
    assert not other.wait().finished
    other.close()


def test_a_panel_can_stop_a_run_whose_own_panel_was_closed(panel, learn):
    other = TrainPanel(learn, LONG)
    job = other.start()
    wait_until(lambda: job.log.done > 2)
    panel.refresh()
    assert panel.running and panel.plan == LONG  # every panel shows the one run
    other.close()
    panel.stop_button.click()
    assert job.wait(60) and not job.result.finished


def test_what_cannot_be_gone_on_with_is_said(panel, learn):
    panel.plan = LONG
    panel.start()
    wait_until(lambda: panel.job.log.done > 10)
    panel.stop_button.click()
    panel.wait()
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 1e-2)
    panel.start_button.click()
    wait_until(lambda: panel.job.log.done > 2)
    panel.stop_button.click()
    assert "begun anew" in panel.wait().summary
    panel.plan = PLAN
    assert panel.start_button.description == "Start"


@pytest.mark.medium
def test_curves_are_drawn_where_the_batches_are(panel, learn):
    panel.start()
    panel.wait()
    assert panel.job.log.at == pytest.approx([(i + 1) / 6 for i in range(24)])


def test_all_panels_share_one_draft(learn):
    from fastai_tl.all import LRFinderPanel, PlanPanel

    freezer, finder = FreezePanel(learn), LRFinderPanel(learn)
    planner, trainer = PlanPanel(learn), TrainPanel(learn)
    groups = list(layer_groups(learn))
    freezer.boundary(groups[1], frozen=False)
    assert [s.train for s in trainer.plan.stages] == [groups[1]] and planner.plan == trainer.plan
    finder.choose(2.1e-3)
    finder.use()
    assert trainer.plan.stages[0].lr == 2.1e-3 and "2.1e-3" in trainer.about.value
    planner.enter("epochs", 1)
    assert trainer.plan.epochs == 1 and planner.plan == trainer.plan
    said = {p.plan_bar.sentence.value for p in (freezer, finder, planner)}
    assert len(said) == 1 and "2.1e-3" in said.pop()
    finder.plan_bar.button.click()  # from anywhere
    assert trainer.wait(60).finished and trainer.history.stages[0].lrs[-1] == 2.1e-3
    assert not learn.model[0][0].weight.requires_grad
    assert "Finished. Accuracy" in trainer.say_box.value
    for p in (freezer, finder, planner, trainer):
        p.close()


def test_fine_tuning_comes_after_the_head(learn):
    panel = TrainPanel(learn, Plan((Stage("head", "head", 1, 1e-2),)))
    assert panel.tune_button.layout.display == "none"
    panel.start()
    panel.wait()
    assert panel.tune_button.layout.display is None
    panel.tune_button.click()
    assert panel.plan.stages[0].train == "all" and panel.plan.stages[0].lr == pytest.approx(5e-4)
    assert panel.plan.stages[0].keep == "best" and panel.plan.stages[0].undo
    panel.close()
