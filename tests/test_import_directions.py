"""Imports between packages point down only: each package may import those before it in `fastai_tl.PACKAGES`, and
nothing after it.
"""

import pytest
import ast
from pathlib import Path

from fastai_tl import PACKAGES

ROOT = Path(__file__).resolve().parents[1] / "fastai_tl"
ALIASES = {"serving.py"}  # the module that exported model cards name


def imported(tree, package):
    "Dotted names that a module imports, at its top or inside a function, with their lines"
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for a in node.names:
                yield node.lineno, a.name
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(["fastai_tl", *package][: len(package) + 2 - node.level]) if node.level else ""
            module = ".".join(filter(None, [base, node.module]))
            for a in node.names:
                yield node.lineno, f"{module}.{a.name}"


def upward(root):
    "Imports of a package by one that comes before it: (file, line, name)"
    out = []
    for p in sorted(root.rglob("*.py")):
        rel = p.relative_to(root)
        if len(rel.parts) == 1:
            continue
        rank = PACKAGES.index(rel.parts[0])
        for line, name in imported(ast.parse(p.read_text(encoding="utf-8")), rel.parts[:-1]):
            parts = name.split(".")
            if parts[0] != "fastai_tl" or len(parts) < 2 or parts[1] == "__version__":
                continue
            if parts[1] == "all" and rel.parts[0] == "interface":
                continue
            if parts[1] not in PACKAGES or PACKAGES.index(parts[1]) > rank:
                out.append((str(rel), line, name))
    return out


def test_every_module_is_in_a_package():
    assert {p.name for p in ROOT.iterdir() if p.is_dir() and (p / "__init__.py").exists()} == set(PACKAGES)
    assert {p.name for p in ROOT.glob("*.py")} == {"__init__.py", "all.py", "_modidx.py"} | ALIASES


@pytest.mark.medium
def test_imports_point_down():
    assert upward(ROOT) == []


def test_an_upward_import_is_seen(tmp_path):
    for name in ("core", "training"):
        (tmp_path / name).mkdir()
    (tmp_path / "core" / "a.py").write_text("def f():\n    from fastai_tl.training.plan import Plan\n")
    (tmp_path / "core" / "b.py").write_text("from ..training import plan\nfrom fastai_tl import __version__\n")
    (tmp_path / "training" / "c.py").write_text("from ..core.a import f\nfrom fastai_tl.core import a\n")
    assert [(f, n) for f, _, n in upward(tmp_path)] == [
        ("core/a.py", "fastai_tl.training.plan.Plan"),
        ("core/b.py", "fastai_tl.training.plan"),
    ]
