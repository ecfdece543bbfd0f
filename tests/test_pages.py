"""Tutorial, how-to and explanations: what can be seen without running them."""

import ast
import importlib
import json
import re
import shutil
from pathlib import Path

import pytest

NBS = Path(__file__).resolve().parents[1] / "nbs"
PAGES = sorted(p for f in ("start", "tutorial", "howto", "explain") for p in (NBS / f).glob("*.ipynb"))
PUBLIC = importlib.import_module("fastai_tl.all").__all__


def test_there_are_pages():
    assert len(PAGES) >= 26


@pytest.mark.parametrize("page", PAGES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_page(page):
    text = page.read_text(encoding="utf-8")
    assert len(text) < 350_000 and not re.search(r"/(root|home|work|Users)/", text)
    cells = json.loads(text)["cells"]
    first = "".join(cells[0]["source"])
    assert re.match(r"# .+\n\n?> .+", first)
    for c in cells:
        source = "".join(c["source"])
        if c["cell_type"] == "markdown":
            for to in re.findall(r"\]\(([^)#]+)[^)]*\)", source):
                assert to.startswith("http") or (page.parent / to).resolve().exists(), f"{page.name} links to {to}"
            continue
        tree = ast.parse(source)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fastai_tl"):
                module = importlib.import_module(node.module)
                for a in node.names:
                    assert a.name == "*" or hasattr(module, a.name), f"{page.name}: {node.module}.{a.name}"
        has_plot = any("image/png" in o.get("data", {}) for o in c["outputs"])
        assert not has_plot or source.startswith("#| fig-alt:"), f"{page.name}: a plot without a description"
        assert not any(o["output_type"] == "error" for o in c["outputs"])
        assert "print(" not in source or c["outputs"] or "subprocess" in source or "script" in source, (
            f"{page.name}: not executed"
        )


def test_every_public_name_is_documented_and_used():
    "On a page of the reference, and in a cell that is executed"
    code, named = "", set()
    for p in [*PAGES, *(NBS / "api").rglob("*.ipynb"), *(NBS / "lessons").glob("*.ipynb"), NBS / "index.ipynb"]:
        for c in json.loads(p.read_text(encoding="utf-8"))["cells"]:
            source = "".join(c["source"])
            if c["cell_type"] != "code":
                continue
            if "api" in p.parts and re.search(r"^#\|\s*export", source, re.M):
                named |= set(re.findall(r"^(?:class|def) (\w+)", source, re.M))
            else:
                code += source + "\n"
    missing = [n for n in PUBLIC if n not in named]
    unused = [n for n in PUBLIC if not re.search(rf"\b{n}\b", code)]
    assert not missing and not unused, f"not documented: {missing}; never used in an example: {unused}"


FENCES = [
    (p, i, f)
    for p in [NBS / "index.ipynb", *PAGES]
    for i, f in enumerate(
        f
        for c in json.loads(p.read_text(encoding="utf-8"))["cells"]
        if c["cell_type"] == "markdown"
        for f in re.findall(r"^```python\n(.*?)^```", "".join(c["source"]), re.M | re.S)
    )
]


@pytest.mark.parametrize(
    "page, code", [(p, f) for p, i, f in FENCES], ids=[f"{p.parent.name}/{p.stem}-{i}" for p, i, f in FENCES]
)
def test_code_in_the_text_runs(page, code, tmp_path, monkeypatch):
    "What is not a cell can be copied, too; on a small network and few pictures"
    import fastai_tl.all as tl

    monkeypatch.chdir(tmp_path)
    shutil.copytree(tl.sample_path() / "bird", tmp_path / "my_pictures" / "bird")
    shutil.copytree(tl.sample_path() / "flower", tmp_path / "my_pictures" / "flower")
    shutil.copy(tl.sample_path() / "bird" / "eagle_01.jpg", tmp_path / "my_picture.jpg")
    code = re.sub(r'"resnet\d+"', '"resnet_mini"', code)
    code = re.sub(
        r"^compare\(dls\)",
        'compare(dls, ["linear_probe"], seeds=1, epochs=2, arch="resnet_mini", corruptions=None)',
        code,
        flags=re.M,
    )
    dls = tl.sample_dls("digits", size=28, n_per_class=2, num_workers=0)
    names = {
        **{n: getattr(tl, n) for n in PUBLIC},
        "dls": dls,
        "learn": tl.transfer_learner(dls, "resnet_mini"),
        "plan": tl.Plan.head_only(1, lr=1e-3),
    }
    exec(compile(code, page.name, "exec"), names)
