"What a long job prints, where the output is a terminal and where it is kept"

import io
from contextlib import redirect_stdout

import pytest
from helpers import still_learner

from rich.cells import cell_len

from fastai_tl.core.progress import ProgressLines, TimeLeft, bar
from fastai_tl.evaluation.classification import evaluate
from fastai_tl.interface.quickstart import Screen
from fastai_tl.training.lr_finder import find_lr
from fastai_tl.training.plan import Plan
from fastai_tl.training.run_plan import run_plan
from fastai_tl.training.run_state import RunProgress
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


def width(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))


@pytest.mark.parametrize("columns", [40, 80, 200])
@pytest.mark.parametrize(
    "note", ["note", "stage 1/2 a long name of a stage, epoch 10/10, 12:40 left in this stage, loss 0.123", "猫" * 90]
)
def test_a_terminal_gets_one_line_that_is_drawn_anew(columns, note, monkeypatch):
    width(monkeypatch, columns)
    with redirect_stdout(Terminal()) as screen, bar(9, title="train") as report:
        for i in range(10):
            report.due = 0
            report(i, 9, note)
        report.milestone("not said")
        report.say("said above")
    text = screen.getvalue()
    drawn = [o for line in text.split("\n") for o in line.split("\r")]
    assert text.count("\n") == 1 and "said above" in drawn and "not said" not in text
    assert {cell_len(o) for o in drawn} <= {columns - 1, len("said above"), 0}
    assert "100%" in text and "train: " + note[:4] in text
    assert text.endswith("\r" + " " * (columns - 1) + "\r"), "nothing of it stays"


def test_time_left_does_not_jump(monkeypatch):
    "Steps of like length give a time that falls, and a part with another scale begins anew"
    now = [0.0]
    monkeypatch.setattr("fastai_tl.core.progress.time.monotonic", lambda: now[0])
    left, seen = TimeLeft(), []
    for i in range(101):
        seen.append(left.seconds(i, 100))
        now[0] += 0.5 + 0.2 * (i % 2)
    assert seen[:2] == [None, None] and seen[-1] == 0
    known = [o for o in seen if o is not None]
    assert all(abs(a - (100 - i) * 0.6) < 6 for i, a in enumerate(known, 100 - len(known) + 1))
    assert left.seconds(0, 5) is None and left.text(0, 5, "note") == "note"
    now[0] += 2
    assert left.text(1, 5, "note") == "note, 0:08 left" and left.text(2, 5, "0:01 left, loss 1") == "0:01 left, loss 1"


def test_a_run_knows_the_time_left_of_a_stage(monkeypatch):
    "Features that are made first, and a faster stage before, do not count"
    now, notes = [0.0], []
    monkeypatch.setattr("fastai_tl.training.run_state.time.perf_counter", lambda: now[0])
    progress = RunProgress(Plan((Stage("head", epochs=4, lr=1e-3), Stage("all", "all", 2, 1e-4))), 10, 2)
    progress.report = lambda done, total, note: notes.append(note)
    for stage, epochs, step in ((0, 4, 0.1), (1, 2, 2.0)):
        progress.begin(stage)
        now[0] += 60
        for epoch in range(epochs):
            for batch in range(1, 13):
                now[0] += step if batch <= 10 else step / 2
                progress.batch_done(stage, epoch, batch, None)
    head, tune = notes[:48], notes[48:]
    assert head[1] == "stage 1/2 head, epoch 1/4" and head[12].endswith(", 0:03 left in this stage")
    assert tune[12].endswith(", 0:20 left") and tune[-1].endswith(", 0:00 left")


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
    assert "/120 epoch 1/2" in log.getvalue() and " left" in log.getvalue()
