"The quickstart on three parts: the validation part chooses, the test part judges"

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from fastai_tl.all import folder_dls, load_predictor, read_table, sample_path, transfer_learner
from fastai_tl.core.settings import Settings
from fastai_tl.datasets.image_table import TableError
from fastai_tl.evaluation.classification import Evaluation
from fastai_tl.interface import cli
from fastai_tl.interface.quickstart import Screen, _load_data
from fastai_tl.interface.quickstart_arms import baselines
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
    assert out["accuracy"][out["exported"]] == pytest.approx(np.mean(right)), "the model is the one that was chosen"
    assert model.manifest["metrics"]["items"] == 6
    assert all(round(6 * v, 6) == int(round(6 * v)) for v in out["accuracy"].values()), "all are judged by the same"
    for text in ("16 images to learn from, 4 to choose by, 6 of the test part to judge by", "test/ takes no part in"):
        assert text in said
    assert "It judges at the end." in said and "the 6 images of the test part judge" in said
    assert said.count("on the validation images: accuracy") == 2 and "6 test images are few" in said
    assert "the same 6 test images" in html and "validation images chose" in html and "of the test part" in html


def test_validation_chooses_what_the_headline_says():
    def ev(right):
        return Evaluation(["a", "b"], np.eye(2)[[0] * right + [1] * (10 - right)], np.zeros(10, int), [None] * 10)

    def says(tested):
        valid, test = dict(frozen=9, fine_tuned=7, scratch=5), dict(frozen=6, fine_tuned=8, scratch=4)
        evs = [
            (ev(test.get(k, 1) if tested else valid.get(k, 1)), ev(valid.get(k, 1)) if tested else None) for k in ARMS
        ]
        arms = {k: Arm(k, k, e, 0.0, valid=v) for k, (e, v) in zip(ARMS, evs)}
        run = Run("x", 1, 0, "", arms=arms, learn=SimpleNamespace())
        assert run.exported.key == "frozen"
        return _headline(run)

    assert says(False).startswith("90\u00a0% right") and "50\u00a0% at best" in says(False)
    assert says(True).startswith("60\u00a0% right") and "40\u00a0% at best" in says(True)


@pytest.mark.parametrize("frozen, tuned, better", [(7, 8, "fine_tuned"), (8, 7, "frozen"), (8, 8, "frozen")])
def test_the_better_model_is_exported_and_the_head_alone_if_they_tie(frozen, tuned, better):
    evs = dict(frozen=frozen, fine_tuned=tuned)
    ev = {k: Evaluation(["a", "b"], np.eye(2)[[0] * n + [1] * (10 - n)], np.zeros(10, int)) for k, n in evs.items()}
    run = Run("x", 1, 0, "", arms={k: Arm(k, k, e, 0.0) for k, e in ev.items()})
    assert run.exported.key == better
    assert _headline(run).endswith("100\u00a0% by always saying the most frequent class"), "no baseline is there yet"


def test_a_class_that_only_test_rows_have():
    rows = [(p, c, "train" if i < 3 else "valid") for c in ("bird", "bug") for i, p in enumerate(pictures(c)[:4])]
    rows.append((pictures("fruit")[0], "fruit", "test"))
    with pytest.raises(TableError, match="class fruit: all of them are for validation or testing"):
        read_table(pd.DataFrame(rows, columns=["file", "label", "split"]))


def few_images(path):
    shutil.rmtree(folder(path) / "test")
    return transfer_learner(folder_dls(path, 32, 8), "resnet_mini")


class Clock:
    "Each look at it takes a second"

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        self.now += 1
        return self.now


def run_of(learn, epochs, seconds):
    "A run whose answer is there: an epoch of its fine-tuning took so many seconds"
    ev = Evaluation(
        list(learn.dls.vocab),
        np.full((len(learn.dls.valid_ds), len(learn.dls.vocab)), 0.5),
        np.array([int(y) for y in learn.dls.valid_ds.tls[1]]),
    )
    run = Run("x", epochs, 0, "", learn=learn, arms={k: Arm(k, k, ev, 9.0) for k in ("frozen", "fine_tuned")})
    stage = SimpleNamespace(seconds=seconds * epochs, values=[[0.0]] * epochs)
    run.histories["fine_tuned"] = SimpleNamespace(stages=[stage])
    return run


def test_baselines_keep_to_their_time(monkeypatch, tmp_path):
    learn = few_images(tmp_path / "pics")
    monkeypatch.setattr("fastai_tl.interface.quickstart_arms.time", Clock())
    run = run_of(learn, 1, 1.0)
    baselines(run, lambda pretrained: learn, Screen(), 3)
    assert run.done == [run.arms["frozen"], run.arms["fine_tuned"]] and run.baseline_seconds < 10
    assert "its time was up" in run.left_out["pixels"] and "an epoch takes 1.0 s" in run.left_out["scratch"]


@pytest.mark.medium
@pytest.mark.parametrize("seconds, epochs", [(0.5, 5), (400, 3)])
def test_from_scratch_gets_the_epochs_that_fit(monkeypatch, tmp_path, seconds, epochs):
    learn = few_images(tmp_path / "pics")
    monkeypatch.setattr("fastai_tl.interface.quickstart_arms.time", Clock())
    run = run_of(learn, 1, seconds)
    baselines(run, lambda pretrained: learn, Screen(), 1500)
    assert run.arms["scratch"].epochs == epochs and run.arms["scratch"].name == f"From scratch, {epochs} epochs"
    assert run.left_out == {} and run.arms["pixels"].ev.n == len(learn.dls.valid_ds)
