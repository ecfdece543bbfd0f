"""A panel that lives in a page without Python: the freeze map of `FreezePanel`, drawn and worked by its own script."""

import json
import re
from pathlib import Path

PICTURE = re.compile(r"^!\[FreezePanel: [^\]]*\]\([^)]*\)$", re.M)
CALLS = ('freeze_to(learn, "head")', 'freeze_to(learn, "stage7")', "unfreeze(learn)")
SAYS = (
    "What the panel shows after each of three calls. The map works here, too, without Python: click on a group, drag "
    "over several. In a notebook it does the same to your Learner."
)
# In place of the kernel: states by call, and what a click does to them
HOST = """
const box = document.querySelector('.panel-live'), states = JSON.parse(box.querySelector('script').textContent);
const short = n => n >= 1e6 ? `${(n / 1e6).toPrecision(3)} M` : n >= 1e3 ? `${(n / 1e3).toPrecision(3)} k` : String(n);
const heard = [], values = { groups: [], layers: [], selected: '', unfolded: false, more: '', help: states.help };
const model = { get: k => values[k], on: (_, f) => heard.push(f), off: () => {}, send: told };
const changed = () => { heard.forEach(f => f()); says(); };
function says() {
  const sum = f => values.groups.filter(f).reduce((n, g) => n + g.parameters, 0);
  const live = sum(g => g.state === 'trains'), all = sum(() => true);
  box.querySelector('.panel-sum').textContent = `${short(live)} of ${short(all)} parameters train.`;
}
function told(what) {
  const at = values.groups.findIndex(g => g.name === what.group);
  const set = (g, frozen) => ({ ...g, state: frozen ? 'frozen' : 'trains', word: frozen ? 'frozen' : 'trains' });
  if (what.do === 'open') values.selected = what.group;
  else if (what.do === 'paint') {
    values.groups = values.groups.map(g => what.groups.includes(g.name) ? set(g, what.frozen) : g);
  }
  else if (what.do === 'boundary') values.groups = values.groups.map((g, i) => set(g, i < at + (what.frozen ? 1 : 0)));
  else return;
  changed();
}
for (const b of box.querySelectorAll('.panel-calls button')) b.addEventListener('click', () => {
  values.groups = states.calls[b.textContent];
  box.querySelectorAll('.panel-calls button').forEach(o => o.setAttribute('aria-pressed', String(o === b)));
  changed();
});
values.groups = Object.values(states.calls)[0];
map.render({ model, el: box.querySelector('.panel-map') });
says();
"""


def live_panel(cells: list) -> list:
    "The cells of a page with its picture of FreezePanel replaced by the map itself"
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

    at, found = next(
        (i, m) for i, c in enumerate(cells) if c.cell_type == "markdown" and (m := PICTURE.search(c.source))
    )
    text = cells[at].source
    output = new_output("display_data", data={"text/html": panel_html()})
    new = [
        new_markdown_cell(text[: found.start()].strip()),
        new_code_cell("FreezePanel(learn)", outputs=[output]),
        new_markdown_cell(text[found.end() :].strip()),
    ]
    return [*cells[:at], *new, *cells[at + 1 :]]


def panel_html() -> str:
    "The map after each of three calls, and buttons to choose one"
    import fastai_tl
    from fastai_tl.all import FreezePanel, freeze_to, sample_dls, transfer_learner, unfreeze

    learn = transfer_learner(sample_dls("clipart", size=64, n_per_class=4, num_workers=0), "tf_efficientnet_lite0")
    panel, states = FreezePanel(learn), {}
    for code in CALLS:
        eval(code, dict(freeze_to=freeze_to, unfreeze=unfreeze, learn=learn))
        panel.refresh()
        states[code] = list(panel.map.groups)
    folder = Path(fastai_tl.__file__).parent / "data" / "widgets"
    script = (folder / "freeze_map.js").read_text(encoding="utf-8").replace("export default", "const map =")
    facts = json.dumps(dict(calls=states, help=panel.map.help)).replace("</", "<\\/")
    calls = "".join(
        f'<button type="button" aria-pressed="{str(not i).lower()}">{c}</button>' for i, c in enumerate(CALLS)
    )
    return (
        f'<style>{(folder / "freeze_map.css").read_text(encoding="utf-8")}</style>'
        f'<div class="panel-live" role="group" aria-label="FreezePanel, after one of three calls">'
        f'<p class="panel-says">{SAYS}</p><noscript>The panel needs JavaScript.</noscript>'
        f'<div class="panel-calls">{calls}</div><div class="ftl-FreezePanel"><div class="panel-map"></div>'
        f'<p class="panel-sum"></p></div><script type="application/json">{facts}</script></div>'
        f'<script type="module">{script}{HOST}</script>'
    )
