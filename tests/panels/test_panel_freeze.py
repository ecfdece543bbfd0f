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


def blocks(panel):
    "State of each block of the map"
    return {g["name"]: g["state"] for g in panel.map.groups}


def told(panel, **what):
    "What the script of the map tells when a person does something"
    panel._told(panel.map, what, [])


def test_what_is_shown_at_first(panel, learn):
    assert blocks(panel) == {g: "trains" if g == "head" else "frozen" for g in layer_groups(learn)}
    assert panel.code == "freeze_to(learn, 'head', bn='frozen')"
    assert learn.opt is None or panel.low.value == pytest.approx(next_lrs(learn)["stem"])
    assert sum(g["parameters"] for g in panel.map.groups) == sum(p.numel() for p in learn.model.parameters())
    assert "the head, then train everything" in panel.plan_bar.sentence.value


def test_a_click_freezes_exactly_one_group(panel, learn):
    panel.presets["All"].click()
    assert all(p.requires_grad for p in learn.model.parameters())
    told(panel, do="paint", groups=["layer1"], frozen=True)
    assert [frozen(learn, g) for g in layer_groups(learn)] == [g == "layer1" for g in layer_groups(learn)]
    told(panel, do="paint", groups=["layer1"], frozen=False)
    assert all(p.requires_grad for p in learn.model.parameters())


def test_dragging_paints_several_groups_and_the_boundary_is_one_gesture(panel, learn):
    groups = list(layer_groups(learn))
    told(panel, do="paint", groups=groups[1:3], frozen=False)
    assert [frozen(learn, g) for g in groups] == [g not in (*groups[1:3], "head") for g in groups]
    told(panel, do="boundary", group=groups[2], frozen=True)
    assert [frozen(learn, g) for g in groups] == [i <= 2 for i in range(len(groups))]
    told(panel, do="boundary", group=groups[1], frozen=False)
    assert [frozen(learn, g) for g in groups] == [i < 1 for i in range(len(groups))]
    told(panel, do="boundary", group="head", frozen=True)
    assert "freeze everything" in panel.say_box.value and not frozen(learn, "head")


def test_a_layer(panel, learn, small_dls):
    panel.presets["All"].click()
    told(panel, do="open", group="layer1")
    assert not panel.map.layers
    told(panel, do="fold")
    path = panel.map.layers[0]["path"]
    told(panel, do="layer", path=path, frozen=True)
    assert [n for n, p in learn.model.named_parameters() if not p.requires_grad] == [f"{path}.weight"]
    assert blocks(panel)["layer1"] == "partly" and panel.map.layers[0]["state"] == "frozen"
    assert_code_leads_there(learn, transfer_learner(small_dls, "resnet_mini"))


@pytest.mark.parametrize("preset,n", [("Head only", -1), ("Last block", -2), ("All", None)])
def test_presets(panel, learn, preset, n):
    panel.presets[preset].click()
    groups = list(layer_groups(learn))
    assert [frozen(learn, g) for g in groups] == [n is not None and i < len(groups) + n for i in range(len(groups))]


def test_rates_of_groups_and_their_spread(panel, learn):
    told(panel, do="rate", group="layer1", value="3e-4")
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
    for bad in ("-1", "fast"):
        told(panel, do="rate", group="stem", value=bad)
        assert "above 0" in panel.say_box.value and panel.map.groups[0]["rate"] == "1e-5"


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
    assert "batch norm updating" in panel.map.groups[1]["facts"]
    panel.policy.value = "frozen"
    assert panel.code == "freeze_to(learn, 'head', bn='frozen')"


def test_drift_is_shown(panel, learn):
    switch_bn(learn, "train")
    set_frozen(learn, "layer1")
    panel.refresh()
    assert any(o.drifts for o in read_layers(learn))
    assert blocks(panel)["layer1"] == "drifts" and "drift" in panel.note.value


def test_what_would_freeze_everything_is_refused(panel, learn):
    before = state(learn)
    told(panel, do="paint", groups=["head"], frozen=True)
    assert state(learn) == before and blocks(panel)["head"] == "trains"
    assert "freeze everything" in panel.say_box.value and 'role="alert"' in panel.say_box.value


def test_fastais_own_calls_are_shown(panel, learn):
    learn.unfreeze()
    panel.refresh()
    assert blocks(panel)["stem"] == "trains" and "Something else than fastai_tl" in panel.note.value


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
    told(panel, do="paint", groups=["stem"], frozen=False)
    assert (
        "Someone is using this Learner" in panel.say_box.value
        and blocks(panel)["stem"] == "frozen"
        and state(learn) == before
    )
    release(learn)
    told(panel, do="paint", groups=["stem"], frozen=False)
    assert state(learn) != before


@pytest.mark.medium
def test_closing_frees_everything(learn):
    import ipywidgets as w

    p = FreezePanel(learn)
    p.select("layer1", True)
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
    p.select("body", True)
    assert len(p.map.layers) == 60 and sum(1 for _ in descendants(p)) == n  # layers are no widgets
    assert p.map.more == "Show 60 more of 261 layers"
    told(p, do="more")
    assert len(p.map.layers) == 120
    told(p, do="layer", path="0.79", frozen=True)
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


def test_a_random_head_that_is_frozen_is_pointed_out(panel, learn):
    panel.presets["All"].click()
    assert "stays random" not in panel.note.value
    told(panel, do="paint", groups=["head"], frozen=True)
    assert "stays random" in panel.note.value
    told(panel, do="boundary", group="head", frozen=False)
    assert "stays random" not in panel.note.value
