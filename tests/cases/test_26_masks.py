"""Masks: transfer_learner says what to use; on fastai's U-Net groups have names, plans run, the cache stays out"""

import numpy as np
import pytest
import torch
from fastai.data.core import DataLoaders
from fastai.metrics import DiceMulti
from fastai.vision.data import SegmentationDataLoaders
from fastai.vision.learner import unet_learner
from PIL import Image
from torchvision.models import resnet18, vgg11_bn

from fastai_tl.cache.callback import frozen_cache
from fastai_tl.cache.split_point import NoCache
from fastai_tl.core.errors import InputError
from fastai_tl.diagnosis.doctor import diagnose
from fastai_tl.freezing.freeze import freeze_to, set_bn, set_frozen, unfreeze
from fastai_tl.freezing.layer_groups import GroupError, layer_groups, name_groups
from fastai_tl.freezing.layer_table import layer_table
from fastai_tl.models.transfer_learner import transfer_learner
from fastai_tl.training.lr_finder import find_lr
from fastai_tl.training.plan import Plan
from fastai_tl.training.run_plan import run_plan
from helpers import QUIET, moved, tensors

pytestmark = [
    pytest.mark.medium,
    pytest.mark.filterwarnings("ignore:.*images are not normalised.*:fastai_tl.core.errors.KitWarning"),
]
STAGES = ["encoder.stem", *(f"encoder.stage{i}" for i in range(1, 5))]


@pytest.fixture(scope="module")
def dls(tmp_path_factory):
    folder = tmp_path_factory.mktemp("masks")
    for d in ("images", "masks"):
        (folder / d).mkdir()
    for i in range(8):
        a = np.random.default_rng(i).integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(a).save(folder / "images" / f"{i}.png")
        Image.fromarray((a[..., 0] > 128).astype(np.uint8)).save(folder / "masks" / f"{i}.png")
    return SegmentationDataLoaders.from_label_func(
        folder,
        sorted((folder / "images").iterdir()),
        lambda f: folder / "masks" / f.name,
        codes=["no", "yes"],
        bs=3,
        num_workers=0,
        seed=0,
    )


@pytest.fixture
def unet(dls):
    torch.manual_seed(0)
    learn = unet_learner(dls, resnet18, pretrained=False, metrics=DiceMulti())
    name_groups(learn)
    return learn


def test_transfer_learner_says_what_masks_need(dls):
    with pytest.raises(InputError, match="The targets are masks.*unet_learner.*name_groups"):
        transfer_learner(dls, "resnet_mini")
    items = [(torch.rand(3, 16, 16), torch.zeros(16, 16, dtype=torch.long)) for _ in range(4)]
    plain = DataLoaders.from_dsets(items, items, bs=2, num_workers=0, device="cpu")
    with pytest.raises(InputError, match="The targets are masks"):
        transfer_learner(plain, "resnet_mini", n_out=2)


@pytest.mark.parametrize("arch", [resnet18, vgg11_bn])
def test_encoder_stages_and_decoder_have_names(dls, arch):
    learn = unet_learner(dls, arch, pretrained=False)
    freeze_to(learn, "decoder")  # before there are names for the stages
    assert list(layer_groups(learn)) == ["encoder.part1", "encoder.part2", "decoder"]
    assert list(name_groups(learn).names) == [*STAGES, "decoder"]


def test_freezing_goes_by_these_names(unet):
    for where, first in (("head", 5), ("decoder", 5), ("encoder.stage3", 3), ("encoder", 0), (-1, 5)):
        freeze_to(unet, where)
        free = layer_table(unet).query("frozen == 'no'").group.unique()
        assert list(free) == [*STAGES, "decoder"][first:], where
    with pytest.raises(GroupError, match="'encoder.stage1'.*'decoder'"):
        freeze_to(unet, "neck")


def test_a_plan_runs_and_moves_what_it_says(unet):
    freeze_to(unet, "decoder")
    find_lr(unet, num_it=4, on_progress=QUIET)
    before = tensors(unet.model)
    history = run_plan(unet, Plan.head_only(2, lr=1e-3), on_progress=QUIET)
    assert history.stages[0].cache.startswith("not cached")
    changed = moved(before, unet.model)
    assert changed and not [n for n in changed if n.startswith("layers.0.")]
    assert diagnose(unet).stops == ()


def test_the_cache_stays_away_from_the_hooks(unet):
    unfreeze(unet)
    set_frozen(unet, [f"layers.{i}" for i in (0, 1, 3, 4, 5, 6, 7, 8, 11)])  # the last convolution trains
    set_bn(unet, "frozen")
    with pytest.raises(NoCache, match="has a hook"):
        with frozen_cache(unet):
            pass
