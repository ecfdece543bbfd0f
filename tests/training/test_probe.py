"""The head of a Learner, solved: against scikit-learn on the same features, with every kind of target, and refusals."""

import numpy as np
import pytest
import torch
from fastai.data.block import CategoryBlock, DataBlock, MultiCategoryBlock, RegressionBlock
from fastai.losses import BCEWithLogitsLossFlat, MSELossFlat
from fastai.vision.augment import Resize, aug_transforms
from fastai.vision.data import ImageBlock
from helpers import tensors
from sklearn.linear_model import LogisticRegression
from torch import nn

from fastai_tl.core.errors import InputError
from fastai_tl.datasets.samples import sample_dls, sample_path
from fastai_tl.freezing.freeze import unfreeze
from fastai_tl.models.transfer_learner import transfer_learner
from fastai_tl.training.plan import Plan
from fastai_tl.training.probe import probe
from fastai_tl.training.run_control import Control
from fastai_tl.training.run_plan import run_plan
from fastai_tl.training.stage import PlanError, Stage

pytestmark = pytest.mark.medium


@pytest.fixture(scope="module")
def dls():
    return sample_dls(size=32, n_per_class=6, bs=16, num_workers=0)


@pytest.fixture
def learn(dls):
    return transfer_learner(dls, "resnet_mini", head="linear")


def features(learn, dl):
    "What the linear layer gets, by the network itself"
    rows, body = [], nn.Sequential(learn.model[0], *learn.model[1][:-1]).eval()
    with torch.no_grad():
        for xb, yb in dl.new(shuffle=False, drop_last=False):
            rows.append((body(xb).as_subclass(torch.Tensor), yb.as_subclass(torch.Tensor)))
    return [torch.cat(o) for o in zip(*rows)]


def test_it_is_scikit_learns_head_on_the_same_features(learn):
    before = tensors(learn.model)
    solution = probe(learn, strength=0.1)
    x, y = features(learn, learn.dls.train)
    expected = LogisticRegression(C=0.1, max_iter=10_000, tol=1e-8).fit(x.double().numpy(), y.numpy())
    preds, _ = learn.get_preds()
    v, _ = features(learn, learn.dls.valid)
    assert float((preds - torch.tensor(expected.predict_proba(v.double().numpy()))).abs().max()) < 1e-3
    changed = [n for n, t in tensors(learn.model).items() if not torch.equal(t, before[n])]
    assert changed == ["head.3.weight", "head.3.bias"]
    assert solution.strength == 0.1 and solution.search == ()


def test_the_strength_is_found_and_training_goes_on_from_there(learn):
    solution = probe(learn)
    assert len(solution.search) == 8 and solution.strength == min(solution.search, key=lambda s: s.loss).strength
    probed = learn.validate()[0]
    run_plan(learn, Plan.fine_tune(1, lr=1e-5, freeze_epochs=0), cache=False)
    assert learn.validate()[0] == pytest.approx(probed, abs=0.1)


def test_the_same_with_and_without_the_feature_cache(learn):
    "A body that trains is not cached; it is run as it is"
    a = probe(learn, strength=0.1)
    unfreeze(learn)
    b = probe(learn, strength=0.1)
    torch.testing.assert_close(a.weight, b.weight, rtol=1e-2, atol=1e-4)


def test_little_memory_is_enough(learn):
    a = probe(learn, strength=0.1)
    b = probe(learn, strength=0.1, memory_limit=1000)
    unfreeze(learn)
    c = probe(learn, strength=0.1, memory_limit=1000)
    for o in (b, c):
        torch.testing.assert_close(a.weight, o.weight, rtol=1e-2, atol=1e-4)


def test_random_states_and_what_is_frozen_stay(learn):
    frozen = [p.requires_grad for p in learn.model.parameters()]
    torch.manual_seed(7)
    probe(learn, views=2)
    assert float(torch.rand(1)) == float(torch.manual_seed(7) and torch.rand(1))
    assert [p.requires_grad for p in learn.model.parameters()] == frozen and learn.model.training


@pytest.mark.filterwarnings("ignore::fastai_tl.core.errors.KitWarning")
def test_views_are_those_of_training(dls):
    block = DataBlock(
        (ImageBlock, CategoryBlock), get_y=lambda f: f.parent.name, item_tfms=Resize(32), batch_tfms=aug_transforms()
    )
    files = sorted(sample_path().glob("*/*.jpg"))[::8]
    learn = transfer_learner(block.dataloaders(files, bs=16, num_workers=0), "resnet_mini", head="linear")
    one, again, four = probe(learn), probe(learn), probe(learn, views=4)
    assert torch.equal(one.weight, again.weight)  # as validation sees the images: nothing is random
    assert one.out_of_fold.shape[0] == len(learn.dls.train_ds) and four.out_of_fold.shape[0] == 4 * len(
        learn.dls.train_ds
    )
    assert not torch.allclose(one.weight, four.weight, rtol=0.01)


@pytest.mark.filterwarnings("ignore::fastai_tl.core.errors.KitWarning")
def test_several_labels_and_numbers():
    files = sorted(sample_path().glob("*/*.jpg"))[::10]
    common = dict(item_tfms=Resize(32))
    labels = DataBlock(
        (ImageBlock, MultiCategoryBlock),
        get_y=lambda f: [f.parent.name, "early" if f.parent.name < "f" else "late"],
        **common,
    ).dataloaders(files, bs=16, num_workers=0)
    learn = transfer_learner(labels, "resnet_mini", head="linear", loss_func=BCEWithLogitsLossFlat())
    before = learn.validate()[0]
    solution = probe(learn)
    assert solution.task == "labels" and solution.weight.shape[0] == len(labels.vocab) and learn.validate()[0] < before
    numbers = DataBlock((ImageBlock, RegressionBlock(2)), get_y=lambda f: [len(f.stem), 3.0], **common).dataloaders(
        files, bs=16, num_workers=0
    )
    learn = transfer_learner(numbers, "resnet_mini", head="linear", loss_func=MSELossFlat(), n_out=2)
    assert probe(learn).task == "numbers"
    preds, targets = learn.get_preds(dl=learn.dls.train.new(shuffle=False, drop_last=False))
    assert float((preds[:, 1] - 3).abs().max()) < 1e-3 and float((preds - targets).square().mean()) < 200


@pytest.mark.filterwarnings("ignore::fastai_tl.core.errors.KitWarning")
def test_classes_weigh_the_same_if_that_is_asked_for():
    files = [f for f in sorted(sample_path().glob("*/*.jpg")) if f.parent.name in ("bird", "flower")]
    rare = [f for f in files if f.parent.name == "bird"][:6] + [f for f in files if f.parent.name == "flower"]
    block = DataBlock((ImageBlock, CategoryBlock), get_y=lambda f: f.parent.name, item_tfms=Resize(32))
    learn = transfer_learner(block.dataloaders(rare, bs=16, num_workers=0), "resnet_mini", head="linear")
    share = []
    for balance in (None, "classes"):
        probe(learn, strength=1e-4, balance=balance)
        share.append(float(learn.get_preds(dl=learn.dls.train.new(shuffle=False))[0][:, 0].mean()))
    assert share[0] < 0.35 and share[1] == pytest.approx(0.5, abs=0.1)


def test_what_cannot_be_solved_is_refused_in_words(dls):
    with pytest.raises(InputError, match="head='linear'"):
        probe(
            transfer_learner(
                dls,
                "resnet_mini",
                head=nn.Sequential(
                    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(9), nn.ReLU(), nn.LazyLinear(8)
                ),
            )
        )
    learn = transfer_learner(dls, "resnet_mini", head="fastai")
    before = tensors(learn.model)
    with pytest.raises(InputError, match="head='linear'"):
        probe(learn)
    assert all(torch.equal(t, before[n]) for n, t in tensors(learn.model).items())
    linear = transfer_learner(dls, "resnet_mini", head="linear")
    for kw, says in ((dict(views=0), "views=0"), (dict(balance="x"), "balance"), (dict(groups=[1]), "groups need")):
        with pytest.raises(InputError, match=says):
            probe(linear, **kw)


def test_ctrl_c_leaves_the_head_as_it_was(learn):
    before, seen = tensors(learn.model), []

    def report(done, total, note):
        seen.append(note)
        if "strengths" in note:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        probe(learn, on_progress=report)
    assert all(torch.equal(t, before[n]) for n, t in tensors(learn.model).items()) and any(
        "frozen" in s or "features" in s for s in seen
    )
    assert isinstance(probe(learn).weight, torch.Tensor)


def test_groups_reach_the_folds(learn):
    solution = probe(learn, groups=np.arange(len(learn.dls.train_ds)) // 2)
    assert solution.out_of_fold.shape == (len(learn.dls.train_ds), 8)


def test_a_stage_that_solves_the_head_in_a_plan(learn, tmp_path):
    plan = Plan((*Plan.probe().stages, Stage("fine-tune", "all", 1, 1e-4, hold_stats=True)))
    history = run_plan(learn, plan, tmp_path / "run")
    assert history.finished and [len(s.values) for s in history.stages] == [1, 1]
    assert history.stages[0].values[0][1] == pytest.approx(float(history.stages[1].values[0][1]), abs=0.3)
    other = transfer_learner(learn.dls, "resnet_mini", head="linear")
    probe(other)
    assert history.stages[0].values[0][1] == pytest.approx(other.validate()[0], rel=1e-3)
    assert Plan.from_yaml(plan.to_yaml()) == plan and "probe(learn)" in plan.to_code()


def test_a_plan_that_is_stopped_after_the_head_goes_on_exactly(dls, tmp_path):
    plan = Plan((*Plan.probe().stages, Stage("fine-tune", "all", 2, 1e-4, hold_stats=True)))

    def fresh():
        torch.manual_seed(3)
        return transfer_learner(dls, "resnet_mini", head="linear")

    whole = fresh()
    torch.manual_seed(4)
    run_plan(whole, plan, cache=False)
    for at in ("solving", "fine-tune"):
        learn, seen, control = fresh(), [], Control()

        def report(done, total, note, at=at, seen=seen, control=control):
            seen.append(note)
            if at in note and sum(at in s for s in seen) == 1:
                control.stop()

        torch.manual_seed(4)
        assert not run_plan(learn, plan, tmp_path / at, control=control, on_progress=report, cache=False).finished
        again = fresh()
        assert run_plan(again, plan, tmp_path / at, cache=False).finished
        assert all(torch.equal(t, tensors(whole.model)[n]) for n, t in tensors(again.model).items())


def test_stages_that_make_no_sense_are_refused(dls):
    for kw in (dict(train="all"), dict(lr=1e-3), dict(patience=1)):
        with pytest.raises(PlanError):
            Stage("probe", fit="probe", **kw)
    with pytest.raises(PlanError, match="solves the head"):
        Plan((*Plan.probe().stages, Stage("next", "all", 1, "same")))
    with pytest.raises(InputError, match="head='linear'"):
        run_plan(transfer_learner(dls, "resnet_mini", head="fastai"), Plan.probe())
    assert Stage("probe", train="head", fit="probe").epochs == 1
