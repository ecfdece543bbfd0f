"""What every panel rests on: clicks that reach Python, state that comes back, jobs that stop, and pages that survive
a reload.
"""

import pytest

from browser.harness import learner_cell, until

PANEL = """
import ipywidgets as w
from fastai_tl.panels.jobs import Job
from fastai_tl.panels.panel import Panel
from fastai_tl.freezing.learning_rates import lrs_of, set_lrs
class RatePanel(Panel):
    heading = "Learning rate of the head"
    def body(self):
        self.halve = w.Button(description="Halve", tooltip="Halve the learning rate")
        half = lambda: set_lrs(self.learn, {"head": lrs_of(self.learn)["head"]/2})
        self.halve.on_click(lambda _: self.act(half, "Halved."))
        self.wrong = w.Button(description="Wrong", tooltip="Ask for something that does not exist")
        self.wrong.on_click(lambda _: self.act(lambda: set_lrs(self.learn, {"hed": 1.})))
        self.rate = w.HTML()
        return [w.HBox([self.halve, self.wrong]), self.rate]
    def update(self): self.rate.value = f"rate {lrs_of(self.learn)['head']:.4g}"
    @property
    def code(self): return f"set_lrs({self.name}, {{'head': {lrs_of(self.learn)['head']:.4g}}})"
set_lrs(learn, {"head": .016}); panel = RatePanel(learn); panel
"""

TRAIN = """
import time, threading
import ipywidgets as w
from fastai_tl.panels.jobs import Job, job_of
from fastai_tl.panels.style import JobProgress
from fastai_tl.panels.panel import Panel
from fastai_tl.training.run_control import Control
from fastai_tl.training.plan import Plan
from fastai_tl.training.run_plan import run_plan
class Trainer(Panel):
    heading = "Trainer"
    def body(self):
        self.go, self.halt = w.Button(description="Train"), w.Button(description="Stop")
        self.meter, self.told = JobProgress(), []
        self.ended, self.asked_at, self.job, self.run = None, None, None, 0
        self.go.on_click(lambda _: self.act(self.start)); self.halt.on_click(lambda _: self.stop())
        return [w.HBox([self.go, self.halt]), self.meter]
    def start(self):
        control, self.told, self.ended, self.run = Control(), [], None, self.run+1
        def stop(): self.asked_at = len(self.told); control.stop()
        def tell(done, total, note=""):
            self.told.append(done); job.tell(done, total, note)
            self.meter.tell(done, total, f"run {self.run}, batch {done} of {total}")
        plan = Plan.head_only(epochs=500, lr=1e-3)
        def work(job): return run_plan(self.learn, plan, control=control, on_progress=tell, resume=False)
        def done(job): self.ended = [type(job.error).__name__, str(job.error or "")]; self.say("Ended.")
        job = self.job = Job(self.learn, "Trainer", work, done, stop).start()
    def stop(self): self.job.stop()
panel = Trainer(learn); panel
"""
CELL = """
caught = None
panel.start()
try: time.sleep(600)
except KeyboardInterrupt: caught = "KeyboardInterrupt"
"""
STATE = (
    "dict(ended=panel.ended, asked=panel.asked_at, batches=len(panel.told), free=job_of(learn) is None, "
    "running=panel.job.running)"
)


def under_way(page, run=1):
    page.wait_for_function(
        f"() => /run {run}, batch [1-9]/.test(document.querySelector('.ftl-Trainer')?.innerText || '')", timeout=60000
    )


def start(page, run=1):
    "Press Train and wait until it is under way"
    panel = page.locator(".ftl-Trainer")
    panel.get_by_role("button", name="Train").click()
    under_way(page, run)
    return panel


def stopped(kernel, seconds=20):
    "Its state once it has ended; at most the batch in flight was trained after the request"
    s = until(lambda: (s := kernel.ev(STATE))["ended"] and s, seconds, "end of the job")
    assert s["free"] and not s["running"] and s["asked"] is not None, s
    assert s["batches"] - s["asked"] <= 2, s
    return s


def test_click_reaches_python_and_state_comes_back(lab, open_nb, kernel, page, shot):
    name = lab.notebook("click.ipynb", learner_cell(), PANEL)
    open_nb(name)
    k, panel = kernel(name), page.locator(".ftl-panel")
    panel.get_by_role("button", name="Halve").click()
    until(lambda: abs(k.ev("lrs_of(learn)['head']") - 0.008) < 1e-9)
    panel.get_by_text("rate 0.008").wait_for()
    panel.get_by_role("status").get_by_text("Halved.").wait_for()
    panel.get_by_role("button", name="Wrong").click()
    alert = panel.get_by_role("alert")
    alert.wait_for()
    assert "hed" in alert.inner_text() and "Did you mean 'head'?" in alert.inner_text()
    assert abs(k.ev("lrs_of(learn)['head']") - 0.008) < 1e-9
    k.run("set_lrs(learn, {'head': .5})")  # a cell that is run moves the panel
    panel.get_by_text("rate 0.5").wait_for()
    assert len({f.read_bytes() for f in shot.all("harness_rate", always=True)}) == 4


def test_python_button_shows_code_and_copies_it(lab, open_nb, page, kernel):
    name = lab.notebook("code.ipynb", learner_cell(), PANEL)
    open_nb(name)
    panel = page.locator(".ftl-panel")
    assert not panel.locator("pre.ftl-code").count()
    panel.get_by_role("button", name="Python").click()
    panel.locator("pre.ftl-code").wait_for()
    code = panel.locator("pre.ftl-code").inner_text()
    assert code == kernel(name).ev("panel.code") == "set_lrs(learn, {'head': 0.016})"
    panel.get_by_role("button", name="Copy").click()
    panel.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("() => navigator.clipboard.readText()") == code
    panel.get_by_role("button", name="Halve").click()
    panel.locator("pre.ftl-code").get_by_text("0.008").wait_for()


def test_stop_button_ends_a_job_within_a_batch(lab, open_nb, kernel, page):
    name = lab.notebook("stop.ipynb", learner_cell(), TRAIN)
    open_nb(name)
    panel, k = start(page), kernel(name)
    panel.get_by_role("button", name="Stop").click()
    assert stopped(k)["ended"][0] == "NoneType"
    k.run("learn.validate()")  # the Learner is free again


def test_interrupt_between_cells_stops_a_job(lab, open_nb, kernel, page):
    name = lab.notebook("idle.ipynb", learner_cell(), TRAIN)
    open_nb(name)
    start(page)
    k = kernel(name)
    k.interrupt()
    page.locator(".ftl-Trainer").get_by_text("Ended.").wait_for(timeout=20000)
    stopped(k)
    k.interrupt()  # with no job there is nothing to stop, and the kernel goes on
    assert k.ev("1+1") == 2
    start(page, 2)  # a second job on the same kernel
    k.interrupt()
    page.locator(".ftl-Trainer").get_by_text("Ended.").wait_for(timeout=20000)
    stopped(k)


def test_interrupt_during_a_cell_stops_the_cell_and_the_job(lab, open_nb, kernel, page):
    name = lab.notebook("cell.ipynb", learner_cell(), TRAIN, CELL)
    open_nb(name, wait=False)
    under_way(page)
    k = kernel(name)
    k.interrupt()
    page.locator(".ftl-Trainer").get_by_text("Ended.").wait_for(timeout=20000)
    stopped(k)
    assert k.ev("caught") == "KeyboardInterrupt"


@pytest.mark.parametrize("sleep", ["time.sleep(600)", "await __import__('asyncio').sleep(600)"], ids=["plain", "async"])
def test_interrupt_during_a_cell_stops_a_job_that_a_click_started(lab, open_nb, kernel, page, sleep):
    name = lab.notebook("click_cell.ipynb", learner_cell(), TRAIN)
    open_nb(name)
    start(page)
    k = kernel(name)
    begun = lab.root / f"begun_{len(sleep)}"
    k.client.execute(f"open({begun.name!r}, 'w').close()\n{sleep}", store_history=False)
    until(begun.exists, what="first line of the cell")
    k.interrupt()
    page.locator(".ftl-Trainer").get_by_text("Ended.").wait_for(timeout=20000)
    stopped(k)
    until(lambda: k.state == "idle")


def test_widgets_are_there_again_after_a_reload(lab, open_nb, kernel, page):
    name = lab.notebook("reload.ipynb", learner_cell(), PANEL)
    open_nb(name)
    page.locator(".ftl-panel").get_by_role("button", name="Halve").click()
    page.locator(".ftl-panel").get_by_text("rate 0.008").wait_for()
    page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    k = kernel(name)
    open_nb(name, run=False)
    panel = page.locator(".ftl-panel")
    panel.get_by_text("rate 0.008").wait_for()
    panel.get_by_role("button", name="Halve").click()
    panel.get_by_text("rate 0.004").wait_for()
    assert abs(k.ev("lrs_of(learn)['head']") - 0.004) < 1e-9


@pytest.mark.browser_long
def test_notebook_7(lab, open_nb, kernel, page, shot):
    name = lab.notebook("seven.ipynb", learner_cell(), PANEL)
    open_nb(name, app="notebook")
    page.locator(".ftl-panel").get_by_role("button", name="Halve").click()
    until(lambda: abs(kernel(name).ev("lrs_of(learn)['head']") - 0.008) < 1e-9)
    shot("harness_notebook7")


def test_voila(voila, page, shot):
    k = voila("rate.ipynb", learner_cell(), PANEL)
    page.locator(".ftl-panel").get_by_role("button", name="Halve").click()
    page.locator(".ftl-panel").get_by_text("rate 0.008").wait_for()
    until(lambda: abs(k.ev("lrs_of(learn)['head']") - 0.008) < 1e-9)
    shot("harness_voila")
