"The quickstart on a table: classes by group, several labels, a number with its unit"

import json
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from fastai_tl.all import load_predictor, sample_path, transfer_learner
from fastai_tl.core.settings import Settings
from fastai_tl.evaluation.classification import Evaluation
from fastai_tl.interface import cli
from fastai_tl.interface.quickstart import Screen, _load_table, _of_classes
from fastai_tl.interface.quickstart_run import ARMS, Arm, Run


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    from PIL import Image

    files = [p for c in ("bird", "flower") for p in sorted((sample_path() / c).glob("*.jpg"))[:12]]
    light = [float(np.asarray(Image.open(p).convert("L")).mean()) for p in files]
    df = pd.DataFrame(
        dict(
            file=[p.relative_to(sample_path()) for p in files],
            label=[p.parent.name for p in files],
            tags=[f"{p.parent.name}|{'light' if v > 190 else 'dark'}" for p, v in zip(files, light)],
            light=light,
            when=["test" if i % 4 == 3 else "valid" if i % 4 == 2 else "train" for i in range(len(files))],
            album=[i // 2 for i in range(len(files))],
        )
    )
    df.to_csv(path := tmp_path_factory.mktemp("csv") / "mine.csv", index=False)
    return path


@pytest.mark.medium
@pytest.mark.parametrize(
    "label, more",
    [
        pytest.param("label", ["--group", "album", "--balance"], marks=pytest.mark.large),
        pytest.param("tags", [], marks=pytest.mark.large),
        ("light", ["--unit", "of 255", "--split", "when"]),
    ],
)
def test_each_task(table, label, more, tmp_path, monkeypatch):
    (tmp_path / "settings.ini").write_text("[fastai_tl]\nsize = 32\nbackbone = resnet_mini\n")
    monkeypatch.chdir(tmp_path)
    args = ["--csv", str(table), "--data", str(sample_path()), "--label", label, "--epochs", "1", "--json", "out.json"]
    r = CliRunner().invoke(cli.app, ["quickstart", *args, *more, "--out", "out"])
    assert r.exit_code == 0, r.output
    out, model = json.loads((tmp_path / "out.json").read_text()), load_predictor(tmp_path / "out")
    html = (tmp_path / "out" / "report.html").read_text()
    assert "data:image/jpeg" in html and out["n_train"] + out["n_valid"] + out.get("n_test", 0) == 24
    said = model.predict(sample_path() / "bird" / "eagle_01.jpg")
    if label == "label":
        assert set(out["accuracy"]) >= {"frozen", "pixels"} and said.label in ("bird", "flower")
        assert set(out["recall"]["frozen"]) == {"bird", "flower"} and "balance=" in html
    elif label == "tags":
        assert (
            out["task"] == "labels"
            and 0 <= out["scores"]["frozen"]["mean_ap"] <= 1
            and "mean_ap" in out["scores"]["floor"]
        )
        assert model.classes == ("bird", "dark", "flower", "light")
    else:
        assert out["scores"]["fine_tuned"]["mae"] > 0 and said.text.endswith(" of 255") and 0 < said.value < 300
        assert out["n_test"] == model.manifest["metrics"]["items"] == 6 and "judged by the test part" in html
        assert "Fine-tuned: mean absolute error" in r.output and "6 to choose by, 6 of the test" in r.output
        test = pd.read_csv(table).query("when == 'test'")
        said = [o.value for o in model.predict([sample_path() / f for f in test.file])]
        assert out["scores"]["fine_tuned"]["mae"] == pytest.approx(np.abs(said - test.light).mean(), rel=1e-3)


@pytest.mark.parametrize("label, task", [("tags", "labels"), ("light", "numbers")])
def test_balance_is_for_classes(table, label, task, tmp_path, capsys):
    "Labels and numbers are refused in one line, before anything is trained or written"
    args = ["--csv", str(table), "--data", str(sample_path()), "--label", label, "--arch", "resnet_mini", "--balance"]
    with pytest.raises(SystemExit) as e:
        cli.main(["quickstart", *args, "--out", str(tmp_path / "out")])
    said = capsys.readouterr()
    assert e.value.code == 2 and "Step 1 of 6" not in said.out and not (tmp_path / "out").exists()
    assert said.err.count("\n") == 1 and f"mine.csv has {task}. Leave it out" in said.err


def test_balance_of_the_classes_of_a_table(table, tmp_path, monkeypatch):
    "The loss weighs the training pictures of the table's classes, the rare one more"
    monkeypatch.chdir(tmp_path)
    rows = pd.read_csv(table).query("label == 'bird' or album < 9")  # 12 birds, 6 flowers
    rows.to_csv(tmp_path / "rare.csv", index=False)
    run, columns = Run("timm/x", 1, 0, "", balance="classes"), dict(label="label", folder=str(sample_path()))
    dls = _load_table(tmp_path / "rare.csv", columns, Settings(size=32), 0, run, Screen())()
    n = Counter(dls.vocab[int(y)] for y in dls.train_ds.tls[1])
    loss = transfer_learner(dls, "resnet_mini", balance=run.balance).loss_func
    weight = dict(zip(dls.vocab, loss.func.weight.tolist()))
    assert n["bird"] > n["flower"] and weight["bird"] * n["bird"] == pytest.approx(weight["flower"] * n["flower"])


def test_recall_of_a_class_that_no_picture_judges_is_none():
    ev = Evaluation(["a", "b"], np.eye(2)[[0, 0, 1]], np.zeros(3, int), [None] * 3)
    run = Run("x", 1, 0, "", arms={k: Arm(k, k, ev, 0.0) for k in ARMS})
    assert _of_classes(run, ["a", "b"])["recall"]["frozen"] == {"a": pytest.approx(2 / 3), "b": None}


def test_columns_without_a_table(tmp_path):
    from fastai_tl.core.errors import InputError
    from fastai_tl.interface.quickstart import run_quickstart

    with pytest.raises(InputError, match="--csv"):
        run_quickstart(tmp_path / "o", columns=dict(label="x"))


@pytest.mark.medium
@pytest.mark.parametrize("label, what", [("light", "1 number: light"), ("tags", "4 labels")])
def test_the_workbench_on_a_table(table, label, what, tmp_path):
    from helpers import wait_until
    from fastai_tl.all import Workbench

    wb = Workbench(table, size=32, bs=8, columns=dict(label=label, folder=str(sample_path())))
    try:
        wb.go(1)
        wb.arch.value = "resnet_mini"
        job = wb.make()
        assert job.wait(60) and job.error is None, job.error
        wait_until(lambda: wb.learn is not None)
        assert what in wb.about.value
        assert ("y_range=[[" in wb.code) == (label == "light") and f"label={label!r}" in wb.code
        wb.go(5)
        ev = wb.pages["ev"]
        ev.start().wait(60)
        wait_until(lambda: ev.result is not None)
        assert "data:image/jpeg" in "".join(getattr(c, "value", "") for p in ev.parts for c in [p, *p.children])
        wb.folder.value = str(tmp_path / "m")
        job = wb.export()
        assert job.wait(120) and job.error is None, job.error
        assert load_predictor(tmp_path / "m").manifest["task"] == ("numbers" if label == "light" else "labels")
    finally:
        wb.close()
