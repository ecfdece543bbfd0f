"""Build the documentation site from the notebooks into _site/.

Run: python tools/build_docs.py [--stored]

Notebooks are executed, unless neither they nor the package have changed since the last time (`docs_run`), so that what
is shown is what the code did; lessons are shown with their stored outputs, as `make test-lessons` executes them. With
--stored no notebook is executed. nbdev picks the cells and writes the signatures, Sphinx makes the pages. Nothing is
fetched but, once and if npm is there, the script of the live panel (`docs_panels`). A page that would load something
from elsewhere is an error, as is a link that leads nowhere. Intermediate files are in _proc/docs/.
"""

import ast
import importlib
import inspect
import importlib.util
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from docs_bench import bench_page
from docs_check import DocsError, check_site, external_links
from docs_landing import landing_cells
from docs_panels import live_panel
from docs_run import execute_all

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "nbs"
BUILD = ROOT / "_proc" / "docs"
PAGES, FILES, HTML = BUILD / "pages", BUILD / "files", BUILD / "html"
SITE = ROOT / "_site"
PACKAGE = "fastai_tl"
# folders of notebooks
SECTIONS = {"start": "Start", "tutorial": "Tutorial", "howto": "How-to", "explain": "Explanations"}
LIVE = "tutorial/freeze"  # the page with a panel that is drawn by a script
EXECUTED: dict[Path, Path] = {}  # by notebook: its executed copy


@dataclass
class Page:
    "One page of the site, while it is made from its source"

    source: Path  # notebook or Markdown file
    name: str  # address in the site, without suffix: `api/freezing/freeze`
    title: str = ""
    lead: str = ""  # one line under the title
    cells: list = field(default_factory=list)  # for the notebook that Sphinx reads
    symbols: list[str] = field(default_factory=list)  # names documented here


# ---------------------------------------------------------------- from nbdev notebook to page


def notebook_page(source: Path) -> Page:
    "Read a notebook and make the cells of its page"
    from fastcore.nbio import read_nb
    from nbdev.process import NBProcessor

    rel = source.relative_to(NOTEBOOKS).with_suffix("")
    page = Page(source, rel.with_name(re.sub(r"^\d+\w?_", "", rel.name)).as_posix())
    nb = read_nb(EXECUTED.get(source, source))
    module = exported_to(nb)
    page.title, page.lead, nb.cells[0].source = split_title(nb.cells[0].source)
    NBProcessor(nb=nb, procs=nbdev_processors(), rm_directives="quarto").process()
    names = dict(vars(importlib.import_module(f"{PACKAGE}.{module}"))) if module else {}
    page.cells = nest_symbols([new for cell in nb.cells for new in convert_cell(cell, names)])
    if source.parent.name in SECTIONS:
        for c in page.cells:
            if c.cell_type == "code":
                c.outputs = [
                    o
                    for o in c.outputs
                    if shows(o) and "<progress" not in "".join(o.get("data", {}).get("text/html", ""))
                ]
        check_alt(page)
    page.symbols = [c.metadata.symbol for c in page.cells if "symbol" in c.metadata]
    return page


def check_alt(page: Page):
    "Raise `DocsError` for a plot that a reader who cannot see it would miss"
    for c in page.cells:
        if (
            c.cell_type == "code"
            and "mystnb" not in c.metadata
            and any("image/png" in o.get("data", {}) for o in c.outputs)
        ):
            raise DocsError(f"A cell with a plot needs `#| fig-alt: what is seen` in its first line:\n{c.source[:200]}")


def lesson_page(source: Path) -> Page:
    "The page of a lesson: as a student gets it, with the outputs of its experiments"
    from fastai_tl.course.student_notebooks import read_notebook, student_copy
    from fastcore.nbio import dict2nb

    nb = dict2nb(student_copy(read_notebook(source), source.name, keep_outputs=True))
    page = Page(source, f"lessons/{re.sub(r'^[0-9]+_', '', source.stem)}")
    page.title, page.lead, nb.cells[0].source = split_title(nb.cells[0].source)
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if shows(o)]
    page.cells = [new for cell in nb.cells for new in convert_cell(cell, {})]
    return page


def shows(output) -> bool:
    "Whether an output says something on a page: not what is left of a progress bar, nor a widget, which needs a kernel"
    data = output.get("data", {})
    if "application/vnd.jupyter.widget-view+json" in data:
        return False
    return (
        not data
        or set(data) - {"text/plain", "text/html"} != set()
        or bool("".join(data.get("text/html", "x")).strip())
    )


def markdown_page(source: Path) -> Page:
    "A page that is Markdown in the notebooks' folder; its text is in `lead` and below"
    page = Page(source, source.relative_to(NOTEBOOKS).with_suffix("").as_posix())
    page.title, page.lead, _ = split_title(source.read_text(encoding="utf-8"))
    return page


def exported_to(nb) -> str | None:
    "The module that a notebook is exported to"
    found = (re.search(r"^#\|\s*default_exp\s+(\S+)", c.source, re.M) for c in nb.cells if c.cell_type == "code")
    return next((m[1] for m in found if m), None)


def split_title(text: str) -> tuple[str, str, str]:
    "Title, lead and the rest of a notebook's first cell: `# title`, then perhaps `> lead`"
    title, _, rest = text.strip().partition("\n")
    if not title.startswith("# "):
        raise DocsError("The first cell must begin with `# title`.")
    lead, _, body = rest.strip().partition("\n")
    return (title[2:].strip(), lead[1:].strip(), body) if lead.startswith(">") else (title[2:].strip(), "", rest)


def nbdev_processors() -> list:
    "nbdev's own treatment of cells, without its title, links and execution"
    from nbdev import processors as p

    class ShowDocs(p.add_show_docs):
        "Names of one cell in the order in which they are written (nbdev: the last one first)"

        def begin(self):
            super().begin()
            runs = itertools.groupby(self.nb.cells, key=lambda c: bool(getattr(c, "has_sd", False)))
            self.nb.cells = [c for shown, run in runs for c in (reversed(list(run)) if shown else run)]

    drop = {p.FrontmatterProc, p.insert_warning, p.exec_show_docs, p.add_links}
    return [ShowDocs if o is p.add_show_docs else o for o in p.FilterDefaults().base_procs() if o not in drop]


def convert_cell(cell, names: dict) -> list:
    "The cell as Sphinx wants it, in a list, which is empty if there is nothing to show"
    from nbformat.v4 import new_markdown_cell

    if cell.cell_type == "markdown":
        return [new_markdown_cell(cell.source)] if cell.source.strip() else []
    if cell.cell_type != "code":
        return []
    options, code = split_options(cell.source)
    return [symbol_cell(code, names)] if re.search(r"^show_doc\(", code, re.M) else code_cell(cell, options, code)


def split_options(source: str) -> tuple[dict[str, str], str]:
    "The `#| key: value` lines at the top of a code cell, and the code below them"
    options, lines = {}, source.splitlines()
    while lines and (m := re.match(r"#\|\s*([\w-]+)\s*:?\s*(.*)", lines[0])):
        options[m[1]] = m[2].strip()
        del lines[0]
    return options, "\n".join(lines).strip("\n")


def code_cell(cell, options: dict[str, str], code: str) -> list:
    "A code cell with its stored outputs; nbdev's options become myst-nb's tags"
    from nbformat import from_dict
    from nbformat.v4 import new_code_cell

    outputs = [from_dict(o) for o in cell.get("outputs", [])]
    if options.get("include") == "false" or not (code or outputs):
        return []
    tags = list(cell.metadata.get("tags", []))
    if options.get("echo") == "false":
        tags.append("remove-input")
    if options.get("output") == "false":
        tags.append("remove-output")
    if options.get("code-fold") == "true":
        tags.append("hide-input")
    alt = {"mystnb": {"image": {"alt": options["fig-alt"].strip("\"'")}}} if options.get("fig-alt") else {}
    return [new_code_cell(code, outputs=outputs, metadata={**({"tags": tags} if tags else {}), **alt})]


def import_for_annotations(module) -> None:
    "Make the names that a module imports for its annotations alone, under TYPE_CHECKING, known in it"
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.If) and getattr(node.test, "id", None) == "TYPE_CHECKING":
            exec(compile(ast.Module(node.body, []), module.__file__, "exec"), vars(module))


def symbol_cell(code: str, names: dict):
    "Signature and description for a cell that calls `show_doc`, as Markdown"
    from nbdev.showdoc import show_doc
    from nbformat.v4 import new_markdown_cell

    *before, last = ast.parse(code).body
    names = {**names, "show_doc": show_doc}
    try:
        exec(compile(ast.Module(before, []), "show_doc", "exec"), names)
        o = eval(compile(ast.Expression(last.value.args[0]), "show_doc", "eval"), names)
        if (module := sys.modules.get(getattr(o, "__module__", ""))) and module.__name__.startswith("fastai_tl"):
            import_for_annotations(module)
        shown = eval(compile(ast.Expression(last.value), "show_doc", "eval"), names)
    except (NameError, AttributeError) as e:
        raise DocsError(f"`{code}` failed: {e}. Does `make export` help?") from e
    return new_markdown_cell(symbol_markdown(shown._repr_markdown_()), metadata={"symbol": shown.nm})


def symbol_markdown(text: str) -> str:
    "What nbdev writes about a name, less its heading and rule: source link if there is one, signature, description"
    link = re.search(r"^\[source\]\((https?://[^)#\s]+(?:#L\d+)?)", text, re.M)
    signature, _, doc = text[text.index("```python") :].partition("\n```")
    doc = re.sub(r"\A(\s*)\*(.+)\*$", r"\1\2", doc, count=1, flags=re.M)  # nbdev puts the first line in italics
    return (f"[source]({link[1]}){{.source-link}}\n\n" if link else "") + "{.signature}\n" + signature + "\n```" + doc


def nest_symbols(cells: list) -> list:
    """Give each documented name a heading one level below the section it is in.

    A name that its section is called after comes first there, and needs no heading of its own.
    """
    out, level, section = [], 1, ""
    for is_symbol, run in itertools.groupby(cells, key=lambda c: "symbol" in c.metadata):
        run = list(run)
        if is_symbol:
            run.sort(key=lambda c: c.metadata.symbol != section)
            for c in run:
                if c.metadata.symbol == section:
                    section = ""
                else:
                    c.source = f"{'#' * (level + 1)} `{c.metadata.symbol}`\n\n{c.source}"
        else:
            for c in run:
                if c.cell_type == "markdown" and (
                    found := re.findall(r"^(#+) +(.+?) *$", outside_fences(c.source), re.M)
                ):
                    level, section = len(found[-1][0]), found[-1][1].replace("`", "").removesuffix("()")
        out += run
    return out


# ---------------------------------------------------------------- links

FENCE = re.compile(r"^(`{3,}|~{3,}).*?^\1`*[ \t]*$", re.M | re.S)
LINK = re.compile(
    r"(?P<code>`[^`\n]+`)|(?P<bang>!?)\[(?P<text>(?:`[^`\n]*`|[^\[\]`])*)\]\((?P<to>[^)\s]+)(?P<more>[^)]*)\)"
    r"|(?P<attr>\b(?:src|srcset|href)=)\"(?P<url>[^\"]+)\""
)


def outside_fences(text: str, change: Callable[[str], str] | None = None) -> str:
    "The text without its fenced code; with `change`: all of it, the parts outside fences changed"
    out, at = "", 0
    for m in FENCE.finditer(text):
        part = text[at : m.start()]
        out += change(part) + m[0] if change else part
        at = m.end()
    return out + (change(text[at:]) if change else text[at:])


def localise(text: str, page: Page, pages: dict[Path, Page]) -> str:
    "Links between notebooks and to files of the repository, as they must be in the site"
    up = "../" * page.name.count("/")

    def change(m: re.Match) -> str:
        if m["code"]:
            return m[0]
        url = m["to"] or m["url"]
        if url.startswith("#") or urlsplit(url).scheme:
            return m[0]
        path, _, anchor = url.partition("#")
        target, anchor = (page.source.parent / unquote(path)).resolve(), f"#{anchor}" if anchor else ""
        if not target.exists() or not target.is_relative_to(ROOT):
            raise DocsError(f"Links to {url}, which is not there.")
        known = pages.get(target)
        if target.is_dir():
            return m["text"] if m["to"] else m[0]
        rel = target.relative_to(ROOT).as_posix()
        if known is None:
            bring(rel, PAGES if m["to"] else FILES)
        if m["url"]:
            return f'{m["attr"]}"{up}{known.name + ".html" if known else rel}{anchor}"'
        to = f"/{known.name}{page_suffix(known)}{anchor}" if known else f"/{rel}"
        return f'{m["bang"]}[{m["text"]}]({to}{m["more"]})'

    return outside_fences(text, lambda part: LINK.sub(change, part))


def bring(path: str, folder: Path):
    "Copy a file of the repository to where it is looked for: beside the pages by Sphinx, in the site by a link in HTML"
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(ROOT / path, folder / path)


# ---------------------------------------------------------------- writing what Sphinx reads


def page_suffix(page: Page) -> str:
    return ".ipynb" if page.cells else ".md"


def toctree(names: list[str], caption: str = "") -> str:
    "A list of pages for the sidebar, not shown in the page itself"
    return "\n".join(["```{toctree}", ":hidden:", *([f":caption: {caption}"] if caption else []), "", *names, "```"])


def heading(page: Page) -> str:
    "Title and lead of a page"
    return f"# {page.title}" + (f"\n\n{{.lead}}\n{page.lead}" if page.lead else "")


def overview(modules: list[Page]) -> str:
    "One line for each module"
    return "\n".join(f"- [{p.title}](/{p.name}.ipynb)" + (f": {p.lead}" if p.lead else "") for p in modules)


def package_order() -> tuple[str, ...]:
    "Packages in reading order: each imports only those before it"
    return importlib.import_module(PACKAGE).PACKAGES


def package_lead(name: str) -> str:
    "The sentence that says what a package is for: the docstring of its `__init__.py`"
    return importlib.import_module(f"{PACKAGE}.{name}").__doc__


def reference_map(packages: dict[str, list[Page]]) -> str:
    "Packages in reading order, a sentence for each, with their modules"
    text = ["Packages in reading order: each imports only those before it."]
    for name, pages in packages.items():
        text += [f"## [{name}](/api/{name}/index.md)", package_lead(name) + ".", overview(pages)]
    return "\n\n".join(text)


def package_page(name: str, pages: list[Page]) -> str:
    "Write the page of a package, with its modules below it in the sidebar; its name"
    page = Page(NOTEBOOKS, f"api/{name}/index", name, package_lead(name))
    write_text(page.name, "\n\n".join([heading(page), overview(pages), toctree(["/" + p.name for p in pages])]))
    return page.name


def write_notebook(page: Page, pages: dict[Path, Page], after: str = ""):
    "Write a page as a notebook, with `after` at its end"
    import nbformat
    from nbformat.v4 import new_markdown_cell, new_notebook

    for cell in page.cells:
        if cell.cell_type == "markdown":
            cell.source = localise(cell.source, page, pages)
    cells = [new_markdown_cell(heading(page)), *page.cells, *([new_markdown_cell(after)] if after else [])]
    language = {"name": "python", "file_extension": ".py", "mimetype": "text/x-python", "pygments_lexer": "ipython3"}
    to = PAGES / f"{page.name}.ipynb"
    to.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=cells, metadata={"language_info": language}), to)


def write_text(name: str, text: str):
    "Write a Markdown page"
    to = PAGES / f"{name}.md"
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(text.strip() + "\n", encoding="utf-8")


def page_text(page: Page) -> str:
    "A Markdown page with its title and lead as those of notebooks"
    return heading(page) + "\n\n" + split_title(page.source.read_text(encoding="utf-8"))[2]


def symbol_index(modules: list[Page]) -> dict:
    """Names documented on each page, and for each name the page that a mention elsewhere leads to.

    An ordinary word such as `predict` leads there only if it is one of the kit's public names.
    """
    public, links = set(importlib.import_module(f"{PACKAGE}.all").__all__), {}
    for page in modules:
        for name in page.symbols:
            if name in public or re.search(r"[A-Z_.]", name):
                links.setdefault(name, page.name)
    return {"pages": {p.name: p.symbols for p in modules}, "links": links}


def write_sources() -> int:
    "Write everything that Sphinx reads; the number of pages"
    about = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = {name: [read(p) for p in sorted((NOTEBOOKS / "api" / name).glob("*.ipynb"))] for name in package_order()}
    modules = [p for pages in packages.values() for p in pages]
    landing = [read(p) for p in [NOTEBOOKS / "index.ipynb"] if p.exists()]
    lessons = [named(Page(p, ""), lesson_page, p) for p in sorted((NOTEBOOKS / "lessons").glob("*.ipynb"))]
    texts = (
        [markdown_page(NOTEBOOKS / "lessons" / f"{n}.md") for n in ("cheatsheet", "glossary", "guide")]
        if lessons
        else []
    )
    changelog = [Page(p, "changelog") for p in [ROOT / "CHANGELOG.md"] if p.exists()]
    sections = {
        name: [read(p) for p in sorted((NOTEBOOKS / folder).glob("*.ipynb"))] for folder, name in SECTIONS.items()
    }
    told = [p for part in sections.values() for p in part]
    for page in told:
        if page.name == LIVE:
            page.cells = live_panel(page.cells)
    pages = {p.source: p for p in (*landing, *told, *lessons, *texts, *modules, *changelog)}
    for page in (*told, *lessons, *modules):
        named(page, write_notebook, page, pages)
    for page in texts:
        write_text(page.name, named(page, localise, page_text(page), page, pages))
    lead = "Each module is made from one notebook, which holds its code, its documentation and its tests"
    reference = Page(NOTEBOOKS, "api/index", "Overview", lead)
    write_text(reference.name, heading(reference) + "\n\n" + reference_map(packages))
    indexes = [package_page(name, pages) for name, pages in packages.items()]
    write_text("benchmarks", bench_page())
    for page in changelog:
        write_text(page.name, named(page, localise, page.source.read_text(encoding="utf-8"), page, pages))
    parts = {
        **{k: [p.name for p in v] for k, v in sections.items()},
        "Lessons": [p.name for p in (*lessons, *texts)],
        "Reference": [reference.name, *indexes],
        "Project": ["benchmarks", *(p.name for p in changelog)],
    }
    trees = "\n\n".join(toctree(names, part) for part, names in parts.items() if names)
    for page in landing:
        page.cells[:0] = landing_cells()
        named(page, write_notebook, page, pages, trees)
    (FILES / "llms.txt").write_text(
        llms(about, {**sections, "Lessons": [*lessons, *texts], "Reference": modules}), encoding="utf-8"
    )
    if not landing:
        index = Page(NOTEBOOKS, "index", about["tool"]["nbdev"]["title"], about["project"]["description"])
        write_text(index.name, "\n\n".join([heading(index), overview(modules), trees]))
    (PAGES / "symbols.json").write_text(json.dumps(symbol_index(modules), indent=1), encoding="utf-8")
    return len({*pages, reference.name, "benchmarks", "index"})


def llms(about: dict, parts: dict[str, list[Page]]) -> str:
    "The contents for programs that read: a line for each page"
    lines = [f"# {about['tool']['nbdev']['title']}", "", f"> {about['project']['description']}", ""]
    for part, pages in parts.items():
        if pages:
            lines += [
                f"## {part}",
                "",
                *(f"- [{p.title}]({p.name}.html)" + (f": {p.lead}" if p.lead else "") for p in pages),
                "",
            ]
    return "\n".join(lines)


def read(source: Path) -> Page:
    return named(Page(source, ""), notebook_page, source)


def named(page: Page, f: Callable, *args):
    "Call `f`; an error says which file it is about"
    try:
        return f(*args)
    except DocsError as e:
        raise DocsError(f"{page.source.relative_to(ROOT)}: {e}") from e


# ---------------------------------------------------------------- the build


def run_sphinx():
    "Make the pages; every warning is an error"
    options = ["-b", "html", "-W", "--keep-going", "-q", "-c", ROOT / "docs", "-d", BUILD / "doctrees"]
    done = subprocess.run([sys.executable, "-m", "sphinx", *options, PAGES, HTML], cwd=ROOT)
    if done.returncode:
        raise DocsError("Sphinx found something wrong; see above.")


def build(stored: bool) -> int:
    "Build the site anew; the number of pages"
    if not stored:
        folders = [NOTEBOOKS, *(NOTEBOOKS / f for f in SECTIONS)]
        api = sorted((NOTEBOOKS / "api").rglob("*.ipynb"))
        EXECUTED.update(execute_all([p for f in folders for p in sorted(f.glob("*.ipynb"))] + api))
    for folder in (BUILD, PAGES, FILES):
        if folder == BUILD:
            shutil.rmtree(BUILD, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
    n = write_sources()
    run_sphinx()
    check_site(HTML)
    (HTML / "external-links.txt").write_text(external_links(HTML), encoding="utf-8")
    shutil.rmtree(SITE, ignore_errors=True)
    HTML.rename(SITE)
    return n


def use_environment():
    "Start again with the checkout's .venv if this Python lacks what the build needs"
    if all(importlib.util.find_spec(m) for m in ("fastai", "nbdev", "sphinx", "myst_nb", "furo", "sphinx_copybutton")):
        return
    python = next((p for p in (ROOT / ".venv/bin/python", ROOT / ".venv/Scripts/python.exe") if p.exists()), None)
    if python is None or Path(sys.prefix) == ROOT / ".venv":
        sys.exit("Sphinx and nbdev are not installed: run `make docs`.")
    sys.exit(subprocess.run([python, *sys.argv]).returncode)


def main():
    sys.path.insert(0, str(ROOT))  # this checkout's package, whatever is installed
    use_environment()
    sys.dont_write_bytecode = True
    warnings.filterwarnings("ignore", category=FutureWarning)  # torch's, about itself
    os.chdir(ROOT)  # where nbdev looks for its settings
    try:
        n = build("--stored" in sys.argv[1:])
    except DocsError as e:
        sys.exit(f"The documentation was not built. {e}")
    print(f"The documentation is built: {n} pages. Open {SITE / 'index.html'}")


if __name__ == "__main__":
    main()
