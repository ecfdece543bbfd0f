"""Execute notebooks while the documentation is built, so that what a page shows is what its code did; results are kept
until code changes.

Run by tools/build_docs.py. `python tools/docs_run.py IN OUT` executes one notebook.
`python tools/docs_run.py --strip NOTEBOOK …` executes nothing and removes what progress bars have left in stored
outputs, such as those of lessons that were run by hand.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from docs_check import DocsError

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "_proc" / "executed"
LIMIT = 600  # seconds for a cell


def package_mark() -> str:
    "Of the package's code and the Python that runs it"
    h = hashlib.sha256(sys.version.encode())
    for p in sorted((ROOT / "fastai_tl").rglob("*.py")):
        h.update(p.relative_to(ROOT).as_posix().encode() + p.read_bytes())
    return h.hexdigest()


def skipped(cell) -> bool:
    return cell["cell_type"] != "code" or re.search(r"^#\|\s*eval:\s*false", "".join(cell["source"]), re.M) is not None


def execute_all(notebooks: list[Path], workers: int = 2) -> dict[Path, Path]:
    """The executed copy of each; those that have not changed are found.

    Raises `DocsError` that names notebook, cell and error
    """
    mark, out, todo = package_mark(), {}, []
    KEPT.mkdir(parents=True, exist_ok=True)
    for p in notebooks:
        nb = json.loads(p.read_text(encoding="utf-8"))
        code = ["".join(c["source"]) for c in nb["cells"] if not skipped(c)]
        if not code:
            continue
        out[p] = (
            KEPT / f"{p.stem}-"
            f"{hashlib.sha256(json.dumps([mark, p.relative_to(ROOT).as_posix(), code]).encode()).hexdigest()[:20]}"
            ".ipynb"
        )
        if not out[p].exists():
            todo.append(p)
    done = 0

    def run(p):
        nonlocal done
        env = dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
        r = subprocess.run([sys.executable, __file__, str(p), str(out[p])], capture_output=True, text=True, env=env)
        done += 1
        print(f"executed {done}/{len(todo)}: {p.relative_to(ROOT)}", flush=True)
        return "" if r.returncode == 0 else f"{p.relative_to(ROOT)}: {r.stderr.strip()[-1500:]}"

    with ThreadPoolExecutor(workers) as ex:
        wrong = [w for w in ex.map(run, todo) if w]
    if wrong:
        raise DocsError("Notebooks could not be executed.\n" + "\n".join(wrong))
    keep = set(out.values())
    for old in KEPT.glob("*.ipynb"):
        if old not in keep:
            old.unlink()
    return out


def is_progress(output) -> bool:
    "Whether an output is what fastprogress leaves in a notebook: a style sheet, or a bar that was cleared"
    data = output.get("data", {})
    if "text/html" not in data or not set(data) <= {"text/html", "text/plain"}:
        return False
    html = "".join(data["text/html"])
    return not html.strip() or "progress { appearance" in html or "fastprogress" in html or "<progress" in html


def tidy(outputs: list) -> list:
    """The outputs of a cell without progress bars and without warnings that name paths of this machine; text in one
    piece
    """
    out = []
    for o in outputs:
        stream = o["name"] if o["output_type"] == "stream" else ""
        if is_progress(o) or stream == "stderr" and "site-packages" in "".join(o["text"]):
            continue
        if stream and out and out[-1].get("name") == stream:
            out[-1]["text"] += o["text"]
        else:
            out.append(o)
    return out


def strip(notebook: Path):
    "Tidy the stored outputs of a notebook, in place"
    import nbformat

    nb = nbformat.read(notebook, 4)
    for c in nb.cells:
        if c.cell_type == "code":
            c.outputs = tidy(c.outputs)
    nbformat.write(nb, notebook)


def execute(source: Path, to: Path):
    "Run all cells but those marked `#| eval: false`, which keep the outputs that are stored"
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    nb = nbformat.read(source, 4)
    cells, nb.cells = nb.cells, [c for c in nb.cells if not skipped(c)]
    try:
        NotebookClient(
            nb,
            timeout=LIMIT,
            kernel_name="python3",
            store_widget_state=False,
            resources={"metadata": {"path": str(source.parent)}},
        ).execute()
    except CellExecutionError as e:
        sys.exit(re.sub(r"\x1b\[[0-9;]*m", "", str(e)))
    for c in nb.cells:
        if c.cell_type == "code":
            c.outputs = tidy(c.outputs)
    nb.cells = cells
    tmp = to.with_suffix(".tmp")
    nbformat.write(nb, tmp)
    tmp.replace(to)


if __name__ == "__main__":
    if sys.argv[1] == "--strip":
        for name in sys.argv[2:]:
            strip(Path(name))
    else:
        execute(Path(sys.argv[1]), Path(sys.argv[2]))
