"""What `Evaluation` derives from one pass: against scikit-learn and plain loops, on any probabilities; and which
items lie behind a figure
"""

import math

import numpy as np
import pytest
import torch
from helpers import everything, noisy_learner, same
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, f1_score, recall_score

from fastai_tl.core.errors import InputError, StateError
from fastai_tl.evaluation.classification import Evaluation, Mistake, evaluate
from fastai_tl.evaluation.calibration import wilson

QUIET = lambda *a: None


@st.composite
def evaluations(draw):
    "Any predictions on 1 to 40 items of 2 to 6 classes"
    n = draw(st.integers(1, 40))
    k = draw(st.integers(2, 6))
    seed = draw(st.integers(0, 999))
    sharp = draw(st.sampled_from([0.0, 0.5, 3.0, 30.0]))
    rng = np.random.default_rng(seed)
    logits = torch.tensor(rng.normal(size=(n, k)) * sharp, dtype=torch.float32)
    return Evaluation(
        [f"c{i}" for i in range(k)], logits.softmax(1).numpy(), rng.integers(0, k, n), [f"item{i}" for i in range(n)]
    )


def ece_by_hand(ev, bins):
    "The definition, item by item"
    total = 0.0
    for b in range(bins):
        inside = [i for i in range(ev.n) if b / bins < float(ev.probs[i].max()) <= (b + 1) / bins]
        if not inside:
            continue
        conf = sum(float(ev.probs[i].max()) for i in inside) / len(inside)
        acc = sum(int(ev.probs[i].argmax() == ev.targets[i]) for i in inside) / len(inside)
        total += len(inside) / ev.n * abs(conf - acc)
    return total


@pytest.mark.medium
@settings(max_examples=60, deadline=None)
@given(evaluations(), st.sampled_from([1, 2, 7, 15]))
def test_calibration_is_what_its_definition_says(ev, bins):
    table = ev.calibration(bins)
    assert len(table) == bins and table["items"].sum() == ev.n
    assert ev.ece(bins) == pytest.approx(ece_by_hand(ev, bins), abs=1e-6)
    assert 0 <= ev.ece(bins) <= 1
    full = table[table["items"] > 0]
    assert all(c in b or math.isclose(c, b.left, abs_tol=1e-6) for b, c in zip(full.bin, full.confidence))
    assert (full.accuracy * full["items"]).sum() / ev.n == pytest.approx(ev.accuracy)
    assert table[table["items"] == 0][["confidence", "accuracy"]].isna().all(axis=None)


@pytest.mark.medium
@settings(max_examples=60, deadline=None)
@given(evaluations())
def test_figures_equal_those_of_scikit_learn(ev):
    t, p, names = ev.targets, ev.probs.argmax(1), range(len(ev.vocab))
    assert ev.macro_f1 == pytest.approx(f1_score(t, p, average="macro", zero_division=0))
    assert (ev.confusion() == confusion_matrix(t, p, labels=names)).all()
    recall, bands = recall_score(t, p, labels=names, average=None, zero_division=0), ev.recall_intervals()
    for i, (lo, hi) in enumerate(bands.values):
        if (t == i).any():
            assert lo - 1e-9 <= recall[i] <= hi + 1e-9
        else:
            assert np.isnan(lo) and np.isnan(hi)


@pytest.mark.medium
@settings(max_examples=40, deadline=None)
@given(evaluations())
def test_cells_hold_each_item_once_and_in_order(ev):
    cm, seen = ev.confusion(), []
    for i, a in enumerate(ev.vocab):
        for j, b in enumerate(ev.vocab):
            cell = ev.cell(a, b)
            assert len(cell) == cm[i, j] == len(ev.cell(i, j))
            assert all(
                ev.targets[o.index] == i and o.predicted == b and o.item == f"item{o.index}" and o.right == (a == b)
                for o in cell
            )
            assert [o.probability for o in cell] == sorted((o.probability for o in cell), reverse=True)
            seen += [o.index for o in cell]
    assert sorted(seen) == list(range(ev.n))
    unsure = ev.uncertain(ev.n + 5)
    assert [o.probability for o in unsure] == sorted(ev.probs.max(1).astype(float))
    assert [o.index for o in ev.uncertain(3)] == [o.index for o in unsure[:3]]
    worst = ev.worst(ev.n)
    assert all(isinstance(o, Mistake) and not o.right for o in worst) and len(worst) == ev.n - cm.trace()


def test_wilson_as_published():
    "Newcombe 1998, Statistics in Medicine 17, table I: 81 of 263 and 0 of 20, method 3"
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0, 0.1611), abs=1e-4)


def test_a_perfect_model_has_the_ece_of_chance_and_a_boaster_more():
    rng = np.random.default_rng(0)
    top = rng.uniform(0.5, 1, 300)
    probs = np.stack([top, 1 - top], 1)
    honest = Evaluation(["a", "b"], probs, (rng.random(300) > top).astype(int))
    boaster = Evaluation(["a", "b"], probs, (rng.random(300) > 0.5).astype(int))
    mean, most = honest.ece_by_chance()
    assert 0.01 < mean < most < 0.2 and honest.ece() < most < boaster.ece()
    assert honest.ece_by_chance() == (mean, most)  # a generator of its own


@pytest.mark.parametrize("bins", [0, -1, 2.5, True, "5"])
def test_bins_that_are_none(bins):
    ev = Evaluation(["a", "b"], np.array([[0.6, 0.4]]), np.array([0]))
    with pytest.raises(InputError, match="bins"):
        ev.ece(bins)


@pytest.mark.parametrize("name", ["c", 2, -1, True, None])
def test_classes_that_are_none(name):
    ev = Evaluation(["a", "b"], np.array([[0.6, 0.4]]), np.array([0]))
    with pytest.raises(InputError, match="a, b"):
        ev.cell("a", name)


def test_an_evaluation_knows_its_weights():
    learn = noisy_learner()
    ev = evaluate(learn, on_progress=QUIET)
    assert ev.is_of(learn) and ev.is_of(noisy_learner())
    assert ev.is_of(noisy_learner(seed=1)) is False
    learn.fit(1, 1e-2)
    assert ev.is_of(learn) is False
    assert Evaluation(ev.vocab, ev.probs, ev.targets).is_of(learn) is None


def test_stopping_leaves_the_learner_as_it_was():
    "What raises in the reporter ends the pass; afterwards a pass gives the same as if nothing had been"
    learn = noisy_learner(bs=4)
    learn.fit(1, 1e-2)
    before = everything(learn)

    def stop(done, total, note=""):
        if done == 2:
            raise InputError("stop")

    with pytest.raises(InputError):
        evaluate(learn, on_progress=stop)
    same(before, everything(learn))
    a = evaluate(learn, on_progress=QUIET)
    assert a.n == 24 and np.array_equal(a.probs, evaluate(learn, on_progress=QUIET).probs)


def test_tables():
    "A DataFrame as items, and targets of shape (n, 1) as fastai's tabular DataLoaders give them"
    import pandas as pd
    from fastai.losses import CrossEntropyLossFlat
    from fastai.tabular.all import Categorify, CategoryBlock, Normalize, TabularDataLoaders, tabular_learner

    df = pd.DataFrame(dict(x=np.random.randn(40), c=list("abcd") * 10, label=["yes", "no"] * 20))
    dls = TabularDataLoaders.from_df(
        df,
        cat_names=["c"],
        cont_names=["x"],
        y_names="label",
        y_block=CategoryBlock(),
        procs=[Categorify, Normalize],
        bs=8,
    )
    learn = tabular_learner(dls, layers=[4], n_out=2, loss_func=CrossEntropyLossFlat())
    ev = evaluate(learn, on_progress=QUIET)
    assert ev.n == len(dls.valid_ds) == len(ev.items) and ev.vocab == ["no", "yes"]
    assert {"x", "c"} <= ev.uncertain(1)[0].item.keys()


def test_no_validation_set():
    from fastai.data.core import DataLoaders

    learn = noisy_learner()
    learn.dls = DataLoaders(learn.dls.train)
    with pytest.raises(StateError, match="no validation set"):
        evaluate(learn, on_progress=QUIET)
    assert evaluate(learn, learn.dls.train, on_progress=QUIET).n == 48


def test_a_pass_changes_nothing():
    learn = noisy_learner()
    for train in (True, False):
        learn.model.train(train)
        before, after = everything(learn), evaluate(learn, on_progress=QUIET) and everything(learn)
        before.pop("attrs")
        after.pop("attrs")  # fastai keeps the last batch
        same(before, after)


def test_a_network_that_answers_nan_is_not_evaluated():
    import torch
    from helpers import noisy_learner

    from fastai_tl.core.errors import StateError

    learn = noisy_learner()
    with torch.no_grad():
        learn.model[2][3].bias.fill_(float("nan"))
    with pytest.raises(StateError, match="no numbers"):
        evaluate(learn, on_progress=lambda *a: None)
