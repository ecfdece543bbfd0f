"""The mini nets: what is shipped is small, true to its family, described, and loads whole; and timm's weights from a
file are checked tensor by tensor.
"""

import json
import re

import pytest
import torch
from helpers import moved, tensors
from safetensors.torch import load_file, save_file
from torch import nn

from fastai_tl.models.mini_nets import MINI_MEAN, MINI_STD, MINIS, InvertedResidual, ResidualBlock, mini_file, mini_net
from fastai_tl.core.progress import quiet
from fastai_tl.datasets.samples import sample_dls
from fastai_tl.models.pretrained_weights import WeightsError
from fastai_tl.models.transfer_learner import backbones, load_backbone, transfer_learner


@pytest.mark.parametrize("name", MINIS)
def test_shipped_weights(name):
    file = mini_file(name)
    assert file.stat().st_size <= 1.5e6
    net = mini_net(name)
    net.load_state_dict(load_file(file), strict=True)
    facts = json.loads(file.with_suffix(".json").read_text())
    card = (file.parent / "README.md").read_text()
    assert re.search(
        rf"`{name}` \| {facts['parameters']:,} .* {facts['seed']} .*\*\*{facts['test_accuracy']:.2%}\*\*", card
    )
    for word in ("Licence", "Fashion-MNIST", "pretrain_minis.py", "dataset-fashion-mnist"):
        assert word in card
    assert facts["test_accuracy"] > 0.85 and sum(p.numel() for p in net.parameters()) == facts["parameters"]


def test_true_to_their_families():
    kinds = {n: [type(m) for m in mini_net(n).modules()] for n in MINIS}
    assert nn.MaxPool2d in kinds["vgg_mini"] and nn.BatchNorm2d not in kinds["vgg_mini"]
    assert kinds["resnet_mini"].count(ResidualBlock) == 4
    assert kinds["mobilenet_mini"].count(InvertedResidual) >= 4
    deep = [m for m in mini_net("mobilenet_mini").modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    assert len(deep) == kinds["mobilenet_mini"].count(InvertedResidual) and all(m.groups == m.in_channels for m in deep)


@pytest.fixture(scope="module")
def offline():
    return backbones(offline=True).name.tolist()


@pytest.mark.accuracy
@pytest.mark.parametrize("name", MINIS)
def test_on_the_digits(name, offline):
    learn = transfer_learner(sample_dls("digits", size=28, bs=16, n_per_class=4, channels=1), name)
    norm = learn.dls.train.after_batch.fs[-1]
    assert norm.mean.flatten().tolist() == pytest.approx(
        list(MINI_MEAN)
    ) and norm.std.flatten().tolist() == pytest.approx(list(MINI_STD))
    torch.testing.assert_close(
        next(learn.model[0].parameters()),
        load_file(mini_file(name))[f"body.{next(learn.model[0].named_parameters())[0]}"],
    )
    before = tensors(learn.model)
    with quiet(learn):
        learn.fit_one_cycle(3, 1e-2)
    assert set(moved(before, learn.model)) == {k for k in before if k.startswith("head.")}
    assert learn.recorder.values[-1][2] > 0.25, "a guess would be right in one of ten"
    assert name in offline


@pytest.mark.medium
def test_timm_weights_from_a_file(tmp_path):
    import timm

    state = {k: v.clone() for k, v in timm.create_model("mobilenetv3_small_050").state_dict().items()}
    save_file(state, tmp_path / "all.safetensors")
    b = load_backbone("mobilenetv3_small_050", weights=tmp_path / "all.safetensors")
    torch.testing.assert_close(b.body.net.conv_stem.weight, state["conv_stem.weight"], rtol=0, atol=0)
    assert b.weights.endswith("all.safetensors")
    save_file({k: v for k, v in state.items() if k != "bn1.bias"}, tmp_path / "fewer.safetensors")
    with pytest.raises(WeightsError, match="bn1.bias"):
        load_backbone("mobilenetv3_small_050", weights=tmp_path / "fewer.safetensors")
    save_file(state | {"conv_stem.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="conv_stem.weight"):
        load_backbone("mobilenetv3_small_050", weights=tmp_path / "other.safetensors")
