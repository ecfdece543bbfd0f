"""The lowest versions that pyproject.toml allows, as constraints for pip: `python tools/floors.py > constraints.txt`.

It holds what users install: the dependencies and their extras. What tests and documentation alone need is taken as new
as pip finds it.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Versions that some of the lowest ones need and do not ask for themselves
ALSO = {
    "click": "8.1.8",  # typer before 0.15.4 cannot print its help with click 8.2
    "onnx-ir": "0.1.9",  # onnxscript before 0.6 cannot convert versions with onnx-ir 1.1
}
OURS = ("test", "dev", "docs")  # extras of the people who work on the package


def floors(project: dict) -> dict[str, str]:
    "The lowest version of each distribution in the `[project]` table; ValueError where a requirement has none, or two."
    extras = {k: v for k, v in project["optional-dependencies"].items() if k not in OURS}
    found: dict[str, str] = {}
    for line in [*project["dependencies"], *(r for rs in extras.values() for r in rs)]:
        name, lowest = re.match(r"([\w.-]+)(?:\[[\w,-]+\])?\s*(?:>=\s*([\w.]+))?", line).groups()
        if lowest is None:
            raise ValueError(f"{line!r} in pyproject.toml says no lowest version: {name}>=…. Try it: make test-floors")
        if found.setdefault(name, lowest) != lowest:
            raise ValueError(f"pyproject.toml gives {name} two lowest versions: {found[name]} and {lowest}.")
    return found


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    sys.stdout.writelines(f"{name}=={lowest}\n" for name, lowest in sorted((floors(project) | ALSO).items()))


if __name__ == "__main__":
    main()
