"""Fail if the notebooks and what is made from them disagree: the modules in fastai_tl/, README.md, and the lessons that the package ships.

Works on a copy, so nothing in the checkout changes.
"""
import difflib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from make_lessons import lesson_files, lessons_now
from readme import readme_text

ROOT = Path(__file__).resolve().parent.parent


def modules(folder: Path) -> dict[str, str]:
    "Python files of the package by their path, without what the environment writes"
    return {str(p.relative_to(folder)): p.read_text(encoding="utf-8") for p in sorted((folder / "fastai_tl").rglob("*.py"))}


def main() -> int:
    with tempfile.TemporaryDirectory() as d:
        copy = Path(d) / "copy"
        copy.mkdir()
        for name in ("nbs", "fastai_tl"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", "clipart"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        export = Path(sys.executable).parent / "nbdev-export"
        subprocess.run([export], cwd=copy, check=True, env={**os.environ, "PYTHONPATH": ""})
        want, have = modules(copy), modules(ROOT)
    want["README.md"] = readme_text(ROOT / "nbs" / "index.ipynb")[0]
    have["README.md"] = (ROOT / "README.md").read_text(encoding="utf-8")
    want |= {f"fastai_tl/data/lessons/{k}": v for k, v in lesson_files().items()}
    have |= {f"fastai_tl/data/lessons/{k}": v for k, v in lessons_now().items()}
    bad = sorted(k for k in want.keys() | have.keys() if want.get(k) != have.get(k))
    for k in bad:
        old, new = have.get(k, "").splitlines(), want.get(k, "").splitlines()
        diff = difflib.unified_diff(old, new, f"{k} (as it is)", f"{k} (from its notebook)", lineterm="", n=1)
        print("\n".join(list(diff)[:20]))
    if bad: print(f"\nThese differ from their notebooks: {', '.join(bad)}. Run `make export` (or `nbdev-update` if the .py is right) and commit.")
    else: print("Modules, README and lessons agree with their notebooks.")
    return bool(bad)


if __name__ == "__main__": sys.exit(main())
