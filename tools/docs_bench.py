"""The page of benchmarks: what each script says it measures, the command, and a table of the last results that were
kept.
"""

import ast
import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MOST = 24  # rows of a table; longer ones are cut, and say so
LEFT_OUT = {"times", "all_seconds", "accuracies", "other_workers", "per_seed", "bad", "outcomes", "runs"}


def bench_page() -> str:
    "Markdown, one section for each script in benchmarks/"
    out = [
        "# Benchmarks\n\n{.lead}\nWhat was measured, how, and the command that measures it again\n",
        (
            "Every comparison with plain fastai runs both in one process, one after the other, on the same pictures, "
            "weights and seeds. Seconds say little, as machines differ and are shared; the ratio is what counts. "
            "`make bench` runs the most important ones. The figures below are the contents of `benchmarks/results/`.\n"
        ),
    ]
    for script in sorted((ROOT / "benchmarks").glob("*.py")):
        title, _, about = (ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or script.stem).partition(
            "\n"
        )
        file = ROOT / "benchmarks" / "results" / f"{script.stem}.json"
        command = f"```sh\n.venv/bin/python benchmarks/{script.name}\n```\n"
        out += [f"## {script.stem.replace('_', ' ').capitalize()}\n", f"{title}\n", f"{_text(about)}\n", command]
        if file.exists():
            out += [*tables(json.loads(file.read_text(encoding="utf-8"))), ""]
        else:
            out.append("No result of this one is kept in the repository.\n")
    return "\n".join(out)


def _text(about: str) -> str:
    "A docstring's body as Markdown: paths, options and placeholders are no markup"
    return "`".join(
        part if i % 2 else re.sub(r"([<>*_\[\]|])", r"\\\1", part) for i, part in enumerate(about.strip().split("`"))
    )


def tables(found, name: str = "") -> list[str]:
    "Tables of what a results file holds: a list of rows, or parts by name"
    if isinstance(found, list) and found and all(isinstance(r, dict) for r in found):
        return [*([f"**{name}**\n"] if name else []), table(found), ""]
    if not isinstance(found, dict):
        return []
    parts = [(k, v) for k, v in found.items() if isinstance(v, (dict, list)) and v]
    if parts and all(
        isinstance(v, dict) and not any(isinstance(o, (dict, list)) for o in v.values()) for _, v in parts
    ):
        return [*([f"**{name}**\n"] if name else []), table([{"": k, **v} for k, v in parts]), ""]
    facts = {k: v for k, v in found.items() if not isinstance(v, (dict, list))}
    lines = [f"**{name}**\n"] if name and facts else []
    if facts:
        lines.append(", ".join(f"{_words(k)} {cell(v)}" for k, v in facts.items()) + "\n")
    for k, v in parts:
        lines += tables(v, k if k != "rows" else "" if facts else name)
    return lines


def table(rows: list[dict]) -> str:
    "Rows as a Markdown table, nested values by their path, columns without content left out"
    flat = [_flat(r) for r in rows]
    columns = [
        c for c in dict.fromkeys(k for r in flat for k in r) if any(r.get(c) not in (None, "", []) for r in flat)
    ]
    lines = ["| " + " | ".join(_words(c) for c in columns) + " |", "|" + "|".join("---" for _ in columns) + "|"]
    lines += ["| " + " | ".join(cell(r.get(c)) for c in columns) + " |" for r in flat[:MOST]]
    return "\n".join(lines) + (f"\n\nThe first {MOST} of {len(flat)} rows." if len(flat) > MOST else "")


def _flat(row: dict, before: str = "") -> dict:
    out = {}
    for k, v in row.items():
        if k in LEFT_OUT:
            continue
        if isinstance(v, dict):
            out |= _flat(v, f"{before}{k} ")
        elif not (isinstance(v, list) and (len(v) > 3 or any(isinstance(o, (dict, list)) for o in v))):
            out[before + k] = v
    return out


def _words(name: str) -> str:
    return str(name).replace("_", " ").replace("|", "\\|")


def cell(v) -> str:
    "A value, numbers to three digits"
    if v is None:
        return ""
    if isinstance(v, bool):
        return "yes" if v else "no"
    if isinstance(v, float):
        return f"{v:.3g}" if abs(v) < 1000 else f"{v:,.0f}"
    if isinstance(v, int):
        return f"{v:,}"
    if isinstance(v, list):
        return " to ".join(map(cell, v)) if len(v) == 2 else ", ".join(map(cell, v))
    return str(v).replace("|", "\\|").replace("_", "\\_")
