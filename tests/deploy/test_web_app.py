"""The page of an exported model as files and as a widget; clicks in a browser are in tests/browser/test_app.py."""

import ast
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from fastai_tl.deploy import web_app as app
from fastai_tl.interface import cli
from fastai_tl.deploy.web_app import GRADIO, PAGE, about_model, make_app, open_model
from fastai_tl.deploy.manifest import MANIFEST, ONNX, SAMPLE, WEIGHTS
from fastai_tl.deploy.torch_predictor import Predictor, load_predictor
from fastai_tl.deploy.export import export
from fastai_tl.core.errors import FileError, InputError
from fastai_tl.deploy.web_page import ModelPage, bars
from fastai_tl.datasets.samples import sample_dls, sample_path
from fastai_tl.deploy.onnx_runtime import ExtraError, OnnxPredictor
from fastai_tl.core.images import FASTAI, open_bytes
from fastai_tl.models.transfer_learner import transfer_learner

PICTURE = sample_path("clipart") / "bird" / "eagle_01.jpg"


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    torch.manual_seed(0)
    return export(
        transfer_learner(sample_dls("clipart", size=48, n_per_class=2), "resnet_mini"),
        tmp_path_factory.mktemp("app") / "model",
    )


@pytest.fixture
def model(good, tmp_path):
    shutil.copytree(good, tmp_path / "place" / "model")
    return tmp_path / "place" / "model"


@pytest.fixture
def gradio(monkeypatch):
    "As if Gradio were installed"
    monkeypatch.setattr(app, "find_spec", lambda n: True)


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def run_page(file):
    """Execute the code of the notebook where it lies, as Voila does, in a new process; the page's values and what
    was imported
    """
    code = "".join(c for c in json.loads(file.read_text())["cells"][0]["source"])
    code = code.replace("ModelPage(", "page = ModelPage(", 1).replace("import page = ModelPage", "import ModelPage")
    more = f"""
import sys, json
p = page.classify(open({str(PICTURE)!r}, 'rb').read(), 'x')
loaded = [m for m in ('torch', 'fastai') if m in sys.modules]
print(json.dumps(dict(probs=[float(v) for v in p.probabilities], loaded=loaded)))"""
    r = subprocess.run([sys.executable, "-c", code + more], capture_output=True, text=True, cwd=file.parent)
    assert r.returncode == 0, r.stderr
    return json.loads(r.stdout)


@pytest.mark.medium
def test_page_and_model_can_be_moved_together(model, tmp_path):
    page = make_app(model)
    assert page == model.parent / "model-app" / PAGE
    text = page.read_text()
    assert str(tmp_path) not in text and "'../model'" in text
    shutil.move(model.parent, tmp_path / "elsewhere")
    got = run_page(tmp_path / "elsewhere" / "model-app" / PAGE)
    np.testing.assert_allclose(
        got["probs"], load_predictor(tmp_path / "elsewhere" / "model").predict(PICTURE).probabilities, atol=1e-4
    )
    assert got["loaded"] == [], "the ONNX network needs neither torch nor fastai"


def test_the_notebook_is_a_valid_one(model):
    import nbformat

    nb = nbformat.read(make_app(model), 4)
    nbformat.validate(nb)
    assert nb.metadata.title.startswith("Picture classifier: bird")


def test_nothing_that_others_wrote_is_replaced(model, gradio):
    page = make_app(model)
    first = files(page.parent)
    assert set(first) == {PAGE, GRADIO} and make_app(model) == page and files(page.parent) == first, (
        "its own is written again"
    )
    nb = json.loads(page.read_text())
    nb["metadata"]["language_info"] = {"name": "python"}
    nb["cells"][0]["outputs"] = [dict(output_type="stream", name="stdout", text="x")]
    page.write_text(json.dumps(nb))
    make_app(model)  # run and saved, but not changed
    assert files(page.parent) == first
    for name, change in [
        (PAGE, lambda t: t.replace("max_mb=9", "max_mb=5")),
        (PAGE, lambda t: "{}"),
        (PAGE, lambda t: "[]"),
        (PAGE, lambda t: "\xff"),
        (GRADIO, lambda t: t + "# mine\n"),
        (GRADIO, lambda t: "print('mine')\n"),
        (GRADIO, lambda t: ""),
    ]:
        (page.parent / name).write_text(
            change(first[name].decode()), encoding="latin-1" if change("") == "\xff" else "utf-8"
        )
        now = files(page.parent)
        with pytest.raises(FileError, match=f"{name} was not written by make_app"):
            make_app(model)
        assert files(page.parent) == now, "neither file is touched"
        (page.parent / name).write_bytes(first[name])
    page.unlink()
    page.symlink_to(model / MANIFEST)
    with pytest.raises(FileError, match="was not written by make_app"):
        make_app(model)
    assert json.loads((model / MANIFEST).read_text())["classes"]


def test_places_and_values_that_do_not_do(model, tmp_path):
    (tmp_path / "file").write_text("x")
    for kw, text in [
        (dict(out=model), "model's own folder"),
        (dict(out=model / "page"), "model's own folder"),
        (dict(out=tmp_path / "file"), "is a file"),
        (dict(max_mb=0), "max_mb=0"),
        (dict(max_mb="9"), "max_mb='9'"),
    ]:
        with pytest.raises((FileError, InputError), match=text):
            make_app(model, **kw)
    with pytest.raises(FileError, match="no such folder"):
        make_app(tmp_path / "gone")
    (model / ONNX).write_bytes(b"x")
    with pytest.raises(FileError, match="model.onnx is missing or not as exported"):
        make_app(model)
    assert not (model.parent / "model-app").exists()


def test_gradio_file_is_there_only_with_gradio(model, capsys, monkeypatch):
    monkeypatch.setattr(app, "find_spec", lambda n: None if n == "gradio" else True)
    page = make_app(model)
    assert not (page.parent / GRADIO).exists() and "pip install gradio" in capsys.readouterr().out
    monkeypatch.setattr(app, "find_spec", lambda n: True)
    make_app(model)
    text = (page.parent / GRADIO).read_text()
    ast.parse(text)
    assert "'../model'" in text and capsys.readouterr().out == ""


@pytest.mark.medium
def test_code_in_names_stays_text(model, tmp_path, gradio):
    "Names of folders and classes come from others"
    odd = tmp_path / "a'); import os; os.system('touch pwned') #{x}\"\\"
    shutil.copytree(model, odd)
    m = json.loads((odd / MANIFEST).read_text())
    m["classes"][0] = "<script>alert(1)</script>"
    (odd / MANIFEST).write_text(json.dumps(m))
    page = make_app(odd)
    ast.parse((page.parent / GRADIO).read_text())
    assert len(run_page(page)["probs"]) == 8 and not (page.parent / "pwned").exists()
    w = ModelPage(odd)
    w.classify(PICTURE.read_bytes(), "<img src=x>")
    text = " ".join(c.value for c in w.children if hasattr(c, "value") and isinstance(c.value, str))
    assert "<script>" not in text and "&lt;script&gt;" in text and "<img src=x>" not in text


def test_what_is_said_of_a_model():
    m = dict(
        classes=["a", "b"],
        architecture=dict(arch="kit/resnet_mini"),
        created="2026-01-02T03:04:05",
        metrics=dict(accuracy=0.9, interval=[0.8, 0.95], items=120),
    )
    a = about_model(m)
    assert (
        "120 validation pictures it was right in 90.0% (95% interval 80.0% to 95.0%)" in " ".join(a["text"])
        and "2026-01-02" in a["text"][1]
    )
    for bad in (
        None,
        [],
        {},
        3,
        dict(accuracy=2, interval=[0, 1], items=5),
        dict(accuracy=0.5, interval=[0.4], items=5),
        dict(accuracy=float("nan"), interval=[0, 1], items=1),
        dict(accuracy=0.5, interval=[0, 1], items=1e400),
    ):
        assert "was not noted" in " ".join(about_model(m | dict(metrics=bad))["text"]), bad


def test_the_backend_that_is_here(model, monkeypatch):
    assert isinstance(open_model(model), OnnxPredictor)
    monkeypatch.setattr(app, "find_spec", lambda n: None if n == "onnxruntime" else True)
    assert isinstance(open_model(model), Predictor)
    monkeypatch.setattr(app, "find_spec", lambda n: None)
    with pytest.raises(ExtraError, match=r"pip install 'fastai-tl\[onnx\]'"):
        open_model(model)


def upload(page, *pictures):
    "As the browser does it"
    import datetime

    page.upload.value = [
        dict(name=n, type="", size=len(b), content=memoryview(b), last_modified=datetime.datetime.now(datetime.UTC))
        for n, b in pictures
    ]


def test_widget(model, tmp_path):
    page, raw = ModelPage(model, max_mb=0.5), PICTURE.read_bytes()
    want = load_predictor(model).predict(PICTURE)
    upload(page, ("eagle.jpg", raw))
    np.testing.assert_allclose(page.prediction.probabilities, want.probabilities, atol=1e-4)
    assert want.label in page.answer.value and page.upload.value == (), "the upload is not kept"
    before = page.answer.value
    upload(page, ("eagle.jpg", raw))
    assert page.answer.value != before, "the page leaves its waiting state after the same picture, too"
    exif = Image.Exif()
    exif[0x112] = 6
    Image.open(PICTURE).save(tmp_path / "turned.jpg", exif=exif)
    turned = (tmp_path / "turned.jpg").read_bytes()
    assert page.classify(turned, "t.jpg") and "note to turn" not in page.answer.value, "it is turned"
    page.model.manifest["preprocessing"] |= FASTAI.to_spec()  # as of a model that was exported before
    assert page.classify(turned, "t.jpg") and "note to turn" in page.answer.value
    for name, data, text in [
        ("torn.jpg", raw[:900], "cannot be read"),
        ("no.png", b"words", "it is none"),
        ("none.png", b"", "it is none"),
        ("large.png", bytes(600_000), "at most 0.5 MB"),
    ]:
        upload(page, (name, data))
        assert (
            page.prediction is None
            and name in page.answer.value
            and text in page.answer.value
            and 'role="alert"' in page.answer.value
        )
    upload(page, ("a.jpg", raw), ("b.jpg", raw))
    assert "These are 2 files" in page.answer.value


@pytest.mark.medium
def test_widget_answers_to_anything(model):
    "Damaged pictures of all kinds, as in benchmarks/fuzz_models.py: an answer or a reason, never an exception"
    import random
    import warnings

    from fuzz_models import changed_bytes, picture_bytes

    page, seen = ModelPage(model), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, on what it reads
        for i in range(200):
            rng = random.Random(i)
            upload(page, (f"{i}.jpg", changed_bytes(rng, picture_bytes(rng))))
            seen.append(page.prediction is not None)
            assert ("ftl-row" if seen[-1] else 'role="alert"') in page.answer.value
    assert 20 < sum(seen) < 180
    page.model.predict = lambda im: 1 / 0  # a fault of ours is shown, and goes to the log
    with pytest.raises(ZeroDivisionError):
        page.classify(PICTURE.read_bytes(), "x")
    assert "Something went wrong" in page.answer.value


def test_widget_without_a_model_says_why(model, tmp_path):
    assert "no such folder" in ModelPage(tmp_path / "gone").children[0].value
    (model / ONNX).write_bytes((model / ONNX).read_bytes()[:-1] + b"x")
    page = ModelPage(model)
    assert "checksum differs" in page.children[0].value and page.classify(b"", "x") is None
    (model / SAMPLE).unlink()
    export_without = json.loads((model / MANIFEST).read_text())
    export_without["onnx"] = dict(file=None)
    (model / MANIFEST).write_text(json.dumps(export_without))
    page = ModelPage(model)
    assert isinstance(page.model, Predictor) and page.example not in page.children, "no example that is not there"


def test_bars():
    text = bars([("a", 0.75), ("b & c", 0.2496), ("d", 0.0004)], 2)
    assert (
        "75.0%" in text
        and "b &amp; c" in text
        and "under 0.1%" in text
        and "2 other classes" in text
        and 'width:75.00%' in text
    )
    assert "other" not in bars([("a", 1.0)])


def test_open_bytes_is_open_picture():
    from fastai_tl.core.images import open_picture

    for mode in ("L", "RGB", "RGBA"):
        assert open_bytes(PICTURE.read_bytes(), mode).tobytes() == open_picture(PICTURE, mode).tobytes()


def test_serve_says_what_is_missing(model, monkeypatch, tmp_path):
    with pytest.raises(FileError, match="no such folder"):
        app.serve(tmp_path / "gone", browser=False)
    for port in (0, 70_000, True):
        with pytest.raises(InputError, match="port="):
            app.serve(model, port, browser=False)
    (model / WEIGHTS).unlink()
    with pytest.raises(FileError, match="model.safetensors is missing"):
        app.serve(model, browser=False)
    monkeypatch.setattr(app, "find_spec", lambda n: None if n == "voila" else True)
    with pytest.raises(ExtraError, match=r"pip install 'fastai-tl\[app\]'"):
        app.serve(model, browser=False)
    r = CliRunner().invoke(cli.app, ["serve", "--help"])
    assert "--no-browser" in r.output and "fastai-tl[app]" in r.output


def test_serve_finds_the_model_of_a_page(model, tmp_path):
    "A page that somebody has changed is not trusted, and its code is never run"
    page = make_app(model)
    assert app._served(page.parent).resolve() == model and app._served(model) == model
    page.write_text(page.read_text().replace("ModelPage(", "print("))
    with pytest.raises(FileError, match="not an exported model"):
        app._served(page.parent)


def test_voila_that_does_not_start_shows_its_log(model, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(
        app, "_voila_command", lambda *a: [sys.executable, "-c", "print('no such option'); raise SystemExit(3)"]
    )
    with pytest.raises(app.StateError, match="no such option"):
        app.serve(model, browser=False)
    assert not list(tmp_path.glob("fastai-tl-*"))
