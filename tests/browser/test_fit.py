"""Every panel fits into every width from a narrow side bar to a full page: nothing scrolls sideways, no word is cut."""

import pytest

from browser.harness import until

WIDTHS = (320, 380, 520, 700, 980)
# What an element needs more than it has, and what sticks out of its panel. Inline elements have no width of their own.
TOO_WIDE = """root => {
  const out = [], edge = root.getBoundingClientRect().right + 1;
  const walk = document.createTreeWalker(root, NodeFilter.SHOW_ELEMENT);
  for (let e = root; e; e = walk.nextNode()) {
    const style = getComputedStyle(e), box = e.getBoundingClientRect();
    const hidden = !box.width || style.position === 'absolute' && box.width < 2;
    if (hidden || style.display === 'inline' || e.closest('.bqplot, svg, .noUi-base, option')) continue;
    const said = (e.textContent || e.value || '').trim().slice(0, 40);
    const name = `${e.tagName.toLowerCase()}.${[...e.classList].join('.')} “${said}”`;
    if (e.clientWidth && e.scrollWidth > e.clientWidth + 1) out.push(`${name}: ${e.scrollWidth} in ${e.clientWidth}`);
    else if (box.right > edge) out.push(`${name}: ends ${Math.round(box.right - edge)} px outside`);
  }
  return out;
}"""
SET_UP = """from fastai_tl.all import *
from fastai_tl.panels.diagnosis import DoctorPanel
from ipywidgets import VBox
dls = sample_dls("clipart", size=32, bs=8, n_per_class=4)
learn = transfer_learner(dls, "tf_efficientnet_lite0", pretrained=False)
freeze, finder, plan, train = FreezePanel(learn), LRFinderPanel(learn), PlanPanel(learn), TrainPanel(learn)
ev, doctor, bench = EvaluatePanel(learn), DoctorPanel(learn), Workbench(dls)
VBox([freeze, finder, plan, train, ev, doctor, bench])"""
# panels as they are after everything was opened and used
USED = """set_lrs(learn, {'head': 2e-3})
freeze.select('stage4', True); freeze.advanced.value = True; freeze.set_rate('head', -1)
finder.settings.value = True
plan.more.value = True; plan.enter('epochs', 0)
for p in (freeze, finder, plan, train, ev, doctor): p.code_view.button.value = True
train.plan = Plan((Stage('probe', 'head', 1, 1e-2), Stage('fine-tune', 'head', 1, 1e-4)))
train.start(); train.wait(); doctor.look(); ev.start(); ev.wait()
finder.num_it.value = 20; finder.run(); finder.job and finder.job.wait()"""
RESIZE = """width => document.querySelectorAll('.widget-vbox > .ftl-panel').forEach(e => {
  if (!e.parentElement.closest('.ftl-panel')) e.style.width = `${width}px`;
})"""


@pytest.fixture
def panels(lab, open_nb, kernel):
    name = lab.notebook("fit.ipynb", SET_UP)
    open_nb(name)
    return kernel(name)


def misfits(page, selector):
    out = []
    for i, width in enumerate(WIDTHS):
        page.evaluate(RESIZE, width)
        page.set_viewport_size(dict(width=1300 + i % 2, height=1000))  # figures look how wide they are
        page.wait_for_timeout(200)
        for panel in page.locator(selector).all():
            if panel.is_visible():
                kind = panel.get_attribute("class").split("ftl-")[-1]
                out += [f"{kind} at {width}: {m}" for m in panel.evaluate(TOO_WIDE)]
    return out


@pytest.mark.medium
def test_every_panel_fits_every_width(panels, page, theme):
    page.locator(".ftl-Workbench").wait_for()
    wrong = misfits(page, ".ftl-panel")
    panels.run(USED, 300)
    until(lambda: panels.ev("finder.job is None and ev.result is not None"), 120)
    for dark in (False, True):
        theme(dark)
        wrong += misfits(page, ".ftl-panel")
        for i in range(1, 4):
            panels.run(f"ev.tabs.selected_index = {i}")
            wrong += misfits(page, ".ftl-EvaluatePanel")
    assert not wrong, "\n".join(dict.fromkeys(wrong))
