"""Code is easy to read line by line: 120 columns, a statement a line, few targets, methods inside their classes."""

import pytest
import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILES = [
    p
    for d in ("fastai_tl", "tests", "benchmarks", "tools", "docs")
    for p in sorted((ROOT / d).rglob("*.py"))
    if p.name != "_modidx.py" and not {"data", "out"} & set(p.relative_to(ROOT).parts)
]
SHORT = ast.Return, ast.Raise, ast.Continue, ast.Break, ast.Pass


def found(look, files=FILES):
    "Where `look` of a syntax tree and its lines gives line numbers, as FILE:LINE"
    out = []
    for p in files:
        text = p.read_text(encoding="utf-8")
        out += [f"{p}:{n}" for n in look(ast.parse(text), text.split("\n"))]
    return out


def crowded(tree, lines):
    "Statements behind another on their line; stubs (`...`) and short ones may stand behind the header that they end"
    for s in ast.walk(tree):
        if isinstance(s, ast.stmt) and lines[s.lineno - 1].encode()[: s.col_offset].strip():
            stub = isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant) and s.value.value is ...
            if not (stub or isinstance(s, SHORT)):
                yield s.lineno


def targets(node):
    "How many things an assignment to `node` sets"
    return sum(map(targets, node.elts)) if isinstance(node, (ast.Tuple, ast.List)) else 1


def many_targets(tree, lines):
    return (s.lineno for s in ast.walk(tree) if isinstance(s, ast.Assign) and sum(map(targets, s.targets)) > 3)


def wide(tree, lines):
    "Lines over 120 columns, but for `__all__`, which nbdev writes"
    return (n for n, line in enumerate(lines, 1) if len(line.split("  # noqa")[0]) > 120 and line[:7] != "__all__")


def attached(tree, lines):
    "What a module gives to a class outside of its body: `Class.name = …` and `setattr`"
    classes = {s.name for s in tree.body if isinstance(s, ast.ClassDef)}
    classes |= {a.asname or a.name for s in tree.body if isinstance(s, ast.ImportFrom) for a in s.names}
    inner = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    todo = [s for s in tree.body if not isinstance(s, inner)]
    while todo:
        s = todo.pop()
        todo += [c for c in ast.iter_child_nodes(s) if not isinstance(c, inner)]
        if isinstance(s, ast.Attribute) and isinstance(s.ctx, ast.Store) and isinstance(s.value, ast.Name):
            if s.value.id in classes:
                yield s.lineno
        if isinstance(s, ast.Call) and isinstance(s.func, ast.Name) and s.func.id == "setattr":
            yield s.lineno


@pytest.mark.medium
def test_a_statement_a_line():
    assert found(crowded) == []


@pytest.mark.medium
def test_three_targets_at_most():
    assert found(many_targets) == []


@pytest.mark.medium
def test_columns():
    assert found(wide) == []


@pytest.mark.medium
def test_methods_stand_in_their_classes():
    assert found(attached, [p for p in FILES if p.is_relative_to(ROOT / "fastai_tl")]) == []


def test_what_is_dense_is_seen(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text(
        "from a import B\nclass C: pass\nif C: x = 1\na, (b, *c), d = x\nfor k in x:\n    setattr(B, k, 1)\nC.y = 2\n"
    )
    assert [found(look, [bad]) for look in (crowded, many_targets)] == [[f"{bad}:3"], [f"{bad}:4"]]
    assert sorted(found(attached, [bad])) == [f"{bad}:6", f"{bad}:7"]
    bad.write_text("#" * 121 + "\nx = 1; y = 2\nif x: raise\n")
    assert [found(look, [bad]) for look in (wide, crowded)] == [[f"{bad}:1"], [f"{bad}:2"]]
