"""The doctor: each fault is found with its cure, a healthy Learner is left alone, and looking changes nothing."""

import re
import warnings
from pathlib import Path

import pytest
import torch
from helpers import everything, same
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from torch import nn
from torch.utils.data import TensorDataset

from fastai_tl.diagnosis import findings
from fastai_tl.diagnosis.findings import CODES, FINDINGS, DoctorError
from fastai_tl.diagnosis.doctor import diagnose
from fastai_tl.core.errors import InputError, KitWarning
from fastai_tl.freezing.freeze import unfreeze
from fastai_tl.training.plan import Plan
from fastai_tl.training.run_plan import run_plan
from fastai_tl.models.transfer_learner import transfer_learner


def codes(x, **kw):
    return {f.code for f in diagnose(x, **kw).findings}


def tensor_dls(n=16, bs=8, size=32, classes=2, drop_last=True):
    side = lambda n: TensorDataset(torch.randn(n, 3, size, size), torch.arange(n) % 2)
    dls = DataLoaders.from_dsets(side(n), side(8), bs=bs, num_workers=0, device="cpu", drop_last=drop_last)
    dls.c = classes
    return dls


def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


def learner(dls=None, model=None):
    return Learner(dls or tensor_dls(), model or net(), CrossEntropyLossFlat(), path=".")


@pytest.mark.medium
def test_a_healthy_learner_gets_no_finding_and_stays_as_it_is(small_dls):
    learn = transfer_learner(small_dls, "mobilenet_v3_small", pretrained=False)
    before = everything(learn)
    d = diagnose(learn)
    assert d.ok and not d.findings and "Healthy" in repr(d) and "Healthy" in d._repr_html_()
    same(before, everything(learn))


def test_no_batches():
    d = diagnose(learner(tensor_dls(n=4, bs=8)))
    assert "no_batches" in {f.code for f in d.stops} and "bs=2" in repr(d)


@pytest.mark.parametrize("fault", ["all_frozen", "one_group", "bn_single", "class_missing", "duplicates", "read_only"])
def test_each_fault_is_found_and_its_absence_is_not(fault):
    assert fault == "one_group" or fault not in codes(learner())
    learn = learner()
    if fault == "all_frozen":
        learn.model.requires_grad_(False)
    if fault == "bn_single":
        learn = learner(tensor_dls(n=9, drop_last=False))
    if fault == "class_missing":
        learn = learner(tensor_dls(classes=3))
    if fault == "duplicates":
        learn.dls.loaders[1].dataset.tensors[0][3] = learn.dls.loaders[0].dataset.tensors[0][5]
    if fault == "read_only":
        Path("models").touch()
    f = next(f for f in diagnose(learn).findings if f.code == fault)
    assert all(len(t) > 15 for t in (f.what, f.harm, f.cure)) and "\n" not in f.what + f.harm + f.cure
    assert fault not in codes(learn, skip=fault)


@pytest.mark.medium
def test_nothing_frozen_and_too_small(small_dls):
    learn = transfer_learner(small_dls, "tf_efficientnet_lite0")
    assert "nothing_frozen" not in codes(learn)
    unfreeze(learn)
    assert "nothing_frozen" in codes(learn)
    with pytest.raises(DoctorError, match="Resize"):
        transfer_learner(tensor_dls(size=24), "vgg11", pretrained=False, normalize=False)


@pytest.mark.medium
def test_normalisation(small_dls):
    assert "no_normalize" in codes(learner(small_dls, net()))
    learn = transfer_learner(small_dls, "mobilenet_v3_small", pretrained=False)
    norm = learn.dls.train.after_batch.fs[-1]
    for dl in learn.dls.loaders:
        dl.after_batch.add(type(norm).from_stats([0.1] * 3, [0.1] * 3, cuda=False))
    assert "double_normalize" in codes(learn)


def test_run_plan_refuses_what_cannot_train_and_warns_once():
    learn = learner(tensor_dls(n=4, bs=8))
    before = {k: v.clone() for k, v in learn.model.state_dict().items()}
    with pytest.raises(DoctorError, match="no batches") as e:
        run_plan(learn, Plan.head_only(1, lr=1e-2))
    assert e.value.findings and all(torch.equal(v, before[k]) for k, v in learn.model.state_dict().items())
    d = diagnose(learner(tensor_dls(classes=3)), skip="one_group")
    sick = learner()
    with pytest.warns(KitWarning, match="no (training|validation) items"):
        d.act(sick)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        d.act(sick)


def test_bad_input():
    with pytest.raises(InputError, match="Learner"):
        diagnose(3)
    with pytest.raises(InputError, match="no_batches"):
        diagnose(learner(), skip="no_batch")
    assert len(set(CODES)) == len(CODES)


def test_half_precision_on_a_cpu_is_told():
    learn = learner()
    assert "half_precision" not in codes(learn)
    for to in (learn.to_fp16, learn.to_bf16):
        to()
        (found,) = [f for f in diagnose(learn).findings if f.code == "half_precision"]
        assert found.severity == "info" and "float32" in found.harm
        learn.to_fp32()
    assert "half_precision" not in codes(learn)


def test_every_finding_says_what_it_needs():
    source = Path(findings.__file__).parent
    used = {c for p in source.glob("*.py") for c in re.findall(r'Finding\(\s*"(\w+)"', p.read_text())}
    assert used == set(FINDINGS) and all(len(v) == 2 and all(v) for v in FINDINGS.values())
