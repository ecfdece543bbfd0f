"""Sphinx settings of the documentation site. `tools/build_docs.py` writes the pages and runs Sphinx with this file."""

import json
import re
import tomllib
from pathlib import Path

from docutils import nodes
from sphinx.transforms import SphinxTransform
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.nodes import make_refnode

ROOT = Path(__file__).resolve().parent.parent
_about = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
_init = (ROOT / "fastai_tl" / "__init__.py").read_text(encoding="utf-8")

project = _about["tool"]["nbdev"]["title"]
author = copyright = _about["project"]["authors"][0]["name"]
release = version = re.search(r'__version__ = "(.+?)"', _init)[1]

extensions = ["myst_nb", "sphinx_copybutton", "sphinx.ext.githubpages"]
nb_execution_mode = "off"  # what the notebooks hold is what is shown
nb_merge_streams = True
nb_ipywidgets_js = {}  # by default a CDN
myst_enable_extensions = ["attrs_block", "attrs_inline", "colon_fence"]
myst_heading_anchors = 4
myst_update_mathjax = False

smartquotes = False  # 'head' in the text is what one types

html_theme = "furo"
html_title = f"{project} {release}"
html_static_path = ["_static"]
html_extra_path = [str(ROOT / "_proc" / "docs" / "files")]
html_css_files = ["site.css"]
html_js_files = ["from-disk.js"]
html_copy_source = html_show_sourcelink = html_use_index = False
html_theme_options = {
    "light_css_variables": {
        "color-brand-primary": "#2660a4",
        "color-brand-content": "#2660a4",
        "color-brand-visited": "#2660a4",
    },
    "dark_css_variables": {
        "color-brand-primary": "#7fb2ec",
        "color-brand-content": "#7fb2ec",
        "color-brand-visited": "#7fb2ec",
    },
}
copybutton_exclude = ".linenos, .gp, .go"
copybutton_selector = ".cell_input pre, div.highlight-bash pre, div.highlight-python pre"


class SymbolIds(SphinxTransform):
    "Give the section of a documented name that name as its anchor, so that `groups.html#layer_groups` works"

    default_priority = 850

    def apply(self, **kwargs):
        names = set(self.config.symbols["pages"].get(self.env.docname, []))
        for section in self.document.findall(nodes.section):
            name = section.next_node(nodes.title).astext().removesuffix("()")
            if name not in names:
                continue
            names.remove(name)
            new = [i for i in dict.fromkeys((name, name.lower())) if i not in self.document.ids]
            section["ids"][:0] = new
            self.document.ids.update(dict.fromkeys(new, section))


class SymbolLinks(SphinxPostTransform):
    "Turn a documented name in backticks into a link to its section"

    default_priority = 700

    def run(self):
        for node in list(self.document.findall(nodes.literal)):
            page = self._page_of(node.astext().removesuffix("()"))
            if page is None or self._inside(node, nodes.reference, nodes.title):
                continue
            anchor = node.astext().removesuffix("()")
            link = make_refnode(self.app.builder, self.env.docname, page, anchor, node.deepcopy())
            node.replace_self(link)

    def _page_of(self, name: str) -> str | None:
        "The page that documents `name`: this one, if it does"
        symbols, here = self.config.symbols, self.env.docname
        return here if name in symbols["pages"].get(here, []) else symbols["links"].get(name)

    @staticmethod
    def _inside(node: nodes.Node, *kinds: type) -> bool:
        while node.parent is not None:
            node = node.parent
            if isinstance(node, kinds):
                return True
        return False


def setup(app):
    symbols = json.loads((Path(app.srcdir) / "symbols.json").read_text(encoding="utf-8"))
    app.add_config_value("symbols", symbols, "env")
    app.add_transform(SymbolIds)
    app.add_post_transform(SymbolLinks)
