"Intervals, temperatures and average precision against slow references; coverage on simulated data"

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, log_loss

from fastai_tl.evaluation.bootstrap import bootstrap_confusion, confusion_draws, item_draws, mean_f1
from fastai_tl.evaluation.calibration import COLDEST, fit_temperature, scale_probs
from fastai_tl.core.errors import InputError
from fastai_tl.evaluation.classification import Evaluation
from fastai_tl.evaluation.multilabel import MultiLabelEvaluation, weighted_ap
from fastai_tl.evaluation.regression import RegressionEvaluation


def counts(t, p, k):
    cm = np.zeros((k, k), int)
    np.add.at(cm, (t, p), 1)
    return cm


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(2, 6), st.integers(0, 999), st.booleans())
def test_draws_are_confusion_matrices_of_as_many_items(n, k, seed, stratified):
    rng = np.random.default_rng(seed)
    cm = counts(rng.integers(0, k, n), rng.integers(0, k, n), k)
    right, true, said = confusion_draws(cm, 50, seed, stratified)
    assert (true.sum(1) == n).all() and (said.sum(1) == n).all() and (right <= np.minimum(true, said)).all()
    assert (
        not true[:, cm.sum(1) == 0].any()
        and not said[:, cm.sum(0) == 0].any()
        and not right[:, cm.diagonal() == 0].any()
    )
    if stratified:
        assert (true == cm.sum(1)).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(2, 6), st.integers(0, 999))
def test_mean_f1_is_scikit_learns(n, k, seed):
    rng = np.random.default_rng(seed)
    t, p = rng.integers(0, k, n), rng.integers(0, k, n)
    cm = counts(t, p, k)
    assert mean_f1(cm.diagonal(), cm.sum(1), cm.sum(0)) == pytest.approx(
        f1_score(t, p, average="macro", zero_division=0)
    )


@pytest.mark.medium
@pytest.mark.parametrize("stratified", [False, True])
def test_quick_bootstrap_equals_the_slow_one(stratified):
    rng = np.random.default_rng(1)
    t = rng.choice(4, 90, p=[0.5, 0.25, 0.15, 0.1])
    p = np.where(rng.random(90) < 0.75, t, rng.integers(0, 4, 90))
    accs, f1s = [], []
    for _ in range(600):
        i = (
            np.concatenate([rng.choice(np.flatnonzero(t == c), (t == c).sum()) for c in range(4)])
            if stratified
            else rng.integers(0, 90, 90)
        )
        accs.append((t[i] == p[i]).mean())
        f1s.append(f1_score(t[i], p[i], average="macro"))
    b = bootstrap_confusion(counts(t, p, 4), draws=6000, stratified=stratified)
    for key, s in (("accuracy", accs), ("macro_f1", f1s)):
        assert b.loc[key, ["low", "high"]].to_numpy(float) == pytest.approx(np.quantile(s, [0.025, 0.975]), abs=0.02)
    assert ("within each class" in b.attrs["method"]) == stratified and "seed 0" in b.attrs["method"]


@pytest.mark.medium
@pytest.mark.parametrize("n, k, acc", [(150, 5, 0.8), (60, 3, 0.7)])
def test_intervals_of_classes_hold_the_truth_nineteen_times_in_twenty(n, k, acc):
    "400 made-up evaluations; the truth of accuracy and macro-F1 is known"
    P = np.full((k, k), (1 - acc) / (k - 1))
    np.fill_diagonal(P, acc)
    P *= (np.arange(k) + 2.0)[:, None] / (np.arange(k) + 2.0).sum()  # classes of different size
    truth = dict(accuracy=acc, macro_f1=float(mean_f1(P.diagonal(), P.sum(1), P.sum(0))))
    rng, held = np.random.default_rng(0), dict.fromkeys(truth, 0)
    for _ in range(400):
        b = bootstrap_confusion(rng.multinomial(n, P.ravel()).reshape(k, k), draws=400)
        for key, v in truth.items():
            held[key] += b.loc[key, "low"] <= v <= b.loc[key, "high"]
    assert all(0.9 <= h / 400 <= 0.985 for h in held.values()), held


@pytest.mark.medium
def test_intervals_of_numbers_hold_the_truth():
    "MAE of normal errors of deviation 2 is 2 * sqrt(2 / pi), RMSE is 2; targets of variance 9 give R² 1 - 4/9"
    rng, held = np.random.default_rng(0), dict(mae=0, rmse=0, r2=0)
    for _ in range(200):
        y = rng.normal(size=(120, 1)) * 3
        b = RegressionEvaluation(["y"], y + 2 * rng.normal(size=y.shape), y).bootstrap(draws=300)
        for key, v in dict(mae=2 * np.sqrt(2 / np.pi), rmse=2, r2=5 / 9).items():
            held[key] += b.loc[key, "low"] <= v <= b.loc[key, "high"]
    assert all(0.885 <= h / 200 <= 0.99 for h in held.values()), held


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 40), st.integers(0, 999), st.sampled_from([1, 2, 8]))
def test_weighted_average_precision_is_that_of_the_drawn_items(n, seed, digits):
    "Ties included: scores of one digit"
    rng = np.random.default_rng(seed)
    t, s, rows = rng.random(n) < 0.4, rng.random(n).round(digits), rng.integers(0, n, n)
    got = weighted_ap(np.bincount(rows, minlength=n)[None], t, s)[0]
    if t[rows].any():
        assert got == pytest.approx(average_precision_score(t[rows], s[rows]), abs=1e-5)
    else:
        assert np.isnan(got)


def test_item_draws_do_not_depend_on_the_room_for_them():
    w = np.concatenate(list(item_draws(30, 100, seed=3, room=64)))
    assert w.shape == (100, 30) and (w.sum(1) == 30).all() and abs(w.var() - 29 / 30) < 0.1
    assert np.array_equal(w, np.concatenate(list(item_draws(30, 100, seed=3, room=64))))


@pytest.mark.medium
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 999), st.floats(0.3, 4))
def test_temperature_has_the_lowest_loss(seed, sharp):
    rng = np.random.default_rng(seed)
    logits = torch.tensor(rng.normal(size=(80, 4)) * sharp, dtype=torch.float32)
    t, probs = rng.integers(0, 4, 80), logits.softmax(1).numpy()
    best = fit_temperature(probs, t)
    # logits are not needed
    assert scale_probs(probs, best) == pytest.approx((logits.double() / best).softmax(1).numpy(), abs=1e-5)
    loss = lambda T: torch.nn.functional.cross_entropy(logits.double() / T, torch.tensor(t)).item()
    assert loss(1) == pytest.approx(log_loss(t, logits.double().softmax(1).numpy(), labels=range(4)))
    assert all(loss(best) <= loss(T) + 1e-6 for T in np.geomspace(0.06, 19, 60))


def test_temperature_is_measured_on_items_that_it_was_not_found_on():
    rng = np.random.default_rng(0)
    honest = torch.tensor(rng.normal(size=(400, 5)) * 1.5).softmax(1).numpy()
    t = (honest.cumsum(1) > rng.random((400, 1))).argmax(1)
    ev = Evaluation(list("abcde"), scale_probs(honest, 0.4), t)
    temp = ev.temperature()
    assert abs(temp.value - 2.5) < 0.5 and len(temp.folds) == 5 and len(set(temp.folds)) == 5
    assert temp.after.ece() < 0.5 * ev.ece() and temp.after.accuracy == ev.accuracy and temp.before is ev
    part = np.array_split(np.random.default_rng(0).permutation(400), 5)[2]
    rest = np.setdiff1d(np.arange(400), part)
    assert temp.folds[2] == pytest.approx(fit_temperature(ev.probs[rest], t[rest]))
    assert temp.after.probs[part] == pytest.approx(scale_probs(ev.probs[part], temp.folds[2]))
    assert temp.apply(ev.probs) == pytest.approx(scale_probs(ev.probs, temp.value))
    assert "too sure" in str(temp) and len(temp.plot().axes) == 2
    sure = Evaluation(["a", "b"], np.tile([0.9, 0.1], (20, 1)), np.zeros(20, int)).temperature()
    assert sure.at_limit and sure.value < 1.02 * COLDEST and "do not use" in str(sure)


@pytest.mark.parametrize(
    "kw",
    [dict(level=0), dict(level=95), dict(level=True), dict(draws=3), dict(draws=2.5), dict(seed=-1), dict(seed=None)],
)
@pytest.mark.parametrize(
    "ev",
    [
        Evaluation(["a", "b"], np.array([[0.6, 0.4], [0.2, 0.8]]), np.array([0, 1])),
        MultiLabelEvaluation(["a", "b"], np.array([[0.6, 0.4], [0.2, 0.8]]), np.eye(2, dtype=bool)),
        RegressionEvaluation(["a"], np.zeros((3, 1)), np.arange(3.0)[:, None]),
    ],
    ids=["classes", "labels", "numbers"],
)
def test_bootstraps_that_cannot_be(ev, kw):
    with pytest.raises(InputError, match=next(iter(kw))):
        ev.bootstrap(**kw)


@pytest.mark.parametrize("kw", [dict(folds=1), dict(folds=2.5), dict(folds=True)])
def test_folds_that_cannot_be(kw):
    with pytest.raises(InputError, match="folds"):
        Evaluation(["a", "b"], np.tile([0.9, 0.1], (20, 1)), np.zeros(20, int)).temperature(**kw)


def test_too_few_items_for_a_temperature():
    with pytest.raises(InputError, match="too few"):
        Evaluation(["a", "b"], np.tile([0.9, 0.1], (9, 1)), np.zeros(9, int)).temperature()
