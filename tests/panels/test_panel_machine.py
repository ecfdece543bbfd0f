"""Random events over FreezePanel, PlanPanel and direct calls: after each, panel and Learner agree, and the panel's
Python leads to the same Learner.
"""

import pytest
from helpers import noisy_learner
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from IPython.core.interactiveshell import InteractiveShell

from fastai_tl.all import *  # noqa: F403 (what `.code` uses)
from fastai_tl.all import Plan, layer_groups
from fastai_tl.freezing.batchnorm import bn_policy
from fastai_tl.freezing.freeze_state import read_layers
from fastai_tl.freezing.layer_groups import pinned
from fastai_tl.panels.freeze import FreezePanel
from fastai_tl.panels.plan import PlanPanel
from fastai_tl.freezing.learning_rates import next_lrs
from fastai_tl.training.draft_plan import draft_of
from fastai_tl.training.stage import FIELDS

GROUPS = st.integers(0, 2)
RATES = st.sampled_from([1e-5, 3e-4, 1e-3, 0.02, -1.0, 0.0, float("inf")])
COUNT = dict(events=0)


def facts(learn):
    return (
        {n: p.requires_grad for n, p in learn.model.named_parameters()},
        {o.path: o.stats for o in read_layers(learn)},
        {g: round(v, 12) for g, v in next_lrs(learn).items()},
        pinned(learn),
    )


class Panels(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.shell = InteractiveShell.instance()  # the one that panels find when they are made
        self.learn = noisy_learner(n=16, bs=8)
        self.freezer, self.planner = FreezePanel(self.learn), PlanPanel(self.learn)
        self.shell.user_ns.update(learn=self.learn)
        exec("from fastai_tl.all import *", self.shell.user_ns)

    def teardown(self):
        self.freezer.close()
        self.planner.close()

    def cell(self, code):
        "Run a cell, as a person does; what it raises is theirs to see"
        COUNT["events"] += 1
        self.shell.run_cell(f"try: {code}\nexcept ValueError: pass\nexcept RuntimeError: pass", store_history=False)

    def click(self, do):
        COUNT["events"] += 1
        before = facts(self.learn)
        self.freezer.say("")
        do()
        if "ftl-error" in self.freezer.say_box.value:
            assert facts(self.learn) == before  # refused, and nothing has changed

    def told(self, **what):
        self.click(lambda: self.freezer._told(self.freezer.map, what, []))

    def group(self, i):
        return list(layer_groups(self.learn))[i]

    @rule(i=GROUPS, on=st.booleans())
    def click_group(self, i, on):
        self.told(do="paint", groups=[self.group(i)], frozen=on)

    @rule(i=GROUPS, j=GROUPS, on=st.booleans())
    def drag(self, i, j, on):
        self.told(do="paint", groups=list(layer_groups(self.learn))[min(i, j) : max(i, j) + 1], frozen=on)

    @rule(i=GROUPS, on=st.booleans())
    def boundary(self, i, on):
        self.told(do="boundary", group=self.group(i), frozen=on)

    @rule(i=GROUPS, j=st.integers(0, 1), on=st.booleans())
    def click_layer(self, i, j, on):
        self.freezer.select(self.group(i), True)
        if j < len(self.freezer.map.layers):
            self.told(do="layer", path=self.freezer.map.layers[j]["path"], frozen=on)

    @rule(i=GROUPS)
    def fold(self, i):
        self.told(do="open", group=self.group(i))
        self.told(do="fold")

    @rule(which=st.sampled_from(["Head only", "Last block", "All"]))
    def preset(self, which):
        self.click(self.freezer.presets[which].click)

    @rule(word=st.sampled_from(["train", "affine", "frozen"]))
    def policy(self, word):
        self.click(lambda: setattr(self.freezer.policy, "value", word))

    @rule(i=GROUPS, v=RATES)
    def rate(self, i, v):
        self.told(do="rate", group=self.group(i), value=str(v))

    @rule(lo=st.floats(-7, 0), hi=st.floats(-7, 0))
    def spread(self, lo, hi):
        self.click(lambda: setattr(self.freezer.low, "value", 10**lo))
        self.click(lambda: setattr(self.freezer.high, "value", 10**hi))

    @rule(
        code=st.sampled_from(
            [
                "learn.freeze()",
                "learn.unfreeze()",
                "learn.freeze_to(1)",
                "learn.freeze_to(-2)",
                "freeze_to(learn, 'head')",
                "freeze_to(learn, 1, bn='affine')",
                "unfreeze(learn)",
                "set_frozen(learn, '1')",
                "set_frozen(learn, '0.1', False)",
                "set_frozen(learn, '*.bias')",
                "set_frozen(learn, '2.3.bias', pin=True)",
                "set_frozen(learn, '2.3.bias', False)",
                "set_lrs(learn, 1e-4)",
                "set_lrs(learn, {'head': .5})",
                "set_bn(learn, 'train')",
                "hold_stats(learn)",
                "hold_stats(learn, False)",
                "learn.create_opt()",
                "set_frozen(learn, 'nothing')",
                "learn.model.eval()",
                "learn.model.train()",
            ]
        )
    )
    def call(self, code):
        self.cell(code)

    @rule(name=st.sampled_from(["head_only", "fine_tune", "gradual", "lp_ft", "layer_decay"]))
    def plan_preset(self, name):
        COUNT["events"] += 1
        self.planner.plan = getattr(Plan, name)()

    @rule(what=st.sampled_from(["add", "duplicate", "remove", "undo"]))
    def plan_stages(self, what):
        COUNT["events"] += 1
        if what != "duplicate" or len(self.planner.plan.stages) < 8:
            self.planner.act(getattr(self.planner, what))

    @rule(by=st.sampled_from([-1, 1]))
    def plan_move(self, by):
        COUNT["events"] += 1
        self.planner.act(lambda: self.planner.move(by))

    @rule(
        field_value=st.sampled_from(
            [
                ("epochs", 3),
                ("epochs", 0),
                ("lr", "find"),
                ("lr", "-3"),
                ("lr", "1e-3"),
                ("name", "a"),
                ("name", ""),
                ("schedule", "constant"),
                ("train", "all"),
                ("train", "nowhere"),
                ("keep", "best"),
                ("patience", "1"),
            ]
        )
    )
    def plan_enter(self, field_value):
        COUNT["events"] += 1
        self.planner.act(lambda: self.planner.enter(*field_value))

    @invariant()
    def panel_shows_the_learner(self):
        groups, lrs = layer_groups(self.learn), next_lrs(self.learn)
        pins = pinned(self.learn)
        names = {id(p): n for n, p in self.learn.model.named_parameters()}
        blocks = {b["name"]: b for b in self.freezer.map.groups}
        assert list(blocks) == list(groups)
        for g, block in blocks.items():
            live = [
                p.requires_grad
                for p in self.learn.model.parameters()
                if names[id(p)].startswith(g if g != "head" else "2")
            ] or [False]
            assert (block["state"] in ("frozen", "drifts", "none")) == (not any(live)), g
            assert float(block["rate"]) == pytest.approx(lrs[g], rel=6e-2)
        for row in self.freezer.map.layers:
            own = list(self.learn.model.get_submodule(row["path"]).parameters(recurse=False))
            assert (row["state"] in ("frozen", "drifts")) == (bool(own) and not any(p.requires_grad for p in own))
        assert self.freezer.policy.value == bn_policy(self.learn)
        assert self.freezer.high.value == pytest.approx(
            list(lrs.values())[-1]
        ) and self.freezer.low.value == pytest.approx(next(iter(lrs.values())))
        live = sum(p.numel() for p in self.learn.model.parameters() if p.requires_grad)
        assert f"<b>{live}</b> of" in self.freezer.summary.value
        assert pins == pinned(self.learn)

    @invariant()
    def code_leads_to_the_learner(self):
        fresh = noisy_learner(n=16, bs=8)
        space = {"learn": fresh}
        exec("from fastai_tl.all import *\n" + self.freezer.code, space)
        mine, theirs = facts(self.learn), facts(fresh)
        assert theirs[0] == mine[0] and theirs[2] == mine[2] and theirs[3] == mine[3], self.freezer.code
        if bn_policy(self.learn):
            assert theirs[1] == mine[1], self.freezer.code

    @invariant()
    def plan_is_valid_and_its_code_gives_it(self):
        plan = self.planner.plan
        assert plan == draft_of(self.learn).plan
        for s in plan.stages:
            for f, spec in FIELDS.items():
                assert spec.check(getattr(s, f))
        space = {}
        exec("from fastai_tl.all import *\n" + self.planner.code, space)
        assert space["plan"] == plan


def steps(examples, count):
    # shrinking takes longer than reading the trace
    return settings(
        max_examples=examples,
        stateful_step_count=count,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
    )


@pytest.mark.medium
class TestPanels(Panels.TestCase):
    settings = steps(8, 25)


@pytest.mark.properties
class TestPanelsLong(Panels.TestCase):
    settings = steps(55, 40)

    @classmethod
    def tearDownClass(cls):
        print(f"{COUNT['events']} events")
