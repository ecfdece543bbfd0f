"""Export, load with both backends, compare: each backbone of benchmarks/round_trip.py in a process of its own."""

import pytest
from round_trip import NAMES, TOL, in_its_own_process


@pytest.mark.onnx
@pytest.mark.parametrize("name", NAMES)
def test_both_backends_give_the_learners_predictions(name):
    r = in_its_own_process(name, NAMES[name])
    assert "error" not in r, r["error"]
    assert r["torch"] <= TOL and r["spread"] > 10 * TOL, r
    assert "onnx_error" not in r and r["onnx"] <= TOL, r
