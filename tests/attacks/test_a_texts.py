"""Plans, settings, notebooks and progress files from strangers: edited by structure, never a foreign error."""

import collections
import json
import os
import random
import time

import fuzz_models
import pytest
import yaml

from fastai_tl.core.errors import KitError
from fastai_tl.core.settings import KEYS, SettingsError, load_settings, settings_text
from fastai_tl.course.lesson_list import LESSONS
from fastai_tl.course.lessons import list_lessons, run_checks
from fastai_tl.course.progress import new_progress, note_verdict, read_progress
from fastai_tl.course.grading import Verdict
from fastai_tl.course.student_notebooks import (
    exercises_in,
    notebook_text,
    read_notebook,
    student_copy,
)
from fastai_tl.training.plan import Plan
from fastai_tl.training.plan_yaml import MOST


def outcome(f, *args):
    "How a call ends; anything but an answer or an error of the kit's fails, and so does an error on several lines"
    start = time.monotonic()
    try:
        f(*args)
        said = "read"
    except KitError as e:
        assert "\n" not in e.args[0] and len(e.args[0]) < 2000, e
        said = type(e).__name__
    assert time.monotonic() - start < 60
    return said


# --- plans ------------------------------------------------------------------------------------------------------------

PLANS = [
    yaml.safe_load(p.to_yaml()) for p in (Plan.gradual().expand(["stem", "body", "head"]), Plan.lp_ft(), Plan.probe())
]


def edited_plan(rng):
    doc = fuzz_models.changed_json(rng, rng.choice(PLANS))
    text = json.dumps(doc) if rng.random() < 0.5 else yaml.safe_dump(doc)
    return text if rng.random() < 0.6 else fuzz_models.changed_bytes(rng, text.encode()).decode("utf-8", "replace")


def use_plan(text):
    plan = Plan.from_yaml(text)
    compile(plan.to_code(["stem", "body", "head"]), "plan", "exec")
    assert Plan.from_yaml(plan.to_yaml()) == plan
    return plan


def run_plans(n, seed):
    return collections.Counter(outcome(use_plan, edited_plan(random.Random(f"{seed} {i}"))) for i in range(n))


def test_edited_plans(counts):
    r = run_plans(300, 0)
    counts("texts", "Plans in YAML, edited", **r)
    assert r["PlanError"] > 100 and r["read"] > 10


@pytest.mark.attacks
def test_ten_thousand_edited_plans(counts):
    counts("texts", "Plans in YAML, edited", **run_plans(10_000, 1))


BOMBS = {
    "brackets": "stages:\n- name: " + "[" * 5000,
    "dashes": "- " * 5000,
    "keys": "? " * 5000,
    "a list as a key": "{? [1,2] : 3}",
    "a mapping as a key": "stages:\n- name: x\n  lr: {{a: b}: 2}\n",
    "a circle": "stages: &a [*a]\n",
    "aliases of aliases": "stages:\n- name: &a [x,x,x,x,x,x]\n"
    + "".join(f"- name: &{c} [{','.join(['*' + b] * 6)}]\n" for b, c in zip("abcdefgh", "bcdefghi")),
    "5,000 digits": "stages:\n- name: x\n  epochs: " + "9" * 5000,
    "400 digits": "stages:\n- name: x\n  epochs: " + "9" * 400,
    "no date": "stages:\n- name: 2026-99-99\n",
    "no number": "stages:\n- name: x\n  epochs: !!int x\n",
    "an object": "stages:\n- name: !!python/object/apply:os.system [ls]\n",
    "long": "#" * (MOST + 1) + "\n",
    "a zero byte": "stages:\n\0",
    "half a pair": "stages:\n- name: '\ud800'\n",
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_plan_that_is_none_is_refused_in_a_line(kind):
    assert outcome(Plan.from_yaml, BOMBS[kind]) == "PlanError"


def test_a_file_that_is_no_plan(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"stages:\n- name: \xe9\n")
    (tmp_path / "folder.yaml").mkdir()
    for name in ("pipe", "latin", "folder", "none", "a\0b"):
        assert outcome(Plan.from_yaml, tmp_path / f"{name}.yaml") == "FileError", name
    (tmp_path / "mark.yaml").write_bytes(Plan.head_only().to_yaml().encode("utf-16"))
    assert Plan.from_yaml(tmp_path / "mark.yaml") == Plan.head_only()


# --- settings ---------------------------------------------------------------------------------------------------------


def run_settings(folder, n, seed):
    text, outcomes = settings_text(), collections.Counter()
    for i in range(n):
        rng = random.Random(f"{seed} {i}")
        if rng.random() < 0.5:
            data = fuzz_models.changed_bytes(rng, text.encode())
        else:
            key = rng.choice(list(KEYS))
            value = rng.choice(
                ["9" * 400, "9" * 5000 + " GB", "-1", "", "%(x)s", "$HOME", "\x1b", "é", "nan", "1e9", "0x10", "１"]
            )
            data = f"[fastai_tl]\n{key} = {value}\n".encode(
                rng.choice(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1"]), "replace"
            )
        (folder / "settings.ini").write_bytes(data)
        outcomes[outcome(lambda: load_settings(folder).cache_path)] += 1
    return outcomes


def test_edited_settings(tmp_path, counts):
    r = run_settings(tmp_path, 300, 0)
    counts("texts", "settings.ini, edited", **r)
    assert set(r) == {"read", "SettingsError"} and min(r.values()) > 50


@pytest.mark.attacks
def test_ten_thousand_edited_settings(tmp_path, counts):
    counts("texts", "settings.ini, edited", **run_settings(tmp_path, 10_000, 1))


def test_settings_that_must_not_be_passed_over(tmp_path):
    file, good = tmp_path / "settings.ini", "[fastai_tl]\nsize = 64\n"
    for data in (
        good.encode("utf-8-sig"),
        good.encode("utf-16"),
        good.replace("]", "]  # ours").encode(),
        b"\n" * 200_000 + good.encode(),
        b" \n" * 200_000 + good.encode(),
    ):
        file.write_bytes(data)
        start = time.monotonic()
        assert load_settings(tmp_path).size == 64 and time.monotonic() - start < 15
    for data in (
        b"[FASTAI_TL]\nsize = 64\n",
        good.encode() + b"# caf\xe9\n",
        good.encode() + b"#" * 2**20,
        b"[fastai_tl]\nmemory_limit = " + b"9" * 400 + b" GB\n",
        b"[fastai_tl]\nsize = " + b"9" * 400,
    ):
        file.write_bytes(data)
        with pytest.raises(SettingsError, match="settings.ini"):
            load_settings(tmp_path)
    file.unlink()
    os.mkfifo(file)
    assert load_settings(tmp_path).file is None, "a pipe is no settings file, and nobody waits for it"


# --- notebooks and progress files -------------------------------------------------------------------------------------


def use_notebook(path):
    nb = read_notebook(path)
    names = exercises_in(nb)
    student_copy(nb)
    notebook_text(nb).encode()
    if not names:
        run_checks(path)


def run_notebooks(folder, n, seed):
    nb, outcomes = read_notebook(LESSONS[1].notebook()), collections.Counter()
    nb["cells"] = nb["cells"][:6]
    for c in nb["cells"]:
        c["source"] = "".join(c["source"]).replace("check(", "print(")
    for i in range(n):
        rng = random.Random(f"{seed} {i}")
        (folder / "a.ipynb").write_text(json.dumps(fuzz_models.changed_json(rng, nb)))
        outcomes[outcome(use_notebook, folder / "a.ipynb")] += 1
    return outcomes


def test_edited_notebooks(tmp_path, counts):
    r = run_notebooks(tmp_path, 300, 0)
    counts("texts", "Notebooks, edited", **r)
    assert r["FileError"] > 50 and r["InputError"] > 50, "what can be read has no exercises left"


@pytest.mark.attacks
def test_ten_thousand_edited_notebooks(tmp_path, counts):
    counts("texts", "Notebooks, edited", **run_notebooks(tmp_path, 10_000, 1))


def run_progress(folder, n, seed):
    good, outcomes = new_progress() | dict(answers={"why-a": "x", "why-b": 3.5}), collections.Counter()
    good["exercises"] = {
        "why-frozen": dict(tries=2, passed=False, last_mistake="low", in_a_row=2, first="2026", when="x")
    }
    file = folder / "progress.json"
    for i in range(n):
        rng = random.Random(f"{seed} {i}")
        text = json.dumps(fuzz_models.changed_json(rng, good))
        file.write_bytes(fuzz_models.changed_bytes(rng, text.encode()) if rng.random() < 0.3 else text.encode())
        d = read_progress(file)
        note_verdict(Verdict("why-frozen", "low", "hint"), file)
        json.loads(file.read_text(encoding="utf-8"))
        outcomes["new" if (folder / "progress.json.bad").exists() else "kept"] += 1
        (folder / "progress.json.bad").unlink(missing_ok=True)
        assert isinstance(d["student"], int)
    list_lessons(folder)
    return outcomes


def test_edited_progress_files(tmp_path, counts):
    r = run_progress(tmp_path, 300, 0)
    counts("texts", "Progress files, edited: moved aside or kept", **r)
    assert min(r.values()) > 30


@pytest.mark.attacks
def test_ten_thousand_edited_progress_files(tmp_path, counts):
    counts("texts", "Progress files, edited: moved aside or kept", **run_progress(tmp_path, 10_000, 1))
