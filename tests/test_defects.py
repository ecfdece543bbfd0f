"""Ten common backbones and timm's, as plain fastai builds them and as the kit does; what is wrong with freezing
there is in test_freezing.py.
"""

import pytest
import torch
from fastai.data.transforms import Normalize
from fastai.losses import CrossEntropyLossFlat
from fastai.vision.learner import model_meta, vision_learner
from torchvision import models as tvm

from fastai_tl.freezing.layer_groups import layer_groups
from fastai_tl.models.transfer_learner import transfer_learner

CRASH = ["mobilenet_v2", "vit_b_16", "googlenet", "mnasnet0_5"]
TWO_GROUPS = ["vgg16", "mobilenet_v3_small", "efficientnet_b0", "convnext_tiny"]  # and no normalisation
RIGHT = ["vgg16_bn", "resnet18"]


def plain(dls, arch):
    "fastai's own Learner, with an optimizer"
    learn = vision_learner(dls, arch, pretrained=False, normalize=False, loss_func=CrossEntropyLossFlat())
    learn.create_opt()
    return learn


HEAVY = ["googlenet", "vgg16", "vgg16_bn", "vit_b_16", "convnext_tiny"]
NAMES = [pytest.param(n, marks=[pytest.mark.zoo] if n in HEAVY else []) for n in [*CRASH, *TWO_GROUPS, *RIGHT]]


@pytest.mark.medium
@pytest.mark.parametrize("name", NAMES)
def test_backbone(small_dls, name):
    builder = getattr(tvm, name)
    if name in CRASH:
        with pytest.raises((StopIteration, RuntimeError, ValueError, TypeError, IndexError, AttributeError)):
            plain(small_dls, builder)
    else:
        assert len(plain(small_dls, builder).opt.param_lists) == (2 if name in TWO_GROUPS else 3)
        assert ("stats" in model_meta.get(builder, {})) == (name in RIGHT), "fastai normalises what it lists by hand"
    learn = transfer_learner(small_dls, name, pretrained=False)
    groups = layer_groups(learn)
    assert len(groups) >= 5 and list(groups)[-1] == "head" and len(learn.opt.param_lists) == len(groups)
    assert [p for ps in groups.values() for p in ps if p.requires_grad] == groups["head"]
    want = tvm.get_model_weights(name).DEFAULT.transforms()
    # it scales its input once more by itself, which is cut off
    mean, std = ((0.5,) * 3, (0.5,) * 3) if name == "googlenet" else (want.mean, want.std)
    for dl in learn.dls.loaders:
        (norm,) = (t for t in dl.after_batch.fs if isinstance(t, Normalize))
        torch.testing.assert_close(norm.mean.flatten(), torch.tensor(mean))
        torch.testing.assert_close(norm.std.flatten(), torch.tensor(std))
    with torch.no_grad():
        assert learn.model.eval()(learn.dls.one_batch()[0]).shape == (8, 8)


@pytest.mark.medium
@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050"])
def test_timm(small_dls, name):
    assert len(plain(small_dls, name).opt.param_lists) == 2, "fastai: body and head, whatever the network"
    learn = transfer_learner(small_dls, f"timm/{name}", pretrained=False)
    assert len(layer_groups(learn)) == len(learn.opt.param_lists) >= 5
