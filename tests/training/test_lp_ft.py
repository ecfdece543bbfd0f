"""Fine-tuning from a solved head: what is kept, what varies, what resumes, and the code that does the same."""

import pytest
import torch
from fastai.torch_core import set_seed
from fastai.vision.augment import aug_transforms
from helpers import QUIET, tensors


from fastai_tl.datasets.samples import sample_dls
from fastai_tl.models.transfer_learner import transfer_learner
from fastai_tl.training.plan import Plan
from fastai_tl.training.run_control import Control
from fastai_tl.training.run_plan import run_plan
from fastai_tl.training.stage import PlanError, Stage

pytestmark = pytest.mark.medium


def fresh(**kw):
    set_seed(0)
    return transfer_learner(sample_dls(size=32, n_per_class=4, bs=16, seed=0, num_workers=0, **kw), "resnet_mini")


def same(a, b):
    return all(torch.equal(t, b[n]) for n, t in a.items())


def test_fine_tuning_that_does_not_pay_is_undone_and_said():
    probed = fresh()
    run_plan(probed, Plan.probe(), on_progress=QUIET)
    learn = fresh()
    h = run_plan(learn, Plan.lp_ft(epochs=1, lr=3.0), on_progress=QUIET)
    assert same(tensors(probed.model), tensors(learn.model))
    first, last = h.stages[0].values[-1][1], h.stages[-1].values[-1][1]
    assert last > first and float(learn.validate()[0]) == pytest.approx(first, abs=1e-4)
    (note,) = [n for n in h.notes if "the best" in n]
    assert "after stage 'probe'" in note and f"{first:.4g}" in note and f"{last:.4g}" in note


def test_what_is_better_stays():
    learn = fresh()
    ends, plan = (
        [],
        Plan((Stage("a", "all", 1, 1e-9, keep="best_stage"), Stage("b", "head", fit="probe", keep="best_stage"))),
    )
    h = run_plan(learn, plan, on_progress=QUIET)
    ends = [s.values[-1][1] for s in h.stages]
    assert ends[1] < ends[0] and float(learn.validate()[0]) == pytest.approx(ends[1], abs=1e-4)
    assert not [n for n in h.notes if "the best" in n]


def test_the_second_solution_takes_the_strength_of_the_first(monkeypatch):
    from fastai_tl.training import plan_runner

    asked, real = [], plan_runner.probe

    def probe(learn, strength=None, **kw):
        asked.append(strength)
        return real(learn, strength, **kw)

    monkeypatch.setattr(plan_runner, "probe", probe)
    run_plan(fresh(), Plan.lp_ft(epochs=1), on_progress=QUIET)
    assert asked[0] is None and asked[1] > 0


@pytest.mark.parametrize("batch", [2, 5, 9])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(batch, tmp_path):
    whole = fresh()
    run_plan(whole, Plan.lp_ft(epochs=3), on_progress=QUIET)
    learn, control, n = fresh(), Control(), []

    def report(done, total, note):
        n.append(done)
        if len(n) == batch:
            control.stop()

    h = run_plan(learn, Plan.lp_ft(epochs=3), tmp_path, control=control, on_progress=report)
    assert not h.finished
    again = fresh()
    h = run_plan(again, Plan.lp_ft(epochs=3), tmp_path, on_progress=QUIET)
    assert h.finished and same(tensors(whole.model), tensors(again.model))


def test_its_code_gives_the_same_model():
    learn = fresh()
    run_plan(learn, Plan.lp_ft(epochs=2), on_progress=QUIET)
    other = fresh()
    with other.no_bar(), other.no_logging():
        exec(Plan.lp_ft(epochs=2).to_code(), dict(learn=other))
    a, b = tensors(learn.model), tensors(other.model)
    assert all(torch.allclose(a[n].float(), b[n].float(), atol=1e-5) for n in a)


def seen(learn, plan):
    "The training images of each epoch, sorted by their sums"
    from fastai.callback.core import Callback

    class See(Callback):
        order = 100

        def before_batch(self):
            if self.training:
                batches.append(self.xb[0].detach().clone())

    batches = []
    run_plan(learn, plan, on_progress=QUIET) if learn.add_cb(See()) else None
    half = len(batches) // 2
    return [sorted(torch.cat(b).sum((1, 2, 3)).tolist()) for b in (batches[:half], batches[half:])]


def test_augment_varies_the_images_of_its_stage_alone():
    learn = fresh()
    pipeline = learn.dls.train.after_batch
    first, second = seen(learn, Plan(Stage("plain", "all", 2, 1e-5)))
    assert first == pytest.approx(second)
    first, second = seen(fresh(), Plan(Stage("varied", "all", 2, 1e-5, augment=True)))
    assert first != pytest.approx(second)
    run_plan(learn, Plan(Stage("varied", "all", 1, 1e-5, augment=True)), on_progress=QUIET)
    assert learn.dls.train.after_batch is pipeline
    with pytest.raises(PlanError, match="augment"):
        Stage("p", fit="probe", augment=True)
    with pytest.raises(PlanError, match="patience"):
        Stage("p", epochs=4, patience=2, keep="best_stage")


def test_transforms_of_the_loader_are_enough():
    learn = fresh(batch_tfms=aug_transforms())
    kinds = []
    learn.add_cb(_Kinds(kinds))
    run_plan(learn, Plan(Stage("varied", "all", 1, 1e-5, augment=True)), on_progress=QUIET)
    assert kinds[0] == [type(f) for f in learn.dls.train.after_batch.fs]


def _Kinds(kinds):
    from fastai.callback.core import Callback

    class Kinds(Callback):
        def before_batch(self):
            if self.training:
                kinds.append([type(f) for f in self.learn.dls.train.after_batch.fs])

    return Kinds()


def test_numbers_that_are_no_images_are_not_augmented_and_that_is_said():
    from helpers import noisy_learner

    h = run_plan(noisy_learner(), Plan(Stage("a", "all", 1, 1e-3, augment=True)), on_progress=QUIET)
    assert any("not augmented" in n and "TensorImage" in n for n in h.notes)
