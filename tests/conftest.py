import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import *  # noqa: F403 (until tests import it from there)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path_factory, monkeypatch):
    "Each test works in an empty folder of its own, with the kit's defaults"
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    "The wheel of the checkout, built in a copy"
    repo, d = Path(__file__).parent.parent, tmp_path_factory.mktemp("wheel")
    (d / "copy").mkdir()
    for f in ("pyproject.toml", "README.md", "LICENSE"): shutil.copy(repo / f, d / "copy")
    shutil.copytree(repo / "fastai_tl", d / "copy" / "fastai_tl", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(repo / "labextension", d / "copy" / "labextension", ignore=shutil.ignore_patterns("node_modules", "lib", "build-test"))
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(d), str(d / "copy")], check=True, capture_output=True)
    return next(d.glob("*.whl"))


@pytest.fixture
def small_dls():
    "32 pictures to train on and 16 to validate, 48 px, 8 classes"
    from fastai_tl.samples import ClassOf, picture_dls, sample_path, split_sample
    train, valid = split_sample(sample_path("clipart"), 4)
    return picture_dls(train, valid[::8], ClassOf(sample_path("clipart")), size=48, bs=8, path=".")
