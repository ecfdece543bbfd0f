"Several labels and numbers: exported, opened with both backends, shown, and read by people"

import json

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import QUIET
from fastai.data.block import DataBlock, MultiCategoryBlock, RegressionBlock
from fastai.data.transforms import ColReader, ColSplitter
from fastai.losses import BCEWithLogitsLossFlat, MSELossFlat
from fastai.vision.augment import Resize
from fastai.vision.data import ImageBlock
from typer.testing import CliRunner

from fastai_tl.all import evaluate, export, load_predictor, sample_path, transfer_learner
from fastai_tl.core.errors import InputError
from fastai_tl.datasets.picture_folder import ClassOf, picture_dls
from fastai_tl.datasets.samples import split_sample
from fastai_tl.deploy.export import export_again
from fastai_tl.deploy.manifest import CARD, MANIFEST, SAMPLE, SAMPLE_OUTPUT, ManifestError, read_manifest
from fastai_tl.deploy.web_app import about_model
from fastai_tl.deploy.web_page import ModelPage
from fastai_tl.interface import cli


def table():
    rng, files = np.random.default_rng(0), sorted(sample_path("clipart").glob("*/*.jpg"))[::12]
    return pd.DataFrame(
        dict(
            file=[str(f) for f in files],
            labels=[" ".join([f.parent.name] + ["even"] * (i % 2)) for i, f in enumerate(files)],
            weight=rng.normal(50, 10, len(files)),
            age=rng.normal(3, 1, len(files)),
            late=[i % 3 == 0 for i in range(len(files))],
        )
    )


def dls_of(block, get_y):
    block = DataBlock(
        (ImageBlock, block), get_x=ColReader("file"), get_y=get_y, splitter=ColSplitter("late"), item_tfms=Resize(32)
    )
    return block.dataloaders(table(), bs=4, num_workers=0, device="cpu", path=".")


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    torch.manual_seed(0)
    learn = transfer_learner(
        dls_of(MultiCategoryBlock, ColReader("labels", label_delim=" ")), "resnet_mini", head="linear"
    )
    learn.model.eval()
    ev = evaluate(learn, on_progress=QUIET)
    return learn, ev, export(learn, tmp_path_factory.mktemp("l") / "model", evaluation=ev)


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    torch.manual_seed(0)
    dls = dls_of(RegressionBlock(n_out=2), ColReader(["weight", "age"]))
    learn = transfer_learner(dls, "resnet_mini", head="linear", y_range=[(0, 100), (0, 8)])
    ev = evaluate(learn, on_progress=QUIET)
    folder = export(learn, tmp_path_factory.mktemp("n") / "model", evaluation=ev, units=dict(weight="kg"))
    return learn, ev, folder


@pytest.mark.medium
@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_labels_are_those_of_the_learner(labels, backend):
    learn, ev, folder = labels
    m, model = read_manifest(folder), load_predictor(folder, backend)
    assert (m["task"], m["activation"], m["classes"]) == ("labels", "sigmoid", ev.vocab)
    np.testing.assert_allclose(m["thresholds"], ev.best_thresholds())
    paths = ev.items
    said, best = model.predict(paths), ev.at(ev.best_thresholds())
    np.testing.assert_allclose([p.probabilities for p in said], ev.probs, atol=1e-4)
    clear = (np.abs(ev.probs - best.threshold) > 1e-3).all(1)
    assert clear.any()
    for p, row in zip(np.array(said, dtype=object)[clear], best.preds[clear]):
        assert p.labels == tuple(np.array(ev.vocab)[row])


@pytest.mark.medium
def test_thresholds_are_chosen_on_validation_data_or_given(labels, tmp_path):
    learn, ev, _ = labels
    cuts = lambda **kw: read_manifest(export(learn, tmp_path / "m", onnx=False, force=True, **kw))["thresholds"]
    np.testing.assert_allclose(cuts(), ev.best_thresholds())
    k = len(ev.vocab)
    assert cuts(thresholds=0.3) == [0.3] * k and cuts(evaluation=ev.at([0.4] * k)) == [0.4] * k
    train = evaluate(learn, learn.dls.train, on_progress=QUIET)
    np.testing.assert_allclose(cuts(evaluation=train), ev.best_thresholds(), err_msg="not on the training items")
    for bad in (1.5, [0.1, 0.2]):
        with pytest.raises(InputError, match="thresholds="):
            cuts(thresholds=bad)
    with pytest.raises(InputError, match="units"):
        cuts(units="kg")


@pytest.mark.medium
@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_numbers_are_those_of_the_learner(numbers, backend):
    learn, ev, folder = numbers
    m, model = read_manifest(folder), load_predictor(folder, backend)
    assert (m["task"], m["activation"], m["classes"], m["units"]) == ("numbers", "none", ["weight", "age"], ["kg", ""])
    train = table().query("~late")
    np.testing.assert_allclose(m["ranges"], [[train[c].min(), train[c].max()] for c in ("weight", "age")], rtol=1e-6)
    said = model.predict(ev.items)
    np.testing.assert_allclose([p.values for p in said], ev.preds, atol=1e-2, rtol=1e-4)
    assert said[0].text == f"weight {said[0].values[0]:.4g} kg, age {said[0].values[1]:.4g}"
    assert said[0].as_dict()["units"] == dict(weight="kg")
    assert ((np.array([p.values for p in said]) >= 0) & (np.array([p.values for p in said]) <= [100, 8])).all()


@pytest.mark.medium
def test_a_number_outside_of_the_training_data_is_said_to_be(numbers):
    model = load_predictor(numbers[2])
    model.manifest["ranges"] = [[90.0, 99.0], None]
    p = model.predict(table().file[0])
    assert p.outside == ("weight",) and p.as_dict()["outside"] == ["weight"]


@pytest.mark.medium
@pytest.mark.parametrize("which", ["labels", "numbers"])
def test_card_page_sample_and_command_speak_of_the_task(which, request, tmp_path, monkeypatch):
    learn, ev, folder = request.getfixturevalue(which)
    m, card, picture = read_manifest(folder), (folder / CARD).read_text(), str(table().file[0])
    words = ["weight", "kg", "mean absolute"] if which == "numbers" else ["threshold", "even", "average precision"]
    assert all(s in card for s in words) and "one of them for any picture" not in card
    assert ("average precision" if which == "labels" else "kg") in " ".join(about_model(m)["text"])
    page = ModelPage(folder)
    said = page.classify((folder / SAMPLE).read_bytes(), "mine.png")
    assert (
        said.text in page.answer.value
        and ("ftl-cut" if which == "labels" else "in the training data") in page.answer.value
    )
    sample = json.loads((folder / SAMPLE_OUTPUT).read_text())
    if which == "labels":
        np.testing.assert_allclose(sample["probabilities"], said.probabilities, atol=1e-4)
    else:
        np.testing.assert_allclose(list(sample["values"].values()), said.values, rtol=1e-3)
    monkeypatch.setenv("COLUMNS", "300")
    r = CliRunner().invoke(cli.app, ["predict", str(folder), picture, "--json", str(tmp_path / "out.json")])
    assert r.exit_code == 0, r.output
    row = json.loads((tmp_path / "out.json").read_text())[0]
    assert row["path"] == picture and ("labels" if which == "labels" else "values") in row
    again = export_again(folder, tmp_path / "again", onnx=False)
    now, was = load_predictor(again).predict(picture), load_predictor(folder).predict(picture)
    assert now.text == was.text and read_manifest(again)["task"] == which


@pytest.mark.medium
@pytest.mark.parametrize(
    "which, change, text",
    [
        ("labels", dict(task="masks"), "task"),
        ("labels", dict(activation="softmax"), "activation"),
        ("labels", dict(thresholds=[0.5]), "thresholds"),
        ("numbers", dict(units=None), "units"),
        ("numbers", dict(ranges=[[1, "x"], None]), "ranges"),
        ("numbers", dict(activation="sigmoid"), "activation"),
    ],
)
def test_a_manifest_that_does_not_fit_together_is_refused(which, change, text, request, tmp_path):
    m = json.loads((request.getfixturevalue(which)[2] / MANIFEST).read_text())
    (tmp_path / MANIFEST).write_text(json.dumps(m | change))
    with pytest.raises(ManifestError, match=text):
        read_manifest(tmp_path)


@pytest.mark.medium
def test_one_output_for_two_classes(tmp_path):
    "One logit says how probable the second class is"
    train, valid = (
        [p for p in o if p.parent.name in ("bird", "flower")] for o in split_sample(sample_path("clipart"), 4)
    )
    dls = picture_dls(train, valid, ClassOf(sample_path("clipart")), size=32, bs=4, path=".")
    learn = transfer_learner(dls, "resnet_mini", n_out=1, loss_func=BCEWithLogitsLossFlat())
    model = load_predictor(export(learn, tmp_path / "m", onnx=False, thresholds=0.5))
    ev = evaluate(learn, on_progress=QUIET)
    assert model.classes == ("flower",) and ev.vocab == ["flower"]
    np.testing.assert_allclose(model.values(valid), ev.probs, atol=1e-5)
    assert {p.text for p in model.predict(valid)} <= {"flower", "none of the labels"}


def test_a_range_must_be_one():
    dls = dls_of(RegressionBlock(n_out=2), ColReader(["weight", "age"]))
    for bad in ((5, 5), [(0, 1)] * 3, (0, float("nan"))):
        with pytest.raises(InputError, match="y_range"):
            transfer_learner(dls, "resnet_mini", y_range=bad)
    learn = transfer_learner(dls, "resnet_mini", y_range=(1, 2), loss_func=MSELossFlat())
    with torch.no_grad():
        out = learn.model(torch.randn(4, 3, 32, 32) * 50)
    assert (out >= 1).all() and (out <= 2).all()
