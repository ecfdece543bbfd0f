"""A course through the real nbgrader: made by `fastai-tl lessons nbgrader`, generated, handed in, autograded; are the
marks right?

Run, in an environment with nbgrader: python benchmarks/nbgrader_round_trip.py [FOLDER] [--lesson NAME]

Eight students: one hands in the solutions, one the first half of them, one an untouched copy, one a copy in which every
answer is wrong (or an error), and one a copy with a single answer right; one redefines `check` and patches the judge;
one has deleted an answer cell, and one has an answer cell twice. nbgrader's own database has to give each the points
that they deserve.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from fastai_tl.course.student_notebooks import answer_cells, exercises_in, nbgrader_course, read_notebook
from fastai_tl.course.lessons import find_lesson, load_exercises

# nbgrader starts alembic by its bare name, so the environment's programs must be on the path
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
SOLUTION = ("### BEGIN SOLUTION", "### END SOLUTION")


def nbgrader(folder, *args):
    r = subprocess.run([sys.executable, "-m", "nbgrader", *args], cwd=folder, capture_output=True, text=True, env=ENV)
    if r.returncode:
        raise SystemExit(f"nbgrader {' '.join(args)} failed:\n{r.stdout[-3000:]}\n{r.stderr[-3000:]}")
    return r.stdout + r.stderr


def source_of(nb, grade_id):
    return next(c for c in nb["cells"] if c["metadata"].get("nbgrader", {}).get("grade_id") == grade_id)


def filled(released, source, answer):
    "The released notebook with each answer cell changed by `answer(cell, solution)`"
    nb = json.loads(json.dumps(released))
    for c in nb["cells"]:
        m = c["metadata"].get("nbgrader", {})
        if m.get("solution"):
            c["source"] = answer(
                m["grade_id"], "".join(source_of(source, m["grade_id"])["source"]), "".join(c["source"])
            )
    return nb


def wrong(grade_id, solution, stub):
    "Something that runs and is wrong: a function that gives 0, a question answered by a wrong choice, or nothing"
    from fastai_tl.course.questions import QUESTIONS

    for line in solution.split("\n"):
        if line.startswith("def "):
            name = line[4 : line.index("(")]
            return f"def {name}(*args): return 0"
    if ".value = " in solution:
        name = next(line for line in solution.split("\n") if ".value" in line).split(".value")[0]
        q = QUESTIONS[name.replace("_", "-", 1)]
        key = next((c.key for c in getattr(q, "choices", ()) if not c.right), None)
        return f"{name}.value = {key!r}" if key else f"{name}.value = 0.0"
    return "confused = ('bird', 'bird')" if "confused" in solution else "pass"


CHEAT = """
import fastai_tl.course.grading as g
import fastai_tl.course.lessons as l
from fastai_tl.course.verdict import Verdict
check = lambda n: type("V", (), {"require": lambda s: s, "__repr__": lambda s: n + ": right."})()
g.judge = l.judge = lambda name, *a, **k: Verdict(name)
"""


def without(nb, grade_id):
    "The notebook without an answer cell"
    keep = [c for c in nb["cells"] if c["metadata"].get("nbgrader", {}).get("grade_id") != grade_id]
    return {**nb, "cells": keep}


def twice(nb, grade_id):
    "The notebook with an answer cell once more behind it, as copy and paste leave it"
    out = []
    for c in nb["cells"]:
        out.append(c)
        if c["metadata"].get("nbgrader", {}).get("grade_id") == grade_id:
            out.append({**json.loads(json.dumps(c)), "id": "pasted"})
    return {**nb, "cells": out}


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("folder", nargs="?", default=None)
    ap.add_argument("--lesson", default="why")
    a = ap.parse_args()
    folder = Path(a.folder or tempfile.mkdtemp()) / "course" if a.folder is None else Path(a.folder)
    lesson = find_lesson(a.lesson)
    name = lesson.file.removesuffix(".ipynb")
    nbgrader_course(folder, {name: read_notebook(lesson.notebook(solutions=True))})
    nbgrader(folder, "generate_assignment", name, "--create")
    source, released = (read_notebook(folder / p / name / f"{name}.ipynb") for p in ("source", "release"))
    text = json.dumps(released)
    assert "SOLUTION" not in text and "todo()" in text, "the released notebook holds a solution, or no stub"
    exercises, plain = exercises_in(source), lambda s: "\n".join(o for o in s.split("\n") if o.strip() not in SOLUTION)
    ids = [
        c["metadata"]["nbgrader"]["grade_id"]
        for c in released["cells"]
        if c["metadata"].get("nbgrader", {}).get("solution")
    ]
    load_exercises(lesson.name)
    answers = answer_cells(read_notebook(lesson.notebook()))
    grade_ids = {c["id"]: c["metadata"]["nbgrader"]["grade_id"] for c in source["cells"] if "nbgrader" in c["metadata"]}
    of = {e: [grade_ids[i] for i in cells] for e, cells in answers.items()}
    # an exercise that nothing else depends on, and the first half of all
    one = of[next(e for e in exercises if e.endswith(("-gain", "-better", "-interval", "-rates", "-sweep", "-share")))][
        -1
    ]
    half_of = exercises[: len(exercises) // 2]
    half = {g for e in half_of for g in of[e]} | {g for g in ids if g not in {i for v in of.values() for i in v}}
    hand_in = {
        "perfect": (lambda g, s, stub: plain(s), len(exercises)),
        "empty": (lambda g, s, stub: stub, 0),
        "wrong": (wrong, 0),
        "one": (lambda g, s, stub: plain(s) if g == one else stub, 1),
        "half": (lambda g, s, stub: plain(s) if g in half else stub, sum(set(of[e]) <= half for e in exercises)),
        "cheat": (lambda g, s, stub: CHEAT + stub.replace("todo()", ""), 0),
        "deleted": (lambda g, s, stub: plain(s), len(exercises) - 1),
        "twice": (lambda g, s, stub: plain(s), len(exercises)),
    }
    change = {"deleted": lambda nb: without(nb, one), "twice": lambda nb: twice(nb, one)}
    for student, (answer, _) in hand_in.items():
        to = folder / "submitted" / student / name
        to.mkdir(parents=True)
        nb = change.get(student, lambda nb: nb)(filled(released, source, answer))
        (to / f"{name}.ipynb").write_text(json.dumps(nb), encoding="utf-8")
    nbgrader(folder, "autograde", name, "--create")
    os.environ["PATH"] = ENV["PATH"]
    from nbgrader.api import Gradebook

    bad = []
    with Gradebook(f"sqlite:///{folder.resolve() / 'gradebook.db'}") as gb:
        for student, (_, want) in hand_in.items():
            s = gb.find_submission(name, student)
            print(
                f"{student:8} {s.score:g} of {s.max_score:g} points, as expected: "
                f"{s.score == want and s.max_score == len(exercises)}"
            )
            if s.score != want or s.max_score != len(exercises):
                bad.append(student)
    if bad:
        raise SystemExit(f"Wrong marks for {', '.join(bad)}.")


if __name__ == "__main__":
    main()
