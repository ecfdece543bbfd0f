"The lowest versions in pyproject.toml, and what the package uses of others that is not public"

import ast
import pickle
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from fastai_tl.acceleration import fused_adam
from fastai_tl.all import layer_groups, sample_dls, transfer_learner
from fastai_tl.core.workers import why_not_sent

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "tools"))
from helpers import few_images  # noqa: E402
from floors import ALSO, floors  # noqa: E402


def project():
    return tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_every_requirement_says_its_lowest_version():
    found = floors(project())
    assert {"torch", "fastai", "numpy", "jupyterlab", "onnx"} <= set(found) and not {"pytest", "sphinx"} & set(found)
    assert not set(ALSO) & set(found)


@pytest.mark.parametrize(
    "line, text", [("six", "no lowest version"), ("six<2", "no lowest version"), ("numpy>=1.0", "two lowest versions")]
)
def test_a_requirement_without_one_is_named(line, text):
    p = project()
    with pytest.raises(ValueError, match=text):
        floors(p | dict(dependencies=[*p["dependencies"], line]))


def test_what_is_light_does_not_bring_what_is_heavy():
    "A class on CPUs needs neither JupyterLab nor Voila nor ONNX for the quickstart"
    core = {r.partition(">")[0] for r in project()["dependencies"]}
    assert not core & {"jupyterlab", "notebook", "voila", "onnx", "onnxruntime", "onnxscript", "accelerate"}


def test_what_users_may_need_is_there_for_the_tests():
    extras = project()["optional-dependencies"]
    assert {f"fastai-tl[{n}]" for n in ("app", "distributed", "onnx", "phone")} <= set(extras["test"])
    assert {f"fastai-tl[{n}]" for n in ("docs", "lab", "test")} <= set(extras["dev"])


def test_torch_fused_adamw_is_tried_before_it_is_used(monkeypatch):
    "`torch._fused_adamw_` is private: without it, or with another signature, fastai takes the step"
    fused_adam.kernel_works.cache_clear()
    assert fused_adam.kernel_works()
    try:
        for broken in (lambda *a: None, lambda *a, **kw: None):
            fused_adam.kernel_works.cache_clear()
            monkeypatch.setattr(torch, "_fused_adamw_", broken)
            assert not fused_adam.kernel_works()
        fused_adam.kernel_works.cache_clear()
        monkeypatch.delattr(torch, "_fused_adamw_")
        assert not fused_adam.kernel_works()
    finally:
        fused_adam.kernel_works.cache_clear()


def test_transforms_of_functions_are_pickled():
    "`plum.Function` cannot be pickled by itself from plum 2.10 on, and each function in a DataLoader is one"
    from fastai.data.transforms import parent_label
    from fasttransform import Transform

    assert pickle.loads(pickle.dumps(Transform(parent_label)))("a/bird/b.jpg") == "bird"


@pytest.mark.medium
def test_timm_groups_layers(monkeypatch):
    "`timm.models._manipulate` is private: without it, the groups are found as in a network of one's own"
    groups = [list(layer_groups(transfer_learner(few_images(), "timm/resnet10t", pretrained=False)))]
    monkeypatch.setitem(sys.modules, "timm.models._manipulate", None)
    groups += [list(layer_groups(transfer_learner(few_images(), "timm/resnet10t", pretrained=False)))]
    assert all(len(g) > 3 for g in groups)


def test_bqplot_is_imported_when_a_panel_draws():
    at_once = [
        f.name
        for f in (REPO / "fastai_tl").rglob("*.py")
        for node in ast.parse(f.read_text(encoding="utf-8")).body
        if isinstance(node, (ast.Import, ast.ImportFrom)) and "bqplot" in ast.unparse(node)
    ]
    assert not at_once


def test_names_of_files_differ_by_more_than_case():
    "On macOS and Windows `A.py` and `a.py` are one file; some names Windows does not take at all"
    names = subprocess.run(["git", "ls-files"], cwd=REPO, capture_output=True, text=True).stdout.splitlines()
    assert len(names) == len({n.casefold() for n in names})
    parts = {p for n in names for p in n.split("/")}
    assert not [p for p in parts if set(p) & set('<>:"\\|?*') or p.endswith((" ", "."))]
    assert not {p.partition(".")[0].lower() for p in parts} & {"con", "prn", "aux", "nul", "com1", "lpt1"}


@pytest.mark.distributed
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_worker_processes_that_are_not_forked_read_images(method):
    "As on Windows and macOS, and with Python 3.14 on Linux"
    train = sample_dls(size=32, n_per_class=4, bs=16, num_workers=0).train
    loader = torch.utils.data.DataLoader(train.dataset, batch_size=None, num_workers=1, multiprocessing_context=method)
    assert why_not_sent(loader.dataset) == "" and tuple(next(iter(loader))[0].shape) == (32, 32)
