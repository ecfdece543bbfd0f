"""Make README.md from nbs/index.ipynb: its text, and the stored outputs of its cells.

Run: python tools/readme.py [TARGET]
"""

import re
import sys
from pathlib import Path

import nbformat
from docs_run import is_progress
from nbconvert import MarkdownExporter
from traitlets.config import Config

ROOT = Path(__file__).resolve().parent.parent
WARNING = "<!-- Made from nbs/index.ipynb by `make export`: edit that, not this. -->\n\n"


PLOTS = "docs/images/readme_{cell_index}_{index}{extension}"


def readme_text(notebook: Path) -> tuple[str, dict[str, bytes]]:
    """The notebook as Markdown, and its plots by file name: directives dropped, paths as seen from the top of the
    repository
    """
    nb = nbformat.read(notebook, 4)
    nb.metadata.language_info = {"name": "python"}
    cells = []
    for c in nb.cells:
        if c.cell_type == "code":
            if re.search(r"^#\|\s*(hide|include: false)", c.source, re.M):
                continue
            c.source = re.sub(r"^.*#\|\s*hide_line\s*$\n?", "", c.source, flags=re.M)
            c.source = re.sub(r"^#\|.*\n?", "", c.source, flags=re.M).strip()
            c.outputs = [o for o in c.outputs if not is_progress(o)]
        else:
            c.source = (
                c.source.replace("](lessons/", "](nbs/lessons/").replace("](../", "](").replace('src="../', 'src="')
            )
        cells.append(c)
    nb.cells = cells
    config = Config(ExtractOutputPreprocessor=dict(output_filename_template=PLOTS))
    body, resources = MarkdownExporter(config=config).from_notebook_node(nb)
    body = re.sub(r"<style[^>]*>.*?</style>\s*", "", body, flags=re.S).replace(
        "![png](", "![The plot that the code above draws]("
    )
    return WARNING + re.sub(r"\n{3,}", "\n\n", body).strip() + "\n", resources.get("outputs", {})


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "README.md"
    text, plots = readme_text(ROOT / "nbs" / "index.ipynb")
    target.write_text(text, encoding="utf-8")
    for name, data in plots.items():
        (target.parent / name).write_bytes(data)
