"""Model folders from strangers: every noted field edited, markup in the card, and networks of a few bytes that ask for
gigabytes or hours."""

import collections
import contextlib
import hashlib
import io
import json
import random
import resource
import shutil
import time
import warnings
from pathlib import Path

import fuzz_models
import numpy as np
import pytest

from fastai_tl.core.errors import FileError, KitError
from fastai_tl.deploy import onnx_runtime
from fastai_tl.deploy.export import export_again
from fastai_tl.deploy.manifest import read_manifest
from fastai_tl.deploy.model_card import model_card
from fastai_tl.deploy.onnx_runtime import load_onnx

OLD = Path(__file__).parents[1] / "fixtures" / "0.1.0" / "model"
STAGE = dict(
    stage=dict(name="head", train=["head"], epochs=2),
    names=["epoch", "train_loss"],
    values=[[0, 0.5], [1, None]],
    lrs=[1e-3],
    seconds=3.0,
    best=None,
    ended=None,
)
SET = ["files", "format"]  # have tests of their own, in tests/deploy/test_fuzz_models.py


@pytest.fixture
def model(tmp_path):
    shutil.copytree(OLD, tmp_path / "m")
    doc = json.loads((OLD / "manifest.json").read_text()) | dict(training=[STAGE])
    return tmp_path / "m", doc


def write(folder, doc):
    (folder / "manifest.json").write_text(json.dumps(doc))


def edited(doc, n, seed):
    "Edits of one field: another value, none, repeated, exchanged, out of range"
    fields = [k for k in doc if k not in SET]
    for i in range(n):
        rng = random.Random(f"{seed} {i}")
        field = rng.choice(fields)
        yield field, {k: v for k, v in doc.items() if k != field} | fuzz_models.changed_json(rng, {field: doc[field]})


def run_edits(model, n, seed):
    "How reading and the card of `n` edited manifests end"
    folder, doc = model
    outcomes = collections.Counter()
    for field, m in edited(doc, n, seed):
        write(folder, m)
        try:
            card = model_card(dict(onnx=dict(file=None)) | read_manifest(folder))
            card.encode()
            outcomes["card"] += 1
        except KitError as e:
            assert "\n" not in e.args[0] and len(e.args[0]) < 1000, field
            outcomes[type(e).__name__] += 1
    return outcomes


def test_edited_fields_of_a_manifest(model, counts):
    outcomes = run_edits(model, 300, 0)
    counts("models", "Manifests with one edited field", **outcomes)
    assert outcomes["ManifestError"] > 150 and outcomes["card"] > 20


@pytest.mark.attacks
def test_ten_thousand_edited_fields_of_a_manifest(model, counts):
    counts("models", "Manifests with one edited field", **run_edits(model, 10_000, 1))


@pytest.mark.medium
def test_an_edited_model_is_exported_again_or_refused(model, tmp_path, counts):
    folder, doc = model
    outcomes = collections.Counter()
    for _, m in edited(doc, 40, 2):
        write(folder, m)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                export_again(folder, tmp_path / "out", onnx=False, force=True)
            outcomes["exported"] += 1
        except KitError as e:
            outcomes[type(e).__name__] += 1
    counts("models", "Edited models exported again", **outcomes)
    assert outcomes["exported"] > 5 and outcomes["ManifestError"] > 10


HOSTILE = '"><script>alert(1)</script>&lt;b&gt; ${{x}} [a](http://x.y) www.x.y `c` |\x1b[31m\n# big\u202e'


def test_no_text_of_a_manifest_is_markup_in_the_card(model):
    import html

    from markdown_it import MarkdownIt

    folder, doc = model
    doc |= dict(classes=[f"{i}{HOSTILE}" for i in range(10)], training=[STAGE | dict(names=["epoch", HOSTILE])])
    doc["training"][0]["stage"] = dict(name=HOSTILE, train=HOSTILE)
    doc["metrics"]["recall"] = {HOSTILE: 0.5}
    doc["licence"] = dict(weights=HOSTILE, licence=HOSTILE, noncommercial=None, note=HOSTILE)
    write(folder, doc)
    for licence in (doc["licence"], dict(weights=None, licence=None, note=HOSTILE)):
        write(folder, doc | dict(licence=licence))
        card = model_card(read_manifest(folder) | dict(onnx=dict(file=None, error=HOSTILE)))
        assert not set(card) & {"\x1b", "\u202e"}
        page = MarkdownIt("commonmark", {"html": True}).enable("table").render(card)
        for tag in ("<script", "<b>", "<a ", "<h1>big", "<code>c"):
            assert tag not in page, tag
        shown = html.unescape(page)
        for text in ('"><script>alert(1)</script>&lt;b&gt; ${{x}} [a](http://x.y)', "\\x1b[31m\\n# big\\u202e"):
            assert text in shown


def test_what_is_no_note_is_named(model):
    folder, doc = model
    for edit, said in (
        (dict(data=dict(train="<b>")), "data: Expected `int \\| null`, got `str` - at `\\$.train`"),
        (dict(metrics=doc["metrics"] | dict(accuracy=2)), "metrics: .*accuracy"),
        (dict(created="<script>"), "created"),
        (dict(licence=[]), "licence"),
        (dict(training=[STAGE | dict(seconds=-1)]), "training: .*seconds"),
    ):
        write(folder, doc | edit)
        with pytest.raises(FileError, match=said):
            read_manifest(folder)
    (folder / "manifest.json").write_text(json.dumps(doc).replace('"seconds": 3.0', '"seconds": 1e999'))
    with pytest.raises(FileError, match="is damaged"):
        read_manifest(folder)


# --- networks ---------------------------------------------------------------------------------------------------------


def bombs():
    "Networks of some hundred bytes, and what they ask for"
    from onnx import TensorProto, helper, numpy_helper

    def network(nodes, **constants):
        last = nodes[-1][2][0]
        nodes = [helper.make_node(op, ins, outs, **kw) for op, ins, outs, *more in nodes for kw in [dict(*more)]]
        nodes += [
            helper.make_node("ReduceSum", [last], ["r"], keepdims=0),
            helper.make_node("ReduceMean", ["x", "axes"], ["p"], keepdims=0),
            helper.make_node("Add", ["p", "r"], ["s"]),
            helper.make_node("Expand", ["s", "ones"], ["y"]),
        ]
        constants |= dict(axes=[1, 2, 3], ones=[1])
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 3, 28, 28])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        inits = [numpy_helper.from_array(np.array(v, dtype=np.int64), k) for k, v in constants.items()]
        graph = helper.make_graph(nodes, "g", [x], [y], inits)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        return model.SerializeToString()

    products = [("MatMul", [f"m{i}", f"m{i}"], [f"m{i + 1}"]) for i in range(60)]
    doubled = [("Concat", [f"c{i}", f"c{i}"], [f"c{i + 1}"], dict(axis=0)) for i in range(31)]
    yield "a constant of 8 GB", network([("ConstantOfShape", ["n"], ["c"])], n=[2**31])
    yield "a constant doubled 31 times", network([("ConstantOfShape", ["n"], ["c0"]), *doubled], n=[1])
    yield "an image repeated", network([("Expand", ["x", "n"], ["c"])], n=[2**19, 1, 3, 28, 28])
    yield "tiles", network([("Tile", ["x", "n"], ["c"])], n=[1, 1, 2**10, 2**10])
    yield "a border", network([("Pad", ["x", "n"], ["c"])], n=[0, 0, 20000, 20000, 0, 0, 20000, 20000])
    yield "sixty products", network([("ConstantOfShape", ["n"], ["m0"]), *products], n=[3000, 3000])


def use(folder, doc, data):
    (folder / "model.onnx").write_bytes(data)
    doc["files"]["model.onnx"] = dict(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
    write(folder, doc)


@pytest.mark.medium
def test_a_network_costs_no_more_than_its_size_allows(model, monkeypatch, counts):
    monkeypatch.setattr(onnx_runtime, "SECONDS", 1.0)
    folder, doc = model
    load_onnx(folder)
    for name, data in (networks := dict(bombs())).items():
        assert len(data) < 10_000
        use(folder, doc, data)
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
        said = "far more memory than a network of its size|takes more than 1 sec|more than 4294967296 bytes"
        with pytest.raises(KitError, match=said):
            load_onnx(folder).predict(np.zeros((28, 28, 3), np.uint8))
        assert time.monotonic() - start < 60, name
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 700 * 1024, f"{name}: KiB"
    counts("models", "ONNX networks that ask for gigabytes or hours", refused=len(networks))


def test_a_sparse_tensor_is_refused(model):
    from onnx import TensorProto, helper

    folder, doc = model
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("s", TensorProto.FLOAT, [1], [1.0]),
        helper.make_tensor("i", TensorProto.INT64, [1], [0]),
        [2**31],
    )
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 3, 28, 28])
    graph = helper.make_graph([helper.make_node("Add", ["x", "s"], ["y"])], "g", [x], [x], sparse_initializer=[sparse])
    use(folder, doc, helper.make_model(graph).SerializeToString())
    with pytest.raises(FileError, match="sparse tensor"):
        load_onnx(folder)


@pytest.mark.medium
def test_a_batch_that_does_not_fit_is_taken_in_parts(monkeypatch):
    few = load_onnx(OLD)
    images = [np.random.default_rng(i).integers(0, 256, (28, 28, 3), dtype=np.uint8) for i in range(64)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        want = few.values(images, bs=64)
    monkeypatch.setattr(onnx_runtime, "_limit", lambda n, size: n + 2**20)
    tried = []
    run = onnx_runtime._run
    monkeypatch.setattr(onnx_runtime, "_run", lambda s, name, x: (tried.append(len(x)), run(s, name, x))[1])
    np.testing.assert_allclose(load_onnx(OLD).values(images, bs=64), want, atol=1e-5)
    assert tried[1] == 64 and len(tried) > 3, tried
