"""The wheel alone, away from the checkout: it has all its data and runs the quickstart without the network."""

import json
import os
import subprocess
import sys
import zipfile

import pytest


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory):
    "The wheel, unpacked into a folder of its own; what it depends on is already installed"
    d = tmp_path_factory.mktemp("site")
    names = zipfile.ZipFile(wheel).namelist()
    assert sum(n.startswith("fastai_tl/data/clipart/") and n.endswith(".jpg") for n in names) == 302
    assert {
        "fastai_tl/data/clipart/README.md",
        "fastai_tl/data/report.html.jinja",
        "fastai_tl/data/lessons/0_setup.ipynb",
        "fastai_tl/data/lessons/7_your_own_pictures.ipynb",
        "fastai_tl/data/lessons/glossary.md",
    } <= set(names)
    assert not [n for n in names if "solutions" in n], "students install the wheel"
    assert any(n.endswith("/LICENSE") for n in names)
    assert not [n for n in names if n.startswith(("tests", "nbs", "tools"))]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(d / "site"), str(wheel)],
        check=True,
    )
    return d / "site"


@pytest.mark.medium
def test_quickstart_from_the_wheel(site, tmp_path):
    (tmp_path / "settings.ini").write_text(
        "[fastai_tl]\nsize = 32\nepochs = 1\noffline = yes\nbackbone = resnet_mini\n"
    )
    env = {
        **os.environ,
        "PYTHONPATH": str(site),
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "HTTP_PROXY": "http://127.0.0.1:9",
    }
    where = subprocess.run(
        [sys.executable, "-c", "import fastai_tl; print(fastai_tl.__file__)"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
    )
    assert where.stdout.startswith(str(site))
    r = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            "from fastai_tl.interface.cli import main; main()",
            "quickstart",
            "--out",
            "out",
            "--json",
            "r.json",
        ],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
    )
    assert r.returncode == 0, r.stdout + r.stderr
    j = json.loads((tmp_path / "r.json").read_text())
    assert j["n_train"] == 96 and len(j["classes"]) == 8 and (tmp_path / j["report"]).stat().st_size > 100_000


@pytest.mark.medium
def test_a_backbone_that_is_not_here_is_refused_at_once(site, tmp_path):
    (tmp_path / "settings.ini").write_text("[fastai_tl]\noffline = yes\n")
    env = {**os.environ, "PYTHONPATH": str(site), "TORCH_HOME": str(tmp_path), "COLUMNS": "300"}
    r = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            "from fastai_tl.interface.cli import main; main()",
            "quickstart",
            "--arch",
            "vgg16",
        ],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
    )
    assert (
        r.returncode == 2
        and "vgg16-397923af.pth" in r.stderr
        and "tf_efficientnet_lite0" in r.stderr
        and "Traceback" not in r.stderr
    )
    assert not (tmp_path / "quickstart-out").exists()
