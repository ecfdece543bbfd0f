"""Judging in a process of its own: what a student's code cannot do there, and a class of such notebooks."""

import csv
import io
import json
import os
from pathlib import Path

import pytest

from fastai_tl.core.errors import FileError, InputError
from fastai_tl.course.class_table import class_frame, grades_csv, read_class, same_figures, stuck_at
from fastai_tl.course.copies import copy_lessons
from fastai_tl.course.exam import Exam, drawn_questions, mark_exam
from fastai_tl.course.grading import EXERCISES, Answers, call_student, judge, outcome
from fastai_tl.course.judge_process import JudgeChild, There, judge_notebook, read_submission, sandbox
from fastai_tl.course.lesson_list import load_exercises
from fastai_tl.course.plain import Opaque, decode, encode, plain
from fastai_tl.course.progress import FILE, WHERE
from fastai_tl.course.student_notebooks import answer_cells, notebook_text, read_notebook
from fastai_tl.interface.class_cli import class_view

WILSON = """
def interval(right, n):
    p, z = right / n, 1.96
    h = z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    return (p + z**2 / (2 * n) - h) / (1 + z**2 / n), (p + z**2 / (2 * n) + h) / (1 + z**2 / n)
"""
CHEAT = """
import fastai_tl.course.grading as g, fastai_tl.course.verdict as v
g.judge = lambda *a, **k: v.Verdict("evaluate-interval")
g.Answers = g.outcome = g.fail = lambda *a, **k: None
check = lambda n: type("V", (), {"require": lambda s: s, "__repr__": lambda s: n + ": right."})()
def interval(right, n): return 0.0, 1.0
"""


@pytest.fixture(scope="module", params=["bubblewrap", "limits alone"])
def box(request):
    if request.param == "bubblewrap" and sandbox() != "bubblewrap":
        pytest.skip("bubblewrap is not installed, or may not be used here")
    return request.param


def asked(child, limit=5.0):
    load_exercises("evaluate")
    ex = EXERCISES["evaluate-interval"]
    there = There(child, ex.needs, limit)
    return outcome(ex, lambda: ex.judge(Answers(ex.needs, there, {}, 1)), 3600)


@pytest.mark.medium
def test_what_a_students_code_can_do_in_the_child(box, tmp_path):
    secret = tmp_path / "class" / "secret.txt"
    secret.parent.mkdir()
    secret.write_text("of another student")
    work = tmp_path / "work"
    work.mkdir()
    with JudgeChild(work, {WHERE: "none"}, box, (secret.parent,)) as child:
        run = lambda source: child.ask(120, do="cell", source=source, limit=60)["error"]
        assert asked(child).mistake == "unsolved"
        assert run(WILSON) == "" and asked(child).passed
        assert "ZeroDivisionError" in run("1 / 0"), "an error ends a cell, not the notebook"
        assert asked(child).passed
        assert run(CHEAT) == "" and not asked(child).passed, "redefining check and judge is no answer"
        run(WILSON)
        assert asked(child).passed
        run("def interval(right, n):\n    while True: pass")
        assert asked(child, 0.5).mistake == "slow"
        run("import time\ndef interval(right, n): time.sleep(75)")
        assert asked(child, 0.5).mistake == "slow", "C code ends, too"
        run("import os\ndef interval(right, n): os._exit(0)")
        assert not asked(child).passed
        run("import os\ndef interval(right, n): os.kill(os.getppid(), 0); raise SystemExit")
        assert not asked(child).passed
        run(WILSON)
        assert asked(child).passed, "the child outlives all of that"
        if box == "bubblewrap":
            assert "Error" in run(f"open({str(secret)!r}).read()"), "other submissions are not seen"
            run(f"open({str(tmp_path / 'new')!r}, 'w').close()")
            assert not (tmp_path / "new").exists(), "what is written elsewhere is gone"
            assert "Error" in run("import socket; socket.create_connection(('1.1.1.1', 53), timeout=2)")
            assert run("open('mine.txt', 'w').close()") == "" and (work / "mine.txt").exists()
    assert child.process.poll() is not None


def test_nothing_but_plain_data_crosses():
    for x in (1, -2.5, True, None, "é", [1, (2, {"a": [3]})], {1: "b"}, Path("x"), ..., 10**400):
        got = plain(x)
        assert got == x and type(got) is type(x) or isinstance(x, Path) and got == x
    for x in (object(), lambda: 1, type("Evil", (), {"__reduce__": lambda s: (os.system, ("false",))})(), 3j):
        assert isinstance(plain(x), Opaque)
    cycle = []
    cycle.append(cycle)
    assert len(encode(cycle)) < 10_000
    for bad in ("", "{", '{"tensor": "x"}', '{"list": 3}', "[" * 5000):
        with pytest.raises(ValueError):
            decode(bad)


def edited(nb, **by_id):
    "The notebook with other sources"
    d = json.loads(json.dumps(nb))
    for c in d["cells"]:
        c["source"] = by_id.get(c["id"], c["source"])
    return d


def test_answers_are_found_in_a_notebook_that_was_rearranged(tmp_path):
    (nb,) = copy_lessons(tmp_path, ["why"])
    blank = read_notebook(nb)
    gain, base = (answer_cells(blank)[n][-1] for n in ("why-gain", "why-baseline"))
    d = edited(blank, **{gain: "GAIN", base: "BASE"})
    at = next(i for i, c in enumerate(d["cells"]) if c["id"] == gain)
    twice = {**d["cells"][at], "source": "# YOUR CODE HERE\ntodo()"}
    added = dict(cell_type="code", id="new", metadata={}, source="HELPER", outputs=[])
    d["cells"][at + 1 : at + 1] = [added, twice]  # a helper, and a copy that is still blank
    d["cells"] = [c for c in d["cells"] if c["id"] != base]  # deleted
    d["cells"] = [{**c, "source": "check = lambda n: 'right'"} if "import *" in c["source"] else c for c in d["cells"]]
    nb.write_text(notebook_text(d))
    cells = read_submission(nb).cells
    texts = [t for _, t in cells]
    assert ("answer", "GAIN") in cells and ("added", "HELPER") in cells and "BASE" not in texts
    assert not any("lambda n: 'right'" in t for t in texts), "the teacher's cells come from the package"
    assert [k for k, _ in cells].count("check") == 5
    nb.write_text('{"cells": []}')
    with pytest.raises(InputError, match="none of the lessons"):
        read_submission(nb)


def test_figures_differ_and_the_judge_uses_those_of_the_student(tmp_path):
    stop = """
def stop_at(losses, k=4):
    low = float("inf")
    for i, v in enumerate(losses):
        if v != v or abs(v) == float("inf") or v > k * low: return i
        low = min(low, v)
    return len(losses)
"""
    load_exercises("rates")
    ns = {}
    exec(stop, ns)
    by = {s: EXERCISES["rates-stop"].figures_of(s)["factor"] for s in range(12)}
    assert len(set(by.values())) == 3
    for seed, factor in by.items():
        assert judge("rates-stop", dict(stop_at=ns["stop_at"]), seed=seed).passed == (factor == 4)
    assert judge("rates-stop", dict(stop_at=ns["stop_at"])).passed, "the figures of the text, without a student"


# ---------------------------------------------------------------- a class


def student(folder, name, seed, **exercises):
    d = folder / name
    d.mkdir(parents=True)
    entries = {k.replace("_", "-"): v for k, v in exercises.items()}
    (d / FILE).write_text(json.dumps(dict(version=1, student=seed, exercises=entries, answers={})))
    return d


@pytest.fixture
def school(tmp_path):
    f = tmp_path / "class"
    student(
        f, "anna", 1, why_gain=dict(passed=True, tries=2), why_panel=dict(passed=False, tries=7, last_mistake="less")
    )
    student(f, "ben", 1, why_panel=dict(passed=False, tries=2, last_mistake="less"))
    student(f, "=cmd", 3, why_gain=dict(passed="yes", tries="many"))
    (f / "carl").mkdir()
    (f / "carl" / FILE).write_text("[" * 9000)
    return f


def test_the_class_table(school):
    students = read_class(school)
    t = class_frame(students).set_index("student")
    assert t.loc["anna", ["why", "passed", "stuck", "tries", "mistake"]].tolist() == [1, 1, "why-panel", 7, "less"]
    assert t.loc["=cmd", "passed"] == 0 and t.loc["carl", "passed"] == 0
    assert stuck_at(students)[0] == ("why-panel", 2, "less") and same_figures(students) == [["anna", "ben"]]
    (school / "class.json").write_text(json.dumps({"anna": {"why-gain": dict(passed=False, tries=1)}}))
    assert class_frame(read_class(school)).set_index("student").loc["anna", "passed"] == 0, "the judge's word counts"
    assert class_view(school).row_count == 4
    with pytest.raises(FileError):
        read_class(school / "anna")


def test_grades_for_moodle_and_canvas(school):
    (school / "students.csv").write_text("folder,name,email,id\nanna,Anna A,a@b.c,17\n")
    students = read_class(school)
    rows = list(csv.DictReader(io.StringIO(grades_csv(school, students, "moodle", pass_mark=2))))
    anna = next(r for r in rows if r["Username"] == "anna")
    assert (anna["Email address"], anna["Total"], anna["Passed"]) == ("a@b.c", "1", "yes")
    assert not any(r["Username"].startswith("=") for r in rows), "no spreadsheet runs a folder's name"
    canvas = list(csv.reader(io.StringIO(grades_csv(school, students, "canvas"))))
    assert canvas[0][:5] == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section"]
    assert canvas[1][0].strip() == "Points Possible" and int(canvas[1][-1]) >= 40
    assert next(r for r in canvas if r[0] == "Anna A")[1] == "17"
    with pytest.raises(InputError):
        grades_csv(school, students, "excel")


def test_an_exam_is_marked_from_its_file_alone(school):
    exam = Exam("anna", file=school / "anna" / "exam.json")
    assert [q.name for q, *_ in exam.questions] == [q.name for q, *_ in drawn_questions(exam.seed)]
    assert {q.name for q, *_ in Exam("ben", file=school / "ben" / "exam.json").questions} != set(exam.entries)
    for q, f, _ in exam.questions[:6]:
        exam.entries[q.name].value = 0 if q.choices else q.truth(f)
    for q, f, _ in exam.questions[6:]:
        exam.entries[q.name].value = 1 if q.choices else q.truth(f) * 1.5 + 1
    got = mark_exam(exam.file)
    assert (got["points"], got["of"], got["own"]) == (6, 10, True)
    assert class_frame(read_class(school)).set_index("student").loc["anna", "exam"] == "6 of 10"
    d = json.loads(exam.file.read_text())
    assert all(v["at"] >= 0 for v in d["answers"].values()) and "points" not in d
    exam.file.write_text(json.dumps({**d, "seed": 5}))
    assert not mark_exam(exam.file)["own"], "questions of somebody else"
    exam.began -= 3600
    before = dict(exam.answers)
    exam._take(exam.questions[0][0].name, 2)
    assert exam.answers == before, "no answer after the end"
    for text in ("", "[]", '{"seed": "x"}', '{"seed": 1, "answers": {"a": 3}}'):
        exam.file.write_text(text)
        assert mark_exam(exam.file) is None
    html = "".join(w.value for w in exam.children if type(w).__name__ == "HTML")
    assert "Right" not in html and "Not quite" not in html


@pytest.mark.course
def test_a_notebook_is_judged(tmp_path, box):
    (nb,) = copy_lessons(tmp_path, ["project"], solutions=True)
    assert all(v.passed for v in judge_notebook(read_submission(nb), box=box))
    (blank,) = copy_lessons(tmp_path / "blank", ["project"])
    assert not any(v.passed for v in judge_notebook(read_submission(blank), box=box))
    assert call_student.__module__ == "fastai_tl.course.grading"
