"A panel that refuses what it is given leaves nothing behind, and jobs stop when they are asked to"

import gc
import sys
import pytest
from fastai_tl.all import EvaluatePanel, FreezePanel, LRFinderPanel, PlanPanel, TrainPanel, Workbench
from fastai_tl.core.errors import KitError
from fastai_tl.panels.panel import Panel, panels_of, refresh_all
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


def test_panels_of_one_line_replace_each_other_and_others_stay():
    first, second = Panel(None), Panel(None)  # two places
    named = [Panel(None, name) for name in "ab"]  # two names
    loop = [Panel(None) for _ in range(3)]
    assert [p.closed for p in [first, second, *named]] == [False] * 4
    assert [p.closed for p in loop] == [True, True, False]
    for p in [first, second, *named, *loop]:
        p.close()


def test_a_cell_that_runs_again_closes_its_panels_and_no_others():
    from ipykernel.zmqshell import ZMQInteractiveShell
    from jupyter_client.session import Session

    shell = ZMQInteractiveShell.instance()
    said = []
    try:
        shell.user_ns.update(Panel=Panel, said=said)

        def run(code, cell_id):
            msg = Session().msg("execute_request", dict(code=code, store_history=True))
            shell.set_parent({**msg, "metadata": dict(cellId=cell_id) if cell_id else {}})
            assert shell.run_cell(code, store_history=True, cell_id=cell_id).success

        for _ in range(3):
            run("a = [Panel(None), Panel(None)]\nsaid.append(a)", "one")
        run("b = Panel(None)\nsaid.append([b])", "two")
        run("b = Panel(None)\nsaid.append([b])", None)  # a front end that gives no ids: known by its source
        run("b = Panel(None)\nsaid.append([b])", None)
        assert [[p.closed for p in ps] for ps in said] == [
            [True] * 2,
            [True] * 2,
            [False] * 2,
            [False],
            [True],
            [False],
        ]
        run("a = 'another text'", "one")
        assert [p.closed for p in said[2]] == [True, True]
    finally:
        for ps in said:
            for p in ps:
                p.close()
        ZMQInteractiveShell.clear_instance()


def test_only_panels_on_a_page_are_refreshed(monkeypatch):
    class Counted(Panel):
        n = 0

        def update(self):
            self.n += 1

    monkeypatch.setattr(Panel, "views_are_counted", False)
    a, b = Counted(None), Counted(None)
    refresh_all()
    assert (a.n, b.n) == (2, 2)  # no front end counts: either may be on a page
    a._view_count = 1
    refresh_all()
    assert (a.n, b.n) == (4, 2)  # once as it came into view
    b._view_count = 1
    assert b.n == 3
    a.close()
    b.close()
