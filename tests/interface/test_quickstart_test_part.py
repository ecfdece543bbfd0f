"The quickstart on three parts: the validation part chooses, the test part judges"

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from fastai_tl.all import load_predictor, read_table, sample_path
from fastai_tl.core.settings import Settings
from fastai_tl.datasets.image_table import TableError
from fastai_tl.evaluation.classification import Evaluation
from fastai_tl.interface import cli
from fastai_tl.interface.quickstart import Screen, _load_data
from fastai_tl.interface.quickstart_report import _headline
from fastai_tl.interface.quickstart_run import ARMS, Arm, Run

PARTS = dict(train=range(8), valid=range(8, 10), test=range(10, 13))  # of each class


def pictures(cls):
    return sorted((sample_path() / cls).glob("*.jpg"))


def folder(path):
    for cls in ("bird", "flower"):
        for part, which in PARTS.items():
            (d := path / part / cls).mkdir(parents=True)
            for i in which:
                (d / f"{i}.jpg").write_bytes(pictures(cls)[i].read_bytes())
    return path


class Said(Screen):
    "Keeps what is said"

    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


@pytest.mark.parametrize("parts", ["train valid test", "train valid", "train test"])
def test_parts_of_a_folder(tmp_path, parts):
    data, screen, run = folder(tmp_path / "pics"), Said(), Run("x", 1, 0, "")
    for part in PARTS.keys() - set(parts.split()):
        shutil.rmtree(data / part)
    dls = _load_data(data, Settings(size=32), 0, run, screen)()
    assert len(dls.loaders) == len(parts.split())
    if len(dls.loaders) == 3:
        assert [len(dl.dataset) for dl in dls.loaders] == [16, 4, 6] and "validation and test part" in run.data_text
        assert {p.parts[-3] for p in dls.loaders[2].items} == {"test"} and [int(y) for _, y in dls.loaders[2].dataset]
        assert screen.lines == ["test/ takes no part in training. It judges at the end."]
    else:
        assert "test part" not in run.data_text and not any("at the end" in o for o in screen.lines)


@pytest.mark.large
def test_a_folder(tmp_path, monkeypatch):
    folder(tmp_path / "pics")
    (tmp_path / "settings.ini").write_text("[fastai_tl]\nsize = 32\nbackbone = resnet_mini\nepochs = 1\n")
    monkeypatch.chdir(tmp_path)
    r = CliRunner().invoke(cli.app, ["quickstart", "--data", "pics", "--json", "out.json", "--out", "out"])
    assert r.exit_code == 0, r.output
    said, out = " ".join(r.output.split()), json.loads((tmp_path / "out.json").read_text())
    html = (tmp_path / "out" / "report.html").read_text()
    assert (out["n_train"], out["n_valid"], out["n_test"]) == (16, 4, 6)
    model, test = load_predictor(tmp_path / "out"), sorted((tmp_path / "pics" / "test").rglob("*.jpg"))
    right = [o.label == p.parent.name for p, o in zip(test, model.predict(test))]
    assert out["accuracy"]["fine_tuned"] == pytest.approx(np.mean(right))
    assert model.manifest["metrics"]["items"] == 6
    assert all(round(6 * v, 6) == int(round(6 * v)) for v in out["accuracy"].values()), "all are judged by the same"
    for text in ("16 pictures to learn from, 4 to choose by, 6 of the test part to judge by", "test/ takes no part in"):
        assert text in said
    assert "It judges at the end." in said and "the 6 pictures of the test part judge" in said
    assert said.count("on the validation pictures: accuracy") == 2 and "6 test pictures are few" in said
    assert "the same 6 test pictures" in html and "validation pictures chose" in html and "of the test part" in html


def test_validation_chooses_what_the_headline_says():
    def ev(right):
        return Evaluation(["a", "b"], np.eye(2)[[0] * right + [1] * (10 - right)], np.zeros(10, int), [None] * 10)

    def says(tested):
        valid, test = dict(frozen=9, fine_tuned=7, scratch=5), dict(frozen=6, fine_tuned=8, scratch=4)
        evs = [
            (ev(test.get(k, 1) if tested else valid.get(k, 1)), ev(valid.get(k, 1)) if tested else None) for k in ARMS
        ]
        arms = {k: Arm(k, k, e, 0.0, valid=v) for k, (e, v) in zip(ARMS, evs)}
        return _headline(Run("x", 1, 0, "", arms=arms, learn=SimpleNamespace()))

    assert says(False).startswith("90\u00a0% right") and "50\u00a0% at best" in says(False)
    assert says(True).startswith("60\u00a0% right") and "40\u00a0% at best" in says(True)


def test_a_class_that_only_test_rows_have():
    rows = [(p, c, "train" if i < 3 else "valid") for c in ("bird", "bug") for i, p in enumerate(pictures(c)[:4])]
    rows.append((pictures("fruit")[0], "fruit", "test"))
    with pytest.raises(TableError, match="class fruit: all of them are for validation or testing"):
        read_table(pd.DataFrame(rows, columns=["file", "label", "split"]))
