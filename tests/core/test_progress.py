"What a long job prints, where the output is a terminal and where it is kept"

import io
from contextlib import redirect_stdout

import pytest
from helpers import still_learner

from fastai_tl.core.progress import ProgressLines, bar
from fastai_tl.evaluation.classification import evaluate
from fastai_tl.interface.quickstart import Screen
from fastai_tl.training.lr_finder import find_lr
from fastai_tl.training.plan import Plan
from fastai_tl.training.run_plan import run_plan
from fastai_tl.training.stage import Stage


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.medium
def test_a_log_gets_a_line_a_stage():
    learn = still_learner()
    with redirect_stdout(io.StringIO()) as log:
        find_lr(learn, num_it=20)
        run_plan(learn, Plan((Stage("head", epochs=10, lr=1e-3), Stage("all", "all", 1, 1e-4))))
        evaluate(learn)
    first, second = log.getvalue().splitlines()
    assert "\r" not in log.getvalue()
    assert first.startswith("stage 1/2 head: 10 epochs in ") and ", valid_loss " in first and ", accuracy " in first
    assert second.startswith("stage 2/2 all: 1 epoch in ")


def test_a_terminal_gets_a_bar():
    with redirect_stdout(Terminal()) as screen, bar(9) as report:
        report(9, 9, "note")
        report.milestone("not said")
    assert "100.00% [9/9" in screen.getvalue() and "note" in screen.getvalue() and "not said" not in screen.getvalue()


@pytest.mark.parametrize("make", [lambda: bar(90), lambda: Screen().progress("train")])
def test_a_job_of_a_minute_gets_two_lines(make, monkeypatch):
    now = iter(range(10**6))
    monkeypatch.setattr(
        "fastai_tl.core.progress.time.monotonic", lambda: next(now) / 2
    )  # two looks at the clock a second
    with redirect_stdout(io.StringIO()) as log, make() as report:
        for i in range(120):
            report(i, 120, f"epoch {i // 60 + 1}/2")
    assert isinstance(report, ProgressLines) and len(log.getvalue().splitlines()) in (1, 2)
    assert "/120 epoch 1/2" in log.getvalue()
