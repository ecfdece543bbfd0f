"""Right answers in other styles pass, and wrong ones of the sort that students write do not: see
benchmarks/check_answers.py, which makes the table of all of them.
"""

import importlib.util
from collections import Counter
from pathlib import Path

import pytest

from fastai_tl.course.grading import EXERCISES, judge
from fastai_tl.course.lessons import LESSONS, load_exercises
from fastai_tl.course.questions import QUESTIONS

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "check_answers.py"
QUICK = (
    "rates-sweep",
    "rates-stop",
    "finetune-rates",
    "evaluate-interval",
    "backbone-pareto",
    "why-baseline",
    "why-gain",
)


@pytest.fixture(scope="module")
def answers():
    spec = importlib.util.spec_from_file_location("check_answers", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for o in LESSONS:
        load_exercises(o.name)
    return module


def test_every_exercise_has_eight_wrong_answers_and_three_right_ones(answers):
    n = Counter((name, kind) for name, kind, *_ in answers.read_answers())
    for name in set(EXERCISES) - set(QUESTIONS):
        assert n[name, "W"] >= 8 and n[name, "R"] >= 3, name
    assert len({(name, what) for name, _, what, *_ in answers.read_answers()}) == sum(n.values())


@pytest.mark.medium
@pytest.mark.parametrize("name", QUICK)
def test_answers_that_are_judged_at_once(answers, name):
    for exercise, kind, what, setup, code in answers.read_answers():
        if exercise == name:
            v = judge(name, answers.namespace(setup, code))
            assert v.passed == (kind == "R"), (what, v)


@pytest.mark.course
def test_at_most_one_verdict_in_a_hundred_is_wrong(answers):
    rows, bad, slowest = answers.table(say=lambda *a, **k: None)
    right, wrong = (sum(r[k] for r in rows.values()) for k in ("right", "wrong"))
    passed, failed = sum(b[1] == "W" for b in bad), sum(b[1] == "R" for b in bad)
    assert right + wrong >= 700 and passed <= wrong / 100 and failed <= right / 100, bad
