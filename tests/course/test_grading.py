"""Checks of the lessons: solutions pass, each recognised mistake gets its own hint, and nothing that a student can
answer breaks a check.
"""

import math
import random

import numpy as np
import pytest
import torch
from helpers import everything, same
from lesson_cases import RIGHT, SEEDS, WRONG

from fastai_tl.course.grading import EXERCISES, GENERAL, judge
from fastai_tl.course.student_notebooks import exercises_in, read_notebook
from fastai_tl.core.errors import InputError
from fastai_tl.course.lessons import LESSONS, find_lesson, load_exercises
from fastai_tl.course.questions import QUESTIONS, ChoiceQuestion, QuestionBox, variable

for _l in LESSONS:
    load_exercises(_l.name)


def answers(o):
    return o() if callable(o) else o


@pytest.mark.medium
@pytest.mark.parametrize("name", sorted(RIGHT))
def test_right_answers_pass(name):
    v = judge(name, answers(RIGHT[name]))
    assert v.passed, v


@pytest.mark.medium
@pytest.mark.parametrize("name,mistake", [(k, m) for k in sorted(WRONG) for m in WRONG[k]])
def test_each_mistake_gets_its_hint(name, mistake):
    v = judge(name, answers(WRONG[name][mistake]), seed=SEEDS.get((name, mistake)))
    assert v.mistake == mistake, v
    assert v.hint and "{" not in v.hint.replace("{'", "").replace('{"', ""), v.hint
    before_fields = EXERCISES[name].hints[mistake].split("{")[0]
    assert v.hint.startswith(before_fields)


def test_every_mistake_of_every_exercise_is_tried():
    code = [n for n in EXERCISES if n not in QUESTIONS]
    assert sorted(RIGHT) == sorted(code)
    for n in code:
        assert set(WRONG[n]) == set(EXERCISES[n].hints), n
        assert len(EXERCISES[n].hints) >= 3
        assert len(set(EXERCISES[n].hints.values())) == len(EXERCISES[n].hints)


@pytest.mark.parametrize("name", sorted(QUESTIONS))
def test_questions(name):
    q, var = QUESTIONS[name], variable(name)
    for seed in (0, 1, 7):
        box = QuestionBox(q, seed)
        assert judge(name, {var: box}).mistake == "unsolved"
        if isinstance(q, ChoiceQuestion):
            assert len(q.choices) >= 4 and {c.key for c in q.choices if not c.right} == set(EXERCISES[name].hints)
            for c in q.choices:
                box.entry.value = c.key
                v = judge(name, {var: box})
                assert (
                    v.passed == c.right
                    and (c.right or (v.mistake, v.hint) == (c.key, c.why))
                    and c.why.split()[0] in box.said.value
                )
        else:
            right = q.truth(box.facts)
            box.value = right
            assert judge(name, {var: box}).passed and q.low <= right <= q.high
            tried = set()
            for v in [*(f(box.facts) for _, f, _ in q.wrong if f), q.low, q.high]:
                if abs(v - right) <= q.tol:
                    continue
                box.value = v
                got = judge(name, {var: box})
                assert not got.passed and got.hint
                tried.add(got.mistake)
            assert len(tried) >= 3, "three mistakes are told apart"
    if not isinstance(q, ChoiceQuestion):
        assert len({q.truth(q.facts(s)) for s in range(20)}) > 2, "a neighbour's number is no answer"


class Nasty:
    def __getattr__(self, k):
        raise RuntimeError("no")

    def __call__(self, *a, **k):
        return self

    def __repr__(self):
        raise RuntimeError("no")

    def __eq__(self, o):
        raise RuntimeError("no")

    def __hash__(self):
        return 1

    def __iter__(self):
        raise RuntimeError("no")

    def __len__(self):
        raise RuntimeError("no")

    def __bool__(self):
        raise RuntimeError("no")

    def __float__(self):
        raise RuntimeError("no")


STRANGE = [
    None,
    ...,
    0,
    -1.5,
    math.nan,
    math.inf,
    True,
    "",
    "text",
    b"x",
    [],
    {},
    (),
    set(),
    object(),
    object,
    Nasty(),
    torch.nn.Linear(2, 2),
    torch.tensor([math.nan]),
    np.zeros((2, 2)),
    range(3),
    (x for x in [1]),
    10**400,
    "9" * 5000,
]
STRANGE += [
    lambda *a, v=v, **k: v
    for v in (1, None, math.nan, Nasty(), ..., "x" * 10000, [Nasty()], {}, torch.zeros(0), 10**400)
]
STRANGE += [lambda: 1, lambda *a, **k: a, lambda *a, **k: 1 / 0, lambda *a, **k: exit()]


@pytest.mark.medium
@pytest.mark.parametrize("name", sorted(EXERCISES))
def test_strange_answers_break_nothing(name):
    needs = [n.rstrip("()!") for n in EXERCISES[name].needs]
    for x in STRANGE:
        v = judge(name, dict.fromkeys(needs, x), limit=20)
        assert not v.passed and isinstance(v.hint, str) and v.hint, (name, type(x))
        assert v.mistake in GENERAL or v.mistake in EXERCISES[name].hints
        str(v)
        repr(v)
        v._repr_html_()
    assert judge(name, {}).mistake == "unsolved"


@pytest.mark.medium
def test_a_check_leaves_random_states_alone():
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    judge("frozen-trap", answers(RIGHT["frozen-trap"]))
    got = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    assert got == (random.random(), np.random.rand(), torch.rand(1).item())


@pytest.mark.medium
@pytest.mark.parametrize(
    "name", ["setup-panel", "why-panel", "rates-pick", "evaluate-panel", "project-model", "finetune-plan"]
)
def test_a_check_leaves_the_learner_as_it_was(name):
    given = answers(RIGHT[name])
    learn = next(
        o.learn if hasattr(o, "plan") else o for o in given.values() if hasattr(o, "model") or hasattr(o, "plan")
    )
    before = everything(learn)
    assert judge(name, given).passed
    after = everything(learn)
    before.pop("attrs")
    after.pop("attrs")  # fastai keeps the last batch
    same(before, after)


def test_unknown_exercises():
    with pytest.raises(InputError, match="frozen-trap"):
        judge("frozen-trp", {})
    for x in (None, 3, ["a"]):
        with pytest.raises(InputError):
            judge(x, {})


def test_lessons_have_their_exercises():
    for o in LESSONS:
        names = exercises_in(read_notebook(o.notebook()))
        assert names == exercises_in(read_notebook(o.notebook(solutions=True)))
        assert len(names) >= 4 and set(names) == {n for n in EXERCISES if n.split("-")[0] == o.name}, o
    assert (
        find_lesson("3").name == find_lesson("frozen").name == find_lesson("3_head_and_frozen.ipynb").name == "frozen"
    )
