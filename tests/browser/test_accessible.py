"""axe-core finds nothing serious in our panels; it is a development dependency of labextension/."""

from pathlib import Path

import pytest

from browser.harness import learner_cell

AXE = Path(__file__).parents[2] / "labextension" / "node_modules" / "axe-core" / "axe.min.js"
PANELS = """from fastai_tl.all import *
from fastai_tl.panels.diagnosis import DoctorPanel
from ipywidgets import VBox
panels = [P(learn) for P in (FreezePanel, LRFinderPanel, PlanPanel, TrainPanel, EvaluatePanel, DoctorPanel)]
panels[0].select("layer4", True)
VBox([*panels, Workbench(learn.dls)])"""
# The handles of ipywidgets' sliders have no name of their own; the label beside them says it.
SERIOUS = """async selector => {
  const found = await axe.run({ include: selector, exclude: '.noUi-handle' }, { resultTypes: ['violations'] });
  return found.violations.filter(v => ['serious', 'critical'].includes(v.impact))
    .map(v => `${v.id} (${v.impact}): ${v.nodes.slice(0, 3).map(n => n.html.slice(0, 160)).join(' | ')}`);
}"""


@pytest.mark.medium
@pytest.mark.skipif(not AXE.is_file(), reason="axe-core is not installed: npm ci in labextension/")
def test_axe_finds_nothing_serious(lab, open_nb, page, theme):
    open_nb(lab.notebook("axe.ipynb", learner_cell(), PANELS))
    page.locator(".ftl-Workbench").wait_for()
    page.evaluate(AXE.read_text(encoding="utf-8"))
    for dark in (False, True):
        theme(dark)
        found = page.evaluate(SERIOUS, ".ftl-panel")
        assert not found, "\n".join(found)
