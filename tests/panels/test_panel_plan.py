import gc
import html
import threading
import weakref
from dataclasses import fields

import ipywidgets as w
import pytest

from helpers import everything, noisy_learner, same, widgets_made
from fastai_tl.core.errors import InputError
from fastai_tl.freezing.freeze import set_frozen
from fastai_tl.freezing.layer_groups import layer_groups, name_groups
from fastai_tl.panels.jobs import Job
from fastai_tl.panels.panel import descendants
from fastai_tl.panels.plan import PlanPanel
from fastai_tl.panels.plan_summary import LearnerView, plan_code, preset_of, parse_entry, format_entry, yaml_line
from fastai_tl.training.plan import PRESETS, Plan
from fastai_tl.training.stage_setup import freeze_for
from fastai_tl.training.stage import PlanError, Stage


@pytest.fixture
def learn(small_dls):
    from fastai_tl.models.transfer_learner import transfer_learner

    return transfer_learner(small_dls, "resnet_mini")


def control(panel, field, k=0):
    return panel.rows[field][1][k]


def said(panel, field):
    return html.unescape(v) if "alert" in (v := panel.rows[field][2].value) else ""


TWO = Plan((Stage("a", epochs=2), Stage("b", "all", epochs=3, lr="same")))
BY_GROUP = dict(stem=1e-5, layer1=1e-5, layer2=1e-4, layer3=1e-4, layer4=1e-3, head=1e-2)
EVERY = [
    Plan.head_only(),
    Plan.fine_tune(3, lr=1e-2),
    Plan.fine_tune(freeze_epochs=0),
    Plan.gradual(2),
    Plan.lp_ft(lr=3e-3),
    Plan.surgical(["layer1", "*.bn1"]),
    Plan.layer_decay(),
    Plan(
        (
            Stage("x", "layer3", 1, slice(1e-5, 1e-3)),
            Stage("y", "all", 1, BY_GROUP, bn="affine", keep="best", monitor="accuracy"),
        )
    ),
]


# What the panel says of a network is what the kit then does


@pytest.mark.parametrize("bn", [None, "affine", "train"])
@pytest.mark.parametrize("train", ["head", "layer3", 1, -2, "all", ("layer1", "*.bn1"), ("head",)])
def test_parameters_that_train_are_those_of_a_run(learn, train, bn):
    set_frozen(learn, "layer2" if train == "layer3" else "stem", pin=True) if train in ("layer3", "all") else None
    plan = Plan((Stage("s", train, bn=bn),))
    [[said]] = LearnerView(learn).trains(plan)
    freeze_for(learn, plan.stages[0])
    assert said == {g: sum(p.numel() for p in ps if p.requires_grad) for g, ps in layer_groups(learn).items()}


def test_parts_are_those_of_expand(learn):
    r, names = LearnerView(learn), None
    names = list(r.groups)
    for plan in (
        Plan.gradual(),
        Plan((Stage("u", "each"),)),
        Plan((Stage("u", "each"), Stage("v", "each", lr="same"), Stage("w", "all"))),
    ):
        assert [(p.name, p.train) for i in range(len(plan.stages)) for p in r.parts(plan, i)] == [
            (s.name, s.train) for s in plan.expand(names).stages
        ]


def test_a_policy_of_batch_norm_stays_for_later_stages(learn):
    plan = Plan((Stage("a", bn="affine"), Stage("b")))
    first, then = (p[0] for p in LearnerView(learn).trains(plan))
    assert first == then and first["stem"] > 0


# Pure parts


@pytest.mark.parametrize("plan", EVERY, ids=str)
def test_python_gives_the_plan(plan):
    assert eval(plan_code(plan), dict(Plan=Plan, Stage=Stage)) == plan


def test_presets_are_recognised():
    for name in PRESETS:
        plan = Plan.surgical(["stem"]) if name == "surgical" else getattr(Plan, name)()
        assert preset_of(plan)[0] == name
    assert preset_of(Plan.fine_tune(2, 1e-2, 3, 50, False)) == (
        "fine_tune",
        dict(epochs=2, lr=1e-2, freeze_epochs=3, lr_mult=50, hold_stats=False),
    )
    assert preset_of(Plan.fine_tune(2, 1e-2, 0)) == ("fine_tune", dict(epochs=2, lr=1e-2, freeze_epochs=0))
    assert preset_of(TWO) is None


@pytest.mark.parametrize("v", ["find", "same", 0.0031234567891, 1, slice(1e-7, 1 / 3), {"stem": 1e-4, 5: 2e-3}])
def test_rates_come_back_from_text(v):
    assert parse_entry("lr", format_entry("lr", v)) == v


@pytest.mark.parametrize(
    "text,stage,field,line",
    [
        ("stages:\n- name: a\n- name: b\n  lr: 3x\n", "b", "lr", 4),
        ("stages:\n- name: a\n- name: a\n", "a", "name", 3),
        ("stages:\n- epochs: 2\n", None, "name", 2),
        ("stages:\n- name: a\n  : [", None, None, 3),
        ("steps: []\n", None, "stages", 1),
        ("# c\nstages: 3\n", None, "stages", 2),
        ("", None, "stages", 1),
        ("stages:\n- name: a\n- 7\n", None, "stages", 3),
    ],
)
def test_lines_of_errors(text, stage, field, line):
    assert yaml_line(text, stage, field) == line


# The panel


def test_it_only_reads_the_learner(learn):
    before = everything(learn)
    panel = PlanPanel(learn, TWO)
    panel.select(1)
    panel.enter("epochs", 4)
    panel.enter("lr", 0.1)
    panel.duplicate()
    panel.move(-1)
    panel.remove()
    panel.undo()
    same(before, everything(learn))


def test_every_field_has_a_control_that_changes_the_plan(learn):
    panel = PlanPanel(learn, Plan((Stage("a", epochs=6),)))
    panel.more.value = True
    assert set(panel.rows) == {f.name for f in fields(Stage)}
    new = dict(
        name="first",
        train="layer4",
        epochs=7,
        schedule="flat_cos",
        lr_decay="1/.5",
        per_layer=True,
        pct_start=".3",
        div="10",
        bn="affine",
        hold_stats=True,
        patience="2",
        monitor="accuracy",
        keep="best",
        augment=True,
    )
    for f, v in new.items():
        control(panel, f).value = v
    control(panel, "lr").value = "given"
    control(panel, "lr", 1).value = "0.004"
    assert panel.plan == Plan(
        (
            Stage(
                "first",
                "layer4",
                7,
                0.004,
                lr_decay=2.0,
                per_layer=True,
                schedule="flat_cos",
                pct_start=0.3,
                div=10,
                bn="affine",
                hold_stats=True,
                patience=2,
                monitor="accuracy",
                keep="best",
                augment=True,
            ),
        )
    )
    assert not panel.say_box.value and not any(said(panel, f) for f in panel.rows)
    control(panel, "patience").value = ""
    assert panel.plan.stages[0].patience is None


@pytest.mark.parametrize(
    "field,k,value,text",
    [
        ("name", 0, " ", "takes a name"),
        ("name", 0, "b", "Two stages"),
        ("epochs", 0, 0, "at least 1"),
        ("epochs", 0, -3, "at least 1"),
        ("lr", 0, "same", "this is the first"),
        ("lr", 1, "quick", "above 0"),
        ("lr", 1, "-1", "above 0"),
        ("lr", 1, "1e-2 to 1e-3", "low"),
        ("lr", 1, "stem: 1e-4", "frozen by"),
        ("lr", 1, "haed: 1e-4", "Did you mean 'head'"),
        ("lr_mult", 0, "half", "at least 1"),
        ("pct_start", 0, "2", "0 to 1"),
        ("div", 0, "0", "at least 1"),
        ("patience", 0, "x", "whole number"),
        ("patience", 0, "9", "never stop"),
        ("per_layer", 0, True, "does nothing"),
    ],
)
def test_what_cannot_be_used_stays_beside_its_field(learn, field, k, value, text):
    panel = PlanPanel(learn, TWO)
    heard = []
    panel.on_change.append(heard.append)
    panel.more.value = True
    if k:
        control(panel, field).value = "given"
        panel.undo()
        heard.clear()
        panel.enter(field, value)
    else:
        control(panel, field).value = value
    assert panel.plan == TWO and not heard
    assert text in said(panel, field) and control(panel, field, k).value == value
    assert [f for f in panel.rows if said(panel, f)] == [field]
    assert "✖" in panel.blocks[0].children[0].description and "✖" not in panel.blocks[1].children[0].description
    panel.select(1)
    assert not said(panel, field)
    panel.select(0)
    assert text in said(panel, field)  # it was not lost meanwhile
    panel.act(panel.revert)
    assert not said(panel, field) and "✖" not in panel.blocks[0].children[0].description
    assert panel.revert_button.layout.display == "none"


def test_layers_by_name(learn):
    panel = PlanPanel(learn, TWO)
    control(panel, "train").value = "[]"
    assert panel.plan.stages[0].train == ("head",)
    control(panel, "train", 1).value = "layer1, *.bn1"
    assert panel.plan.stages[0].train == ("layer1", "*.bn1")
    control(panel, "train", 1).value = "layer1, layer1.*"
    assert "overlaps" in said(panel, "train") and panel.plan.stages[0].train == ("layer1", "*.bn1")
    control(panel, "train", 1).value = "layr1"
    assert "Did you mean" in said(panel, "train") and control(panel, "train", 1).value == "layr1"
    control(panel, "train").value = "all"
    assert panel.plan.stages[0].train == "all" and not said(panel, "train")


def test_entries_that_only_make_sense_together(learn):
    panel = PlanPanel(learn, Plan((Stage("a", epochs=9, patience=5),)))
    control(panel, "epochs").value = 3
    assert "never stop" in said(panel, "patience") and "see patience" in said(panel, "epochs")
    assert panel.more.value and panel.plan.stages[0].epochs == 9
    control(panel, "name").value = "b"  # what is right by itself is taken
    assert panel.plan.stages[0].name == "b" and panel.plan.stages[0].epochs == 9
    control(panel, "patience").value = "2"
    assert (
        panel.plan == Plan((Stage("b", epochs=3, patience=2),))
        and not said(panel, "patience")
        and not said(panel, "epochs")
    )


def test_an_error_in_another_stage_is_said_where_it_was_made(learn):
    panel = PlanPanel(learn, Plan((Stage("a", lr=0.1), Stage("b", lr="same"))))
    panel.enter("lr", "head: 0.1")
    assert "Stage 'b'" in said(panel, "lr") and panel.plan.stages[0].lr == 0.1


def test_stages_are_added_moved_and_removed(learn):
    panel = PlanPanel(learn, TWO)
    names = lambda: [s.name for s in panel.plan.stages]
    click = lambda b: panel.buttons[b].click()
    click("add")
    assert names() == ["a", "stage 3", "b"] and panel.selected == 1
    click("duplicate")
    click("duplicate")
    assert names() == ["a", "stage 3", "stage 2", "stage 4", "b"] and panel.selected == 3
    click("earlier")
    click("earlier")
    assert names() == ["a", "stage 4", "stage 3", "stage 2", "b"] and panel.selected == 1
    click("remove")
    click("later")
    assert names() == ["a", "stage 2", "stage 3", "b"] and panel.selected == 2
    while len(panel.plan.stages) > 1:
        click("remove")
    assert panel.buttons["remove"].disabled and panel.buttons["earlier"].disabled and panel.buttons["later"].disabled
    while panel._past:
        click("undo")
    assert panel.plan == TWO and panel.buttons["undo"].disabled
    panel.act(panel.undo)
    assert "Nothing to undo" in panel.say_box.value
    assert len(panel.line.children) == 3


def test_a_move_that_makes_no_sense_is_said_beside_the_field(learn):
    panel = PlanPanel(learn, TWO)
    panel.buttons["later"].click()
    assert (
        panel.plan == TWO
        and panel.selected == 1
        and "this is the first" in said(panel, "lr")
        and "this is the first" in panel.say_box.value
    )
    panel.blocks[0].children[0].value = True
    panel.blocks[1].children[0].value = True
    assert panel.selected == 1 and not said(panel, "lr") and not panel.say_box.value
    panel.act(panel.remove)
    panel.act(panel.remove)
    assert panel.plan.stages == TWO.stages[:1] and "at least one stage" in panel.say_box.value


def test_drafts_move_with_their_stage(learn):
    panel = PlanPanel(learn, Plan((Stage("a"), Stage("b"))))
    control(panel, "epochs").value = 0
    panel.buttons["later"].click()
    assert [s.name for s in panel.plan.stages] == ["b", "a"] and "at least 1" in said(panel, "epochs")
    panel.select(0)
    assert not said(panel, "epochs") and control(panel, "epochs").value == 5
    panel.act(lambda: setattr(panel, "plan", TWO))
    assert panel._drafts == [{}, {}]


def test_blocks_are_as_wide_as_their_epochs(learn):
    panel = PlanPanel(learn, Plan.gradual(2, 3))
    assert [b.layout.flex.split()[0] for b in panel.line.children[1:]] == ["10", "3"]
    assert panel.total.startswith("13 epochs in 2 stages") and "(100%)" in panel.total
    assert "trains one group more each time" in panel.blocks[0].children[0].tooltip
    assert panel.blocks[0].children[1].value.count("ftl-frozen") == 5 + 4 + 3 + 2 + 1
    panel.plan = Plan.surgical(["body.layer1.conv1"])
    assert "ftl-partly" in panel.blocks[1].children[1].value and "part of layer1" in panel.blocks[1].children[1].value


# Presets, YAML, Python


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets(learn, name):
    panel = PlanPanel(learn, TWO)
    panel.preset.value = name
    assert panel.plan == TWO  # nothing changes before it is used
    assert name in ("probe", "head_only") or "arxiv.org" in panel.source.value
    panel.use.click()
    assert panel.plan == (Plan.surgical(["stem"]) if name == "surgical" else getattr(Plan, name)())
    if name == "probe":  # which has no options
        return
    panel.options[name, "epochs"].value = 4
    panel.options[name, "lr"].value = "0.02"
    panel.use.click()
    assert panel.plan == getattr(Plan, name)(**(dict(groups=["stem"]) if name == "surgical" else {}), epochs=4, lr=0.02)
    assert f"Plan.{name}(" in panel.code and "epochs=4" in panel.code
    panel.options[name, "epochs"].value = 0
    panel.use.click()
    assert panel.plan.epochs >= 4 and "epochs: " in panel.source.value and "at least" in panel.source.value
    panel.undo()
    panel.undo()
    assert panel.plan == TWO


def test_preset_errors_name_the_option(learn):
    panel = PlanPanel(learn)
    panel.preset.value = "fine_tune"
    for k, v, text in (("freeze_epochs", -1, "freeze epochs: "), ("lr", "fast", "lr: "), ("lr_mult", "0", "lr mult: ")):
        old = panel.options["fine_tune", k].value
        panel.options["fine_tune", k].value = v
        panel.use.click()
        assert text in panel.source.value and preset_of(panel.plan) == ("lp_ft", {}), k
        panel.options["fine_tune", k].value = old
    panel.preset.value = "surgical"
    panel.options["surgical", "groups"].value = "layr1"
    panel.use.click()
    assert "Did you mean" in panel.source.value and preset_of(panel.plan) == ("lp_ft", {})


def test_the_list_of_presets_follows_the_plan(learn):
    panel = PlanPanel(learn)
    panel.plan = Plan.fine_tune(7, freeze_epochs=2)
    assert (
        panel.preset.value == "fine_tune"
        and panel.options["fine_tune", "epochs"].value == 7
        and panel.options["fine_tune", "freeze_epochs"].value == 2
    )
    panel.enter("name", "mine")
    assert panel.preset.value == "" and panel.use.disabled and not panel.option_box.children and not panel.source.value


def test_yaml(learn):
    panel = PlanPanel(learn, TWO)
    assert panel.yaml.text is None
    panel.yaml.button.value = True
    text = panel.yaml.text
    assert Plan.from_yaml(text.value) == TWO
    bar = panel.yaml.bar.children
    text.value = text.value.replace("epochs: 3", "epochs: 4")
    bar[0].click()
    assert panel.plan.stages[1].epochs == 4 and "now the plan" in panel.yaml.says.value
    good = panel.plan
    for a, b, line in (
        ("epochs: 4", "epochs: none", 9),
        ("epochs: 4", "epoks: 4", 9),
        ("train: all", "train: lyer1", 8),
        ("lr: same", "lr: [", None),
        ("name: b", "name: a", 7),
        ("- name: b", "- nam: b", 7),
    ):
        panel.yaml.revert()
        lines = text.value.splitlines()
        at = next(i for i, o in enumerate(lines) if b.split(":")[0] and a in o)
        text.value = text.value.replace(a, b, 1)
        bar[0].click()
        said = panel.yaml.says.value
        assert panel.plan == good and "alert" in said and b in text.value, b
        assert f"ine {at + 1}" in said if line else "line " in said, (b, said)
    bar[1].click()
    assert Plan.from_yaml(text.value) == good and not panel.yaml.says.value


def test_yaml_that_is_being_edited_is_not_lost(learn):
    panel = PlanPanel(learn, TWO)
    panel.yaml.button.value = True
    panel.yaml.text.value = mine = panel.yaml.text.value + "# mine\n"
    panel.enter("epochs", 8)
    assert panel.yaml.text.value == mine and "changed meanwhile" in panel.yaml.says.value
    panel.yaml.revert()
    assert Plan.from_yaml(panel.yaml.text.value) == panel.plan
    panel.enter("epochs", 9)
    assert Plan.from_yaml(panel.yaml.text.value) == panel.plan


@pytest.mark.parametrize("plan", EVERY, ids=str)
def test_code_gives_an_equal_plan(learn, plan):
    panel = PlanPanel(learn, plan, name="net")
    space = dict(Plan=Plan, Stage=Stage)
    exec(panel.code, space)
    assert space["plan"] == plan and "run_plan(net, plan)" in panel.code
    compile(panel.to_code(), "calls", "exec")
    assert "net." in panel.to_code() and "learn." not in panel.to_code()
    panel.calls.button.value = panel.code_view.button.value = True
    assert "fit" in panel.calls.shown.value and "plan = " in panel.code_view.shown.value


@pytest.mark.medium
def test_the_code_trains_the_same():
    import torch

    from helpers import QUIET, tensors
    from fastai_tl.training.run_plan import run_plan

    a = noisy_learner()
    panel = PlanPanel(
        a, Plan((Stage("h", "head", 1, 1e-2), Stage("t", "all", 1, slice(1e-4, 1e-2), schedule="flat_cos")))
    )
    panel.enter("epochs", 2)
    space = dict(Plan=Plan, Stage=Stage)
    exec(panel.code, space)
    run_plan(a, panel.plan, on_progress=QUIET)
    b = noisy_learner()
    run_plan(b, space["plan"], on_progress=QUIET)
    for (k, x), y in zip(tensors(a.model).items(), tensors(b.model).values()):
        assert torch.equal(x, y), k


# From other code


def test_methods_show_what_they_did(learn):
    panel = PlanPanel(learn, TWO)
    panel.add(Stage("c", "layer4", 1))
    assert (
        len(panel.line.children) == 4 and control(panel, "name").value == "c" and "3 stages" in panel.total_line.value
    )
    panel.undo()
    assert len(panel.line.children) == 3 and panel.buttons["undo"].disabled
    panel.select(1)
    assert control(panel, "name").value == "b"
    with pytest.raises(PlanError, match="this is the first"):
        panel.move(-1)
    assert "this is the first" in said(panel, "lr")
    panel.select(0)
    with pytest.raises(InputError, match="already"):
        panel.move(-1)
    with pytest.raises(InputError, match="no stage 2"):
        panel.select(2)
    with pytest.raises(PlanError, match="Two stages"):
        panel.add(Stage("b"))
    with pytest.raises(PlanError, match="not there"):
        panel.add(Stage("d", "layer9"))
    assert panel.plan == TWO


def test_plan_can_be_set(learn):
    panel = PlanPanel(learn)
    assert panel.plan == Plan.lp_ft()
    heard = []
    panel.on_change.append(heard.append)
    panel.plan = TWO
    panel.plan = TWO
    assert heard == [TWO] and control(panel, "epochs").value == 2
    for bad in (
        Plan((Stage("a", "layer9"),)),
        Plan((Stage("a", patience=1, monitor="f1"),)),
        Plan((Stage("a", ("nothing.*",)),)),
    ):
        with pytest.raises(PlanError):
            panel.plan = bad
        with pytest.raises(PlanError):
            PlanPanel(learn, bad)
    with pytest.raises(InputError, match="not a Plan"):
        panel.plan = "lp_ft"
    assert panel.plan == TWO and heard == [TWO]


def test_use_rate(learn):
    import numpy as np

    panel = PlanPanel(learn, Plan((Stage("a", lr=0.1), Stage("b"), Stage("c"))))
    assert panel.use_rate(np.float64(0.0031234567)) == "b"
    assert panel.plan.stages[1].lr == 0.0031234567 and type(panel.plan.stages[1].lr) is float
    panel.select(0)
    assert panel.use_rate(slice(1e-5, 1e-3)) == "a" and panel.plan.stages[0].lr == slice(1e-5, 1e-3)
    with pytest.raises(PlanError, match="above 0"):
        panel.use_rate(-1)
    with pytest.raises(PlanError, match="no rate|not there|frozen"):
        panel.use_rate({"stem": 1e-3})
    assert panel.plan.stages[0].lr == slice(1e-5, 1e-3)


def test_a_network_that_changed_under_the_plan(learn):
    panel = PlanPanel(
        learn, Plan((Stage("a", "layer4", 1), Stage("b", "all", 1, patience=None, keep="best", monitor="accuracy")))
    )
    panel.select(1)
    name_groups(learn, {"body": "body", "head": "head"}) if hasattr(learn.model, "body") else name_groups(
        learn, {"body": ["0"], "head": ["1"]}
    )
    learn.metrics = []
    panel.refresh()
    assert "is not measured" in said(panel, "monitor") and "✖" in panel.blocks[0].children[0].description
    assert "does not fit" in panel.total
    control(panel, "keep").value = "last"  # a cure is taken although the other stage does not fit
    assert panel.plan.stages[1].keep == "last" and not said(panel, "monitor")
    panel.select(0)
    assert "is not there" in said(panel, "train")
    control(panel, "epochs").value = 3  # so is what has nothing to do with it
    assert panel.plan.stages[0].epochs == 3
    control(panel, "train").value = "head"
    assert not said(panel, "train") and "does not fit" not in panel.total


def test_a_plan_is_edited_while_something_trains(learn):
    panel, go = PlanPanel(learn, TWO), threading.Event()
    job = Job(learn, "test", lambda job: go.wait(20)).start()
    try:
        control(panel, "epochs").value = 6
    finally:
        go.set()
        job.wait(20)
    assert panel.plan.stages[0].epochs == 6 and not panel.say_box.value


def test_an_error_of_a_follower_is_shown(learn):
    panel = PlanPanel(learn, TWO)
    panel.on_change.append(lambda p: 1 / 0)
    control(panel, "epochs").value = 6
    assert "ZeroDivisionError" in panel.say_box.value and panel.plan.stages[0].epochs == 6


def test_a_network_of_one_group():
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from torch import nn

    base = noisy_learner()
    learn = Learner(base.dls, nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), nn.CrossEntropyLoss())
    assert isinstance(base.dls, DataLoaders)
    panel = PlanPanel(learn, Plan((Stage("a", "all", 1),)))
    assert panel.preset.value == ""
    assert panel.total.startswith("1 epoch in 1 stage") and "579 (100%)" in panel.total
    panel.preset.value = "gradual"
    panel.use.click()
    assert panel.plan == Plan.gradual() and not panel.say_box.value


def test_names_are_text_not_html(learn):
    panel = PlanPanel(learn, Plan((Stage("<b onclick=x>a</b>"),)))
    for o in descendants(panel):
        if isinstance(o, w.HTML):
            assert "<b onclick" not in o.value
    panel.enter("lr", "<i>x</i>")
    assert "<i>x" not in (v := panel.rows["lr"][2].value) and "&lt;i&gt;x" in v


def test_controls_have_names(learn):
    panel = PlanPanel(learn, Plan.surgical(["stem"]))
    panel.more.value = panel.yaml.button.value = True
    for o in descendants(panel):
        if isinstance(o, (w.Button, w.ToggleButton)):
            assert o.description and o.tooltip, o
        elif isinstance(o, w.ValueWidget) and not isinstance(o, (w.HTML, w.Textarea)):
            assert o.description and o.tooltip, o
        elif isinstance(o, w.Textarea):
            assert o.tooltip


@pytest.mark.medium
def test_it_is_quick_and_light(small_dls):
    from fastai_tl.models.transfer_learner import transfer_learner

    learn = transfer_learner(small_dls, "resnet50", pretrained=False)
    PlanPanel(learn).close()
    panel, n = widgets_made(lambda: PlanPanel(learn))
    assert n < 220
    sent, send = [], w.Widget.send_state
    try:
        w.Widget.send_state = lambda self, key=None: (sent.append((self, key)), send(self, key))[1]
        panel.refresh()
        assert not sent  # nothing changed, so nothing is sent
        control(panel, "epochs").value = 6
        assert len(sent) < 20
    finally:
        w.Widget.send_state = send


@pytest.mark.medium
def test_close_frees_everything(learn):
    from ipywidgets.widgets.widget import _instances

    live = lambda: dict(_instances)
    before = {o.model_id: type(o) for o in live().values()}
    panel = PlanPanel(learn, Plan.gradual())
    panel.more.value = panel.yaml.button.value = True
    panel.buttons["add"].click()
    panel.buttons["remove"].click()
    panel.preset.value = "surgical"
    panel.preset.value = "fine_tune"
    panel.more.value = panel.yaml.button.value = False
    panel.on_change.append(print)
    ref = weakref.ref(panel)
    panel.close()
    panel.close()
    after = {o.model_id: type(o) for o in live().values()}
    left = [after[k] for k in after.keys() - before.keys()]
    assert not left, left
    del panel
    gc.collect()
    assert ref() is None
