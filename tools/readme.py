"""Make README.md from nbs/index.ipynb: its text, and the stored outputs of its cells.

Run: python tools/readme.py [TARGET]
"""
import re
import sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parent.parent
WARNING = "<!-- Made from nbs/index.ipynb by `make export`: edit that, not this. -->\n\n"


def readme_text(notebook: Path) -> str:
    "The notebook as Markdown: directives dropped, picture paths as seen from the top of the repository"
    nb = nbformat.read(notebook, 4)
    nb.metadata.language_info = {"name": "python"}
    cells = []
    for c in nb.cells:
        if c.cell_type == "code":
            if re.search(r"^#\|\s*(hide|include: false)", c.source, re.M): continue
            c.source = re.sub(r"^#\|.*\n?", "", c.source, flags=re.M).strip()
        else:
            c.source = c.source.replace("](../", "](").replace('src="../', 'src="')
        cells.append(c)
    nb.cells = cells
    body, _ = MarkdownExporter().from_notebook_node(nb)
    return WARNING + re.sub(r"\n{3,}", "\n\n", body).strip() + "\n"


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "README.md"
    target.write_text(readme_text(ROOT / "nbs" / "index.ipynb"), encoding="utf-8")
