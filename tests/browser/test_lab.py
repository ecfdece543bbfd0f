"""The side panel in JupyterLab: it follows the notebook in front, finds its Learners, shows their panels, and leaves
no trace.
"""

import json
import sys

import nbformat
import pytest

from browser.harness import TOKEN, learner_cell, until

LEARNER = "#fastai-tl-panel .ftl-View:not(.lm-mod-hidden) .ftl-Choice select"
OTHER_PYTHON = """import json, os, sys
import ipykernel.kernelapp
sys.modules["fastai_tl"] = None   # as if it were not installed
ipykernel.kernelapp.launch_new_instance()
"""
# Time in which functions of the extension are on the stack, from a profile of the page's start
OWN_TIME = """profile => { const nodes = new Map(profile.nodes.map(n => [n.id, n])), parent = new Map();
  for (const n of profile.nodes) for (const c of n.children ?? []) parent.set(c, n.id);
  const ours = id => { for (let i = id; i !== undefined; i = parent.get(i))
    if (nodes.get(i).callFrame.url.includes('/extensions/fastai-tl/')) return true; return false };
  return profile.samples.reduce((t, id, i) => t + (ours(id) ? profile.timeDeltas[i] : 0), 0) / 1000 }"""


@pytest.fixture
def side(page):
    "`side()` opens the side panel and returns it"

    def f():
        page.evaluate("() => { window.jupyterapp.commands.execute('fastai-tl:open-panel') }")
        panel = page.locator("#fastai-tl-panel")
        panel.wait_for()
        return panel

    return f


def view(page):
    return page.locator("#fastai-tl-panel .ftl-View:not(.lm-mod-hidden)")


def tab(page, name):
    view(page).get_by_role("tab", name=name, exact=True).click()


def chosen(page, name):
    until(
        lambda: page.locator(LEARNER).count() == 1 and page.locator(LEARNER).input_value() == name,
        90,
        f"{name} in the panel",
    )


def command(page, name, args=None, wait=False):
    run = f"window.jupyterapp.commands.execute('fastai-tl:{name}', {json.dumps(args or {})})"
    page.evaluate(f"async () => {{ await {run} }}" if wait else f"() => {{ {run} }}")


def active_source(page):
    return page.evaluate("() => window.jupyterapp.shell.currentWidget.content.activeCell.model.sharedModel.getSource()")


def front(page, name):
    page.wait_for_function("path => window.jupyterapp.shell.currentWidget?.context?.path === path", arg=name)


def bring(page, name):
    "The notebook of this name to the front"
    page.evaluate("path => { window.jupyterapp.commands.execute('docmanager:open', {path}) }", name)
    front(page, name)
    page.wait_for_function(
        "() => window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
    )


def run_all(page):
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells') }")


def trace(k):
    "What a look at the kernel must not change"
    return k.ev(
        "[get_ipython().execution_count, len(In), sorted(Out), sorted(n for n in globals() if not "
        "n.startswith('__')), str(globals().get('_'))]"
    )


def test_tabs(lab, open_nb, kernel, page, side, shot):
    name = lab.notebook("side.ipynb", learner_cell(), "41+1")
    open_nb(name, app="lab")
    k = kernel(name)
    before, cells = trace(k), page.locator(".jp-Notebook .jp-OutputArea-output").count()
    panel = side()
    chosen(page, "learn")
    panel.locator(".ftl-FreezePanel").wait_for()
    assert "99.7 % frozen" in panel.inner_text() and "99.7 % frozen" in page.locator("#jp-main-statusbar").inner_text()
    shot.side("side-layers")
    panel.locator(".ftl-FreezePanel").get_by_role("button", name="All", exact=True).click()
    until(lambda: k.ev("all(p.requires_grad for p in learn.model.parameters())"))
    panel.get_by_text("nothing frozen").wait_for()
    for label in ("Learning rate", "Plan", "Train", "Evaluate", "Doctor"):
        kind = f"{'LRFinder' if label == 'Learning rate' else label}Panel"
        tab(page, label)
        panel.locator(f".ftl-{kind}").wait_for()
        shot(f"side-{kind}", "#fastai-tl-panel")
    panel.get_by_text("nothing_frozen").wait_for()  # the doctor has looked
    view(page).get_by_role("tab", name="Doctor").press("Home")  # from the keyboard
    panel.locator(".ftl-FreezePanel").wait_for()
    assert (
        view(page)
        .get_by_role("tab", name="Layers")
        .evaluate("e => e === document.activeElement && e.getAttribute('aria-selected') === 'true'")
    )
    assert trace(k) == before, "looking must leave no trace"
    assert page.locator(".jp-Notebook .jp-OutputArea-output").count() == cells


def test_two_notebooks_do_not_mix(lab, open_nb, kernel, page, side, shot):
    one, two = (
        lab.notebook("one.ipynb", learner_cell("first")),
        lab.notebook("two.ipynb", learner_cell("second"), learner_cell("third", arch="vgg_mini")),
    )
    open_nb(one, app="lab")
    panel = side()
    chosen(page, "first")
    tab(page, "Plan")
    panel.locator(".ftl-PlanPanel").wait_for()
    bring(page, two)
    view(page).get_by_text("no Learner in this notebook yet").wait_for()
    shot("side-empty", "#fastai-tl-panel")
    run_all(page)
    until(lambda: page.locator(LEARNER + " option").all_inner_texts() == ["second", "third"], 90)
    panel.locator(".ftl-FreezePanel:visible").wait_for()
    page.locator(LEARNER).select_option("second")
    view(page).locator(".ftl-FreezePanel:visible").get_by_role("button", name="All", exact=True).click()
    a, b = kernel(one), kernel(two)
    until(lambda: b.ev("all(p.requires_grad for p in second.model.parameters())"))
    assert not b.ev("all(p.requires_grad for p in third.model.parameters())") and not a.ev(
        "all(p.requires_grad for p in first.model.parameters())"
    )
    bring(page, one)  # as it was left
    chosen(page, "first")
    assert (
        view(page).locator(".ftl-PlanPanel").is_visible()
        and view(page).get_by_role("tab", name="Plan").get_attribute("aria-selected") == "true"
    )
    assert not a.ev("'second' in globals()") and not b.ev("'first' in globals()")
    bring(page, two)
    chosen(page, "second")
    b.run("del second")
    put = "t => window.jupyterapp.shell.currentWidget.content.activeCell.model.sharedModel.setSource(t)"
    page.evaluate(put, "x = 1")
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-cell') }")
    chosen(page, "third")
    page.evaluate(put, "renamed = third; del third")
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-cell') }")
    chosen(page, "renamed")
    assert view(page).locator(".ftl-FreezePanel").is_visible()  # the same panel
    page.evaluate(put, "third = renamed; del renamed")
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-cell') }")
    chosen(page, "third")
    page.evaluate(put, "third = transfer_learner(third.dls, 'resnet_mini')")  # another Learner of the same name
    old = b.ev("id(third)")
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-cell') }")
    until(lambda: b.ev("id(third)") != old)
    until(
        lambda: view(page).locator(".ftl-fm-block").filter(has_text="layer1").count() == 1,
        90,
        "the panel of the new Learner",
    )


def test_restart(lab, open_nb, kernel, page, side):
    name = lab.notebook("restart.ipynb", learner_cell())
    open_nb(name, app="lab")
    panel = side()
    chosen(page, "learn")
    tab(page, "Evaluate")
    panel.locator(".ftl-EvaluatePanel").wait_for()
    page.evaluate("async () => { await window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart() }")
    view(page).get_by_text("no Learner in this notebook yet").wait_for()
    run_all(page)
    chosen(page, "learn")
    panel.locator(".ftl-EvaluatePanel").wait_for()  # the tab is the same, the panel is of the new kernel
    view(page).get_by_role("tab", name="Layers").click()
    panel.locator(".ftl-FreezePanel").get_by_role("button", name="All", exact=True).click()
    k = kernel(name)
    until(lambda: k.ev("all(p.requires_grad for p in learn.model.parameters())"))


def test_busy_kernel(lab, open_nb, kernel, page, side, shot):
    name = lab.notebook("busy.ipynb", learner_cell(), "import time\nwhile not globals().get('go'): time.sleep(.05)")
    open_nb(name, app="lab", run=False)
    panel = side()
    page.evaluate(
        "() => { const c = window.jupyterapp.shell.currentWidget.content; c.activeCellIndex = 0;"
        "window.jupyterapp.commands.execute('notebook:run-cell') }"
    )
    chosen(page, "learn")
    panel.locator(".ftl-FreezePanel").wait_for()
    page.evaluate(
        "() => { const c = window.jupyterapp.shell.currentWidget.content; c.activeCellIndex = 1;"
        "window.jupyterapp.commands.execute('notebook:run-cell') }"
    )
    view(page).get_by_text("A cell is running").wait_for()
    tab(page, "Plan")
    view(page).get_by_text("opens when the kernel has time").wait_for()
    shot("side-busy", "#fastai-tl-panel")
    tab(page, "Layers")
    page.evaluate(
        "() => { const c = window.jupyterapp.shell.currentWidget.content; "
        "window.jupyterapp.commands.execute('notebook:insert-cell-below') }"
    )
    command(page, "insert-code", wait=True)  # needs no kernel
    assert "freeze_to(learn, 'head'" in active_source(page)
    tab(page, "Plan")
    k = kernel(name)
    lab.api(f"/api/kernels/{k.id}/interrupt", "POST")
    panel.locator(".ftl-PlanPanel").wait_for()
    until(lambda: not view(page).get_by_text("A cell is running").is_visible())


def test_training_is_told(lab, open_nb, kernel, page, side, shot):
    plan = (
        "plan = Plan((Stage('head', train='head', epochs=2, lr=1e-3), Stage('fine-tune', train='all', epochs=3, "
        "lr=1e-4)))\n"
    )
    slow = (
        "from fastai.callback.core import Callback\nimport time\nclass Slow(Callback):\n    def after_batch(self): "
        "time.sleep(.1)\nlearn.add_cb(Slow())\n"
    )
    name = lab.notebook(
        "told.ipynb",
        learner_cell(),
        f"from fastai_tl.all import *\n{slow}{plan}history = run_plan(learn, plan, cache=False)",
        "learn.fit(1)",
    )
    open_nb(name, app="lab", wait=False)
    panel, bar = side(), page.locator("#jp-main-statusbar .ftl-Status")
    seen = set()

    def done():
        seen.add(bar.inner_text() if bar.is_visible() else "")
        return any("epoch 1/1" in s for s in seen)

    until(done, 240, "the end of the training")
    assert {"head 1/2, epoch 1/2 · 99.7 % frozen", "fine-tune 2/2, epoch 3/3 · nothing frozen"} <= seen, seen
    k = kernel(name)
    until(lambda: k.ev("history.finished"), 120)
    until(lambda: bar.inner_text() == "nothing frozen", 60, "the end in the status bar")
    until(lambda: view(page).locator(".ftl-Training.ftl-mod-idle").is_visible())
    tab(page, "Train")  # and training that the panel starts
    train = panel.locator(".ftl-TrainPanel")
    train.get_by_role("button", name="Start").first.click()
    until(lambda: "epoch" in bar.inner_text(), 120)
    view(page).locator(".ftl-Training:not(.ftl-mod-idle)").wait_for()
    shot("side-training")
    train.get_by_role("button", name="Stop").first.click()
    until(lambda: k.ev("__import__('fastai_tl.core.learner_lock').core.learner_lock.owner_of(learn) is None"))
    until(lambda: "epoch" not in bar.inner_text())


def test_commands(lab, open_nb, kernel, page, side, shot):
    name = lab.notebook("commands.ipynb", learner_cell(), "")
    open_nb(name, app="lab", wait=False)
    k = kernel(name)
    until(lambda: page.locator("#jp-main-statusbar .ftl-Status").is_visible(), 90)  # though the panel is not open
    page.locator(".jp-Notebook .jp-Cell").nth(1).click()
    page.keyboard.press("Alt+Shift+D")
    page.locator("#fastai-tl-panel .ftl-DoctorPanel").get_by_text("Looked at").wait_for()
    tab(page, "Layers")
    page.locator("#fastai-tl-panel .ftl-FreezePanel").wait_for()
    page.locator(".jp-Notebook .jp-Cell").nth(1).locator(".cm-content").click()
    page.keyboard.type("# before\n")
    view(page).get_by_role("button", name="Insert code").click()
    until(lambda: "freeze_to(learn" in active_source(page))
    cells = page.locator(".jp-Notebook .jp-CodeCell").count()
    view(page).get_by_role("button", name="Insert code").click()  # a new cell below: the one before stays as it is
    until(lambda: page.locator(".jp-Notebook .jp-CodeCell").count() == cells + 1)
    assert active_source(page).count("freeze_to(learn") == 1
    k.run(active_source(page))  # what is inserted runs
    command(page, "export-model")
    page.locator(".jp-Dialog input").fill("out")
    shot("export-dialog")
    page.locator(".jp-Dialog").get_by_role("button", name="Export").click()
    until(lambda: (lab.root / "out" / "manifest.json").is_file(), 180, "the exported model")
    # these tests do without pop-ups
    page.evaluate("() => { window.jupyterapp.commands.execute('apputils:display-notifications') }")
    page.locator(".jp-Notification-List").get_by_text("is exported into out").wait_for()
    shot("exported")
    page.keyboard.press("Escape")
    assert k.ev("load_predictor('out').predict(learn.dls.valid.items[0]).label in list(learn.dls.vocab)")
    command(page, "export-model", dict(folder="out"))
    page.get_by_text("holds an exported model already").wait_for()
    page.locator(".jp-Dialog").get_by_role("button", name="Cancel").click()
    command(page, "export-model", dict(folder="commands.ipynb"))  # a file
    page.locator(".jp-Dialog").get_by_text("was not exported").wait_for()
    page.locator(".jp-Dialog").get_by_role("button").first.click()
    page.locator(".lm-MenuBar-item").get_by_text("Help", exact=True).click()
    page.locator(".lm-Menu").get_by_text("About the Transfer-Learning Panel").click()
    page.locator(".ftl-About").get_by_text("Alt Shift L").wait_for()
    assert k.ev("__import__('fastai_tl').__version__") in page.locator(".ftl-About").inner_text()
    shot("about")
    page.locator(".jp-Dialog").get_by_role("button", name="Close").click()
    page.evaluate("() => { window.jupyterapp.commands.execute('apputils:activate-command-palette') }")
    for label in (
        "Open the Transfer-Learning Panel",
        "Diagnose the Learner",
        "Insert the Code of the Panel",
        "Export the Model …",
        "New Transfer-Learning Notebook",
        "Lessons on Transfer Learning",
    ):
        assert page.locator(".lm-CommandPalette-item").get_by_text(label, exact=True).count(), label
    page.keyboard.press("Escape")


def test_without_the_package(lab, open_nb, kernel, page, side, shot):
    "A kernel whose Python has no fastai_tl, and one that is not Python"
    spec = lab.base / "share" / "kernels" / "bare"
    spec.mkdir(parents=True, exist_ok=True)
    (spec / "start.py").write_text(OTHER_PYTHON)
    about = dict(display_name="Bare", language="python")
    (spec / "kernel.json").write_text(
        json.dumps(dict(argv=[sys.executable, str(spec / "start.py"), "-f", "{connection_file}"], **about))
    )
    nb = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("a = 1")], metadata=dict(kernelspec=dict(name="bare", **about))
    )
    nbformat.write(nb, lab.root / "bare.ipynb")
    open_nb("bare.ipynb", app="lab")
    k = kernel("bare.ipynb")
    before = trace(k)
    side()
    view(page).get_by_text("is not installed in the Python of this notebook").wait_for()
    shot("side-missing", "#fastai-tl-panel")
    view(page).get_by_role("button", name="Insert this line").click()
    until(lambda: "%pip install 'fastai-tl[lab]'" in active_source(page))
    assert trace(k) == before
    assert not page.locator("#jp-main-statusbar .ftl-Status").is_visible()


def test_an_idle_kernel_is_left_alone(lab, open_nb, kernel, page, side):
    "Neither the status bar nor the open panel imports fastai or torch into a kernel that has not"
    name = lab.notebook("light.ipynb", "a = 1", kernel="cold")
    open_nb(name, app="lab")
    k = kernel(name)
    side()
    view(page).get_by_text("no Learner in this notebook yet").wait_for()
    assert k.ev("[m for m in ('fastai_tl', 'fastai', 'torch', 'ipywidgets') if m in __import__('sys').modules]") == [
        "fastai_tl"
    ]


def test_launcher_and_new_notebook(lab, open_nb, page, shot):
    (lab.root / "work").mkdir(exist_ok=True)
    page.goto(f"{lab.url}/lab/tree/work?token={TOKEN}&reset")
    page.wait_for_selector(".jp-Launcher", timeout=120000)
    cards = page.locator(".jp-Launcher-section", has=page.get_by_role("heading", name="Transfer learning"))
    cards.wait_for()
    shot("launcher")
    cards.get_by_text("Transfer Learning", exact=True).last.click()
    page.locator(".jp-Dialog").get_by_label("My images", exact=False).check()
    page.locator(".jp-Dialog").get_by_label("Folder of images").fill('my "pets"')
    shot("new-notebook")
    page.locator(".jp-Dialog").get_by_role("button", name="Create").click()
    front(page, "work/transfer-learning.ipynb")
    nb = nbformat.read(lab.root / "work" / "transfer-learning.ipynb", 4)
    nbformat.validate(nb)
    assert any(c.source.startswith('dls = folder_dls("my \\"pets\\"")') for c in nb.cells)
    command(page, "new-notebook", dict(cwd="work", folder=None))
    front(page, "work/transfer-learning-1.ipynb")
    from fastai_tl.interface.jupyterlab import notebook_cells

    nb = nbformat.read(lab.root / "work" / "transfer-learning-1.ipynb", 4)
    assert [(c.cell_type, c.source) for c in nb.cells] == [(c["kind"], c["text"]) for c in notebook_cells()]
    page.wait_for_timeout(1000)
    shot("new-notebook-open")


def test_course_page(lab, page, shot, theme):
    page.goto(f"{lab.url}/lab?token={TOKEN}&reset")
    page.wait_for_selector(".jp-Launcher", timeout=120000)
    page.locator(".jp-Launcher").get_by_text("Lessons", exact=True).click()
    course = page.locator(".ftl-Course")
    course.get_by_role("button", name="Start the course").wait_for()
    assert course.locator(".ftl-Lesson").count() == 8 and not (lab.root / "course").exists()
    course.get_by_role("button", name="Start lesson 3").click()
    front(page, "course/3_head_and_frozen.ipynb")
    assert len(list((lab.root / "course").glob("*.ipynb"))) == 8
    progress = lab.root / "course" / "progress.json"
    d = json.loads(progress.read_text())
    from fastai_tl.course.student_notebooks import exercises_in, read_notebook

    names = exercises_in(read_notebook(lab.root / "course" / "0_setup.ipynb"))
    d["exercises"] = {n: dict(tries=1, passed=True) for n in names}
    progress.write_text(json.dumps(d))
    page.locator(".lm-TabBar-tab").get_by_text("Lessons", exact=True).click()
    course.get_by_role("button", name="Open lesson 0").wait_for()
    for dark in (False, True):
        theme(dark)
        shot(f"course_{'dark' if dark else 'light'}")
    course.get_by_role("button", name="Continue with 1 Why transfer?").click()
    front(page, "course/1_why_transfer.ipynb")
    until(
        lambda: page.wait_for_timeout(200) or all("fastai-tl-" not in s["path"] for s in lab.sessions()),
        what="the end of the page's own kernels",
    )
    page.goto("about:blank")
    lab.shutdown()


def test_settings(lab, open_nb, page, side):
    lab.api("/lab/api/settings/fastai-tl:plugin", "PUT", dict(raw='{"firstTab": "doctor", "statusBar": false}'))
    try:
        name = lab.notebook("settings.ipynb", learner_cell())
        open_nb(name, app="lab")
        panel = side()
        panel.locator(".ftl-DoctorPanel").get_by_text("Looked at").wait_for()
        assert not page.locator("#jp-main-statusbar .ftl-Status").is_visible()
    finally:
        lab.api("/lab/api/settings/fastai-tl:plugin", "PUT", dict(raw="{}"))


def test_notebook_7(lab, open_nb, kernel, page, side, shot):
    name = lab.notebook("seven.ipynb", learner_cell())
    open_nb(name, app="notebook")
    panel = side()
    chosen(page, "learn")
    panel.locator(".ftl-FreezePanel").get_by_role("button", name="All", exact=True).click()
    k = kernel(name)
    until(lambda: k.ev("all(p.requires_grad for p in learn.model.parameters())"))
    shot("side-notebook7")


@pytest.mark.browser_long
def test_start_up_costs_little(lab, page):
    "Script time of the extension while JupyterLab starts, by the browser's profiler"
    times = []
    page.goto(f"{lab.url}/lab?token={TOKEN}&reset")
    for _ in range(3):
        cdp = page.context.new_cdp_session(page)
        cdp.send("Profiler.enable")
        cdp.send("Profiler.setSamplingInterval", dict(interval=200))
        cdp.send("Profiler.start")
        page.goto(f"{lab.url}/lab?token={TOKEN}&reset")
        page.wait_for_selector(".jp-Launcher", timeout=120000)
        page.wait_for_timeout(1000)
        profile = cdp.send("Profiler.stop")["profile"]
        times.append(page.evaluate(OWN_TIME, profile))
        cdp.detach()
    print(f"script time of the extension at start-up, ms: {[round(t, 1) for t in times]}")
    assert 0 < sorted(times)[1] < 100, times


def test_the_workbench_opens_without_a_cell_being_typed(lab, page, shot):
    page.goto(f"{lab.url}/lab?token={TOKEN}&reset")
    page.wait_for_selector(".jp-Launcher", timeout=120000)
    page.locator(".jp-Launcher").get_by_text("Train a Classifier", exact=True).first.click()
    page.locator(".jp-Dialog").get_by_role("button", name="Create").click()
    front(page, "workbench.ipynb")
    page.locator(".ftl-Workbench").get_by_role("button", name="Next").wait_for(timeout=180000)
    shot("workbench-from-launcher")
    page.goto("about:blank")
    lab.shutdown()
