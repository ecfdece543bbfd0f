"""What is imported when: the package is lazy, and the lower layers do not pull in the upper ones."""
import subprocess
import sys

import pytest

PURE = ["errors", "settings", "snapshot", "groups", "batchnorm", "table", "freeze", "rates", "sweep", "stage", "plan", "checkpoint", "control", "cut", "minis",
        "owner", "freezemap", "bundle", "serving", "app", "corruptions", "comparison"]
NAMES = """sample_path sample_dls backbones transfer_learner layer_groups GroupSpec freeze_to unfreeze set_frozen layer_table fingerprint check_frozen
FreezeGuard spread_lrs decayed_lrs set_lrs find_lr Stage Plan run_plan Control train_only suggest_lr evaluate export load_predictor make_app diagnose
compare compare_backbones FreezePanel LRFinderPanel PlanPanel TrainPanel EvaluatePanel Workbench
list_lessons copy_lessons check ask todo""".split()


def loaded_after(code):
    "Names of the modules that a fresh interpreter has loaded after `code`"
    r = subprocess.run([sys.executable, "-c", f"{code}\nimport sys; print('\\n'.join(sys.modules))"], capture_output=True, text=True, check=True)
    return set(r.stdout.split())


def test_import_is_lazy():
    loaded = loaded_after("import fastai_tl; fastai_tl.__version__")
    assert not loaded & {"torch", "fastai", "numpy", "pandas", "matplotlib", "IPython", "ipywidgets"}
    assert [m for m in loaded if m.startswith("fastai_tl")] == ["fastai_tl"]


@pytest.mark.parametrize("module", PURE)
def test_pure_layer_imports_neither_fastai_nor_widgets(module):
    loaded = loaded_after(f"import fastai_tl.{module}")
    assert f"fastai_tl.{module}" in loaded
    assert not loaded & {"fastai", "ipywidgets", "IPython", "matplotlib"}


def test_serving_needs_neither_torch_nor_fastai():
    assert not loaded_after("import fastai_tl.deploy.onnx_runtime") & {"torch", "fastai", "matplotlib"}


def test_the_page_of_a_model_needs_neither_torch_nor_fastai():
    assert not loaded_after("import fastai_tl.deploy.web_page") & {"torch", "fastai", "matplotlib"}


def test_cli_help_is_quick():
    "The command line itself must not load torch: `fastai-tl --help` would take seconds"
    assert not loaded_after("import fastai_tl.interface.cli") & {"torch", "fastai"}


def test_public_names():
    import fastai_tl
    import fastai_tl.all as everything
    for n in NAMES:
        assert n in everything.__all__ and callable(getattr(everything, n)), n
        assert getattr(fastai_tl, n) is getattr(everything, n)
    with pytest.raises(AttributeError): fastai_tl.no_such_name  # noqa: B018


def test_star_imports_do_not_clash_with_fastai():
    code = "from fastai.vision.all import *\nbefore = dict(globals())\nfrom fastai_tl.all import *\n" \
           "import fastai_tl.all as kit\nassert not [n for n in kit.__all__ if n in before], [n for n in kit.__all__ if n in before]"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
