"""Errors carry only the fields that their classes declare; checked here for every call in the code."""

import ast
import copy
import importlib
import pickle
from pathlib import Path

import pytest

from fastai_tl.core.errors import FileError, InputError, KitError

ROOT = Path(__file__).resolve().parents[2]


def modules():
    "Modules of the kit and their trees"
    for file in sorted((ROOT / "fastai_tl").rglob("*.py")):
        path = file.relative_to(ROOT).with_suffix("")
        yield ".".join(path.parts).removesuffix(".__init__"), ast.parse(file.read_text(encoding="utf-8"))


@pytest.mark.medium
def test_every_keyword_of_an_error_is_a_declared_field():
    checked = 0
    for name, tree in modules():
        module = None
        for call in ast.walk(tree):
            words = [k.arg for k in getattr(call, "keywords", ())] if isinstance(call, ast.Call) else []
            if not words or not isinstance(call.func, ast.Name) or not call.func.id[0].isupper():
                continue
            module = module or importlib.import_module(name)
            cls = getattr(module, call.func.id, None)
            if isinstance(cls, type) and issubclass(cls, KitError):
                assert {w for w in words if w} <= cls.field_names(), f"{name}:{call.lineno}"
                checked += 1
    assert checked > 100


def test_an_error_survives_copy_and_pickle():
    e = InputError("size=0: give 1 to 4096 (pixels)", allowed="1 to 4096")
    for other in (copy.copy(e), pickle.loads(pickle.dumps(e))):
        assert other.args == e.args and other.allowed == "1 to 4096"


def test_an_unknown_field_is_a_mistake_of_the_caller():
    with pytest.raises(TypeError, match="FileError has no field size; it has file, path"):
        FileError("too large", size=3)
