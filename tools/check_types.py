"""Fail if a public signature is not fully annotated, or if mypy finds an annotation that is wrong.

Public is what `fastai_tl.all` names: functions, and the methods of classes that do not begin with `_` (and `__init__`,
`__call__`), those of base classes of the kit and those added with `@patch` included. What else mypy looks at says
[tool.mypy] in pyproject.toml. Reads the code, imports nothing.
"""

import ast
import re
import sys
from functools import cache
from pathlib import Path

from mypy import api

ROOT = Path(__file__).resolve().parent.parent
Def = ast.FunctionDef | ast.AsyncFunctionDef


def file_of(module: str) -> Path:
    "The file of a module of the kit"
    path = ROOT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def imported(file: Path) -> dict[str, tuple[Path, str]]:
    "Names that a module imports from others of the kit: file and name there"
    package, found = file.relative_to(ROOT).parent.parts, {}
    for o in ast.walk(tree(file)):
        if not isinstance(o, ast.ImportFrom):
            continue
        module = (
            ".".join([*package[: len(package) + 1 - o.level], *([o.module] if o.module else [])])
            if o.level
            else o.module
        )
        if module.split(".")[0] != "fastai_tl":
            continue
        for a in o.names:
            found[a.asname or a.name] = (file_of(module), a.name)
    return found


def defined(file: Path, name: str) -> tuple[Path, Def | ast.ClassDef] | None:
    "Where a name is defined, through modules that hand it on; `None`: it is no function or class of the kit"
    for o in tree(file).body:
        if isinstance(o, Def | ast.ClassDef) and o.name == name:
            return file, o
    there = imported(file).get(name)
    return defined(*there) if there and there[0].is_file() else None


def patches(class_name: str) -> list[tuple[Path, Def]]:
    "Methods that fastcore's `@patch` adds to a class, in any module"
    found = []
    for file in (ROOT / "fastai_tl").rglob("*.py"):
        for o in tree(file).body:
            if (
                isinstance(o, Def)
                and any("patch" in ast.unparse(d) for d in o.decorator_list)
                and o.args.args
                and o.args.args[0].annotation
            ):
                if ast.unparse(o.args.args[0].annotation).strip("'\"") == class_name:
                    found.append((file, o))
    return found


def functions(file: Path, o: Def | ast.ClassDef, by: str) -> dict[tuple[str, int], str]:
    "Public functions of a definition: (file, line) to name"
    if isinstance(o, Def):
        return {(str(file.relative_to(ROOT)), o.lineno): by}
    public = lambda f: not f.name.startswith("_") or f.name in ("__init__", "__call__")
    methods = [(file, f) for f in o.body if isinstance(f, Def)] + patches(o.name)
    found = {(str(p.relative_to(ROOT)), f.lineno): f"{by}.{f.name}" for p, f in methods if public(f)}
    for base in o.bases:
        if isinstance(base, ast.Name) and (there := defined(file, base.id)):
            found = functions(*there, by) | found
    return found


def main() -> int:
    public = {}
    for name, (file, original) in imported(ROOT / "fastai_tl" / "all.py").items():
        if there := defined(file, original):
            public |= functions(*there, name)
    out, err, _ = api.run(["--config-file", str(ROOT / "pyproject.toml"), str(ROOT / "fastai_tl")])
    bad, wrong = [], err.splitlines()
    for line in out.splitlines():
        if not (m := re.match(r"(.+?):(\d+)(?::\d+)?: error: (.*?)\s+\[([\w-]+)\]$", line)):
            continue
        file, at = m.group(1, 2)
        text, code = m.group(3, 4)
        file = str((Path.cwd() / file).resolve().relative_to(ROOT))
        if code != "no-untyped-def":
            wrong.append(line)
        elif name := public.get((file, int(at))):
            bad.append(f"{file}:{at}: {name}: {text}")
    for line in [*wrong, *bad]:
        print(line)
    if wrong or bad:
        print(f"\n{len(bad)} of {len(public)} public functions lack annotations; {len(wrong)} annotations are wrong.")
    else:
        print(f"{len(public)} public functions and methods are fully annotated.")
    return bool(wrong or bad)


if __name__ == "__main__":
    sys.exit(main())
