"""The panel of the learning-rate finder: what find_lr and set_lrs do, seen and steered by widgets."""

import gc
import weakref

import numpy as np
import pytest
from helpers import QUIET, everything, noisy_learner, same, wait_until, widgets_made

from fastai_tl.core.errors import InputError
from fastai_tl.training.lr_finder import LRFinderResult, find_lr
from fastai_tl.freezing.fingerprint import fingerprint
from fastai_tl.freezing.freeze import freeze_to, unfreeze
from fastai_tl.core.learner_lock import Busy, owned
from fastai_tl.panels.jobs import job_of
from fastai_tl.panels.panel import descendants
from fastai_tl.panels.lr_curve import KEEP, SweepRecord, label_rows, rates_by_group, sci, sweeps_of, y_limits
from fastai_tl.panels.lr_finder import LRFinderPanel
from fastai_tl.core.progress import quiet
from fastai_tl.freezing.learning_rates import lrs_of, next_lrs, set_lrs

N = 30


def trained(n=48, **kw):
    "A learner with optimizer state and a history, frozen to its last two groups"
    learn = noisy_learner(n, **kw)
    with quiet(learn):
        learn.fit(1, 1e-3)
    freeze_to(learn, 1)
    return learn


@pytest.fixture
def learn():
    return trained()


@pytest.fixture
def panel(learn):
    p = LRFinderPanel(learn)
    p.num_it.value = N
    yield p
    p.close()


def sweep(panel):
    "A whole sweep"
    job = panel.run()
    assert job is not None, panel.say_box.value
    assert job.wait(60)


def result(rate=2e-3, group=None, reason="", n=40):
    "A result as `find_lr` gives it, with a curve that falls and explodes"
    lrs = np.geomspace(1e-6, 1, n)
    losses = np.where(lrs < 0.1, 2 - 0.3 * np.log10(lrs / 1e-6) / 6, 1e6)
    return LRFinderResult(
        lrs, losses, [losses], {"fall": rate, "steep": rate / 7}, rate, (rate / 3, rate * 3), reason, group
    )


def shown(panel, mark):
    return getattr(panel.curve, mark).visible


def test_a_sweep_leaves_the_learner_as_it_was(learn, panel):
    before, prints = everything(learn), fingerprint(learn)
    sweep(panel)
    same(before, everything(learn))
    assert fingerprint(learn) == prints
    assert panel.result is not None and panel.job is None and job_of(learn) is None
    assert shown(panel, "smoothed") and shown(panel, "raw") and not shown(panel, "live")
    assert panel.rate == float(f"{panel.result.suggested:.3g}")
    assert panel.shown.trained == ("1", "2")  # what was trainable


@pytest.mark.medium
def test_cancel_stops_at_the_next_batch_and_leaves_the_learner_as_it_was():
    learn = trained(400, bs=4)
    panel = LRFinderPanel(learn)
    panel.num_it.value = 5000
    before, prints = everything(learn), fingerprint(learn)
    job = panel.run()
    wait_until(lambda: job.note)
    assert "ftl-hidden" in panel.run_button._dom_classes and "ftl-hidden" not in panel.cancel_button._dom_classes
    panel.cancel_button.click()
    done = int(job.note.split()[1])
    assert job.wait(20)
    assert int(job.note.split()[1]) <= done + 2 < 5000
    same(before, everything(learn))
    assert fingerprint(learn) == prints
    assert "Cancelled" in panel.say_box.value and "ftl-error" not in panel.say_box.value
    assert panel.result is None and sweeps_of(learn) == []
    assert "ftl-hidden" not in panel.run_button._dom_classes and not shown(panel, "live")
    panel.num_it.value = N
    sweep(panel)  # and it can go on
    panel.close()


@pytest.mark.medium
def test_the_panel_finds_what_find_lr_finds():
    a, b = trained(), trained()
    panel = LRFinderPanel(a)
    panel.num_it.value, panel.seeds.value, panel.groups.value = N, 2, "2"
    sweep(panel)
    res = find_lr(b, num_it=N, seeds=2, group=panel.group, on_progress=QUIET)
    for x, y in zip(panel.result.sweeps, res.sweeps):
        np.testing.assert_array_equal(x, y)
    assert panel.result.suggestions == res.suggestions and panel.result.group == res.group == panel.group
    panel.close()


@pytest.mark.medium
@pytest.mark.parametrize("group", ["", "2"])
def test_the_code_leads_to_the_same_rates(group):
    a, b = trained(), trained()
    for o in (a, b):
        set_lrs(o, [1e-5, 1e-4, 1e-3])
    panel = LRFinderPanel(a)
    panel.num_it.value, panel.groups.value = N, group
    sweep(panel)
    panel.choose(panel.rate or 3e-3)
    code = panel.code
    panel.use_button.click()
    assert panel.code == code  # using the rate does not change what leads to it
    space = {"learn": b}
    exec(code, space)
    assert lrs_of(a) == lrs_of(b) and next_lrs(a) == next_lrs(b)
    assert (space["res"].suggested, space["res"].band) == (panel.result.suggested, panel.result.band)
    assert space["res"].group == (group or None)
    panel.close()


def test_use_changes_the_next_fit(learn, panel):
    panel.add(result(2e-3))
    got = []
    panel.on_use.append(lambda rate, group: got.append((rate, group)))
    set_lrs(learn, [1e-5, 1e-4, 1e-3])
    panel.use_button.click()
    assert list(next_lrs(learn).values()) == pytest.approx([2e-5, 2e-4, 2e-3]) and got == [(2e-3, None)]
    with quiet(learn):
        learn.fit(1)
    assert [h["lr"] for h in learn.opt.hypers] == pytest.approx([2e-5, 2e-4, 2e-3])


def test_use_for_one_group_leaves_the_others(learn, panel):
    set_lrs(learn, [1e-5, 1e-4, 1e-3])
    panel.add(result(5e-2, group="1"))
    assert panel.groups.value == "1"
    panel.use_button.click()
    assert list(next_lrs(learn).values()) == [1e-5, 5e-2, 1e-3]


def test_rates_that_a_rate_stands_for(learn):
    names = list(next_lrs(learn))
    assert rates_by_group(learn, 2e-3) == 2e-3
    set_lrs(learn, [1e-5, 1e-4, 1e-3])
    assert rates_by_group(learn, 2e-3) == dict(zip(names, [2e-5, 2e-4, 2e-3]))
    for p in learn.model[2].parameters():
        p.requires_grad_(False)
    # the head is frozen: the rate is that of the last that trains
    assert rates_by_group(learn, 2e-4) == dict(zip(names, [2e-5, 2e-4, 2e-3]))
    assert lrs_of(learn)[names[-1]] == 1e-3  # nothing was set


def test_a_listener_that_fails_is_named_and_the_others_are_called(learn, panel):
    panel.add(result())
    got = []

    def bad(rate, group):
        raise ValueError("no such stage")

    panel.on_use += [bad, lambda *a: got.append(a)]
    assert panel.use() == dict.fromkeys(next_lrs(learn), 2e-3)
    assert got and "no such stage" in panel.say_box.value and "ftl-warn" in panel.say_box.value


def test_ways_to_choose(panel):
    panel.add(result(2e-3))
    assert panel.rate == 2e-3 and panel.typed.value == "2e-3" and panel.slider.value == pytest.approx(2e-3)
    panel.typed.value = " 0.0125 "
    assert panel.rate == 0.0125 and panel.typed.value == "1.25e-2" and panel.slider.value == pytest.approx(0.0125)
    panel.slider.value = 1e-4
    assert panel.rate == 1e-4 and panel.typed.value == "1e-4"
    panel.methods.children[1].click()
    assert panel.rate == pytest.approx(2e-3 / 7, rel=1e-2)
    i = int(np.abs(np.log(panel.curve.grid / 1e-2)).argmin())
    # what the browser sends
    panel.curve.hits._handle_custom_msgs(None, {"event": "element_click", "data": {"index": i + 96}})
    assert panel.rate == pytest.approx(1e-2, rel=0.1)
    assert shown(panel, "chosen") and panel.curve.chosen.x[0] == panel.rate
    panel.typed.value = "25"  # beyond the slider
    assert panel.rate == 25 and "25" in panel.code


@pytest.mark.parametrize("bad", [0, -1e-3, float("nan"), float("inf"), "fast", ""])
def test_a_rate_that_cannot_be(learn, panel, bad):
    panel.add(result(2e-3))
    with pytest.raises(InputError, match="above 0"):
        panel.choose(bad)
    panel.typed.value = str(bad)
    assert panel.rate == 2e-3 and panel.typed.value == "2e-3" and "above 0" in panel.say_box.value


def test_nothing_chosen_is_refused(learn, panel):
    assert panel.use_button.disabled and panel.use() is None and "No rate is chosen" in panel.say_box.value
    panel.add(
        LRFinderResult(np.geomspace(1e-6, 1, 10), np.ones(10), [np.ones(10)], {}, None, None, "the loss does not fall")
    )
    said = panel.verdict.value
    assert panel.rate is None and "No rate is suggested" in said and "⚠" in said and "The loss does not fall." in said
    assert shown(panel, "smoothed") and not shown(panel, "band") and not shown(panel, "chosen")


def test_reliable_or_not_in_words_and_sign(panel):
    panel.add(result(reason="the fall is <within> the noise"))
    assert "⚠ Not reliable" in panel.verdict.value and "The fall is &lt;within&gt; the noise." in panel.verdict.value
    panel.add(result())
    assert "✔ Reliable" in panel.verdict.value and "2e-3" in panel.verdict.value


def test_what_the_curve_shows(panel):
    res = result(2e-3)
    panel.add(res)
    c = panel.curve
    assert c.y.max < 5 and c.y.min < 1.75 < c.y.max  # the explosion to 1e6 is cut off
    assert np.max(c.smoothed.y) < 20 and len(c.raw.x) == len(res.lrs)
    assert sorted(c.names.text) == ["steep", "★ fall (ours)"] and list(c.band.x) == pytest.approx(list(res.band))
    assert sorted(np.ravel(c.marks.x)) == pytest.approx(sorted([2e-3, 2e-3, 2e-3 / 7, 2e-3 / 7]))
    assert not c.past.visible


def test_earlier_sweeps(learn, panel):
    a, b, c = (panel.add(result(r, g)) for r, g in ((1e-3, None), (2e-3, "2"), (3e-3, None)))
    assert sweeps_of(learn) == [a, b, c] and panel.shown is c and panel.group is None
    assert panel.curve.past.y.shape[0] == 2 and list(panel.curve.numbers.text) == ["1", "2"]
    text = panel._rows[b].children[1].description
    assert text.startswith("2 · 2e-3 ✔ · 2 · ") and b.at in text  # number, rate, group, time
    panel._rows[b].children[0].value = False  # hide
    assert list(panel.curve.numbers.text) == ["1"] and panel.shown is c
    panel._rows[b].children[1].click()  # in full, and so shown
    assert (
        panel.shown is b and panel.rate == 2e-3 and panel.group == "2" and list(panel.curve.numbers.text) == ["1", "3"]
    )
    assert panel._rows[b].children[1].description.startswith("▶") and panel._rows[b].children[0].value
    row = panel._rows[b]
    row.children[2].click()  # forget
    assert (
        sweeps_of(learn) == [a, c] and panel.shown is None and panel.result is None and len(panel.history.children) == 2
    )
    assert row.comm is None and all(o.comm is None for o in row.children)
    panel.groups.value = ""  # no change
    panel._rows[c].children[1].click()
    assert panel.rate == 3e-3


def test_the_group_that_is_picked_brings_its_last_sweep(panel):
    a, b = panel.add(result(1e-3)), panel.add(result(2e-3, "2"))
    panel.groups.value = ""
    assert panel.shown is a and panel.rate == 1e-3
    panel.groups.value = "1"
    assert panel.shown is None and panel.rate is None and "group='1'" in panel.code
    panel.groups.value = "2"
    assert panel.shown is b


@pytest.mark.medium
def test_sweeps_stay_with_the_learner(learn, panel):
    res = result()
    panel.add(res)
    panel.add(res)  # once
    other = LRFinderPanel(learn)
    assert other.result is res and len(sweeps_of(learn)) == 1 and len(other.history.children) == 1
    other.remove(other.shown)
    assert panel.result is None and not panel.history.children and other.rate is None
    other.close()
    for i in range(KEEP + 3):
        panel.add(result(1e-3 + i * 1e-5))
    assert [f.no for f in sweeps_of(learn)][-1] == KEEP + 4 and len(sweeps_of(learn)) == KEEP == len(
        panel.history.children
    )


@pytest.mark.medium
def test_a_result_by_hand(learn):
    res = find_lr(learn, num_it=N, on_progress=QUIET)
    panel = LRFinderPanel(learn, result=res)
    assert panel.result is res and "find_lr" not in panel.code
    panel.choose(1e-3)
    assert panel.code == "from fastai_tl.all import set_lrs\nset_lrs(learn, 0.001)"
    panel.close()


def test_other_layers_train_now(learn, panel):
    sweep(panel)
    assert "Other layers" not in panel.verdict.value
    unfreeze(learn)
    panel.refresh()
    assert "Other layers train now" in panel.verdict.value and "all that train (0, 1, 2)" in dict(panel.groups.options)


def test_run_is_refused_while_something_else_holds_the_learner():
    import threading

    learn = trained()
    panel = LRFinderPanel(learn)
    before, inside, go = everything(learn), threading.Event(), threading.Event()

    def hold():
        with owned(learn, "run_plan", lambda: "stage 'tune', epoch 2 of 5"):
            inside.set()
            go.wait(20)

    t = threading.Thread(target=hold)
    t.start()
    inside.wait(20)
    try:
        panel.run_button.click()
        said = panel.say_box.value
        panel.add(result())  # looking is allowed
        panel.use_button.click()
        said_use = panel.say_box.value
    finally:
        go.set()
        t.join()
    for s in (said, said_use):
        assert "run_plan is using this Learner, stage &#x27;tune&#x27;, epoch 2 of 5" in s and "ftl-error" in s
    assert panel.job is None
    same(before, everything(learn))
    panel.close()


@pytest.mark.medium
def test_everything_else_is_refused_while_it_runs():
    learn = trained(400, bs=4)
    panel = LRFinderPanel(learn)
    panel.num_it.value = 5000
    job = panel.run()
    try:
        for f in (lambda: find_lr(learn), lambda: set_lrs(learn, 1e-3), lambda: learn.fit(1)):
            with pytest.raises(Busy, match="LRFinderPanel is using .* Press Cancel in LRFinderPanel"):
                f()
        assert panel.run() is None and "LRFinderPanel is using" in panel.say_box.value
    finally:
        job.stop()
        job.wait(20)
    panel.close()


@pytest.mark.parametrize(
    "kw,say",
    [
        (dict(start=1.0, end=1e-3), "start_lr &lt; end_lr"),
        (dict(num_it=1), "at least 2 batches"),
        (dict(seeds=0), "1 or more sweeps"),
        (dict(groups="0"), "freeze_to(learn, &#x27;0&#x27;)"),
    ],
)
def test_settings_that_cannot_be(learn, panel, kw, say):
    before = everything(learn)
    for k, v in kw.items():
        getattr(panel, k).value = v
    panel.run_button.click()
    assert panel.job is None and say in panel.say_box.value and "ftl-error" in panel.say_box.value
    same(before, everything(learn))


def test_all_frozen_is_refused(learn, panel):
    for p in learn.model.parameters():
        p.requires_grad_(False)
    panel.run_button.click()
    assert panel.job is None and "freeze_to(learn, &#x27;head&#x27;)" in panel.say_box.value


def test_an_error_in_training_is_shown_and_undone(learn, panel):
    from fastai.callback.core import Callback

    class Break(Callback):
        order = 57

        def after_pred(self):
            if self.training and self.iter == 3:
                raise ValueError("the data is odd")

    learn.add_cb(Break())
    before = everything(learn)
    sweep(panel)
    assert "ValueError" in panel.say_box.value and "the data is odd" in panel.say_box.value and panel.result is None
    same(before, everything(learn))
    assert "ftl-hidden" not in panel.run_button._dom_classes


@pytest.mark.medium
def test_close_while_it_runs_cancels():
    learn = trained(400, bs=4)
    panel = LRFinderPanel(learn)
    panel.num_it.value = 5000
    before, job = everything(learn), panel.run()
    panel.close()
    assert job.wait(20) and sweeps_of(learn) == []
    same(before, everything(learn))


@pytest.mark.medium
def test_close_frees_everything():
    learn = noisy_learner()
    panel = LRFinderPanel(learn, result())
    sweep(panel)
    panel.use()
    kids = list(descendants(panel))
    assert len(kids) > 40
    ref = weakref.ref(panel)
    panel.close()
    assert all(k.comm is None for k in kids) and panel.comm is None
    del panel, kids
    gc.collect()
    assert ref() is None
    ref = weakref.ref(learn)
    del learn
    gc.collect()
    assert ref() is None  # the sweeps that are kept do not hold it


def test_a_panel_is_quick_to_make():
    from torchvision.models import resnet50
    from fastai_tl.freezing.layer_groups import GroupSpec

    learn = noisy_learner()
    learn.model, learn.opt = resnet50(num_classes=3), None
    learn.splitter = GroupSpec.of(learn.model)
    LRFinderPanel(learn).close()
    panel, n = widgets_made(lambda: LRFinderPanel(learn))
    assert n < 100 and panel.curve is None and learn.opt is None
    panel.close()


def test_controls_have_names(panel):
    panel.add(result())
    import ipywidgets as w

    for o in descendants(panel):
        if isinstance(o, (w.Button, w.ToggleButton)):
            assert o.tooltip, o
        elif isinstance(o, (w.Dropdown, w.Text, w.FloatText, w.IntText, w.FloatLogSlider)):
            assert o.description and o.tooltip, o


def test_text_and_limits():
    assert [sci(v) for v in (2.1e-3, 0.01, 1, 3.456e-7)] == ["2.1e-3", "1e-2", "1e0", "3.46e-7"]
    assert y_limits([[2, 2, 1, 9e9]])[1] < 4.2 and y_limits([]) == (0, 1) and y_limits([[float("nan")]]) == (0, 1)
    lo, hi = y_limits([[1.0, 1.0, 1.0]])
    assert lo < 1 < hi
    lo, hi = y_limits([[-1.0, -2.0, -3.0, -2.0, 1e9]])
    assert lo < -3 and -1 <= hi < 10
    assert label_rows([0.5, 0.5, 0.5]) == [0, 1, 2] and label_rows([0.1, 0.5]) == [0, 0] and label_rows([]) == []


def test_a_curve_that_breaks_can_be_drawn(panel):
    lrs = np.geomspace(1e-6, 1, 30)
    y = np.full(30, 2.0)
    y[20:] = np.nan
    panel.add(LRFinderResult(lrs, y, [y, y[:25]], {}, None, None, "x"))
    assert (
        np.isfinite(panel.curve.raw.y).all()
        and np.isfinite(panel.curve.smoothed.y).all()
        and len(panel.curve.smoothed.y) == 20
    )
    panel.add(LRFinderResult(lrs, np.full(30, np.nan), [np.full(30, np.nan)], {}, None, None, "x"))
    assert not panel.curve.smoothed.visible and isinstance(panel.shown, SweepRecord)
    assert "ftl-error" not in panel.say_box.value
