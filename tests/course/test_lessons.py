"""The course as people use it: copies, progress, questions in a notebook, the command line, and lessons run from top
to bottom.
"""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

import fastai_tl.course.progress as progress
from fastai_tl.course.grading import Unsolved
from fastai_tl.interface.cli import main
from fastai_tl.course.student_notebooks import (
    BY_HAND,
    STUB,
    MarksError,
    bare_copy,
    clear_solutions,
    exercises_in,
    nbgrader_course,
    nbgrader_source,
    notebook_text,
    read_notebook,
    student_copy,
)
from fastai_tl.core.errors import FileError, InputError
from fastai_tl.course.lessons import (
    LESSONS,
    ask,
    check,
    copy_lessons,
    find_progress,
    list_lessons,
    read_progress,
    run_checks,
    write_progress,
)
from fastai_tl.course.offline_bundle import OfflineBundleError, make_bundle, own_source, wheel_pins

NO_NETWORK = {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1"}


@pytest.fixture
def run(capsys):
    def f(*args, code=0):
        with pytest.raises(SystemExit) as e:
            main(list(map(str, args)))
        text = capsys.readouterr()
        assert (e.value.code or 0) == code, text.out + text.err
        return SimpleNamespace(out=" ".join(text.out.split()), err=" ".join(text.err.split()))

    return f


def execute(path, allow_errors=False):
    "Run a notebook in a fresh kernel, in its folder, without a network; the notebook with its outputs"
    from nbclient import NotebookClient

    nb = nbformat.read(path, 4)
    old = {k: os.environ.get(k) for k in NO_NETWORK}
    os.environ.update(NO_NETWORK)
    try:
        NotebookClient(
            nb,
            timeout=300,
            allow_errors=allow_errors,
            kernel_name="python3",
            resources={"metadata": {"path": str(path.parent)}},
        ).execute()
    finally:
        for k, v in old.items():
            os.environ.pop(k) if v is None else os.environ.update({k: v})
    return nb


# ---------------------------------------------------------------- one source


@pytest.mark.parametrize(
    "bad",
    [
        "### BEGIN SOLUTION\nx = 1",
        "x = 1\n### END SOLUTION",
        "### END SOLUTION\n### BEGIN SOLUTION",
        "### BEGIN SOLUTION\n### BEGIN SOLUTION\n### END SOLUTION",
        "### BEGIN SOLUTION\n### END SOLUTION\n### END SOLUTION",
        "def f():\n    # begin solution\n    pass",
        "#BEGIN SOLUTION",
    ],
)
def test_unbalanced_marks_are_refused(bad, tmp_path):
    nb = dict(
        cells=[
            dict(cell_type="markdown", source="# t", metadata={}),
            dict(cell_type="code", source=bad, metadata={}, outputs=[]),
        ],
        metadata={},
    )
    for f in (
        lambda: clear_solutions(bad),
        lambda: student_copy(nb),
        lambda: nbgrader_source(nb),
        lambda: nbgrader_course(tmp_path / "c", {"n": nb}),
    ):
        with pytest.raises(MarksError) as e:
            f()
    assert "n, cell 2, line" in str(e.value) and not (tmp_path / "c").exists()


def test_stubs_keep_their_indentation():
    text, had = clear_solutions(
        "def f(x):\n    y = 1\n    ### BEGIN SOLUTION\n    return x\n    ### END SOLUTION\n    # after"
    )
    assert had and text == "def f(x):\n    y = 1\n    # YOUR CODE HERE\n    todo()\n    # after"
    assert clear_solutions("x = 'BEGIN SOLUTION'") == ("x = 'BEGIN SOLUTION'", False)


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda o: o.name)
def test_student_copies_hold_no_solutions(lesson):
    solved, student = read_notebook(lesson.notebook(solutions=True)), read_notebook(lesson.notebook())
    text = notebook_text(student)
    assert "SOLUTION" not in text and exercises_in(solved) == exercises_in(student)
    assert notebook_text(student_copy(solved)) == text
    secrets = [
        line.strip()
        for c in solved["cells"]
        if c["cell_type"] == "code"
        for part in re.findall(r"### BEGIN SOLUTION\n(.*?)\n\s*### END SOLUTION", "".join(c["source"]), re.S)
        for line in part.split("\n")
    ]
    codes = "\n".join("".join(c["source"]) for c in student["cells"])
    assert len(secrets) >= 4
    # a question may show a line of code that its solution has, too
    shown = "\n".join("".join(c["source"]) for c in solved["cells"] if c["cell_type"] == "markdown")
    secrets = [s for s in secrets if s not in shown]
    lone = [s for s in secrets if s in [o.strip() for o in codes.split("\n")] and len(s) > 25]
    assert not lone, lone
    assert all(not c.get("outputs") for c in student["cells"])
    stubs = codes.count(STUB.split("\n")[0]) + codes.count(BY_HAND)
    assert stubs >= len(exercises_in(student)) - 1  # project-model is about what is there already


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda o: o.name)
def test_lessons_are_whole(lesson):
    nb = read_notebook(lesson.notebook())
    text = "\n".join("".join(c["source"]) for c in nb["cells"])
    for part in (
        "**Time**",
        "## Your turn",
        "a bug to find",
        "a panel",
        "question",
        "## Further reading",
        "## What to take home",
        "redict before",
    ):
        assert part in text, part
    assert text.startswith(f"# {lesson.number} {lesson.title}")
    glossary = (lesson.notebook().parent / "glossary.md").read_text()
    anchors = {
        re.sub(r"[^\w -]", "", h).strip().lower().replace(" ", "-") for h in re.findall(r"^## (.*)$", glossary, re.M)
    }
    for a in re.findall(r"glossary\.md#([\w-]+)", text):
        assert a in anchors, a
    for f in re.findall(r"\]\(([\w.]+\.ipynb)\)", text + glossary):
        assert (lesson.notebook().parent / f).is_file(), f
    assert len(re.findall(r"https://(?:arxiv|doi|jmlr)", text)) >= 3


# ---------------------------------------------------------------- progress


def test_copies_stay_and_progress_is_kept(tmp_path, monkeypatch):
    made = copy_lessons(tmp_path / "c")
    assert [p.name for p in made] == [o.file for o in LESSONS]
    assert {p.name for p in (tmp_path / "c").iterdir()} >= {"glossary.md", "cheatsheet.md", "progress.json"}
    made[0].write_text("mine")
    student = read_progress(tmp_path / "c/progress.json")["student"]
    assert copy_lessons(tmp_path / "c") == [] and made[0].read_text() == "mine"
    assert (
        copy_lessons(tmp_path / "c", ["setup"], force=True) == [made[0]]
        and (tmp_path / "c/0_setup.old.1.ipynb").read_text() == "mine"
    )
    assert read_progress(tmp_path / "c/progress.json")["student"] == student, (
        "force replaces notebooks, not what is the student's"
    )
    assert copy_lessons(tmp_path / "d", 3, solutions=True)[0].read_text() == notebook_text(
        bare_copy(read_notebook(LESSONS[3].notebook(True)))
    )
    with pytest.raises(InputError, match="frozen"):
        copy_lessons(tmp_path / "e", ["frozn"])
    with pytest.raises(FileError):
        copy_lessons(made[1])
    monkeypatch.chdir(tmp_path / "c")
    v = check("setup-share", dict(share_of_valid=lambda d: 0.1))
    assert v.mistake == "fixed"
    check("setup-share", dict(share_of_valid=lambda d: len(d.valid_ds) / (len(d.train_ds) + len(d.valid_ds))))
    e = json.loads(Path("progress.json").read_text())["exercises"]["setup-share"]
    assert e["passed"] and e["tries"] == 2 and "when" in e
    check("setup-share", dict(share_of_valid=None))
    assert json.loads(Path("progress.json").read_text())["exercises"]["setup-share"]["passed"], (
        "what was passed stays passed"
    )
    assert list_lessons().passed.tolist() == [1, *[0] * 7] and list_lessons(tmp_path).passed.sum() == 0
    (tmp_path / "c/sub").mkdir()
    assert find_progress("sub").parent == tmp_path / "c"


def test_check_reads_the_notebook_that_calls(tmp_path, monkeypatch):
    copy_lessons(tmp_path, ["why"])
    monkeypatch.chdir(tmp_path)
    ns = {"check": check, "gain": lambda a, b: 100 * (b.accuracy - a.accuracy)}
    exec("v = check('why-gain')", ns)
    assert ns["v"].passed
    with pytest.raises(Unsolved, match="why-baseline is next.*majority"):
        exec("check('why-baseline')", ns)
    assert "why-baseline" not in read_progress(Path("progress.json"))["exercises"]
    with pytest.raises(InputError, match="why-gain"):
        exec("check('why-gian')", ns)
    assert all("\n" not in s or s for s in Unsolved("kind")._render_traceback_())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"student": "x"}',
        '{"student": 1, "answers": [], "exercises": {}}',
        '{"student": 1, "answers": {}, "exercises": {"a": 1}}',
        "\x00",
        "[" * 100000,
    ],
)
def test_a_damaged_progress_file_is_put_aside(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    f = Path("progress.json")
    f.write_text(text)
    assert check("why-gain", dict(gain=lambda a, b: 100 * (b.accuracy - a.accuracy))).passed
    assert Path("progress.json.bad").read_text() == text and read_progress(f)["exercises"]["why-gain"]["passed"]
    assert ask("why-question").value is None


def test_progress_that_cannot_be_written_stops_nothing(tmp_path, monkeypatch):
    copy_lessons(tmp_path, ["why"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(progress.os, "replace", lambda *a: (_ for _ in ()).throw(PermissionError(13, "no")))
    assert check("why-gain", dict(gain=lambda a, b: 100 * (b.accuracy - a.accuracy))).passed
    assert not write_progress(Path("progress.json"), {}) and [
        p.name for p in tmp_path.iterdir() if "progress" in p.name
    ] == ["progress.json"]


def test_answers_to_questions_are_remembered(tmp_path, monkeypatch):
    copy_lessons(tmp_path, ["why"])
    monkeypatch.chdir(tmp_path)
    q = ask("why-question")
    q.entry.value = "arch"
    again = ask("why-question")
    assert again.value == "arch" and check("why-question", dict(why_question=again)).mistake == "arch"
    again.value = "few"
    assert "few" in again.code and check("why-question", dict(why_question=ask("why-question"))).passed
    with pytest.raises(InputError, match="few"):
        again.value = "fw"
    orders = set()
    for student in range(12):
        write_progress(Path("progress.json"), dict(version=1, student=student, exercises={}, answers={}))
        orders.add(tuple(k for _, k in ask("why-question").entry.options))
    assert len(orders) > 3
    with pytest.raises(InputError, match="why-question"):
        ask("why-quest")
    write_progress(
        Path("progress.json"),
        dict(version=1, student=1, exercises={}, answers={"why-question": "gone", "setup-worth": "text"}),
    )
    assert ask("why-question").value is None and ask("setup-worth").value is None


# ---------------------------------------------------------------- the command line


@pytest.mark.medium
def test_command_line(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    assert "Why transfer?" in run("lessons", "list").out
    assert "jupyter lab course/0_setup.ipynb" in run("lessons", "copy", "course").out
    assert "there already" in run("lessons", "copy", "course").out
    assert "why" in run("lessons", "progress", "course").out
    assert "no progress.json" in run("lessons", "progress", ".", code=2).err
    assert "There is no lesson" in run("lessons", "copy", "course", "nine", code=2).err
    assert "no such notebook" in run("lessons", "check", "course/nine.ipynb", code=2).err
    assert "not in this folder" in run("lessons", "check", "frozen", code=2).err
    Path("empty.ipynb").write_text('{"cells": []}')
    Path("broken.ipynb").write_text("{")
    assert "none of the lessons" in run("lessons", "check", "empty.ipynb", code=2).err
    assert "cannot be read as a notebook" in run("lessons", "check", "broken.ipynb", code=2).err
    out = run("lessons", "nbgrader", "grading", "why", "3").out
    assert "nbgrader generate_assignment 1_why_transfer" in out
    assert sorted(p.relative_to("grading").as_posix() for p in Path("grading").rglob("*") if p.is_file()) == [
        "nbgrader_config.py",
        "source/1_why_transfer/1_why_transfer.ipynb",
        "source/1_why_transfer/progress.json",
        "source/3_head_and_frozen/3_head_and_frozen.ipynb",
        "source/3_head_and_frozen/progress.json",
    ]
    assert "something else" in run("lessons", "nbgrader", "course", code=2).err
    assert "is there already" in run("lessons", "bundle", "course", code=2).err


def test_nbgrader_sources(tmp_path):
    nb = nbgrader_source(read_notebook(LESSONS[1].notebook(True)))
    cells = [c["metadata"]["nbgrader"] for c in nb["cells"] if "nbgrader" in c["metadata"]]
    tests = [c for c in cells if c["grade"]]
    assert [c["grade_id"] for c in tests] == exercises_in(nb) and all(c["locked"] and c["points"] == 1 for c in tests)
    # five answers and a guess
    assert len({c["grade_id"] for c in cells}) == len(cells) and sum(c["solution"] for c in cells) == 6


@pytest.mark.medium
def test_slides_load_nothing_and_hold_no_solutions(tmp_path):
    root = Path(__file__).parents[2]
    r = subprocess.run(
        [sys.executable, "-W", "ignore", str(root / "tools" / "make_slides.py"), str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert r.returncode == 0, r.stderr
    files = sorted(tmp_path.glob("*.html"))
    assert [p.stem for p in files] == [o.file.removesuffix(".ipynb") for o in LESSONS]
    for p in files:
        text = p.read_text()
        assert not re.findall(r'(?:<script[^>]* src|<link[^>]* href|<img[^>]* src="(?!data:)|@import|url\()', text), p
        assert text.count("<section>") >= 8 and "BEGIN SOLUTION" not in text and "{{" not in text


# ---------------------------------------------------------------- the stick


def wheels(folder, *names):
    folder.mkdir()
    for n in names:
        (folder / n).touch()
    return folder


def test_wheels_that_are_preferred(tmp_path):
    f = wheels(
        tmp_path / "w",
        "torch-2.15.0+cpu-cp311-cp311-linux_x86_64.whl",
        "typing_extensions-4.0-py3-none-any.whl",
        "notes.txt",
    )
    assert wheel_pins(f) == {"torch": "2.15.0+cpu", "typing-extensions": "4.0"}
    (f / "torch-2.14.0-cp311-cp311-linux_x86_64.whl").touch()
    with pytest.raises(FileError, match="two versions of torch"):
        wheel_pins(f)
    for bad in (tmp_path / "nowhere", wheels(tmp_path / "none")):
        with pytest.raises(FileError, match="no wheels"):
            wheel_pins(bad)
    assert Path(own_source()).joinpath("pyproject.toml").is_file() or own_source().startswith("fastai-tl")


def test_a_bundle_asks_pip_and_leaves_nothing_half_done(tmp_path):
    f, calls = wheels(tmp_path / "w", "torch-2.15.0+cpu-cp311-cp311-linux_x86_64.whl"), []

    def pip(args, **kw):
        calls.append([*map(str, args)])
        if "wheel" in args:
            (tmp_path / "b/wheels/fastai_tl-0.1.0-py3-none-any.whl").write_bytes(b"x" * 1000)
        if "-c" in args:
            calls.append(Path(args[args.index("-c") + 1]).read_text())
        return SimpleNamespace(returncode=0, stderr="")

    size = make_bundle(tmp_path / "b", f, solutions=True, say=lambda s: None, run=pip)
    assert (
        calls[-1] == "torch==2.15.0+cpu\n"
        and calls[-2][calls[-2].index("--find-links") + 1] == str(f)
        and "--no-index" not in calls[-2]
    )
    assert calls[-2][-1].endswith("fastai_tl-0.1.0-py3-none-any.whl[lab]")
    have = {p.name for p in (tmp_path / "b").iterdir()}
    assert have == {"wheels", "lessons", "solutions", "install.sh", "install.bat", "README.txt"} and size > 100_000
    assert os.access(tmp_path / "b/install.sh", os.X_OK) and "--no-index" in (tmp_path / "b/install.sh").read_text()
    shared = tmp_path / "b/lessons/progress.json"
    assert json.loads(shared.read_text())["student"] is None, "the figures in questions differ from student to student"
    one = read_progress(shared)["student"]
    assert (
        isinstance(one, int)
        and read_progress(shared)["student"] == one
        and not shared.with_name("progress.json.bad").exists()
    )
    assert "offline = yes" in (tmp_path / "b/lessons/settings.ini").read_text()
    with pytest.raises(FileError):
        make_bundle(tmp_path / "b", say=lambda s: None, run=pip)
    broken = lambda args, **kw: SimpleNamespace(returncode=1, stderr="ERROR: No matching distribution found for torch")
    with pytest.raises(OfflineBundleError, match="No matching distribution"):
        make_bundle(tmp_path / "c", f, say=lambda s: None, run=broken)
    assert not (tmp_path / "c").exists()
    with pytest.raises(FileError, match="offline needs"):
        make_bundle(tmp_path / "c", offline=True, say=lambda s: None, run=pip)


# ---------------------------------------------------------------- lessons, run


@pytest.mark.medium
def test_one_lesson_as_solved(tmp_path, monkeypatch):
    "The quickest of them; test_every_lesson_as_solved runs all"
    (nb,) = copy_lessons(tmp_path, ["project"], solutions=True)
    for k, v in NO_NETWORK.items():
        monkeypatch.setenv(k, v)
    seen = []
    verdicts = run_checks(nb, lambda done, n: seen.append(done == n))
    assert [v.name for v in verdicts] == exercises_in(read_notebook(nb)) and all(v.passed for v in verdicts), verdicts
    assert seen[-1] and list_lessons(tmp_path).passed.tolist() == [0] * 7 + [len(verdicts)]


def stops(nb):
    "What a notebook ends with, and the exercise that it names"
    said = [o for c in nb.cells if c.cell_type == "code" for o in c.outputs if o.output_type == "error"]
    return said[-1] if said else None


def until_unsolved(path):
    from nbclient.exceptions import CellExecutionError
    from nbclient import NotebookClient

    nb = nbformat.read(path, 4)
    with pytest.raises(CellExecutionError):
        NotebookClient(
            nb, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
        ).execute()
    return nb


def kindly_stopped(nb):
    e = stops(nb)
    assert e.ename == "Unsolved" and "Traceback" not in "".join(e.traceback) and len(e.traceback) == 1
    return e.evalue


@pytest.mark.medium
def test_a_student_copy_stops_kindly(tmp_path):
    (nb,) = copy_lessons(tmp_path, ["project"])
    assert "Write your guess into the cell above first" in kindly_stopped(until_unsolved(nb))


@pytest.mark.course
def test_running_a_student_copy_says_what_is_not_begun(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (nb,) = copy_lessons(tmp_path, ["project"])
    d = read_notebook(nb)
    for c in d["cells"]:  # a student who has done two exercises, one of them wrongly
        if c["cell_type"] == "code" and "def better" in c["source"]:
            c["source"] = "def better(ev, baseline): return ev.accuracy>baseline"
        if c["cell_type"] == "code" and c["source"].startswith("check(\"project-question"):
            c["source"] = "project_question.value = 'limits'\n" + c["source"]
    nb.write_text(notebook_text(d))
    r = run("lessons", "check", "project", code=1)
    assert "1 of 6 exercises are right" in r.out and "not begun" in r.out and "is all of its interval?" in r.out
    assert "project-better: tried 1 times" in run("lessons", "progress").out


@pytest.mark.course
def test_every_lesson_as_solved(tmp_path, capsys):
    "In order, each on a fresh kernel, without a network, in less than three minutes"
    for nb in copy_lessons(tmp_path, solutions=True):
        t = time.perf_counter()
        execute(nb)
        seconds = time.perf_counter() - t
        with capsys.disabled():
            print(f"\n{nb.name}: {seconds:.0f} s", end="", flush=True)
        assert seconds < 180, nb
    t = list_lessons(tmp_path)
    assert t.passed.tolist() == t.exercises.tolist()


@pytest.mark.course
def test_every_student_copy_stops_kindly(tmp_path):
    for nb in copy_lessons(tmp_path):
        assert kindly_stopped(until_unsolved(nb)), nb
    assert list_lessons(tmp_path).passed.sum() == 0


@pytest.mark.course
def test_nbgrader_marks_submissions(tmp_path):
    "With the real nbgrader, where it is installed: see benchmarks/nbgrader_round_trip.py"
    pytest.importorskip("nbgrader")
    script = Path(__file__).parents[2] / "benchmarks" / "nbgrader_round_trip.py"
    r = subprocess.run([sys.executable, script, tmp_path / "course"], capture_output=True, text=True)
    assert r.returncode == 0, r.stdout + r.stderr
