"A panel that refuses what it is given leaves nothing behind, and jobs stop when they are asked to"

import gc
import sys
import pytest
from fastai_tl.all import EvaluatePanel, FreezePanel, LRFinderPanel, PlanPanel, TrainPanel, Workbench
from fastai_tl.core.errors import KitError
from fastai_tl.panels.panel import Panel, panels_of
from fastai_tl.panels.style import JobProgress, escape_html, set_traits

REFUSED = {
    "Workbench": lambda: Workbench(3),
    "EvaluatePanel": lambda: EvaluatePanel(None, result=3),
    "PlanPanel": lambda: PlanPanel(None, "no plan"),
    "TrainPanel": lambda: TrainPanel(None, 3, unknown=1),
    "FreezePanel": lambda: FreezePanel(None, nothing=1),
    "LRFinderPanel": lambda: LRFinderPanel(3),
}


@pytest.mark.medium
@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", REFUSED)
def test_a_panel_that_raises_in_its_constructor_is_freed_in_silence(name, monkeypatch):
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", lambda e: unraisable.append(repr(e.exc_value)))
    with pytest.raises((TypeError, AttributeError, KitError)):
        REFUSED[name]()
    gc.collect()
    assert unraisable == []


@pytest.mark.medium
@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_panel_is_freed_in_silence_where_the_check_can_fail(monkeypatch):
    "The check itself: without the attribute that a half-made panel needs, there is something to hear"
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", lambda e: unraisable.append(repr(e.exc_value)))
    monkeypatch.delattr(Panel, "closed")
    with pytest.raises((TypeError, AttributeError, KitError)):
        Workbench(3)
    gc.collect()
    assert any("closed" in text for text in unraisable)


def test_a_closed_panel_is_forgotten():
    panel = Panel(None)
    assert panel in panels_of(None)
    panel.close()
    panel.close()
    assert panel not in panels_of(None) and panel.closed


def test_the_progress_bar_shows_what_it_is_told():
    bar = JobProgress()
    bar.tell(0, 0, "a<b")
    assert bar.bar.value == 0 and escape_html("a<b") in bar.label.value and bar.layout.display is None
    bar.hide()
    assert bar.layout.display == "none"
    set_traits(bar.bar, value=0.5, max=2.0)
    assert (bar.bar.value, bar.bar.max) == (0.5, 2.0)
