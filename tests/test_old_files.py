"""Files that version 0.1.0 wrote before its modules moved: read as they were, or refused in words."""

import json
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from helpers import QUIET, moved, tensors

from fastai_tl.cache.cache_key import VERSIONS
from fastai_tl.all import KitError, Plan, fingerprint, frozen_cache, load_predictor, run_plan, sample_path

OLD = Path(__file__).resolve().parent / "fixtures" / "0.1.0"
sys.path.insert(0, str(OLD.parent))
from make import small, the_plan  # noqa: E402


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_a_model_gives_the_same_answers(backend):
    want, model = json.loads((OLD / "answers.json").read_text(encoding="utf-8")), load_predictor(OLD / "model", backend)
    got = [p.probabilities for p in model.predict([sample_path() / p for p in want["pictures"]])]
    np.testing.assert_allclose(got, want[backend], atol=1e-5)
    if backend == "torch":
        now = fingerprint(model.model)
        assert now and now == {k: want["weights"][k] for k in now}


def test_the_model_card_names_a_module_that_opens_it():
    card = (OLD / "model" / "README.md").read_text(encoding="utf-8")
    assert "from fastai_tl.serving import load_onnx" in card
    from fastai_tl.serving import load_onnx

    assert load_onnx(OLD / "model").predict(sample_path() / "bird" / "eagle_01.jpg").label


def test_a_plan_is_read():
    assert Plan.from_yaml(OLD / "plan.yaml") == the_plan()


@pytest.mark.medium
def test_a_checkpoint_is_resumed_or_refused(tmp_path):
    "An interrupted run ends with the weights of one that was not interrupted"
    whole, rest = small(), small()
    run_plan(whole, the_plan(), on_progress=QUIET, cache=False)
    shutil.copytree(OLD / "checkpoint", tmp_path / "c")
    before = tensors(rest.model)
    try:
        history = run_plan(rest, the_plan(), checkpoint=tmp_path / "c", on_progress=QUIET, cache=False)
    except KitError as e:
        assert "checkpoint" in str(e) and not moved(before, rest.model)
        pytest.fail(f"A checkpoint of 0.1.0 is refused: say so in the CHANGELOG, and make this the expected way. {e}")
    assert len(history.sessions) == 2
    for a, b in zip(tensors(whole.model).values(), tensors(rest.model).values()):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_stored_features_are_used(tmp_path):
    "With the versions of Python and packages that they were made with; with others they are made anew, beside them"
    made_with = json.loads((OLD / "versions.json").read_text(encoding="utf-8"))
    same = made_with == {"python": "3.11"} | {n: version(n) for n in VERSIONS} and sys.version_info[:2] == (3, 11)
    shutil.copytree(OLD / "store", tmp_path / "s")
    learn = small()
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "s").rglob("x.bin")}
    with frozen_cache(learn, store=tmp_path / "s"):
        learn.fit(1, 1e-2)
    after = {p: p.stat().st_mtime_ns for p in (tmp_path / "s").rglob("x.bin")}
    assert len(before) == 2 and before.items() <= after.items() and len(after) == (2 if same else 4)
    plain = small()
    plain.fit(1, 1e-2)
    for a, b in zip(tensors(learn.model).values(), tensors(plain.model).values()):
        np.testing.assert_allclose(a, b, atol=1e-5)
