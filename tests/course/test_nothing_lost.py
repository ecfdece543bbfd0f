"""What a student has done stays theirs: old copies, resets, progress of one's own, and the config of nbgrader."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from fastai_tl.core.errors import FileError, InputError
from fastai_tl.course import lesson_list
from fastai_tl.course.copies import copy_lessons, reset_lesson
from fastai_tl.course.lessons import check, run_checks
from fastai_tl.course.offline_bundle import make_bundle
from fastai_tl.course.progress import FILE, read_progress, write_progress
from fastai_tl.course.student_notebooks import (
    CONFIG,
    answer_cells,
    clear_solutions,
    nbgrader_source,
    notebook_text,
    read_notebook,
)


def config():
    "What nbgrader reads from the config that is written for a course"

    class Section:
        def __getattr__(self, k):
            setattr(self, k, Section())
            return getattr(self, k)

    c = Section()
    exec(compile(CONFIG, "nbgrader_config.py", "exec"), {"get_config": lambda: c, "__file__": "/course/c.py"})
    return c


def test_the_stub_of_nbgrader_is_code():
    stub = config().ClearSolutions.code_stub["python"]
    assert stub.splitlines()[-1] == "todo()"
    for o in lesson_list.LESSONS:
        for c in nbgrader_source(read_notebook(o.notebook(True)))["cells"]:
            if c["metadata"].get("nbgrader", {}).get("solution"):
                text, had = clear_solutions("".join(c["source"]), stub)
                assert had and "todo()" in text.replace("# todo", "")
                compile(text, "cell", "exec")


def test_forcing_a_copy_again_and_again_keeps_every_old_one(tmp_path):
    (nb,) = copy_lessons(tmp_path, ["setup"])
    for i in range(4):
        nb.write_text(f"work {i}")
        copy_lessons(tmp_path, ["setup"], force=True)
    assert [(tmp_path / f"0_setup.old.{i + 1}.ipynb").read_text() for i in range(4)] == [f"work {i}" for i in range(4)]


def test_reset_of_a_lesson_and_of_one_exercise(tmp_path, monkeypatch):
    (nb,) = copy_lessons(tmp_path, ["why"])
    monkeypatch.chdir(tmp_path)
    blank = read_notebook(nb)
    mine = json.loads(json.dumps(blank))
    ids = answer_cells(blank)
    for c in mine["cells"]:
        if c["id"] in ids["why-gain"] + ids["why-baseline"]:
            c["source"] = "my = 1"
    nb.write_text(notebook_text(mine))
    check("why-gain", dict(gain=lambda a, b: 100 * (b.accuracy - a.accuracy)))
    check("why-panel", dict(learn=1, confused=1))
    old = reset_lesson("why", "why-gain")
    assert read_notebook(old) == mine
    by = {c["id"]: "".join(c["source"]) for c in read_notebook(nb)["cells"]}
    assert "todo()" in by[ids["why-gain"][0]] and by[ids["why-baseline"][0]] == "my = 1"
    d = read_progress(Path(FILE))
    assert set(d["exercises"]) == {"why-panel"} and d["earlier"][0]["exercises"]["why-gain"]["passed"]
    mine["cells"] = [c for c in mine["cells"] if c["id"] not in ids["why-gain"]]
    nb.write_text(notebook_text(mine))
    reset_lesson(1, "why-gain")
    cells = [c["id"] for c in read_notebook(nb)["cells"]]
    assert ids["why-gain"][0] in cells, "an answer cell that was deleted comes back"
    student = d["student"]
    reset_lesson("1")
    assert read_notebook(nb) == blank and read_progress(Path(FILE))["student"] == student
    assert not read_progress(Path(FILE))["exercises"]
    assert len(list(tmp_path.glob("*.old.*"))) == 3
    with pytest.raises(InputError, match="why-gain"):
        reset_lesson("why", "why-gian")
    with pytest.raises(FileError, match="Copy it"):
        reset_lesson("rates")


@pytest.mark.medium
def test_checking_reads_and_writes_no_progress_of_a_folder_above(tmp_path):
    folder = tmp_path / "class" / "anna"
    (nb,) = copy_lessons(folder, ["project"])
    (folder / FILE).unlink()
    d = read_notebook(nb)
    d["cells"] = [c for c in d["cells"] if "check(\"project-question\")" in "".join(c["source"])]
    d["cells"].insert(0, {**d["cells"][0], "id": "a", "source": "from fastai_tl.all import *\n"
                          "project_question = ask('project-question')"})  # fmt: skip
    nb.write_text(notebook_text(d))
    teacher = dict(version=1, student=7, exercises={}, answers={"project-question": "limits"})
    write_progress(tmp_path / FILE, teacher)
    assert not any(v.passed for v in run_checks(nb))
    assert json.loads((tmp_path / FILE).read_text()) == teacher


def test_solutions_are_in_a_checkout_only(tmp_path, monkeypatch):
    assert not list(Path(lesson_list.LESSONS[0].notebook()).parent.rglob("*solution*"))
    (tmp_path / "site/fastai_tl/data/lessons").mkdir(parents=True)
    monkeypatch.setattr(lesson_list, "files", lambda _: tmp_path / "site/fastai_tl")
    for f in (copy_lessons, make_bundle):
        with pytest.raises(FileError, match="checkout"):
            f(tmp_path / "new", solutions=True)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("moment", ["lessons", "scripts"])
def test_a_bundle_interrupted_late_leaves_nothing(tmp_path, monkeypatch, moment):
    from fastai_tl.course import offline_bundle

    def pip(args, **kw):
        if "wheel" in args:
            Path(args[args.index("-w") + 1], "fastai_tl-0.1.0-py3-none-any.whl").touch()
            assert not (Path(args[-1]) / "nbs").exists(), "a copy is built, so that no build/ is left in the checkout"
        return SimpleNamespace(returncode=0, stderr="")

    def stop(*a, **k):
        raise KeyboardInterrupt

    monkeypatch.setattr(offline_bundle, f"_write_{moment}", stop)
    with pytest.raises(KeyboardInterrupt):
        make_bundle(tmp_path / "b", say=lambda s: None, run=pip)
    assert not (tmp_path / "b").exists()


@pytest.mark.medium
def test_a_bundle_that_is_terminated_leaves_nothing(tmp_path):
    code = """
import sys, time
from types import SimpleNamespace
from fastai_tl.course.offline_bundle import make_bundle
def pip(*a, **k):
    print("pip", flush=True)
    time.sleep(60)
make_bundle(sys.argv[1], say=lambda s: None, run=pip)
"""
    p = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "b")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert p.stdout.readline() == b"pip\n"
    os.kill(p.pid, signal.SIGTERM)
    p.wait(30)
    p.stdout.close()
    assert not (tmp_path / "b").exists()
    # one that was killed outright is begun anew
    (tmp_path / "b").mkdir()
    (tmp_path / "b/.unfinished").touch()
    (tmp_path / "b/rest").touch()
    with pytest.raises(KeyboardInterrupt):
        make_bundle(tmp_path / "b", say=stop_now)
    assert not (tmp_path / "b").exists()


def stop_now(text):
    raise KeyboardInterrupt
