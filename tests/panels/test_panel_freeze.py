"""FreezePanel: what a click does to the Learner, what the panel says of it, and the Python that does the same."""

import gc
import weakref

import pytest
import torch
from helpers import noisy_learner

from fastai_tl.all import *  # noqa: F403 (what `.code` uses)
from fastai_tl.all import fingerprint, freeze_to, layer_groups, set_frozen, set_lrs, transfer_learner, unfreeze
from fastai_tl.freezing.batchnorm import bn_policy
from fastai_tl.freezing.freeze_state import freeze_code, read_layers, switch_bn
from fastai_tl.freezing.layer_groups import pinned
from fastai_tl.panels.panel import descendants, panels_of
from fastai_tl.panels.freeze import FreezePanel
from fastai_tl.freezing.learning_rates import next_lrs


def state(learn):
    "What freezing is about: gradients, statistics, rates, pins"
    return (
        {n: p.requires_grad for n, p in learn.model.named_parameters()},
        {o.path: o.stats for o in read_layers(learn)},
        {g: round(v, 12) for g, v in next_lrs(learn).items()},
        pinned(learn),
    )


def assert_code_leads_there(learn, fresh):
    exec(freeze_code(learn, "learn"), globals(), {"learn": fresh})
    assert state(fresh) == state(learn), freeze_code(learn)


@pytest.fixture
def learn(small_dls):
    return transfer_learner(small_dls, "resnet_mini")


@pytest.fixture
def panel(learn):
    p = FreezePanel(learn)
    yield p
    p.close()


def frozen(learn, group):
    return all(not p.requires_grad for p in layer_groups(learn)[group])


def test_what_is_shown_at_first(panel, learn):
    assert {g: r.tick.value for g, r in panel.rows.items()} == {g: g != "head" for g in layer_groups(learn)}
    assert "head trains" in panel.strip.value and "stem frozen" in panel.strip.value
    assert panel.code == "freeze_to(learn, 'head', bn='frozen')"
    assert learn.opt is None or panel.low.value == pytest.approx(next_lrs(learn)["stem"])


def test_a_tick_freezes_exactly_one_group(panel, learn):
    panel.presets["All"].click()
    assert all(p.requires_grad for p in learn.model.parameters())
    panel.rows["layer1"].tick.value = True
    assert [frozen(learn, g) for g in layer_groups(learn)] == [g == "layer1" for g in layer_groups(learn)]
    panel.rows["layer1"].tick.value = False
    assert all(p.requires_grad for p in learn.model.parameters())


def test_a_tick_on_a_layer(panel, learn, small_dls):
    panel.presets["All"].click()
    row = panel.rows["layer1"]
    row.fold.value = True
    layer = row.rows[0]
    layer.tick.value = True
    assert [n for n, p in learn.model.named_parameters() if not p.requires_grad] == [f"{layer.path}.weight"]
    assert not row.tick.value and "partly" in row.facts.value
    assert_code_leads_there(learn, transfer_learner(small_dls, "resnet_mini"))


@pytest.mark.parametrize("preset,n", [("Head only", -1), ("Last block", -2), ("All", None)])
def test_presets(panel, learn, preset, n):
    panel.presets[preset].click()
    groups = list(layer_groups(learn))
    assert [frozen(learn, g) for g in groups] == [n is not None and i < len(groups) + n for i in range(len(groups))]


def test_rates_of_groups_and_their_spread(panel, learn):
    panel.rows["layer1"].rate.value = 3e-4
    assert next_lrs(learn)["layer1"] == 3e-4
    panel.low.value, panel.high.value = 1e-5, 1e-2
    lrs = list(next_lrs(learn).values())
    assert lrs[0] == pytest.approx(1e-5) and lrs[-1] == pytest.approx(1e-2) and lrs == sorted(lrs)
    panel.low.value = 1e-1  # above the head's
    assert (
        "above hi" in panel.say_box.value
        and panel.low.value == pytest.approx(1e-5)
        and list(next_lrs(learn).values()) == lrs
    )
    panel.rows["stem"].rate.value = -1
    assert "above 0" in panel.say_box.value and panel.rows["stem"].rate.value == pytest.approx(1e-5, rel=0.01)


def test_policy(panel, learn):
    panel.policy.value = "affine"
    norms = [o for o in read_layers(learn) if o.stats and o.group != "head"]
    assert (
        bn_policy(learn) == "affine"
        and norms
        and all(o.stats == "held" and o.frozen == "no" for o in norms)
        and "affine" in panel.code
    )
    panel.policy.value = "train"
    assert "follows batches" in panel.rows["layer1"].facts.value
    panel.policy.value = "frozen"
    assert panel.code == "freeze_to(learn, 'head', bn='frozen')"


def test_drift_is_shown(panel, learn):
    switch_bn(learn, "train")
    set_frozen(learn, "layer1")
    panel.refresh()
    assert any(o.drifts for o in read_layers(learn))
    assert "layer1 frozen, drifts" in panel.strip.value and "drift" in panel.summary.value


def test_what_would_freeze_everything_is_refused(panel, learn):
    before = state(learn)
    panel.rows["head"].tick.value = True
    assert state(learn) == before and not panel.rows["head"].tick.value
    assert "freeze everything" in panel.say_box.value and 'role="alert"' in panel.say_box.value


def test_fastais_own_calls_are_shown(panel, learn):
    learn.unfreeze()
    panel.refresh()
    assert not panel.rows["stem"].tick.value and "Something else than fastai_tl" in panel.note.value


def test_what_moved(panel, learn):
    from fastai_tl.all import FreezeGuard

    panel.check.click()
    assert "Nothing has been trained" in panel.say_box.value
    learn.add_cb(FreezeGuard())
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    panel.check.click()
    assert "none of them is frozen" in panel.say_box.value


@pytest.mark.medium
def test_measured_speed(panel, learn):
    before = fingerprint(learn)
    job = panel.start_measuring()
    assert job.wait(120) and job.error is None
    assert fingerprint(learn) == before
    panel.presets["All"].click()
    assert "An epoch takes about" in panel.summary.value and "before the last change" in panel.summary.value
    now = panel.cost.seconds(learn)
    freeze_to(learn, "head")
    assert 0 < panel.cost.seconds(learn) < now


def test_a_held_learner(panel, learn):
    from fastai_tl.core.learner_lock import Owner, acquire, release

    before, owner = state(learn), Owner("Someone")
    acquire(learn, owner)
    owner.thread = -1
    panel.rows["stem"].tick.value = False
    assert (
        "Someone is using this Learner" in panel.say_box.value
        and panel.rows["stem"].tick.value
        and state(learn) == before
    )
    release(learn)
    panel.rows["stem"].tick.value = False
    assert state(learn) != before


@pytest.mark.medium
def test_closing_frees_everything(learn):
    import ipywidgets as w

    p = FreezePanel(learn)
    p.rows["layer1"].fold.value = True
    ids = [c.model_id for c in descendants(p)]
    ref = weakref.ref(p)
    p.close()
    assert not panels_of(learn) and not set(ids) & set(w.widgets.widget._instances)
    del p
    gc.collect()
    assert ref() is None


@pytest.mark.medium
def test_a_network_with_very_many_layers(small_dls):
    from fastai.learner import Learner
    from fastai.losses import CrossEntropyLossFlat
    from torch import nn

    from fastai_tl.all import name_groups

    body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), *[nn.Conv2d(4, 4, 1) for _ in range(320)])
    net = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 8))
    learn = Learner(small_dls, net, CrossEntropyLossFlat())
    name_groups(learn, {"body": "0", "head": "3"})
    p = FreezePanel(learn)
    n = sum(1 for _ in descendants(p))
    p.rows["body"].fold.value = True
    assert len(p.rows["body"].rows) == 40 and sum(1 for _ in descendants(p)) < n + 40 * 10
    p.rows["body"].more.click()
    assert len(p.rows["body"].rows) == 80 and "of 241" in p.rows["body"].more.description
    p.rows["body"].rows[79].tick.value = True
    assert [n for n, q in net.named_parameters() if not q.requires_grad] == ["0.79.weight", "0.79.bias"]
    p.close()


@pytest.mark.medium
@pytest.mark.parametrize("arch", ["vgg_mini", "resnet_mini", "mobilenet_mini"])
def test_code_of_random_freeze_maps(small_dls, arch):
    import random

    learn, rnd = transfer_learner(small_dls, arch), random.Random(arch)
    groups, names = list(layer_groups(learn)), [n for n, _ in learn.model.named_parameters()]
    for i in range(25):
        if i % 3 == 0:
            freeze_to(learn, rnd.randrange(len(groups)), bn=rnd.choice(["train", "affine", "frozen"]))
        for _ in range(rnd.randrange(4)):
            try:
                set_frozen(learn, rnd.sample([*groups, *names], rnd.randint(1, 4)), rnd.random() < 0.5, pin=False)
            except ValueError:
                pass  # it would have frozen everything
        if i % 5 == 2:
            set_lrs(learn, slice(10 ** rnd.uniform(-6, -4), 10 ** rnd.uniform(-3, -1)))
        assert_code_leads_there(learn, transfer_learner(small_dls, arch))
    unfreeze(learn)
    set_frozen(learn, groups[0], pin=True)
    assert_code_leads_there(learn, transfer_learner(small_dls, arch))


def test_code_of_a_learner_that_was_not_touched():
    learn = noisy_learner()
    assert freeze_code(learn) == "# learn is as it was made: everything trains"
    learn.freeze_to(1)
    fresh = noisy_learner()
    exec(freeze_code(learn), globals(), {"learn": fresh})
    assert [p.requires_grad for p in fresh.model.parameters()] == [p.requires_grad for p in learn.model.parameters()]
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("bn", ["train", "affine", "frozen"])
def test_norms_of_the_head_follow_the_batches(small_dls, bn):
    "The first norm of fastai's head comes right after the frozen body, and does not belong to it"
    learn = transfer_learner(small_dls, "resnet_mini", head="fastai", bn=bn)
    head = [o for o in read_layers(learn) if o.group == "head" and o.stats]
    assert head and all(o.stats == "follows batches" for o in head)
    body = [o for o in read_layers(learn) if o.group != "head" and o.stats]
    assert all(o.stats == ("follows batches" if bn == "train" else "held") for o in body)
