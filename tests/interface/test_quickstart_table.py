"The quickstart on a table: classes by group, several labels, a number with its unit"

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from fastai_tl.all import load_predictor, sample_path
from fastai_tl.interface import cli


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
        pytest.param("label", ["--group", "album"], marks=pytest.mark.large),
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
