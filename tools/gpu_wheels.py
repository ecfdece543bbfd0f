"""A folder of wheels for `tools/gpu_check.py`, for a machine without a network that has PyTorch and little else.

python tools/gpu_wheels.py FOLDER [--python 3.12]

It holds fastai, this package, the offline backbone's weights and what they need, in the versions that are installed
here, for Linux on x86-64. torch, torchvision, timm, pandas, scipy, scikit-learn, Pillow, matplotlib and what those
bring are taken as there; spacy and the browser's half of the widgets are not needed. Under 40 MB.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

THERE = ("torch", "torchvision", "timm", "pandas", "scipy", "scikit-learn", "pillow", "matplotlib", "numpy")
UNUSED = {"spacy", "widgetsnbextension", "jupyterlab-widgets", "pip", "setuptools", "wheel"}
PLATFORMS = ("2_28", "2_27", "2_26", "2_24", "2_17", "2_12", "2_5")  # of glibc
MOST = 40 * 2**20  # bytes
REPO = Path(__file__).parent.parent


def needed(names: list[str] | tuple[str, ...], python: str, without: set[str]) -> dict[str, str]:
    "Versions of these installed packages and of all that they need, but for `without`"
    todo, found = [canonicalize_name(n) for n in names], {}
    marks = dict(
        python_version=python, python_full_version=f"{python}.0", sys_platform="linux", platform_system="Linux"
    )
    while todo:
        name = todo.pop()
        if name in found or name in without:
            continue
        try:
            d = distribution(name)
        except PackageNotFoundError:
            continue  # of another system, or of an extra
        found[name] = d.version
        for r in map(Requirement, d.requires or []):
            if r.marker is None or r.marker.evaluate(marks | dict(extra="")):
                todo.append(canonicalize_name(r.name))
    return found


def fetch(folder: Path, python: str) -> int:
    "Fill the folder; returns its size in bytes. Raises `CalledProcessError` where pip cannot"
    pip = [sys.executable, "-m", "pip"]
    lines = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    ours = [Requirement(line).name for line in lines]
    wanted = needed(ours, python, UNUSED | set(needed(THERE, python, UNUSED)))
    print(f"{len(wanted)} packages, some 35 MB: {', '.join(sorted(wanted))}", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run([*pip, "wheel", "--quiet", "--no-deps", "-w", str(folder), str(REPO)], check=True)
    tags = [o for v in PLATFORMS for o in ("--platform", f"manylinux_{v}_x86_64")]
    tags += ["--platform", "manylinux2014_x86_64", "--platform", "manylinux1_x86_64"]
    which = ["--only-binary=:all:", "--no-deps", "--python-version", python, "--implementation", "cp", *tags]
    pins = [f"{n}=={v}" for n, v in sorted(wanted.items())]
    subprocess.run([*pip, "download", "--quiet", *which, "-d", str(folder), *pins], check=True)
    return sum(p.stat().st_size for p in folder.glob("*.whl"))


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("folder", type=Path, help="new or empty")
    p.add_argument("--python", default="3.12", help="of the other machine")
    a = p.parse_args()
    if a.folder.exists() and any(a.folder.iterdir()):
        p.error(f"{a.folder} is not empty. Give a new folder.")
    size = fetch(a.folder, a.python)
    print(f"{size / 2**20:.1f} MB in {a.folder}. There: python tools/gpu_check.py --wheels {a.folder}")
    if size > MOST:
        sys.exit(f"That is more than {MOST >> 20} MB; see THERE and UNUSED in {__file__}.")


if __name__ == "__main__":
    main()
