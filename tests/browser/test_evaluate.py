"EvaluatePanel in a browser: a click on a cell of the matrix, the keyboard, the pages, and Stop"

from browser.harness import learner_cell, until

PANEL = """
import torch
from fastai_tl.panels.evaluate import EvaluatePanel
torch.manual_seed(0)
panel = EvaluatePanel(learn); panel
"""
STATE = (
    "[m.true.value, m.predicted.value, len(m.gallery.all), m.gallery.page] if (m := panel.parts[0] if panel.parts "
    "else None) and panel.result else None"
)


def opened(lab, open_nb, kernel, name):
    "The panel after a click on Evaluate"
    lab.notebook(name, learner_cell(), PANEL)
    page = open_nb(name)
    panel = page.locator(".ftl-EvaluatePanel")
    panel.get_by_role("button", name="Evaluate").click()
    panel.locator(".heatmapcell").first.wait_for(timeout=60000)
    return panel, kernel(name)


def shows(panel, k, i, j, n):
    "Wait until it shows the `n` pictures of a cell"
    until(lambda: k.ev(STATE)[:3] == [i, j, n])
    until(lambda: panel.locator(".ftl-shots figure").count() == min(n, 12))


def test_cells_of_the_matrix(lab, open_nb, kernel, page, shot):
    panel, k = opened(lab, open_nb, kernel, "evaluate.ipynb")
    cm = k.ev("panel.result.confusion().tolist()")
    assert panel.locator(".heatmapcell").count() == 64
    for i, j in [(0, 0), (7, 0), (2, 5)]:  # the first row of the drawing is the first class
        panel.locator(".heatmapcell").nth(8 * i + j).click()
        shows(panel, k, i, j, cm[i][j])
    boxes = [panel.locator(".heatmapcell").nth(n).bounding_box() for n in (0, 63)]
    assert boxes[0]["x"] < boxes[1]["x"] and boxes[0]["y"] < boxes[1]["y"]  # the diagonal goes down to the right
    panel.get_by_label("True").select_option(index=3)
    panel.get_by_label("Said").select_option(index=4)
    shows(panel, k, 3, 4, cm[3][4])
    panel.get_by_label("Pairs").focus()
    page.keyboard.press("Home")
    top = k.ev("list(panel.parts[0].pairs.options[0][1])")
    until(lambda: k.ev(STATE)[:2] == top)
    panel.locator(".ftl-shots figure").first.wait_for()
    shot.all("evaluate_matrix")


def test_other_tabs_and_stale(lab, open_nb, kernel, page, shot):
    panel, k = opened(lab, open_nb, kernel, "evaluate_tabs.ipynb")
    panel.get_by_role("tab", name="Mistakes").click()
    panel.locator(".ftl-shots:visible figure").first.wait_for()
    panel.get_by_role("button", name="Next").last.click()
    until(lambda: k.ev("panel.parts[1].gallery.page") == 1)
    shot.all("evaluate_mistakes")
    panel.get_by_role("tab", name="Classes").click()
    panel.get_by_label("Sort by").select_option("items")
    panel.locator('th[aria-sort="ascending"]', has_text="items").wait_for()
    shot.all("evaluate_classes")
    panel.get_by_role("tab", name="Calibration").click()
    panel.get_by_label("Bins").select_option("5")
    panel.get_by_text(f"ECE {k.ev('panel.result.ece(5)'):.3f}").wait_for()
    shot.all("evaluate_calibration")
    k.run("with torch.no_grad(): next(learn.model.parameters()).add_(.01)")
    panel.get_by_text("The weights have changed since").wait_for()


LABELS = """
import torch
from fastai.vision.all import DataBlock, ImageBlock, IndexSplitter, Learner, MultiCategoryBlock, Resize
from fastai_tl.datasets.samples import sample_path
from fastai_tl.panels.evaluate import EvaluatePanel
torch.manual_seed(0)
files = sorted(sample_path("clipart").glob("*/*.jpg"))[::20][:24]
blocks = (ImageBlock, MultiCategoryBlock(vocab=["alive", "bird", "fruit", "round"]))
label = lambda f: [n for n, k in (("alive", 2), ("bird", 3), ("fruit", 5), ("round", 4)) if files.index(f) % k == 0]
block = DataBlock(blocks, get_y=label, splitter=IndexSplitter(range(12)), item_tfms=Resize(48))
dls = block.dataloaders(files, bs=6, num_workers=0, device="cpu")
learn = Learner(dls, torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(48, 4)))
panel = EvaluatePanel(learn); panel
"""


def test_labels_have_figures_of_their_own(lab, open_nb, kernel, page, shot):
    lab.notebook("evaluate_labels.ipynb", LABELS)
    page = open_nb("evaluate_labels.ipynb")
    panel = page.locator(".ftl-EvaluatePanel")
    panel.get_by_role("button", name="Evaluate").click()
    panel.get_by_text("Mean average precision", exact=True).wait_for(timeout=60000)
    assert panel.locator(".ftl-ev svg").count() == 1 and panel.locator(".ftl-ev img").count() > 3
    shot.all("evaluate_labels")
    figs = panel.locator(".ftl-ev")
    # not cut off
    assert (
        figs.bounding_box()["x"] + figs.bounding_box()["width"]
        <= panel.bounding_box()["x"] + panel.bounding_box()["width"] + 1
    )


def test_stop(lab, open_nb, kernel, page):
    panel, k = opened(lab, open_nb, kernel, "evaluate_stop.ipynb")
    k.run("import time; first = panel.result; h = learn.model.register_forward_hook(lambda *a: time.sleep(1))")
    panel.get_by_role("button", name="Evaluate").click()
    panel.get_by_role("button", name="Stop").click()
    panel.get_by_text("Stopped.").wait_for()
    assert k.ev("panel.result is first and not panel.busy")
