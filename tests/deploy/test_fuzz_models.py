"""Damaged models and pictures give a prediction or one of the kit's errors, never anything else, and soon.

The cases are in benchmarks/fuzz_models.py.
"""

import json
import os
import subprocess
import sys
import warnings

import fuzz_models
import pytest


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return fuzz_models.model_folder(tmp_path_factory.mktemp("fuzz") / "model")


@pytest.mark.medium
@pytest.mark.parametrize("kind, n", [("manifest", 150), ("weights", 100), ("onnx", 60), ("picture", 250)])
def test_a_few(good, tmp_path, kind, n):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, on what it reads
        r = fuzz_models.Fuzz(good, tmp_path, seed=1).run(kind, n, limit=10)
    assert not r["bad"], r["bad"]
    assert (
        sum(r["outcomes"].values()) == n and sum(v for k, v in r["outcomes"].items() if k != "Prediction") > n // 3
    ), "most of the damage is noticed"
    assert r["outcomes"]["Prediction"] > 0, "and some changes do no harm"


@pytest.mark.medium
def test_the_fuzz_would_notice(good, tmp_path):
    "An error that is not the kit's, and a case that takes too long, are counted as bad"
    f = fuzz_models.Fuzz(good, tmp_path)

    def slow(*_):
        while True:
            pass

    def wrong(*_):
        raise KeyError("x")

    f.load = wrong
    assert len(f.run("weights", 3)["bad"]) == 3
    f.load = slow
    assert "more than 0.1 s" in f.run("weights", 1, limit=0.1)["bad"][0]


@pytest.mark.fuzz
def test_ten_thousand(tmp_path):
    r = subprocess.run(
        [sys.executable, fuzz_models.__file__, "--n", "10000", "--seed", "2", "--json", str(tmp_path / "r.json")],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert r.returncode == 0, r.stdout + r.stderr
    assert json.loads((tmp_path / "r.json").read_text())["n"] == 10_000
