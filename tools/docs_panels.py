"""A panel that lives in a page without Python: FreezePanel as it is after three calls, drawn by the script of
ipywidgets for pages.

The script comes from npm, once, and is kept in _proc/widgets/; its checksum is fixed below. Without npm, or without a
network at the first build, the page keeps its picture of the panel, and the build says so.
"""

import base64
import hashlib
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "_proc" / "widgets"
MANAGER = "@jupyter-widgets/html-manager@1.0.15"
SHA512 = "5thBIV6ymNgmPVOHvzx+gGy8ZSKmSazhtGw4/c4xJDVzRhG9PTeQsRjF3FUTopvFi//SABeNz1yp47bCrJ3CQA=="
# the script, and its icons
PARTS = (
    "dist/embed.js.LICENSE.txt",
    "dist/embed.js",
    "dist/1551f4f60c37af51121f.woff2",
    "dist/7a3337626410ca2f4071.woff2",
)
PICTURE = re.compile(r"^!\[FreezePanel: [^\]]*\]\([^)]*\)$", re.M)


def fetch() -> str:
    "Have the script in `KEPT`; what is wrong if that cannot be, else nothing"
    if all((KEPT / Path(p).name).is_file() for p in PARTS):
        return ""
    npm = shutil.which("npm")
    if npm is None:
        return "npm is not installed"
    with tempfile.TemporaryDirectory() as tmp:
        try:
            r = subprocess.run(
                [npm, "pack", MANAGER, "--fetch-retries=0", "--pack-destination", tmp],
                capture_output=True,
                text=True,
                timeout=180,
                cwd=tmp,
            )
        except subprocess.TimeoutExpired:
            return f"npm pack {MANAGER} took more than three minutes"
        file = next(Path(tmp).glob("*.tgz"), None)
        if r.returncode or file is None:
            return f"npm pack {MANAGER} failed: {(r.stderr.strip().splitlines() or ['without a word'])[0]}"
        if base64.b64encode(hashlib.sha512(file.read_bytes()).digest()).decode() != SHA512:
            return f"{MANAGER} from npm has another checksum than expected"
        KEPT.mkdir(parents=True, exist_ok=True)
        with tarfile.open(file) as tar:
            for p in PARTS:
                (KEPT / Path(p).name).write_bytes(tar.extractfile(f"package/{p}").read())
    return ""


def live_panel(cells: list, files: Path) -> list:
    """The cells of a page with its picture of FreezePanel replaced by the panel itself; the script is copied to
    `files`/widgets
    """
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

    at, found = next(
        (i, m) for i, c in enumerate(cells) if c.cell_type == "markdown" and (m := PICTURE.search(c.source))
    )
    if why := fetch():
        print(f"Pages show a picture in place of a live panel: {why}.")
        return cells
    shutil.copytree(KEPT, files / "widgets", dirs_exist_ok=True)
    text = cells[at].source
    output = new_output("display_data", data={"text/html": panel_html()})
    new = [
        new_markdown_cell(text[: found.start()].strip()),
        new_code_cell("FreezePanel(learn)", outputs=[output]),
        new_markdown_cell(text[found.end() :].strip()),
    ]
    return [*cells[:at], *new, *cells[at + 1 :]]


def panel_html() -> str:
    "The panel after each of three calls, and buttons to choose one, as HTML with the widgets' saved state"
    import ipywidgets as w
    from fastai_tl.all import FreezePanel, freeze_to, sample_dls, transfer_learner, unfreeze
    from ipywidgets.embed import dependency_state, embed_data

    panels = {}
    for code in ('freeze_to(learn, "head")', 'freeze_to(learn, "stage7")', "unfreeze(learn)"):
        learn = transfer_learner(sample_dls("clipart", size=64, n_per_class=4, num_workers=0), "tf_efficientnet_lite0")
        eval(code, dict(freeze_to=freeze_to, unfreeze=unfreeze, learn=learn))
        panels[code] = still(FreezePanel(learn))
    stack = w.Stack(list(panels.values()), selected_index=0)
    choice = w.ToggleButtons(
        options=list(panels), style=dict(button_width="auto"), tooltips=[f"The panel after {c}" for c in panels]
    )
    box = w.VBox([choice, stack])
    link = w.jslink((choice, "index"), (stack, "selected_index"))
    data = embed_data(
        views=[box],
        state={**dependency_state([box], drop_defaults=True), **dependency_state([link], drop_defaults=True)},
        drop_defaults=True,
    )
    state, view = (json.dumps(v) for v in (data["manager_state"], data["view_specs"][0]))
    for i, name in enumerate(data["manager_state"]["state"]):
        state, view = state.replace(name, f"w{i}"), view.replace(name, f"w{i}")
    kinds = {"state": state, "view": view}
    scripts = "".join(
        f'<script type="application/vnd.jupyter.widget-{k}+json">{v.replace("</", "<" + chr(92) + "/")}</script>'
        for k, v in kinds.items()
    )
    says = (
        "What the panel shows after each of three calls. It was saved without its kernel, so its own controls are at "
        "rest; in a notebook they work."
    )
    return (
        '<div class="panel-live" role="group" aria-label="FreezePanel, after one of three calls">'
        f'<p class="panel-says">{says}</p><noscript>The panel needs JavaScript.</noscript>{scripts}</div>'
        '<script src="../widgets/embed.js" defer></script>'
    )


def still(panel):
    "The panel with its controls at rest: without Python nothing would answer them"
    from fastai_tl.panels.panel import descendants

    panel.code_view.button.value = True
    for o in descendants(panel):
        if o.has_trait("disabled"):
            o.disabled = True
    return panel
