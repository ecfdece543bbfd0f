"""A pretrained network given as an object: its scaling is read, or asked for; odd values are noticed"""

import warnings

import numpy as np
import pytest
import timm
import torch
import torchvision.models as tvm
from fastai.data.block import CategoryBlock, DataBlock, TransformBlock
from fastai.data.transforms import IntToFloatTensor, Normalize, RandomSplitter
from fastai.vision.core import TensorImage
from torch import nn

from fastai_tl.core.errors import InputError, KitWarning
from fastai_tl.diagnosis.doctor import diagnose
from fastai_tl.models.transfer_learner import known_stats, transfer_learner
from helpers import few_images

pytestmark = pytest.mark.medium
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def dls():
    return few_images()


def stats(learn):
    (norm,) = (t for t in learn.dls.valid.after_batch.fs if isinstance(t, Normalize))
    return tuple(tuple(round(v, 4) for v in o.flatten().tolist()) for o in (norm.mean, norm.std))


def test_a_network_of_torchvision_is_known_by_its_class(dls):
    learn = transfer_learner(dls, tvm.resnet18())
    assert stats(learn) == IMAGENET
    assert not [f for f in diagnose(learn).findings if "normal" in f.code]


def test_a_network_of_timm_says_it_itself(dls):
    net = timm.create_model("mobilenetv3_small_050", pretrained=False)
    net.pretrained_cfg = net.pretrained_cfg | dict(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    assert stats(transfer_learner(dls, net)) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_networks_with_another_scaling_inside():
    outside = tvm.googlenet(init_weights=False, aux_logits=False, transform_input=True)
    assert np.allclose(known_stats(outside), IMAGENET)
    outside.transform_input = False
    assert known_stats(outside) == ((0.5,) * 3,) * 2
    assert known_stats(nn.Conv2d(3, 4, 1)) is None
    assert known_stats(tvm.resnet18(), 1) == ((sum(IMAGENET[0]) / 3,), (sum(IMAGENET[1]) / 3,))


class Mine(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, x):
        return self.body(x)


def test_a_network_that_is_not_known_is_asked_about(dls):
    with pytest.warns(KitWarning, match=r"not known how pixels were scaled for Mine.*normalize=\(mean, std\)"):
        learn = transfer_learner(dls, Mine())
    assert [f.code for f in diagnose(learn).warnings] == ["no_normalize"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", KitWarning)
        assert stats(transfer_learner(dls, Mine(), normalize=IMAGENET)) == IMAGENET
        transfer_learner(dls, Mine(), normalize=False)  # they say that it takes 0..1


def test_normalize_counts_for_named_networks_and_is_checked(dls):
    learn = transfer_learner(dls, "resnet_mini", normalize=((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)))
    assert stats(learn) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert learn.model.recipe["mean"] == [0.1, 0.2, 0.3] and not diagnose(learn).warnings
    for bad in ((0.5, 0.5), ([0.5] * 3, [0.0] * 3), ([0.5], [0.5]), ([0.5] * 3, [float("nan")] * 3)):
        with pytest.raises(InputError, match="each with 3 numbers"):
            transfer_learner(dls, "resnet_mini", normalize=bad)


def images(change, tfms=()):
    gen = np.random.default_rng(0)
    arrays = [gen.random((3, 32, 32), dtype=np.float32) for _ in range(12)]
    block = DataBlock(
        (TransformBlock(type_tfms=lambda i: TensorImage(torch.tensor(change(arrays[i])))), CategoryBlock),
        get_y=lambda i: "ab"[i % 2],
        splitter=RandomSplitter(0.4, seed=0),
        batch_tfms=list(tfms),
    )
    return block.dataloaders(range(12), bs=4, num_workers=0)


@pytest.mark.parametrize(
    "change, tfms, odd",
    [
        (lambda a: a, (), False),
        (lambda a: (a * 255).astype(np.uint8), (IntToFloatTensor(),), False),
        (lambda a: a * 4095, (), True),
        (lambda a: a * 65535, (), True),
        (lambda a: a * 0.3, (), True),  # reflectances
        (lambda a: np.full_like(a, 1.0), (), True),  # 16 bits cut to 8
        (lambda a: (a * 255).astype(np.uint8), (IntToFloatTensor(255**2),), True),
    ],
    ids=["float", "8 bits", "12 bits", "16 bits", "reflectances", "white", "divided twice"],
)
def test_values_far_from_what_a_network_expects_are_noticed(change, tfms, odd):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", KitWarning)
        learn = transfer_learner(images(change, tfms), "resnet_mini")
    assert [f.code for f in diagnose(learn, skip=("class_missing", "no_export")).warnings] == ["odd_values"] * odd
