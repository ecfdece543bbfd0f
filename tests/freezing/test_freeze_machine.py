"""Random sequences of freezing, training, saving and loading: table, requires_grad, optimizer and tensors always
agree.
"""

import tempfile
from collections import OrderedDict

import fastai.callback.schedule  # noqa: F401
import pytest
import torch
from helpers import moved, tensors
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from torch import nn
from torch.utils.data import TensorDataset

from fastai_tl.freezing.batchnorm import batch_norms, hook_of
from fastai_tl.core.errors import InputError
from fastai_tl.freezing.freeze import freeze_to, set_frozen, unfreeze
from fastai_tl.freezing.fingerprint import frozen_names
from fastai_tl.freezing.layer_table import layer_table
from fastai_tl.freezing.layer_groups import GroupSpec, layer_groups, pinned
from fastai_tl.freezing.guard import FreezeGuard
from fastai_tl.core.progress import quiet

GROUPS = ("stem", "middle", "head")
PATTERNS = ["stem", "middle", "head", "stem.conv", "*.bn", "middle.*.weight", "head.2", "stem.bn.weight"]


def learner():
    torch.manual_seed(0)

    def block(i, o):
        return nn.Sequential(OrderedDict(conv=nn.Conv2d(i, o, 3, padding=1), bn=nn.BatchNorm2d(o), relu=nn.ReLU()))

    net = nn.Sequential(
        OrderedDict(
            stem=block(3, 4),
            middle=block(4, 6),
            head=nn.Sequential(
                nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4), nn.LayerNorm(4), nn.Linear(4, 2)
            ),
        )
    )
    ds = TensorDataset(torch.randn(12, 3, 8, 8), torch.arange(12) % 2)
    dls = DataLoaders.from_dsets(ds, ds, bs=6, num_workers=0, device="cpu")
    return Learner(
        dls,
        net,
        CrossEntropyLossFlat(),
        splitter=GroupSpec(tuple((g, (g,)) for g in GROUPS)),
        cbs=FreezeGuard(),
        path=tempfile.mkdtemp(),
    )


class Freezing(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.learn, self.saved = learner(), False
        self.frozen = set()  # names of parameters that must not move

    def names(self):
        return {n for n, _ in self.learn.model.named_parameters()}

    @rule(where=st.sampled_from([*GROUPS, 0, 1, 2, -1]), bn=st.sampled_from([None, "frozen"]))
    def freeze_to(self, where, bn):
        freeze_to(self.learn, where, bn=bn)
        i = GROUPS.index(where) if isinstance(where, str) else where % 3
        self.frozen = {n for n in self.names() if n.split(".")[0] in GROUPS[:i]} | (self.frozen & pinned(self.learn))

    @rule()
    def unfreeze(self):
        unfreeze(self.learn)
        self.frozen = self.frozen & pinned(self.learn)

    @rule(pattern=st.sampled_from(PATTERNS), frozen=st.booleans(), pin=st.booleans())
    def set_frozen(self, pattern, frozen, pin):
        before = [p.requires_grad for p in self.learn.model.parameters()]
        try:
            names = set_frozen(self.learn, pattern, frozen, pin=pin and frozen)
        except InputError as e:  # it would have frozen everything
            assert "everything" in str(e) and before == [p.requires_grad for p in self.learn.model.parameters()]
            return
        self.frozen = self.frozen | set(names) if frozen else self.frozen - set(names)

    @rule(bad=st.sampled_from(["layer9", 3, -4, None]))
    def bad_group(self, bad):
        before = [p.requires_grad for p in self.learn.model.parameters()], self.learn.opt, self.learn.splitter
        try:
            freeze_to(self.learn, bad)
        except InputError as e:
            assert "stem" in str(e)
        else:
            raise AssertionError(bad)
        assert before == ([p.requires_grad for p in self.learn.model.parameters()], self.learn.opt, self.learn.splitter)

    @rule(one_cycle=st.booleans())
    def fit(self, one_cycle):
        before, still = tensors(self.learn.model), set(frozen_names(self.learn))
        with quiet(self.learn):
            (self.learn.fit_one_cycle if one_cycle else self.learn.fit)(1, 1e-2)
        changed = set(moved(before, self.learn.model))
        assert self.frozen <= still and not changed & still
        assert set(before) - still == changed, "what is not frozen trains"

    @rule()
    def save(self):
        self.learn.save("m")
        self.saved = True

    @rule()
    def load(self):
        if self.saved:
            self.learn.load("m", with_opt=False)

    @rule()
    def new_optimizer(self):
        self.learn.create_opt()

    @invariant()
    def agree(self):
        learn, ps = self.learn, dict(self.learn.model.named_parameters())
        assert {n for n, p in ps.items() if not p.requires_grad} == self.frozen
        assert set(layer_groups(learn)) == set(GROUPS)
        table = layer_table(learn)
        for r in table.itertuples():
            own = [p.requires_grad for p in learn.model.get_submodule(r.layer).parameters(recurse=False)]
            assert r.frozen in ({"no"} if all(own) else {"yes", "pinned"} if not any(own) else {"partly"}), (
                r.layer,
                r.frozen,
                own,
            )
        for path, m in batch_norms(learn.model).items():
            if h := hook_of(m):
                assert h.holds(m) == (f"{path}.running_mean" in frozen_names(learn))
        if learn.opt is not None:
            listed = [id(p) for ps in learn.opt.param_lists for p in ps]
            assert len(listed) == len(set(listed))
            trains = {id(p) for p in ps.values() if p.requires_grad}
            assert trains <= set(listed), "whatever trains is in the optimizer"
            assert not pinned(learn) & {n for n, p in ps.items() if id(p) in set(listed)}, "what is pinned is not"
        assert not any(p.grad is not None for p in ps.values() if not p.requires_grad), "no stale gradients"
        assert not table.note


@pytest.mark.medium
class TestFreezing(Freezing.TestCase):
    settings = settings(max_examples=12, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.properties
class TestFreezingLong(Freezing.TestCase):
    settings = settings(max_examples=60, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck))
