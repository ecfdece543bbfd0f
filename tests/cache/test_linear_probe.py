"""The solver of linear heads against scikit-learn, and in the corners: few items, weights, groups, little memory."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge

from fastai_tl.cache.linear_probe import fold_numbers, linear_probe
from fastai_tl.core.errors import InputError


def data(n, n_in, n_classes, seed=0, scale=1.0):
    "Features as a network gives them: not negative, and of different sizes"
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % n_classes
    means = torch.randn(n_classes, n_in, generator=g)
    x = (means[y] + torch.randn(n, n_in, generator=g)).relu() * torch.rand(n_in, generator=g) ** 3
    return x * scale, y


def sklearn_probabilities(x, y, strength, weight=None):
    m = LogisticRegression(C=strength, max_iter=20_000, tol=1e-9).fit(x.double().numpy(), y.numpy(), weight)
    return torch.tensor(m.predict_proba(x.double().numpy()))


@pytest.mark.parametrize("shape", [(60, 200, 4), (300, 30, 5), (50, 50, 2)])
@pytest.mark.parametrize("strength", [1e-3, 1.0, 100.0])
@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_probabilities_are_those_of_scikit_learn(shape, strength, scale):
    x, y = data(*shape, scale=scale)
    ours = linear_probe(x, y, strength=strength / scale**2)(x).softmax(1)
    assert float((ours - sklearn_probabilities(x, y, strength / scale**2)).abs().max()) < 1e-3


def test_weights_of_rows_are_those_of_scikit_learn():
    x, y = data(80, 40, 3)
    w = torch.linspace(0, 3, 80)
    ours = linear_probe(x, y, strength=0.5, sample_weight=w)(x).softmax(1)
    assert float((ours - sklearn_probabilities(x, y, 0.5, w.numpy())).abs().max()) < 1e-3


def test_a_row_of_weight_2_is_two_rows():
    x, y = data(40, 30, 4)
    twice = linear_probe(torch.cat([x, x[:10]]), torch.cat([y, y[:10]]), strength=0.3)
    weighed = linear_probe(x, y, strength=0.3, sample_weight=1.0 + (torch.arange(40) < 10))
    torch.testing.assert_close(twice.weight, weighed.weight, rtol=1e-3, atol=3e-4)
    torch.testing.assert_close(twice.bias, weighed.bias, rtol=1e-3, atol=1e-3)


def test_several_labels_are_one_logistic_regression_each():
    x, y = data(90, 25, 3)
    labels = torch.stack([y == 0, y != 1, x[:, 0] > x[:, 0].mean()], 1).float()
    ours = linear_probe(x, labels, "labels", strength=0.7)(x).sigmoid()
    for k in range(3):
        expected = sklearn_probabilities(x, labels[:, k].long(), 0.7)[:, 1]
        assert float((ours[:, k] - expected).abs().max()) < 1e-3


@pytest.mark.parametrize("shape", [(40, 120), (200, 15)])
def test_numbers_are_ridge_regression(shape):
    x, _ = data(*shape, 4)
    y = torch.stack([x[:, 1] * 3 - x[:, 2] + 0.1 * x[:, 4].square(), 5 - x[:, 0]], 1)
    ours = linear_probe(x, y, "numbers", strength=2.0)
    theirs = Ridge(alpha=0.5).fit(x.double().numpy(), y.double().numpy())
    torch.testing.assert_close(ours.weight, torch.tensor(theirs.coef_), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(ours.bias, torch.tensor(theirs.intercept_), rtol=1e-3, atol=1e-4)


def test_little_memory_gives_the_same_answer(monkeypatch):
    x, y = data(300, 30, 5)
    whole = linear_probe(x, y)
    monkeypatch.setattr("fastai_tl.cache.linear_probe.PrincipalRows._chunk", 64)
    parts = linear_probe(x, y, memory_limit=1)
    assert parts.strength == pytest.approx(whole.strength)
    torch.testing.assert_close(parts.weight, whole.weight, rtol=1e-3, atol=1e-4)
    for a, b in zip(parts.search, whole.search):
        assert abs(a.loss - b.loss) < 1e-2 * b.loss and abs(a.score - b.score) < 0.02


def test_the_search_is_what_one_would_do_by_hand():
    x, y = data(120, 60, 4)
    found = linear_probe(x, y, n_folds=3, seed=5)
    fold = fold_numbers(y.numpy(), 3, seed=5)
    by_hand = torch.zeros(120, 4, dtype=torch.float64)
    for k in range(3):
        train = torch.tensor(fold != k)
        by_hand[~train] = linear_probe(x[train], y[train], strength=found.strength)(x[~train]).softmax(1)
    assert float((by_hand - found.out_of_fold).abs().max()) < 0.03
    best = min(found.search, key=lambda s: s.loss)
    assert found.strength == best.strength and 0 < found.search.index(best) < len(found.search) - 1
    again = linear_probe(x, y, n_folds=3, seed=5)
    assert torch.equal(again.weight, found.weight) and again.search == found.search


def test_numbers_and_labels_are_searched_too():
    x, y = data(120, 60, 4)
    numbers = linear_probe(x, x[:, 3] * 2 + 0.3 * torch.randn(120), "numbers")
    assert numbers.weight.shape == (1, 60) and max(s.score for s in numbers.search) > 0.1
    labels = linear_probe(x, torch.nn.functional.one_hot(y), "labels")
    assert labels.out_of_fold.shape == (120, 4) and max(s.score for s in labels.search) > 0.8


def test_groups_stay_on_one_side():
    x, y = data(60, 20, 3)
    groups = np.repeat(np.arange(12), 5)
    y = torch.tensor(groups % 3)
    fold = fold_numbers(y.numpy(), 4, groups)
    assert all(len(set(fold[groups == g])) == 1 for g in range(12)) and set(fold) == {0, 1, 2, 3}
    # copies of a row are known by heart unless they are held together
    copies = torch.randn(12, 20)[groups] + 0.01 * torch.randn(60, 20)
    noise = torch.tensor(np.random.default_rng(0).permutation(12)[groups] % 3)
    apart, together = linear_probe(copies, noise), linear_probe(copies, noise, groups=groups)
    assert max(s.score for s in apart.search) > 0.95 > 0.8 > max(s.score for s in together.search)


def test_a_class_of_one_item_trains_and_is_not_judged():
    x, y = data(41, 20, 4)
    y[-1] = 4
    found = linear_probe(x, y)
    assert found.weight.shape == (5, 20) and bool(found.out_of_fold[-1].isnan().all())
    assert not bool(found.out_of_fold[:-1].isnan().any()) and float(found.weight[4].abs().max()) > 0


def test_where_nothing_can_be_judged_a_strength_in_the_middle_is_taken():
    x, _ = data(3, 20, 3)
    found = linear_probe(x, torch.arange(3))
    assert found.search == () and found.out_of_fold is None and (found(x).argmax(1) == torch.arange(3)).all()


def test_a_class_without_items_gets_nearly_nothing():
    x, y = data(60, 20, 3)
    p = linear_probe(x, y, strength=1.0, n_out=5)(x).softmax(1)
    assert torch.isfinite(p).all() and float(p[:, 3:].max()) < 1e-4
    assert float((p[:, :3] - sklearn_probabilities(x, y, 1.0)).abs().max()) < 1e-3


def test_features_that_are_all_alike_give_the_shares_of_the_classes():
    found = linear_probe(torch.ones(10, 4), torch.tensor([0] * 7 + [1] * 3), strength=1.0)
    torch.testing.assert_close(
        found(torch.ones(1, 4)).softmax(1)[0], torch.tensor([0.7, 0.3], dtype=torch.float64), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize(
    "x,y,kw,says",
    [
        (torch.ones(4, 2), torch.tensor([0, 1, 0]), {}, "4 rows of features, but 3 targets"),
        (torch.full((4, 2), torch.nan), torch.tensor([0, 1, 0, 1]), {}, "not finite"),
        (torch.ones(4, 2), torch.zeros(4).long(), {}, "one class"),
        (torch.ones(4, 2), torch.tensor([0.0, 1, 0, 1]), {}, "whole numbers"),
        (torch.ones(4, 2), torch.tensor([-1, 1, 0, 1]), {}, "whole numbers from 0"),
        (torch.ones(4, 2), torch.tensor([0, 1, 0, 7]), dict(n_out=3), "n_out=3"),
        (torch.ones(4, 2, 2), torch.tensor([0, 1, 0, 1]), {}, "a row of numbers"),
        (torch.ones(4, 2), torch.tensor([0, 1, 0, 1]), dict(strength=0), "above 0"),
        (torch.ones(4, 2), torch.tensor([0, 1, 0, 1]), dict(n_folds=1), "n_folds=1"),
        (torch.ones(4, 2), torch.tensor([0, 1, 0, 1]), dict(sample_weight=torch.ones(3)), "sample_weight"),
        (torch.ones(4, 2), torch.tensor([0, 1, 0, 1]), dict(groups=[1]), "groups"),
        (torch.ones(4, 2), torch.tensor([0, 1, 0, 1]), dict(task="class"), "'classes', 'labels' or 'numbers'"),
        (torch.ones(4, 2), torch.tensor([[0.5], [1], [0], [1]]), dict(task="labels"), "0 or 1"),
    ],
)
def test_bad_input_is_named(x, y, kw, says):
    with pytest.raises(InputError, match=says):
        linear_probe(x, y, **kw)


def test_progress_is_told():
    x, y = data(40, 20, 4)
    seen = []
    linear_probe(x, y, on_progress=lambda *a: seen.append(a))
    assert seen[0][0] == 0 and seen[0][1] == 40 and "8 strengths by 5 folds" in seen[0][2]
