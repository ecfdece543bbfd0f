"""What benchmarks/accuracy.py counts with: parts without leaks, paired intervals, rows that survive a stop"""

import json

import accuracy
import numpy as np
import pytest
from accuracy_lib import data, report
from scipy import stats

from fastai_tl.datasets.samples import by_root


@pytest.mark.parametrize("name, per_class", [("clipart", None), ("clipart-12", 12), ("clipart-4", 4)])
def test_no_drawing_is_in_two_parts(name, per_class):
    for seed in range(3):
        parts = data.load(name, seed)
        for label in {p.parent.name for p in parts.test}:
            of = [[p for p in part if p.parent.name == label] for part in (parts.train, parts.valid, parts.test)]
            assert per_class is None or len(of[0]) == per_class
            assert all(of)
            for files in by_root([p for part in of for p in part]).values():
                assert sum(any(p in part for p in files) for part in of) == 1


def test_another_seed_is_another_split():
    assert data.load("clipart-4", 0) == data.load("clipart-4", 0)
    assert data.load("clipart-4", 0).test != data.load("clipart-4", 1).test


def test_a_file_of_the_mnist_family(tmp_path):
    import gzip

    x = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    raw = bytes([0, 0, 8, 3]) + np.array(x.shape, ">u4").tobytes() + x.tobytes()
    (tmp_path / "x.gz").write_bytes(gzip.compress(raw))
    np.testing.assert_array_equal(data._idx(tmp_path / "x.gz"), x)


def test_weights_that_are_another_file_are_refused(tmp_path):
    with pytest.raises(data.Missing, match="--fetch"):
        data.mobilenet_file(tmp_path)
    (tmp_path / data.MOBILENET).write_bytes(b"something else")
    with pytest.raises(data.Missing, match="SHA-256"):
        data.mobilenet_file(tmp_path)


def test_the_interval_is_that_of_a_paired_t_test():
    a, b = np.random.RandomState(0).rand(2, 5)
    mid, half = report.t_interval(list(a - b))
    want = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (mid - half, mid + half) == pytest.approx((want.low, want.high))


def test_differences_are_of_seeds_that_both_methods_have():
    rows = [row("x", 0, 0.5), row("x", 1, 0.7), row("x", 2, 0.9), row("y", 1, 0.6), row("y", 2, 0.7)]
    cell = report.by_cell(rows)["n", 96, "a"]
    assert report.paired(cell, "x", "y") == pytest.approx([10, 20])


def row(method="x", seed=0, test=0.5):
    return dict(network="n", size=96, set="a", seed=seed, method=method, test=test, seconds=1.0)


def test_rows_are_whole_after_each_write_and_after_an_error(tmp_path):
    file = tmp_path / "rows.json"
    for i in range(3):
        with accuracy.locked(file) as rows:
            rows.append(row(seed=i))
        assert json.loads(file.read_text())["rows"] == [row(seed=j) for j in range(i + 1)]
    with pytest.raises(KeyboardInterrupt), accuracy.locked(file) as rows:
        rows.clear()
        raise KeyboardInterrupt
    assert len(accuracy.read(file)) == 3


def test_the_summary_has_means_by_method(tmp_path):
    rows = [row("x", 0, 0.5), row("x", 1, 0.7), row("y", 0, 0.25)]
    assert report.summary(rows) == [dict(network="n", size=96, set="a", x=0.6, y=0.25)]


def test_the_grid_has_each_row_once_and_begins_with_what_tells_most():
    rows = accuracy.grid({"our default": (None, True), "fastai": (None, False)})
    assert len(set(rows)) == len(rows)
    assert rows[0] == ("tf_efficientnet_lite0", 96, "clipart-12", 0, "our default")
    assert {(r[2], r[3]) for r in rows[:14]} == {(s, 0) for s in accuracy.SETS}
