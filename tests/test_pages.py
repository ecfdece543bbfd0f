"""Tutorial, how-to and explanations: what can be seen without running them."""

import ast
import importlib
import json
import re
import shutil
from pathlib import Path
from statistics import mean, stdev

import pytest

NBS = Path(__file__).resolve().parents[1] / "nbs"
PAGES = sorted(p for f in ("start", "tutorial", "howto", "explain") for p in (NBS / f).glob("*.ipynb"))
NOTEBOOKS = [NBS / "index.ipynb", *PAGES, *sorted((NBS / "lessons").glob("*.ipynb"))]
TEXTS = [*NOTEBOOKS, *sorted((NBS / "lessons").glob("*.md")), *sorted(NBS.parent.glob("*.md"))]
PUBLIC = importlib.import_module("fastai_tl.all").__all__


def test_there_are_pages():
    assert len(PAGES) >= 26


def code_cells(notebook):
    "The code cells of a notebook that are executed: source, syntax tree, outputs"
    for c in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        source = "".join(c["source"])
        if c["cell_type"] != "code" or re.search(r"^#\|\s*eval:\s*false", source, re.M):
            continue
        yield source, ast.parse(source), c["outputs"]


def calls(tree, name):
    return any(isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == name for n in ast.walk(tree))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_page(page):
    text = page.read_text(encoding="utf-8")
    assert len(text) < 350_000 and not re.search(r"/(root|home|work|Users)/", text)
    cells = json.loads(text)["cells"]
    assert re.match(r"# .+\n\n?> .+", "".join(cells[0]["source"]))
    for c in cells:
        if c["cell_type"] != "markdown":
            continue
        for to in re.findall(r"\]\(([^)#]+)[^)]*\)", "".join(c["source"])):
            assert to.startswith("http") or (page.parent / to).resolve().exists(), f"{page.name} links to {to}"
    for source, tree, outputs in code_cells(page):
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fastai_tl"):
                assert node.module == "fastai_tl.all", f"{page.name} imports {node.module}, which is not public"
                for a in node.names:
                    assert a.name == "*" or a.name in PUBLIC, f"{page.name}: {a.name} is not public"
        has_plot = any("image/png" in o.get("data", {}) for o in outputs)
        assert not has_plot or source.startswith("#| fig-alt:"), f"{page.name}: a plot without a description"
        assert not any(o["output_type"] == "error" for o in outputs)
        assert outputs or not calls(tree, "print"), f"{page.name}: not executed: {source[:80]}"


@pytest.mark.parametrize("page", [NBS / "index.ipynb", *PAGES], ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_what_a_page_shows_is_asserted(page):
    "A page that shows a result of its own run also checks what it says about it"
    cells = list(code_cells(page))
    shows = any(outputs for _, _, outputs in cells)
    checks = any(isinstance(n, ast.Assert) for _, tree, _ in cells for n in ast.walk(tree))
    assert checks or not shows, f"{page.name} asserts nothing"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_progress_bars_leave_nothing(notebook):
    "`python tools/docs_run.py --strip NOTEBOOK` removes them"
    assert "<IPython.core.display.HTML object>" not in notebook.read_text(encoding="utf-8")


@pytest.mark.parametrize("text", TEXTS, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_brackets_of_extras_are_quoted(text):
    "zsh takes bare brackets for a pattern of file names"
    found = re.findall(r"pip install [^`\n]*", text.read_text(encoding="utf-8").replace('\\"', '"'))
    assert not [f for f in found if re.search(r"""(?<!['"])(fastai-tl|\.)\[""", f)]


def result(name):
    return json.loads((NBS.parent / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))


README = (NBS.parent / "README.md").read_text(encoding="utf-8")


def test_the_readme_quotes_the_comparison_over_seeds():
    seeds = result("quickstart_seeds")
    assert len(seeds) == 5 and "over 5 seeds" in README

    def row(name):
        return [100 * s[name] for s in seeds]

    def ahead(name, other):
        gains = [x - y for x, y in zip(row(name), row(other))]
        return mean(gains), stdev(gains)

    for text, name in {
        "logistic regression on pixels": "pixels",
        "from scratch, equal budget": "scratch",
        "from scratch, 5 times as long": "scratch_long",
        "frozen body, new head": "frozen",
        "fine-tuned afterwards": "fine_tuned",
    }.items():
        assert re.search(rf"{text} \| \**{mean(row(name)):.1f} ± {stdev(row(name)):.1f} %", README), text
    for other in ("scratch", "scratch_long", "pixels"):
        gain, spread = ahead("frozen", other)
        assert f"{gain:.0f} ± {spread:.0f}" in README, other
    gain, spread = ahead("fine_tuned", "frozen")
    assert f"gained {gain:+.1f} ± {spread:.1f} points" in README
    took = [s["seconds"] for s in seeds]
    assert re.search(rf"took {min(took):.0f} to {max(took):.0f}\s+seconds on two cores", README)


def test_the_readme_quotes_the_times_of_the_feature_cache():
    def rows(key):
        return {r["what"]: r for r in result("cache")[key]["rows"]}

    seconds = {k: r["seconds"] for k, r in rows("long").items()}
    theirs = f"{seconds['fastai']:.0f} s; {seconds['fastai, frozen batch norm']:.0f} s with frozen batch norm"
    assert f"| {theirs} | {seconds['ours']:.1f} s:" in README
    finder = rows("finder")
    assert f"| {finder['fastai lr_find']['seconds']:.1f} s | {finder['find_lr']['seconds']:.1f} s |" in README
    for name in ("tf_efficientnet_lite0", "resnet18", "mobilenet_v3_small"):
        assert f"{rows(f'heads {name}')['ours']['ratio']:.1f} times" in README, name
    assert round(rows("gradual")["run_plan"]["ratio"]) == 2 and "is twice as fast" in README


def test_the_readme_quotes_what_happens_in_plain_fastai():
    plain = {r["name"]: r["fastai"] for r in result("every_backbone") if r["fastai"]}
    crash = sum("error" in f for f in plain.values())
    bare = sum(f.get("normalised") is False for f in plain.values())
    move = sum(bool(f.get("moved")) for f in plain.values())
    assert (
        f"| {len(plain)} networks of torchvision and timm | {crash} crash, {bare} are not normalised, frozen tensors "
        f"of {move} move |"
    ) in README
    assert f"| {plain['resnet18']['moved']} of {plain['resnet18']['body']} body tensors move" in README
    found = result("finder_seeds")
    spread = {k: max(r[k] for r in found) / min(r[k] for r in found) for k in ("fastai", "ours")}
    assert (
        f"found with {len(found)} seeds | differs {spread['fastai']:.1f}-fold | differs {spread['ours']:.1f}-fold |"
        in README
    )


def test_the_readme_counts_the_exercises():
    lessons = [p.read_text(encoding="utf-8") for p in (NBS / "lessons").glob("*.ipynb")]
    exercises = {e for text in lessons for e in re.findall(r'check\(\\"([\w-]+)\\"\)', text)}
    assert f"{len(exercises)} exercises" in README


def test_the_readme_counts_the_cases():
    n = len(list((NBS.parent / "tests" / "cases").glob("test_[0-9]*.py")))
    assert f"What {n} public bug reports" in (NBS.parent / "README.md").read_text()


def test_every_public_name_is_documented_and_used():
    "On a page of the reference, and in a cell that is executed"
    code, named = "", set()
    for p in [*PAGES, *(NBS / "api").rglob("*.ipynb"), *(NBS / "lessons").glob("*.ipynb"), NBS / "index.ipynb"]:
        for c in json.loads(p.read_text(encoding="utf-8"))["cells"]:
            source = "".join(c["source"])
            if c["cell_type"] != "code":
                continue
            if NBS / "api" in p.parents and re.search(r"^#\|\s*export", source, re.M):
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


@pytest.mark.medium
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
