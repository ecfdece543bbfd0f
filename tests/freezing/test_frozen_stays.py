"""A frozen tensor never moves, on every backbone of the first part of the zoo; every line has its counterpart in
plain fastai, which moves some.
"""

import copy
import pickle

import pytest
import torch
from helpers import QUIET, moved, tensors
from fastai.optimizer import OptimWrapper

from fastai_tl.freezing.batchnorm import batch_norms
from fastai_tl.freezing.fingerprint import FrozenMoved, check_frozen, fingerprint, frozen_names
from fastai_tl.freezing.freeze import freeze_to, unfreeze
from fastai_tl.freezing.layer_groups import GroupError, layer_groups
from fastai_tl.training.plan import Plan
from fastai_tl.training.stage import Stage
from fastai_tl.core.progress import quiet
from fastai_tl.training.run_plan import run_plan
from fastai_tl.models.transfer_learner import transfer_learner

ARCHS = ["tf_efficientnet_lite0", "resnet18", "vgg16_bn", "vgg16", "mobilenet_v2", "mobilenet_v3_small"]


def make(dls, arch="mobilenet_v3_small", **kw):
    return transfer_learner(dls, arch, pretrained=arch == "tf_efficientnet_lite0", **kw)


@pytest.mark.medium
@pytest.mark.parametrize("arch", [pytest.param(a, marks=pytest.mark.zoo) if a == "vgg16" else a for a in ARCHS])
def test_frozen_stage_moves_no_body_tensor_and_every_head_tensor(small_dls, arch):
    learn = make(small_dls, arch)
    assert len(layer_groups(learn)) >= 4 and list(layer_groups(learn))[-1] == "head"

    def frozen_stage():
        before = tensors(learn.model)
        run_plan(learn, Plan.head_only(1, lr=1e-2), on_progress=QUIET)
        names = moved(before, learn.model)
        assert [k for k in names if k.startswith("body.")] == []
        assert set(names) == {k for k in before if k.startswith("head.")}

    frozen_stage()
    before = tensors(learn.model)
    # momentum and gradients for every parameter
    run_plan(learn, Plan((Stage("all", "all", 1, 1e-3),)), on_progress=QUIET)
    assert set(moved(before, learn.model)) == set(before), "the unfrozen stage trains everything"
    frozen_stage()


@pytest.mark.medium
@pytest.mark.parametrize("where", ["layer3", 3, -3])
def test_freeze_to_a_middle_group(small_dls, where):
    learn = make(small_dls, "resnet18")
    freeze_to(learn, where)
    before = tensors(learn.model)
    with quiet(learn):
        learn.fit_one_cycle(1, 1e-2)
    names = moved(before, learn.model)
    trains = ("body.layer3", "body.layer4", "head")
    assert set(names) == {k for k in before if k.startswith(trains)}
    assert learn.opt.frozen_idx == 3


@pytest.mark.medium
@pytest.mark.parametrize("policy", ["train", "affine", "frozen"])
def test_batch_norm_policy(small_dls, policy):
    learn = make(small_dls, "resnet18", bn=policy)
    before = tensors(learn.model)
    with quiet(learn):
        learn.fit(1, 1e-2)
    names = {k for k in moved(before, learn.model) if k.startswith("body.")}
    stats = {
        f"body.{n}.{b}"
        for n, m in batch_norms(learn.model[0]).items()
        for b in ("running_mean", "running_var", "num_batches_tracked")
    }
    affine = {f"body.{n}.{p}" for n, m in batch_norms(learn.model[0]).items() for p in ("weight", "bias")}
    assert names == {"train": stats | affine, "affine": affine, "frozen": set()}[policy]


@pytest.mark.medium
@pytest.mark.parametrize("change", ["deepcopy", "pickle", "new optimizer", "torch optimizer", "save and load"])
def test_freezing_survives(small_dls, change, tmp_path):
    kw = dict(opt_func=lambda ps, **k: OptimWrapper(ps, torch.optim.AdamW, **k)) if change == "torch optimizer" else {}
    learn = make(small_dls, path=tmp_path, **kw)
    if change == "deepcopy":
        learn = copy.deepcopy(learn)
    if change == "pickle":
        learn.export("l.pkl")
        model = pickle.loads(pickle.dumps(learn.model))
        model.train()
        model(torch.randn(2, 3, 64, 64))
        assert not any(m.training for m in batch_norms(model[0]).values())
    if change == "new optimizer":
        learn.create_opt()
    if change == "save and load":
        learn.save("m")
        learn.load("m")
    before = tensors(learn.model)
    with quiet(learn):
        learn.fit(1, 1e-2)
    assert {k.split(".")[0] for k in moved(before, learn.model)} == {"head"}


@pytest.mark.medium
def test_fastais_own_calls_work_and_are_seen(small_dls):
    learn = make(small_dls, "resnet18")
    learn.unfreeze()
    assert not frozen_names(learn)
    before = tensors(learn.model)
    with quiet(learn):
        learn.fit(1, 1e-3)
    assert set(moved(before, learn.model)) == set(before)
    learn.freeze()
    before = tensors(learn.model)
    with quiet(learn):
        learn.fit(1, 1e-3)
    assert {k.split(".")[0] for k in moved(before, learn.model)} == {"head"}


def test_guard_reports_a_tensor_that_moves(small_dls):
    learn = make(small_dls, "resnet18")
    before = fingerprint(learn)
    with torch.no_grad():
        learn.model[0].layer1[0].conv1.weight[0, 0, 0, 0] += 1e-3
    with pytest.raises(FrozenMoved) as e:
        check_frozen(learn, before)
    assert e.value.moved == ["body.layer1.0.conv1.weight"]


def test_bad_groups_change_nothing(small_dls):
    learn = make(small_dls, "resnet18")
    flags, idx = [p.requires_grad for p in learn.model.parameters()], learn.opt.frozen_idx
    for bad in ("layer9", 6, -100, None):
        with pytest.raises(GroupError, match="layer4"):
            freeze_to(learn, bad)
    assert [p.requires_grad for p in learn.model.parameters()] == flags and learn.opt.frozen_idx == idx


def test_one_group_learner_says_how_to_name_groups(small_dls):
    from fastai.learner import Learner
    from fastai.losses import CrossEntropyLossFlat
    from torch import nn

    learn = Learner(small_dls, nn.Sequential(nn.Flatten(), nn.Linear(64 * 64 * 3, 8)), CrossEntropyLossFlat())
    with pytest.raises(GroupError, match="name_groups"):
        freeze_to(learn, "head")
    assert all(p.requires_grad for p in learn.model.parameters())


def test_unfreeze_releases_everything(small_dls):
    learn = make(small_dls, "resnet18")
    unfreeze(learn)
    assert all(p.requires_grad for p in learn.model.parameters()) and learn.opt.frozen_idx == 0
