"""What is imported when: the package is lazy, and the lower layers do not pull in the upper ones."""

import json
import subprocess
import sys

import pytest

PURE = """core.errors core.settings core.snapshot core.learner_lock core.images core.tensor_compare
freezing.layer_groups freezing.batchnorm
freezing.layer_table freezing.freeze freezing.fingerprint freezing.learning_rates freezing.freeze_state
models.body models.mini_nets
datasets.corruptions
training.lr_curve training.stage training.plan training.checkpoint training.run_control experiments.result
deploy.manifest deploy.predictor
deploy.onnx_runtime deploy.web_app""".split()


def loaded_after(code):
    "Names of the modules that a fresh interpreter has loaded after `code`"
    r = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print('\\n'.join(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(r.stdout.split())


def test_import_is_lazy():
    loaded = loaded_after("import fastai_tl; fastai_tl.__version__")
    assert not loaded & {"torch", "fastai", "numpy", "pandas", "matplotlib", "IPython", "ipywidgets"}
    assert [m for m in loaded if m.startswith("fastai_tl")] == ["fastai_tl"]


@pytest.fixture(scope="module")
def new_with():
    "What each of PURE loads that those before it have not: one interpreter imports them one after the other"
    code = """import importlib, json, sys
seen, new = set(sys.modules), {}
for m in sys.argv[1:]:
    importlib.import_module(f"fastai_tl.{m}")
    new[m] = sorted(set(sys.modules) - seen)
    seen |= set(sys.modules)
print(json.dumps(new))"""
    r = subprocess.run([sys.executable, "-c", code, *PURE], capture_output=True, text=True, check=True)
    return json.loads(r.stdout)


@pytest.mark.medium
@pytest.mark.parametrize("module", PURE)
def test_pure_layer_imports_neither_fastai_nor_widgets(module, new_with):
    assert any(f"fastai_tl.{module}" in new for new in new_with.values())
    assert not set(new_with[module]) & {"fastai", "ipywidgets", "IPython", "matplotlib"}


@pytest.mark.medium
@pytest.mark.parametrize(
    "code",
    [
        "import fastai_tl.deploy.onnx_runtime",
        "from fastai_tl import load_onnx",
        "from fastai_tl.serving import load_onnx",
        "import fastai_tl.deploy.web_page",
    ],
)
def test_the_use_of_an_exported_model_needs_neither_torch_nor_fastai(code):
    assert not loaded_after(code) & {"torch", "fastai", "matplotlib"}


@pytest.mark.medium
def test_cli_help_is_quick():
    "The command line itself must not load torch: `fastai-tl --help` would take seconds"
    assert not loaded_after("import fastai_tl.interface.cli") & {"torch", "fastai"}


def test_public_names():
    "Each is where `fastai_tl` says, and the same in `fastai_tl.all`; none is missing"
    import fastai_tl
    import fastai_tl.all as everything

    assert set(fastai_tl._HOME) == set(everything.__all__) and len(everything.__all__) == len(set(everything.__all__))
    for n, module in fastai_tl._HOME.items():
        o = getattr(everything, n)
        assert callable(o) and getattr(fastai_tl, n) is o, n
        assert o.__module__ == f"fastai_tl.{module}", f"{n} is defined in {o.__module__}"
        assert n in dir(fastai_tl)
    with pytest.raises(AttributeError):
        fastai_tl.no_such_name  # noqa: B018
    with pytest.raises(ImportError):
        from fastai_tl import no_such_name  # noqa: F401


STARS = ["fastai.vision.all", "fastai.text.all", "fastai.tabular.all", "fastai.collab", "fastcore.all", "nbdev.showdoc"]


@pytest.fixture(scope="module")
def stars():
    "Names that each star import brings: one interpreter, since each takes seconds"
    code = """import importlib, json, sys
def star(m):
    return getattr(m, "__all__", None) or [n for n in dir(m) if not n.startswith("_")]
print(json.dumps({m: star(importlib.import_module(m)) for m in sys.argv[1:]}))"""
    r = subprocess.run([sys.executable, "-W", "ignore", "-c", code, *STARS], check=True, capture_output=True, text=True)
    return json.loads(r.stdout)


@pytest.mark.medium
@pytest.mark.parametrize("module", STARS)
def test_no_public_name_clashes_with_a_star_import(module, stars):
    import fastai_tl

    assert len(stars[module]) > 1 and not set(stars[module]) & set(fastai_tl._HOME)
