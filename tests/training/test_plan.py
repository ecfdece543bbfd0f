"""Plans: random ones survive YAML; the code that they print does what they do."""

import pytest
from helpers import QUIET, moved, noisy_learner, tensors
from fastai.torch_core import set_seed
from hypothesis import given, settings
from hypothesis import strategies as st

from fastai_tl.freezing.layer_groups import layer_groups
from fastai_tl.training.plan import PRESETS, Plan
from fastai_tl.core.progress import quiet
from fastai_tl.training.stage import FIELDS, PlanError, Stage, check_stage
from fastai_tl.training.run_plan import run_plan

rate = st.floats(1e-8, 10)
words = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=12)
stages = st.builds(
    dict,
    train=st.one_of(
        st.just("head"),
        st.just("all"),
        st.integers(-9, 9),
        st.tuples(words),
        st.sampled_from(["stage1", "no", "1e3", "~"]),
    ),
    epochs=st.integers(1, 99),
    lr=st.one_of(
        rate,
        st.just("find"),
        st.dictionaries(words, rate, min_size=1, max_size=3),
        st.tuples(rate, rate).map(lambda t: slice(min(t), max(t))),
    ),
    schedule=st.sampled_from(["one_cycle", "flat_cos", "constant"]),
    pct_start=st.floats(0, 1),
    div=st.floats(1, 1e3),
    bn=st.sampled_from([None, "train", "affine", "frozen"]),
    hold_stats=st.booleans(),
    keep=st.sampled_from(["last", "best"]),
    monitor=words,
)


@pytest.mark.medium
@settings(max_examples=150, deadline=None)
@given(st.lists(stages, min_size=1, max_size=3), st.lists(words, min_size=3, max_size=3, unique=True))
def test_yaml_gives_the_same_plan_back(dicts, names):
    plan = Plan(tuple(Stage(n, **d) for n, d in zip(names, dicts)))
    assert Plan.from_yaml(plan.to_yaml()) == plan


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_refuses_nonsense_and_says_what_it_takes(field):
    for bad in (object(), float("nan"), [], -1, ""):
        if field == "train" and bad == -1:
            continue  # a group from the end
        with pytest.raises(PlanError) as e:
            Stage(**{"name": "x", field: bad})
        assert e.value.field == field and e.value.allowed and field in str(e.value)


@pytest.mark.medium
@pytest.mark.parametrize("preset", [p for p in PRESETS if p != "lp_ft"])  # that one augments images, see test_lp_ft
@pytest.mark.parametrize("lr", ["find", 5e-3])
def test_the_code_of_a_plan_does_what_the_plan_does(preset, lr):
    args = [["1"]] if preset == "surgical" else []
    plan = getattr(Plan, preset)(*args, **({} if preset == "probe" else dict(lr=lr)))
    a, b = noisy_learner(), noisy_learner()
    start = tensors(a.model)
    set_seed(1)
    history = run_plan(a, plan, cache=False, on_progress=QUIET)
    set_seed(1)
    with quiet(b):
        exec(plan.to_code(list(layer_groups(b))), {"learn": b})
    assert moved(tensors(a.model), b.model) == []
    assert moved(start, a.model)
    if trained := [s for s in history.stages if s.stage.fit == "train"]:
        assert [list(v) for v in b.recorder.values] == trained[-1].values


@pytest.mark.parametrize(
    "kw",
    [
        dict(lr=slice(1e-4, 1e-2)),
        dict(lr={"0": 1e-4, "1": 1e-3, "2": 1e-2}),
        dict(lr=1e-2, schedule="flat_cos"),
        dict(lr=1e-2, lr_mult=30, schedule="constant"),
        dict(lr=1e-2, bn="affine", train="1"),
        dict(lr=2.0, epochs=6, patience=1),
        dict(lr=0.3, epochs=4, keep="best"),
        dict(lr=3.0, epochs=2, keep="best", undo=True, monitor="accuracy"),
    ],
)
def test_the_code_of_other_stages(kw, tmp_path):
    plan = Plan((Stage("a", **{"train": "all", "epochs": 2, **kw}),))
    a, b = noisy_learner(path=tmp_path), noisy_learner(path=tmp_path)
    set_seed(1)
    history = run_plan(a, plan, cache=False, on_progress=QUIET)
    set_seed(1)
    with quiet(b):
        exec(plan.to_code(), {"learn": b})
    assert moved(tensors(a.model), b.model) == [], history
    if "patience" in kw:
        assert history.stages[0].ended and len(history.stages[0].values) < 6
    if "keep" in kw:
        losses = [v[1] for v in history.stages[0].values]
        assert kw.get("undo") or history.stages[0].best in (None, losses.index(min(losses)))


@pytest.mark.medium
def test_a_plan_with_each_frees_one_group_after_another():
    learn, trained = noisy_learner(), []
    plan = Plan.gradual(lr=1e-2, last_epochs=1)
    before = tensors(learn.model)
    for s in plan.expand(list(layer_groups(learn))).stages:
        run_plan(learn, Plan((Stage(s.name, s.train, 1, 1e-2),)), on_progress=QUIET)
        trained.append({k[0] for k in moved(before, learn.model)})
        before = tensors(learn.model)
    assert trained == [{"2"}, {"1", "2"}, {"0", "1", "2"}]


def test_what_is_wrong_is_refused_before_anything_is_trained():
    learn = noisy_learner()
    before = tensors(learn.model)
    for plan, field in [
        (Plan((Stage("a", epochs=1, lr=1e-2), Stage("b", "layer9"))), "train"),
        (Plan((Stage("a", epochs=3, patience=1, monitor="f1"),)), "monitor"),
        (Plan((Stage("a", ("nothing*",)),)), "train"),
        (Plan((Stage("a", "1", lr={"2": 1e-3}),)), "lr"),
    ]:
        with pytest.raises(PlanError) as e:
            run_plan(learn, plan, on_progress=QUIET)
        assert e.value.field == field
    assert moved(before, learn.model) == []


@given(st.lists(words, min_size=2, max_size=5, unique=True), st.one_of(st.integers(-10, 10), words))
def test_a_stage_names_a_group_that_is_there_or_is_refused(groups, where):
    ok = (
        where in groups
        or where in ("head", "all", "each")
        or isinstance(where, int)
        and -len(groups) <= where < len(groups)
        or isinstance(where, str)
        and any(g.startswith(where + ".") for g in groups)
    )
    if ok:
        check_stage(Stage("a", where), groups)
    else:
        with pytest.raises(PlanError):
            check_stage(Stage("a", where), groups)


@pytest.mark.parametrize(
    "text,says",
    [
        ("stages:\n- name: a\n  lr: 1e-3\n  epochs: 2\n  lr: 1e-2\n", "line 5: lr stands twice, first in line 3"),
        ("stages:\n- name: a\n  lr: {stem: 1e-3, stem: 1e-2}\n", "line 3: stem stands twice"),
        ("stages:\n- name: a\n- name: b\nstages:\n- name: c\n", "line 4: stages stands twice"),
        # else a name 'a epochs:3'
        ("stages:\n- name: a\n  epochs:3\n", "line 3: epochs:3 needs a space after the colon, epochs: 3"),
        ("stages:\n- name:a\n  epochs: 3\n", "line 2: name:a needs a space"),
        ("stages:\n- epochs: 3\n  lr:1e-3\n  name: a\n", "line 3: lr:1e-3 needs a space"),
    ],
)
def test_slips_of_the_pen_in_yaml_are_named_with_their_line(text, says, tmp_path):
    for source in (text, tmp_path / "plan.yaml"):
        (tmp_path / "plan.yaml").write_text(text)
        with pytest.raises(PlanError, match=says):
            Plan.from_yaml(source)


@pytest.mark.medium
def test_a_part_of_the_rate_before_as_code():
    for lr, line in [
        (1e-2, "lr = lr/2\n"),
        (slice(1e-4, 1e-2), "lr = slice(lr.start/2, lr.stop/2)\n"),
        ("find", "lr = lr/2\n"),
    ]:
        plan = Plan((Stage("a", "all", 1, lr), Stage("b", "all", 1, "same"), Stage("c", "all", 1, "same/2")))
        assert line in plan.to_code() and Plan.from_yaml(plan.to_yaml()) == plan
        a, b = noisy_learner(), noisy_learner()
        set_seed(1)
        history = run_plan(a, plan, cache=False, on_progress=QUIET)
        set_seed(1)
        with quiet(b):
            exec(plan.to_code(), {"learn": b})
        assert moved(tensors(a.model), b.model) == [] and history.stages[2].lrs[-1] == history.stages[0].lrs[-1] / 2
