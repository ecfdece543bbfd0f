import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

# Parts of `make test-all`
PARTS = "properties accuracy interrupts kills zoo onnx course distributed large fuzz attacks site browser_long".split()

# Tests send SIGINT, which a shell lets jobs in the background ignore
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for it in items:
        part = any(it.get_closest_marker(p) for p in PARTS)
        if part:
            it.add_marker(pytest.mark.slow)
        elif it.get_closest_marker("slow"):
            raise pytest.UsageError(f"{it.nodeid}: `slow` is set by the marks of the parts: {', '.join(PARTS)}")


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    "`made_once(name, make)`: a folder that `make(folder)` has filled, once for all processes of a run"
    from filelock import FileLock

    base = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        base = base.parent

    def f(name, make):
        folder, done = base / name, base / f"{name}.done"
        with FileLock(base / f"{name}.lock"):
            if not done.exists():
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return f


@pytest.fixture(autouse=True)
def elsewhere(tmp_path_factory, monkeypatch):
    "Each test works in an empty folder of its own, with the kit's defaults"
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))
    monkeypatch.delenv("FORCE_COLOR", raising=False)  # a shell of ipykernel sets it, for the whole process
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)


@pytest.fixture(scope="session")
def wheel(made_once):
    "The wheel of the checkout, built in a copy"
    repo = Path(__file__).parent.parent

    def build(d):
        (d / "copy").mkdir()
        for f in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(repo / f, d / "copy")
        shutil.copytree(repo / "fastai_tl", d / "copy" / "fastai_tl", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(
            repo / "labextension",
            d / "copy" / "labextension",
            ignore=shutil.ignore_patterns("node_modules", "lib", "build-test"),
        )
        subprocess.run(
            [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(d), str(d / "copy")],
            check=True,
            capture_output=True,
        )

    return next(made_once("wheel", build).glob("*.whl"))


@pytest.fixture
def small_dls():
    "32 pictures to train on and 16 to validate, 48 px, 8 classes"
    from helpers import few_images

    return few_images(size=48)
