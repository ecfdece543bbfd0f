"""Build the documentation site from the notebooks into _site/.

Run: python tools/build_docs.py

nbdev picks the cells and writes the signatures, Sphinx makes the pages. No notebook is executed: names are looked up in the
package, and outputs are the stored ones. Nothing is fetched, and a page that would load anything from elsewhere is an error.
Intermediate files are in _proc/docs/.
"""
import ast
import importlib
import importlib.util
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "nbs"
PAGES, FILES, HTML = (ROOT / "_proc" / "docs" / name for name in ("pages", "files", "html"))
SITE = ROOT / "_site"
PACKAGE = "fastai_tl"


class DocsError(Exception):
    "Something in the notebooks, or in the site made from them, that has to be put right"


@dataclass
class Page:
    "One page of the site, while it is made from its source"
    source: Path                                      # notebook or Markdown file
    name: str                                         # address in the site, without suffix: `api/groups`
    title: str = ""
    lead: str = ""                                    # one line under the title
    cells: list = field(default_factory=list)         # of the notebook that Sphinx reads
    symbols: list[str] = field(default_factory=list)  # documented here


# ---------------------------------------------------------------- reading notebooks

def page_name(source: Path) -> str:
    "Where a notebook's page goes: `nbs/api/03_groups.ipynb` is `api/groups`"
    rel = source.relative_to(NOTEBOOKS).with_suffix("")
    return rel.with_name(re.sub(r"^\d+\w?_", "", rel.name)).as_posix()


def split_title(text: str) -> tuple[str, str, str]:
    "Title, lead and the rest of a notebook's first cell: `# title`, then perhaps `> lead`"
    m = re.match(r"#[ \t]+(?P<title>.+?)[ \t]*\n*(?:^>[ \t]*(?P<lead>.+?)[ \t]*$)?(?P<rest>.*)", text.strip()+"\n", re.S | re.M)
    title, _, rest = text.strip().partition("\n")
    if not m or not title.startswith("# "): raise DocsError("the first cell must be Markdown and begin with `# title`")
    rest = rest.strip()
    lead, _, after = rest.partition("\n")
    if lead.startswith(">"): return title[2:].strip(), lead[1:].strip(), after.strip()
    return title[2:].strip(), "", rest


def default_exp(nb) -> str | None:
    "The module that a notebook is exported to"
    for cell in nb.cells:
        if cell.cell_type == "code" and (m := re.search(r"^#\|\s*default_exp\s+(\S+)", cell.source, re.M)): return m[1]
    return None


def nbdev_processors() -> list:
    "nbdev's own treatment of cells, less its title, links and execution; names in a cell keep their order"
    from nbdev import processors as p

    class ShowDocs(p.add_show_docs):
        "nbdev shows the names of one cell from last to first"
        def begin(self):
            super().begin()
            runs = itertools.groupby(self.nb.cells, key=lambda c: bool(getattr(c, "has_sd", False)))
            self.nb.cells = [c for shown, run in runs for c in (reversed(list(run)) if shown else run)]

    drop = {p.FrontmatterProc, p.insert_warning, p.exec_show_docs, p.add_links}
    return [ShowDocs if o is p.add_show_docs else o for o in p.FilterDefaults().base_procs() if o not in drop]


def read_page(source: Path) -> Page:
    "Read a notebook and make the cells of its page"
    from fastcore.nbio import read_nb
    from nbdev.process import NBProcessor
    page = Page(source, page_name(source))
    nb = read_nb(source)
    page.title, page.lead, rest = split_title(nb.cells[0].source if nb.cells and nb.cells[0].cell_type == "markdown" else "")
    nb.cells[0].source = rest
    module = default_exp(nb)
    NBProcessor(nb=nb, procs=nbdev_processors(), rm_directives="quarto").process()
    names = vars(importlib.import_module(f"{PACKAGE}.{module}")) if module else {}
    page.cells = [new for cell in nb.cells for new in convert_cell(cell, page, dict(names))]
    return page


# ---------------------------------------------------------------- cells

def convert_cell(cell, page: Page, names: dict) -> list:
    "The cell as Sphinx wants it; a list, because some vanish"
    from nbformat.v4 import new_markdown_cell
    if cell.cell_type == "markdown":
        return [new_markdown_cell(cell.source)] if cell.source.strip() else []
    if cell.cell_type != "code": return []
    options, code = split_options(cell.source)
    if re.search(r"^show_doc\(", code, re.M): return [new_markdown_cell(symbol_section(code, page, names))]
    return code_cell(cell, options, code)


def split_options(source: str) -> tuple[dict[str, str], str]:
    "The `#| key: value` lines that begin a code cell, and what follows them"
    options, lines = {}, source.splitlines()
    while lines and (m := re.match(r"#\|\s*([\w-]+)\s*:?\s*(.*)", lines[0])):
        options[m[1]] = m[2].strip()
        del lines[0]
    return options, "\n".join(lines).strip("\n")


def code_cell(cell, options: dict[str, str], code: str) -> list:
    "A code cell with its stored outputs; options become myst-nb's tags"
    from nbformat import from_dict
    from nbformat.v4 import new_code_cell
    outputs = [from_dict(o) for o in cell.get("outputs", [])]
    if options.get("include") == "false" or not (code.strip() or outputs): return []
    tags = list(cell.metadata.get("tags", []))
    if options.get("echo") == "false": tags.append("remove-input")
    if options.get("output") == "false": tags.append("remove-output")
    if options.get("code-fold") in ("true", "show"): tags.append("hide-input")
    return [new_code_cell(code, outputs=outputs, metadata={"tags": tags} if tags else {})]


def symbol_section(code: str, page: Page, names: dict) -> str:
    "Heading, signature and description for a cell that calls `show_doc`"
    from nbdev.showdoc import show_doc
    *before, last = ast.parse(code).body
    names["show_doc"] = show_doc
    try:
        exec(compile(ast.Module(before, []), "show_doc", "exec"), names)
        shown = eval(compile(ast.Expression(last.value), "show_doc", "eval"), names)
    except (NameError, AttributeError) as e:
        raise DocsError(f"{e}, which the notebook documents with `{code}`. Run `make export`.") from e
    page.symbols.append(shown.nm)
    return symbol_markdown(shown._repr_markdown_())


def symbol_markdown(text: str) -> str:
    "What `show_doc` writes, as MyST: no rule above, signature in a box of its own, first line not in italics"
    text = text.removeprefix("---\n").lstrip()
    text = re.sub(r"\A\[source\]\((https?://[^)\s]+?)(?:#LNone)?\)\{[^}]*\}", r"[source](\1){.source-link}", text)
    text = re.sub(r"\A\[source\]\((?!http)[^)]*\)\{[^}]*\}", "", text).lstrip()
    text = re.sub(r"^```python\n(.*?)^```$", r"{.signature}\n```python\n\1```", text, count=1, flags=re.S | re.M)
    head, fence, doc = text.rpartition("\n```\n")
    return head + fence + re.sub(r"\A(\s*)\*(.+)\*$", r"\1\2", doc, count=1, flags=re.M) if fence else text
