"""Each panel opened and used by real clicks, its state read back from the kernel; the Workbench from a folder to an
exported model.
"""

import pytest

from browser.harness import learner_cell, until


def labelled(page, name):
    return page.locator(".ftl-panel").get_by_label(name, exact=True).first


def block(page, name):
    "A group on the freeze map"
    return page.locator(".ftl-fm-block").filter(has_text=name).first


def click(page, name):
    page.locator(".ftl-panel").get_by_role("button", name=name).first.click()


@pytest.fixture
def opened(lab, open_nb, kernel):
    "`opened(file, code)`: a notebook with a small Learner and the panel that `code` makes; gives its kernel"

    def f(file, code, app="doc"):
        name = lab.notebook(f"{file}.ipynb", learner_cell(), "from fastai_tl.all import *", code)
        open_nb(name, app=app)
        return kernel(name)

    return f


def test_freeze_panel(opened, page, shot):
    k = opened("freeze", "panel = FreezePanel(learn)\npanel")
    shot.all("freeze", ".ftl-FreezePanel")
    until(lambda: k.ev("(panel._view_count, FreezePanel.views_are_counted, panel.seen)") == [1, True, True])
    assert k.ev("panel.cell")[0] == "id"
    click(page, "All")
    until(lambda: k.ev("all(p.requires_grad for p in learn.model.parameters())"))
    frozen = "[g for g,ps in layer_groups(learn).items() if not any(p.requires_grad for p in ps)]"
    block(page, "layer1").click()
    until(lambda: k.ev(frozen) == ["layer1"])
    a, b = (block(page, n).bounding_box() for n in ("layer2", "layer3"))  # dragged over
    page.mouse.move(a["x"] + 5, a["y"] + 5)
    page.mouse.down()
    page.mouse.move(b["x"] + 5, b["y"] + 5, steps=8)
    page.mouse.up()
    until(lambda: k.ev(frozen) == ["layer1", "layer2", "layer3"])
    block(page, "layer3").click(modifiers=["Shift"])  # trains from here on, frozen before
    until(lambda: k.ev(frozen) == ["stem", "layer1", "layer2"])
    block(page, "layer3").press("ArrowLeft")  # by keyboard
    page.locator(".ftl-fm-block:focus").press("Space")
    until(lambda: k.ev(frozen) == ["stem", "layer1"])
    page.locator(".ftl-fm-block:focus").press("Shift+Space")  # trains, so it is frozen with all before it
    until(lambda: k.ev(frozen) == ["stem", "layer1", "layer2"])
    page.get_by_role("button", name="Freeze up to here").click()
    until(lambda: k.ev(frozen) == ["stem", "layer1", "layer2"])
    page.locator("button[title='Show the layers of layer2']").click()
    until(lambda: k.ev("len(panel.map.layers)") > 0)
    first = k.ev("panel.map.layers[0]['path']")
    page.get_by_label(f"{first} trains").press("Space")
    until(lambda: k.ev(f"learn.model.get_submodule({first!r}).weight.requires_grad"))
    rate = page.get_by_label("Learning rate of layer2")
    rate.fill("0.0002")
    rate.press("Enter")
    until(lambda: k.ev("lrs_of(learn)['layer2']") == 2e-4)
    k.run("freeze_to(learn, 'head')")  # a cell changes the Learner, and the panel shows it
    until(lambda: block(page, "layer4").get_attribute("aria-checked") == "false")
    block(page, "head").click()  # refused
    page.get_by_role("alert").get_by_text("freeze everything").wait_for()
    assert block(page, "head").get_attribute("aria-checked") == "true"
    click(page, "Measure speed")
    page.get_by_text("An epoch takes about").first.wait_for(timeout=120000)
    block(page, "layer4").click()
    page.get_by_text("before the last change").wait_for()
    click(page, "Python")
    shot("freeze-used", ".ftl-FreezePanel")


def test_finder_panel(opened, page, shot):
    k = opened("finder", "panel = LRFinderPanel(learn)\npanel")
    click(page, "Find a rate")
    until(lambda: k.ev("panel.result is not None"), 270)
    page.wait_for_timeout(500)
    shot.all("finder", ".ftl-LRFinderPanel")
    figure, before = page.locator(".ftl-LRFinderPanel .bqplot").first, k.ev("panel.rate")

    def chosen():  # a click in the curve; again where the figure was still finding its size
        figure.scroll_into_view_if_needed()
        box = figure.bounding_box()
        page.mouse.click(box["x"] + 0.3 * box["width"], box["y"] + 0.4 * box["height"])
        page.wait_for_timeout(500)
        return k.ev("panel.rate") != before

    until(chosen)
    click(page, "Use this rate")
    until(lambda: k.ev("abs(list(lrs_of(learn).values())[-1]/panel.rate-1) < 1e-6"))
    old = k.ev("''.join(fingerprint(learn).values())")
    click(page, "Find a rate")
    click(page, "Cancel")
    until(lambda: k.ev("panel.job is None or not panel.job.running"))
    assert k.ev("''.join(fingerprint(learn).values())") == old


def test_plan_panel(opened, page, shot):
    k = opened("plan", "panel = PlanPanel(learn, Plan.lp_ft(5, 5))\npanel")
    shot.all("plan", ".ftl-PlanPanel")
    click(page, "Add")
    until(lambda: k.ev("len(panel.plan.stages)") == 3)
    epochs = labelled(page, "epochs")
    box = page.locator(".ftl-editor").get_by_label("epochs", exact=True).first
    box.fill("0")
    box.press("Enter")
    page.get_by_text("a whole number, at least 1").first.wait_for()
    assert k.ev("all(s.epochs > 0 for s in panel.plan.stages)") and epochs is not None
    box.fill("2")
    box.press("Enter")
    until(lambda: k.ev("panel.plan.stages[panel.selected].epochs") == 2)
    click(page, "Python")
    page.locator("pre.ftl-code").first.wait_for()


def test_augment_panel(opened, page, shot):
    k = opened("augment", "panel = AugmentPanel(learn)\npanel")
    page.locator(".ftl-AugmentPanel .ftl-views img").nth(7).wait_for()
    shot.all("augment", ".ftl-AugmentPanel")
    first = k.ev("panel.views.value")
    labelled(page, "Mirror").click()
    until(lambda: k.ev("panel.flip.value") is False and k.ev("panel.views.value") != first)
    click(page, "Another image")
    until(lambda: k.ev("panel.index") == 1)
    click(page, "Python")
    page.get_by_text("mild_augment(flip=False").wait_for()


LONG = "panel = TrainPanel(learn, Plan((Stage('probe', 'head', 300, 1e-2),)))\npanel"


def test_train_panel_stop_reaches_the_loop_within_a_batch(opened, page, shot):
    k = opened("train", LONG)
    click(page, "Start")
    until(lambda: k.ev("panel.job is not None and panel.job.log.done > 20"), 180)
    page.wait_for_timeout(1500)
    # note the batch at which the click arrives
    k.run(
        "job = panel.job\nold = job.control.stop\nat = []\ndef stop():\n    at.append(job.log.done)\n    "
        "old()\njob._stop = job.control.stop = stop"
    )
    page.locator(".ftl-TrainPanel button[title^='End after the batch']").click()
    until(lambda: k.ev("not job.running"), 90)
    assert k.ev("job.log.done - at[0]") <= 1
    page.get_by_text("Resume continues from there").wait_for()
    shot.all("train", ".ftl-TrainPanel")


def test_train_panel_while_it_runs(opened, page, lab):
    k = opened("steer", LONG)
    click(page, "Start")
    until(lambda: k.ev("panel.job is not None and panel.job.log.done > 5"), 180)
    k.run("try: learn.validate()\nexcept Busy as e: said = str(e)")
    assert "TrainPanel is using this Learner" in k.ev("said")
    click(page, "Pause")
    until(lambda: k.ev("panel.job.control.state") == "paused")
    click(page, "Continue")
    until(lambda: k.ev("panel.job.control.state") == "running")
    click(page, "Unfreeze next")
    until(lambda: k.ev("all(p.requires_grad for p in layer_groups(learn)['layer4'])"), 90)
    page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    page.wait_for_timeout(1000)
    page.reload()  # the panel is there again, and still steers
    page.locator(".ftl-TrainPanel").wait_for(timeout=120000)
    page.locator(".ftl-TrainPanel button[title^='End after the batch']").click()
    until(lambda: k.ev("not panel.job.running"), 90)
    k.run("again = TrainPanel(learn)")  # a panel that is made later shows the same run
    assert k.ev("[again.job is panel.job, len(again.loss.series[0][0]) > 0]") == [True, True]
    k.run("panel.start()")
    until(lambda: k.ev("panel.job.log.done > 0"), 90)
    k.interrupt()  # the kernel's own stop button
    until(lambda: k.ev("not panel.job.running"), 90)
    assert k.ev("panel.history.finished") is False


def test_workbench_from_pictures_to_an_exported_model(lab, open_nb, kernel, page, shot):
    name = lab.notebook(
        "bench.ipynb",
        "from fastai_tl.all import *",
        "panel = Workbench(sample_dls('clipart', size=48, bs=8, n_per_class=4))\npanel",
    )
    open_nb(name)
    k = kernel(name)
    forward = page.locator(".ftl-Workbench .mod-primary").get_by_text("Next")
    page.locator(".ftl-Workbench select").nth(1).wait_for(timeout=120000)
    options = labelled(page, "Backbone").locator("option").all_inner_texts()
    labelled(page, "Backbone").select_option(label=next(o for o in options if "mobilenet_mini" in o))
    shot.all("workbench-1", ".ftl-Workbench")
    forward.click()
    click(page, "Build model and continue")
    page.locator(".ftl-FreezePanel").wait_for(timeout=180000)
    shot.all("workbench-3", ".ftl-Workbench")
    forward.click()
    page.locator(".ftl-LRFinderPanel").wait_for()
    epochs = labelled(page, "Epochs")
    epochs.fill("1")
    epochs.press("Enter")
    until(lambda: k.ev("panel.pages['train4'].plan.epochs") == 1)
    click(page, "Start")
    until(lambda: k.ev("len(panel.done)") == 3, 360)
    shot("workbench-4", ".ftl-Workbench")
    forward.click()
    page.locator(".ftl-PlanPanel").wait_for()
    k.run("panel.pages['plan5'].plan = Plan((Stage('tune', 'all', 1, 1e-4),))")
    click(page, "Start")
    until(lambda: k.ev("len(panel.done)") == 4, 360)
    forward.click()
    page.locator(".ftl-EvaluatePanel button").first.click()
    until(lambda: k.ev("panel.pages['ev'].result is not None"), 180)
    page.get_by_role("button", name="Export").last.click()
    until(lambda: k.ev("len(panel.done)") == 5, 360)
    shot.all("workbench-6", ".ftl-Workbench")
    click(page, "Save notebook")
    page.get_by_text("Written: session.ipynb").wait_for()
    assert (lab.root / "session.ipynb").is_file() and (lab.root / "model" / "model.safetensors").is_file()
    k.run("p = load_predictor('model').predict(sample_path('clipart').rglob('*.jpg').__next__())")
    assert k.ev("p.label in list(panel.learn.dls.vocab)")


@pytest.mark.browser_long
def test_panels_in_notebook_7(opened, page, shot):
    k = opened(
        "seven",
        "a, b, c, d = FreezePanel(learn), LRFinderPanel(learn), PlanPanel(learn), TrainPanel(learn, "
        "Plan((Stage('probe', 'head', 1, 1e-2),)))\nfrom ipywidgets import VBox\nVBox([a, b, c, d])",
        app="notebook",
    )
    block(page, "layer4").click()
    until(lambda: k.ev("all(p.requires_grad for p in layer_groups(learn)['layer4'])"))
    page.locator(".ftl-TrainPanel button[title^='Run the plan']").click()
    until(lambda: k.ev("d.history is not None and d.history.finished"), 180)
    page.get_by_text("Finished.").wait_for()
    shot("notebook7", ".ftl-TrainPanel")


@pytest.mark.browser_long
def test_panels_in_voila(voila, page, shot):
    k = voila(
        "panels.ipynb",
        learner_cell(),
        "from fastai_tl.all import *",
        "a, b = FreezePanel(learn), TrainPanel(learn, Plan((Stage('probe', 'head', 1, 1e-2),)))\nfrom ipywidgets "
        "import VBox\nVBox([a, b])",
    )
    block(page, "layer4").click()
    until(lambda: k.ev("all(p.requires_grad for p in layer_groups(learn)['layer4'])"))
    click(page, "Start")
    until(lambda: k.ev("b.history is not None and b.history.finished"), 180)
    page.get_by_text("Finished.").wait_for()
    shot("voila")
