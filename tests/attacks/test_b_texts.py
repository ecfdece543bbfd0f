"""Texts of a user's are shown, never obeyed: in generated code, plots, notes of a manifest and its card."""

import ast
import io

import numpy as np
from matplotlib.figure import Figure

from fastai_tl.core.escape import code_comment, code_text, html_text, markdown_text, plot_text, visible
from fastai_tl.deploy.notes import notes_problem
from fastai_tl.training.history import RunHistory, StageRecord
from fastai_tl.training.plan import Plan
from fastai_tl.training.stage import Stage

HOSTILE = (
    '"><script>alert(1)</script>',
    "</script><b>",
    "${{x}}",
    r"$\frac{$",
    "a\nimport os; os._exit(7)",
    "\x1b[2J\x1b]0;title\x07",
    "\u202egpj.exe",
    "\u2028x",
    "[red]:dog:\\",
    "'''\\",
    "half \ud800",
    "&lt;b&gt;",
    "1. www.example.org | `x` #",
)


def test_generated_code_is_the_plan_alone():
    for text in HOSTILE:
        stages = (
            Stage(text, lr="find", monitor=text, keep="best", patience=1),
            Stage("b", train=(text,), lr={text: 0.1}),
        )
        code = Plan(stages).to_code()
        tree = ast.parse(code)
        names = [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
        assert names == [] and "_exit" not in [n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)]
        assert text in [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)], "the same text, as a value"
        assert code.isprintable() or not set(code) - {"\n"} & {"\x1b", "\u202e", "\u2028", "\ud800"}


def test_each_medium_shows_the_text(counts):
    for text in HOSTILE:
        for f in (visible, html_text, markdown_text, code_comment, code_text, plot_text):
            said = f(text)
            said.encode()
            assert not {"\x1b", "\x07", "\u202e", "\u2028"} & set(said)
        assert "<" not in html_text(text) and "\n" not in markdown_text(text) + code_comment(text) + code_text(text)
        assert ast.literal_eval(code_text(text)) == text
    counts("media", "Hostile texts by medium", tried=6 * len(HOSTILE))


def test_a_run_is_plotted_whatever_its_names_are():
    for text in HOSTILE[:-3] + HOSTILE[-2:]:
        record = StageRecord(
            Stage(text, lr=1e-3), (1e-3,), ("train_loss", "valid_loss", text), [[1, 1, 1]], np.ones(3), np.ones(3), 1.0
        )
        fig = Figure()
        RunHistory([record]).plot(fig.subplots(1, 2))
        fig.savefig(io.BytesIO(), format="svg")


def test_what_the_kit_notes_itself_is_right():
    notes = dict(
        stage=dict(name="a", train=-1, epochs=3),
        names=["train_loss"],
        values=[[0.1]],
        lrs=[None, 1e-3],
        seconds=1.0,
        best=-1,
    )
    assert notes_problem(dict(training=[notes, notes | dict(stage=dict(name="b", train=["x.*"]))])) is None
