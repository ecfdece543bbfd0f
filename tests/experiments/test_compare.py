"""Strategies and backbones compared: the statistics by hand, fairness, what stays as it was, what fails, what is
interrupted
"""

import gc
import json
import math
import random
import signal
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import noisy_learner, tensors
from scipy import stats

import fastai_tl.experiments.backbones as ranking
import fastai_tl.experiments.strategies as strategies
from fastai_tl.models.registry import ArchError
from fastai_tl.experiments.result import Comparison, SeedRun, share_interval, t_interval
from fastai_tl.datasets.corruptions import corrupt
from fastai_tl.core.errors import InputError, StateError
from fastai_tl.evaluation.classification import evaluate
from fastai_tl.training.plan import Plan
from fastai_tl.experiments.backbones import compare_backbones
from fastai_tl.core.random_state import RandomState, reseed
from fastai_tl.training.stage import PlanError, Stage
from fastai_tl.experiments.corrupted_images import corrupted_set
from fastai_tl.experiments.strategies import STRATEGIES, Strategy, compare
from fastai_tl.training.run_plan import run_plan
from fastai_tl.models.pretrained_weights import WeightsError
from fastai_tl.models.transfer_learner import transfer_learner

QUIET = lambda *a: None
FAST = dict(arch="resnet_mini", head="linear", epochs=2, lr=1e-2, corruptions=None, on_progress=QUIET)


@pytest.fixture
def tiny_dls():
    "16 pictures to train on and 26 to validate, 32 px, 8 classes"
    from fastai_tl.datasets.picture_folder import ClassOf, picture_dls
    from fastai_tl.datasets.samples import sample_path, split_sample

    train, valid = split_sample(sample_path("clipart"), 2)
    return picture_dls(train, valid[::5], ClassOf(sample_path("clipart")), size=32, bs=8, path=".")


def offline():
    Path("settings.ini").write_text("[fastai_tl]\noffline = yes\n")


def state_of(dls):
    "All that a comparison could leave behind in the user's data and in random states"
    return (
        random.getstate(),
        np.random.get_state()[1].tolist(),
        torch.random.get_rng_state().tolist(),
        [dl.rng.getstate() for dl in dls.loaders],
        [
            [id(f) for f in getattr(dl, k).fs]
            for dl in dls.loaders
            for k in ("after_item", "before_batch", "after_batch")
        ],
        [id(dl) for dl in dls.loaders],
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
    )


# the statistics


def made(acc, n=200, same=True, **kw):
    "A Comparison of runs with these accuracies: {name: one for each seed}; the first pictures are those got right"
    runs = [
        SeedRun(k, s, np.arange(n) < round(a * n), seconds=i + 1)
        for i, (k, v) in enumerate(acc.items())
        for s, a in enumerate(v)
    ]
    return Comparison(
        "strategy", tuple(acc), tuple(range(max(map(len, acc.values())))), tuple(runs), same_pictures=same, **kw
    )


def test_intervals_are_students():
    v = [0.7, 0.75, 0.8, 0.72]
    m, lo, hi = t_interval(v)
    ci = stats.ttest_1samp(v, 0).confidence_interval(0.95)
    assert (m, lo, hi) == pytest.approx((np.mean(v), ci.low, ci.high))
    assert math.isnan(t_interval([0.5])[1]) and t_interval([0.5])[0] == 0.5 and math.isnan(t_interval([])[0])
    assert share_interval([0.9, 0.2], 50)[1:] == (0, 1)
    lo, hi = share_interval([0.5] * 3, 100)[1:]
    assert lo < 0.5 < hi and hi - 0.5 == pytest.approx(stats.t.ppf(0.975, 2) * 0.01 / 12**0.5 / 3**0.5)


def test_differences_are_paired():
    c = made(dict(a=[0.60, 0.70, 0.80], b=[0.50, 0.61, 0.70]))
    d, t = c.difference("b", "a"), stats.ttest_rel([0.50, 0.61, 0.70], [0.60, 0.70, 0.80]).confidence_interval(0.95)
    assert (d.mean, d.low, d.high) == pytest.approx((np.mean([-0.1, -0.09, -0.1]), t.low, t.high))
    assert c.best == "a" and d.told_apart and c.tied == ["a"] and c.verdict("b") == "worse" and c.verdict("a") == "best"
    lo, hi = c.interval("a")[1:]
    assert lo < c.interval("b")[0] < hi, "the plain intervals overlap all the same"
    back = c.difference("a", "b")
    assert (back.mean, back.low, back.high) == pytest.approx((-d.mean, -d.high, -d.low))


def test_a_difference_of_one_picture_is_none_however_steady():
    for n in (20, 1000):
        c = made(dict(a=[0.8 + 1 / n] * 3, b=[0.8] * 3), n=n)
        assert not c.difference("b").told_apart and c.tied == ["a", "b"], n


def test_few_pictures_do_not_tell_apart_what_many_do():
    for n, apart in ((20, False), (400, True)):
        assert made(dict(a=[0.8, 0.81, 0.8], b=[0.7, 0.7, 0.71]), n=n).difference("b").told_apart is apart
    assert made(dict(a=[0.8, 0.81, 0.8], b=[0.7, 0.7, 0.71]), n=20, same=False).difference("b").over_pictures is None


def test_over_pictures_is_the_paired_interval_by_hand():
    rng = np.random.default_rng(0)
    right = {k: rng.random((3, 80)) < p for k, p in dict(a=0.8, b=0.6).items()}
    c = Comparison(
        "strategy", ("a", "b"), (0, 1, 2), tuple(SeedRun(k, s, right[k][s]) for k in right for s in range(3))
    )
    want = stats.ttest_1samp((right["b"].astype(float) - right["a"]).mean(0), 0).confidence_interval(0.95)
    assert c.difference("b", "a").over_pictures == pytest.approx((want.low, want.high))


def test_words_say_what_is_not_known():
    one = made(dict(a=[0.9], b=[0.1]))
    assert one.tied == ["a", "b"] and "with one seed nothing can be told apart" in one.summary
    c = made(dict(cheap=[0.80, 0.83, 0.81], dear=[0.82, 0.81, 0.84], bad=[0.2, 0.2, 0.2]), failed={"broken": "no"})
    c = Comparison("strategy", (*c.names, "broken"), c.seeds, c.runs, c.failed)
    assert (
        c.best == "dear"
        and "Not told apart from it: cheap." in c.summary
        and "Worse: bad." in c.summary
        and "Failed: broken." in c.summary
    )
    assert "cheap takes the least time" in c.summary and c.verdict("broken") == "failed"
    none = Comparison("strategy", ("a",), (0,), (), {"a": "why"})
    assert (
        none.best is None
        and "No strategy" in none.summary
        and "why" in none._repr_html_()
        and len(none.to_frame()) == 1
    )
    assert Comparison.from_dict(json.loads(json.dumps(none.to_dict(), allow_nan=False))) == none
    with pytest.raises(InputError, match="nothing to plot"):
        none.plot()
    with pytest.raises(InputError, match="Did you mean 'cheap'"):
        c.of("cheep")
    with pytest.raises(InputError, match="no finished seed"):
        c.difference("broken")


def test_the_best_of_an_interrupted_comparison_is_judged_on_common_seeds():
    c = made(dict(a=[0.6, 0.9, 0.9], b=[0.7]), finished=False)
    assert c.best == "b" and "Interrupted" in repr(c) and "Interrupted" in c._repr_html_()


def test_html_escapes_what_it_is_given():
    c = made({"<b>x</b>": [0.5, 0.6], "y": [0.5, 0.5]}, about={"y": "<i>"}, failed={}, notes=("<u>",))
    assert (
        "<b>x</b>" not in c._repr_html_().replace("&lt;b&gt;x&lt;/b&gt;", "")
        and "<i>" not in c._repr_html_()
        and "<u>" not in c._repr_html_()
    )


# strategies


@pytest.fixture(scope="module")
def six():
    "All six on a small net, two seeds, with corrupted pictures; and the states before and after"
    from fastai_tl.datasets.picture_folder import ClassOf, picture_dls
    from fastai_tl.datasets.samples import sample_path, split_sample

    train, valid = split_sample(sample_path("clipart"), 2)
    dls = picture_dls(train, valid[::5], ClassOf(sample_path("clipart")), size=32, bs=8, path=".")
    before, told = state_of(dls), []
    c = compare(
        dls,
        seeds=2,
        **{**FAST, "corruptions": ("noise", "blur"), "severities": 3, "on_progress": lambda *a: told.append(a)},
    )
    return c, dls, before, state_of(dls), told


@pytest.mark.medium
def test_all_six_run_with_equal_budgets(six):
    c, dls, *_ = six
    assert not c.failed and c.finished and c.names == tuple(STRATEGIES) and len(c.runs) == 12
    assert {r.epochs for r in c.runs if r.name != "linear_probe"} == {2} and {
        r.epochs for r in c.of("linear_probe")
    } == {0}
    assert c.n_valid == len(dls.valid_ds)
    assert [(r.seed, r.name) for r in c.runs] == [(s, n) for s in (0, 1) for n in STRATEGIES], (
        "seed by seed, so that what is finished is paired"
    )
    net = transfer_learner(dls, "resnet_mini", head="linear").model
    size = lambda *names: sum(p.numel() for n, p in net.named_parameters() if n.startswith(names))
    params = {n: {r.params for r in c.of(n)} for n in c.names}
    assert params["linear_probe"] == {size("head")} and params["surgical"] == {size("head", "body.stem", "body.layer1")}
    assert all(params[n] == {size("")} for n in ("scratch", "fine_tune", "lp_ft", "gradual"))


@pytest.mark.medium
def test_nothing_of_the_user_moves(six):
    before, after = six[2:4]
    assert before == after


@pytest.mark.medium
def test_progress_is_for_the_whole_and_says_how_long(six):
    told = six[-1]
    done = [d for d, _, _ in told]
    assert done == sorted(done) and done[0] == 0 and done[-1] == 1000 and {n for _, n, _ in told} == {1000}
    assert any("seed 2 of 2, gradual, about 0:0" in note for *_, note in told)


@pytest.mark.medium
def test_table_plot_and_json(six):
    c = six[0]
    df = c.to_frame()
    assert list(df.index) == list(STRATEGIES) and df.accuracy.between(0, 1).all() and (df.seconds > 0).all()
    assert df.corrupted["scratch"] == pytest.approx(np.mean([v for r in c.of("scratch") for v in r.corrupted.values()]))
    assert list(c.by_corruption()) == ["noise", "blur"] and c.by_corruption().mean(axis=1).to_dict() == pytest.approx(
        df.corrupted.to_dict()
    )
    d = json.loads(json.dumps(c.to_dict(), allow_nan=False))
    assert d["best"] == c.best and d["rows"][0]["runs"][0]["corrupted"].keys() == {"noise 3", "blur 3"}
    back = Comparison.from_dict(d)
    assert (
        back.to_dict() == c.to_dict() and back._repr_html_() == c._repr_html_() and back.runs[3].name == c.runs[3].name
    )
    for n in c.names:
        assert n in c._repr_html_() and n in repr(c)
    ax, cost = c.plot()
    assert [t.get_text() for t in ax.get_yticklabels()] == list(df.index) and len(cost.patches) == 6
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.mark.medium
def test_a_run_is_what_a_user_would_type(six):
    "The same numbers by hand, clean and corrupted"
    c, dls, *_ = six
    run, keep = c.of("fine_tune")[1], RandomState(dls.loaders)
    own = strategies.copy_loaders(dls)
    reseed(own, run.seed)
    learn = transfer_learner(own, "resnet_mini", head="linear")
    reseed(learn, run.seed)
    run_plan(learn, Plan.fine_tune(1, 1e-2, freeze_epochs=1), on_progress=QUIET)
    ev = evaluate(learn, on_progress=QUIET)
    assert ((ev.preds == ev.targets) == run.right).all()
    bad = [corrupt(learn.dls.valid_ds[i][0].resize((32, 32), 2), "blur", 3) for i in range(ev.n)]
    x = torch.stack([torch.from_numpy(np.array(im)).permute(2, 0, 1) for im in bad]).float() / 255
    recipe = learn.model.recipe
    stats_ = [torch.tensor(recipe[k]).view(1, -1, 1, 1) for k in ("mean", "std")]
    with torch.no_grad():
        pred = learn.model.eval()((x - stats_[0]) / stats_[1]).argmax(1)
    assert run.corrupted["blur", 3] == pytest.approx((pred.numpy() == ev.targets).mean())
    keep.restore()


@pytest.mark.medium
def test_own_plans_by_name_and_a_strategy_that_fails(tiny_dls):
    plans = {
        "mine": Plan((Stage("a", "head", 1, 1e-2), Stage("b", "all", 2, 1e-4))),
        "wrong group": Stage("x", "layer9", 2, 1e-3),
        "linear_probe": None,
        "cold": Strategy("x", Plan.head_only(2, 1e-2), pretrained=False),
    }
    c = compare(tiny_dls, plans, seeds=2, **FAST)
    assert (
        c.done == ["mine", "linear_probe", "cold"]
        and list(c.failed) == ["wrong group"]
        and "layer9" in c.failed["wrong group"]
    )
    assert {r.epochs for r in c.of("mine")} == {3} and "Epochs differ" in c.method and "layer9" in c._repr_html_()
    assert c.to_frame().note["wrong group"] == c.failed["wrong group"] and c.verdict("wrong group") == "failed"
    with pytest.raises(PlanError, match="layer9"):
        compare(tiny_dls, plans, on_error="raise", **FAST)


@pytest.mark.medium
def test_seeds_pair_across_strategies_and_repeat(tiny_dls):
    "The same strategy under two names has the same result with each seed; and the whole repeats"
    c = compare(tiny_dls, {"a": "lp_ft", "b": "lp_ft"}, seeds=(3, 8), **FAST)
    for r, s in zip(c.of("a"), c.of("b")):
        assert r.seed == s.seed and (r.right == s.right).all()
    assert c.difference("b", "a").mean == 0 and len(c.tied) == 2
    again = compare(tiny_dls, {"b": "lp_ft"}, seeds=[8], **FAST)
    assert (again.of("b")[0].right == c.of("b")[1].right).all()


@pytest.mark.medium
def test_ctrl_c_returns_what_is_finished(tiny_dls):
    "A real signal, in the middle of the fourth run"
    before, sent = state_of(tiny_dls), []

    def press(done, total, note):
        if "seed 2 of 3, fine_tune" in note:
            sent.append(note)
        if len(sent) == 4:
            signal.raise_signal(signal.SIGINT)

    c = compare(tiny_dls, ["linear_probe", "fine_tune"], seeds=3, **{**FAST, "on_progress": press})
    assert (
        len(sent) >= 4
        and not c.finished
        and [(r.name, r.seed) for r in c.runs] == [("linear_probe", 0), ("fine_tune", 0), ("linear_probe", 1)]
    )
    assert (
        "Interrupted" in repr(c)
        and c.to_frame().runs.tolist() == [2, 1]
        and c.difference("fine_tune", "linear_probe").mean is not None
    )
    assert state_of(tiny_dls) == before


@pytest.mark.medium
def test_ctrl_c_before_anything_is_finished_stops(tiny_dls):
    def press(done, total, note):
        if done:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        compare(tiny_dls, ["fine_tune"], **{**FAST, "on_progress": press})


@pytest.mark.medium
def test_learners_are_freed_and_heads_are_not_shared(tiny_dls, monkeypatch):
    real, alive, most = strategies.transfer_learner, [], [0]

    def watched(*a, **kw):
        gc.collect()
        most[0] = max(most[0], sum(r() is not None for r in alive))
        learn = real(*a, **kw)
        alive.append(weakref.ref(learn))
        return learn

    monkeypatch.setattr(strategies, "transfer_learner", watched)
    head = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(128, 8))
    before = tensors(head)
    c = compare(tiny_dls, ["linear_probe", "fine_tune"], seeds=2, **{**FAST, "head": head})
    gc.collect()
    assert not c.failed and len(alive) == 4 and most[0] == 0 and not any(r() is not None for r in alive)
    assert all(torch.equal(v, before[k]) for k, v in head.state_dict().items())


@pytest.mark.medium
def test_another_split_with_each_seed():
    from fastai_tl.datasets.samples import sample_dls

    splits = []

    def data(seed):
        splits.append(seed)
        return sample_dls("clipart", 32, 8, n_per_class=1, seed=seed)

    c = compare(data, ["linear_probe"], seeds=2, **FAST)
    assert splits == [0, 1] and not c.same_pictures and not c.failed and "for each seed another split" in c.method


@pytest.mark.medium
def test_data_that_is_not_pictures(tiny_dls):
    """Any Learner of one class for each item, made by a function of one's own; no corrupted pictures then, and it
    says so
    """
    dls = noisy_learner().dls

    def make(dls, pretrained):
        learn = noisy_learner()
        learn.dls = dls
        return learn

    c = compare(
        dls, {"probe": "linear_probe", "all": "scratch"}, seeds=2, epochs=2, lr=1e-2, learner=make, on_progress=QUIET
    )
    assert not c.failed and len(c.runs) == 4 and math.isnan(c.runs[0].robust) and "No corrupted pictures" in c.method
    assert "corrupted" not in c.to_frame()


def test_corrupted_pictures_are_the_same_each_time_and_bounded(tiny_dls):
    a, b = (corrupted_set(tiny_dls, ("noise", "jpeg"), (2, 4), 0) for _ in range(2))
    b.limit = 0
    n = len(tiny_dls.valid_ds)
    assert len(a) == 4 * n
    for i in (0, n - 1, n, 3 * n + 2):
        assert torch.equal(a[i][0], b[i][0]) and torch.equal(a[i][0], a[i][0]) and a[i][1] == b[i][1] == a[i % n][1]
    assert len(a.kept) == 5 and not b.kept and not torch.equal(a[0][0], a[n][0]) and a[0][0].dtype == torch.uint8


@pytest.mark.parametrize(
    "kw, says",
    [
        (dict(strategies=[]), "empty"),
        (dict(strategies=["fine_tune"] * 2), "more than once"),
        (dict(strategies=["finetune"]), "Did you mean 'fine_tune'"),
        (dict(strategies=Plan.head_only(2)), "needs a name"),
        (dict(strategies=[Plan.head_only(2)]), "needs a name"),
        (dict(strategies=[3]), "is no strategy"),
        (dict(strategies=3), "give names"),
        (dict(strategies={"": Plan.head_only(2)}), "is no strategy"),
        (dict(seeds=0), "one or more"),
        (dict(seeds=-1), "one or more"),
        (dict(seeds=[1, 1]), "each may stand once"),
        (dict(seeds=[0, -1]), "-1"),
        (dict(seeds=True), "seeds=True"),
        (dict(seeds="3"), "seeds='3'"),
        (dict(seeds=[0.5]), "0.5"),
        (dict(epochs=1), "epochs=1"),
        (dict(epochs=2.5), "epochs=2.5"),
        (dict(on_error="skip"), "on_error"),
        (dict(corruptions=["fog"]), "There is no corruption 'fog'"),
        (dict(arch="resnet_mimi"), "Did you mean"),
        (dict(learner=3), "learner"),
        (dict(learner=len, arch="resnet18"), "neither arch"),
        (dict(learner=len, bn="train"), "neither arch"),
        (dict(lr=-1), "lr=-1"),
        (dict(pretrained=False), "belongs to each strategy"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(tiny_dls, kw, says, monkeypatch):
    monkeypatch.setattr(strategies, "run_plan", lambda *a, **k: pytest.fail("it trained"))
    with pytest.raises(InputError, match=says):
        compare(tiny_dls, **kw)


@pytest.mark.medium
def test_data_that_cannot_be_compared(tiny_dls):
    from fastai.data.core import DataLoaders
    from torch.utils.data import TensorDataset

    two = TensorDataset(torch.randn(8, 3, 16, 16), torch.rand(8, 2).round())
    number = TensorDataset(torch.randn(8, 3, 16, 16), torch.rand(8))
    for f in (compare, lambda dls: compare_backbones(dls, ["resnet_mini"])):
        for ds in (two, number):
            with pytest.raises(InputError, match="one class"):
                f(DataLoaders.from_dsets(ds, ds, bs=4, num_workers=0, device="cpu"))
        with pytest.raises(InputError, match="learn.dls"):
            f(noisy_learner())
        with pytest.raises(InputError, match="str"):
            f("pictures/")
        with pytest.raises(StateError, match="no validation set"):
            f(DataLoaders(tiny_dls.train))


@pytest.mark.medium
def test_weights_are_asked_for_only_where_they_are_needed(tiny_dls):
    offline()
    with pytest.raises(WeightsError):
        compare(tiny_dls, ["scratch", "fine_tune"], **{**FAST, "arch": "resnet18"})
    assert compare(tiny_dls, ["scratch"], seeds=1, **{**FAST, "arch": "resnet18"}).done == ["scratch"]


# backbones


@pytest.mark.medium
def test_backbones_are_ranked_and_failures_are_rows(tiny_dls):
    offline()
    before = state_of(tiny_dls)
    names = ["mobilenet_mini", "nonsense", "resnet_mini", "resnet18", "vgg_mini"]
    c = compare_backbones(tiny_dls, names, seeds=2, epochs=3, lr=1e-2, on_progress=QUIET)
    assert state_of(tiny_dls) == before
    assert set(c.done) == {"mobilenet_mini", "resnet_mini", "vgg_mini"} and set(c.failed) == {"nonsense", "resnet18"}
    assert "no backbone 'nonsense'" in c.failed["nonsense"] and "not on this machine" in c.failed["resnet18"]
    df = c.to_frame()
    assert list(df.accuracy[:3]) == sorted(df.accuracy[:3], reverse=True) and df.accuracy[3:].isna().all()
    assert (df.gmacs[:3] > 0).all() and set(df.licence[:3]) == {"mit"} and not df.noncommercial[:3].astype(bool).any()
    net = transfer_learner(tiny_dls, "vgg_mini", head="linear").model
    assert df.params["vgg_mini"] == sum(p.numel() for p in net.parameters())
    assert "GMACs" in c._repr_html_() and c.what == "backbone" and "corrupted" not in df
    assert Comparison.from_dict(json.loads(json.dumps(c.to_dict(), allow_nan=False))).to_frame().equals(df)
    assert all("features" in e["cache"] for e in c.extra.values())


@pytest.mark.medium
def test_a_probe_is_what_a_user_would_type(tiny_dls):
    c = compare_backbones(tiny_dls, ["resnet_mini"], seeds=[5], epochs=3, lr=1e-2, on_progress=QUIET)
    own = strategies.copy_loaders(tiny_dls)
    reseed(own, 5)
    learn = transfer_learner(own, "resnet_mini", head="linear")
    reseed(learn, 5)
    from fastai_tl.models.transfer_learner import make_head

    learn.model[1].load_state_dict(make_head("linear", 128, 8).state_dict())
    run_plan(learn, Plan.head_only(3, 1e-2), cache=False, on_progress=QUIET)
    ev = evaluate(learn, on_progress=QUIET)
    assert (c.of("resnet_mini")[0].right == (ev.preds == ev.targets)).all()


@pytest.mark.medium
def test_default_backbones_are_those_on_this_machine(tiny_dls, monkeypatch):
    monkeypatch.setattr(ranking, "_probe", lambda arch, *a: (_ for _ in ()).throw(StateError(f"not tried: {arch}")))
    c = compare_backbones(tiny_dls, on_progress=QUIET)
    assert {"tf_efficientnet_lite0", "vgg_mini", "resnet_mini", "mobilenet_mini"} <= set(c.names) and set(
        c.failed
    ) == set(c.names)
    assert "not tried: vgg_mini" in c._repr_html_()


@pytest.mark.medium
def test_interrupt_keeps_the_backbones_that_are_done(tiny_dls, monkeypatch):
    real = ranking._probe

    def probe(arch, *a):
        if arch == "vgg_mini":
            raise KeyboardInterrupt
        return real(arch, *a)

    monkeypatch.setattr(ranking, "_probe", probe)
    c = compare_backbones(tiny_dls, ["resnet_mini", "vgg_mini"], seeds=1, epochs=2, lr=1e-2, on_progress=QUIET)
    assert not c.finished and c.done == ["resnet_mini"] and c.verdict("vgg_mini") == "not run"
    with pytest.raises(KeyboardInterrupt):
        compare_backbones(tiny_dls, ["vgg_mini"], on_progress=QUIET)


@pytest.mark.medium
@pytest.mark.parametrize(
    "kw, says",
    [
        (dict(archs=[]), "empty"),
        (dict(archs=["vgg_mini"] * 2), "more than once"),
        (dict(archs=3), "give names"),
        (dict(archs=[len]), "give names"),
        (dict(seeds=0), "one or more"),
        (dict(epochs=0), "epochs=0"),
    ],
)
def test_bad_input_for_backbones(tiny_dls, kw, says):
    with pytest.raises(InputError, match=says):
        compare_backbones(tiny_dls, **kw)


def test_an_unknown_backbone_is_bad_input():
    assert issubclass(ArchError, InputError)
