"""What cannot be meant: an error of the kit's that says what exists, and a Learner that is as it was."""

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from helpers import everything, same
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import TensorDataset
from torchvision import models as tvm

from fastai_tl.core.errors import InputError, KitError
from fastai_tl.freezing.fingerprint import check_frozen, fingerprint
from fastai_tl.freezing.freeze import freeze_to, set_frozen
from fastai_tl.freezing.layer_table import layer_table
from fastai_tl.freezing.layer_groups import GroupError, GroupSpec, name_groups
from fastai_tl.freezing.guard import FreezeGuard
from fastai_tl.core.progress import quiet
from fastai_tl.freezing.learning_rates import set_lrs
from fastai_tl.models.pretrained_weights import WeightsError, load_all, read_state
from fastai_tl.models.transfer_learner import load_backbone, transfer_learner


def block(i, o):
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(i, o, 3, padding=1), bn=nn.BatchNorm2d(o), relu=nn.ReLU()))


def dls(shape=(3, 8, 8)):
    train, valid = (TensorDataset(torch.randn(16, *shape), torch.arange(16) % 2) for _ in range(2))
    out = DataLoaders.from_dsets(train, valid, bs=8, num_workers=0, device="cpu")
    out.c = 2
    return out


@pytest.fixture
def learn():
    "Trained a little, frozen to its middle"
    net = nn.Sequential(
        OrderedDict(
            stem=block(3, 4),
            middle=block(4, 8),
            head=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)),
        )
    )
    out = Learner(dls(), net, CrossEntropyLossFlat(), splitter=GroupSpec.of(net), path=".", cbs=FreezeGuard())
    freeze_to(out, "middle")
    with quiet(out):
        out.fit(1, 1e-3)
    return out


CASES = {
    "no pattern": (lambda o: set_frozen(o, []), "There is no pattern.*stem, middle, head"),
    "empty pattern": (lambda o: set_frozen(o, ""), "stem, middle, head"),
    "None": (lambda o: set_frozen(o, None), "stem, middle, head"),
    "nothing matches": (lambda o: set_frozen(o, "layer9*"), "No layer matches 'layer9.*stem, middle, head"),
    "one of two does not match": (lambda o: set_frozen(o, ["stem", "midle"]), "'middle' or"),
    "nothing to release": (lambda o: set_frozen(o, "layer9*", False), "No layer matches"),
    "all that is left": (lambda o: set_frozen(o, ["middle", "head"]), "freeze everything"),
    "pin all": (lambda o: set_frozen(o, "*", pin=True), "freeze everything"),
    "unknown group": (lambda o: freeze_to(o, "steem"), "'stem'.*0 'stem', 1 'middle', 2 'head'"),
    "out of range": (lambda o: freeze_to(o, 3), "0 'stem', 1 'middle', 2 'head'.*-3 to 2"),
    "batch-norm policy": (lambda o: freeze_to(o, "head", bn="off"), "train, affine, frozen"),
    "groups in another order": (
        lambda o: name_groups(o, dict(middle="middle", stem="stem", head="head")),
        "in the order stem, middle, head",
    ),
    "head not last": (lambda o: name_groups(o, dict(head="stem", rest=["middle", "head"])), "'head' is the last group"),
    "two groups of one name": (
        lambda o: name_groups(o, GroupSpec((("a", ("stem",)), ("a", ("middle",)), ("head", ("head",))))),
        "'a'.*name of its own",
    ),
    "no groups": (lambda o: name_groups(o, {}), "stem"),
    "rates": (lambda o: set_lrs(o, [1e-3, 1e-2]), "2 rates for 3 groups.*stem, middle, head"),
    "another model's fingerprint": (
        lambda o: check_frozen(o, {"conv1.weight": "0"}),
        "another model.*stem.conv.weight",
    ),
    "tensor missing": (
        lambda o: load_all(o.model, {k: v for k, v in o.model.state_dict().items() if k != "stem.bn.bias"}),
        r"1 missing \(stem.bn.bias\)",
    ),
    "tensor of another shape": (
        lambda o: load_all(o.model, o.model.state_dict() | {"head.2.bias": torch.zeros(3)}),
        r"head.2.bias \(3,\) for \(2,\)",
    ),
    "tensor too many": (
        lambda o: load_all(o.model, o.model.state_dict() | {"more": torch.zeros(3)}),
        r"1 not known to it \(more\)",
    ),
    "no tensors": (lambda o: load_all(o.model, {"model": o.model.state_dict()}), "a dict of model"),
}


@pytest.mark.parametrize("call, says", CASES.values(), ids=CASES.keys())
def test_says_what_exists_and_changes_nothing(learn, call, says):
    before, splitter = everything(learn), learn.splitter
    with pytest.raises(KitError, match=says) as e:
        call(learn)
    same(before, everything(learn))
    assert learn.splitter is splitter and len(e.value.args) == 1


@pytest.mark.parametrize("where", ["head", -1])
def test_what_is_pinned_may_not_be_all_that_would_train(learn, where):
    set_frozen(learn, "head", pin=True)
    before = everything(learn)
    with pytest.raises(InputError, match=r"'head' on is pinned.*set_frozen\(learn, 'head', False\)"):
        freeze_to(learn, where)
    same(before, everything(learn))
    freeze_to(learn, "middle")


@pytest.mark.parametrize("what", ["a path", None, 3])
@pytest.mark.parametrize(
    "call", [layer_table, fingerprint, lambda o: freeze_to(o, "head"), lambda o: set_frozen(o, "head")]
)
def test_neither_a_learner_nor_a_module(what, call):
    with pytest.raises(InputError, match="give a fastai Learner, or a torch module"):
        call(what)


def test_a_group_of_the_body_is_not_called_head():
    with pytest.raises(GroupError, match="new layers"):
        transfer_learner(
            dls((3, 32, 32)),
            "resnet18",
            pretrained=False,
            normalize=False,
            groups={"early": ["stem", "layer1", "layer2"], "head": "layer[34]"},
        )


class RunsCode:
    def __reduce__(self):
        return Path.touch, (Path("it_ran"),)


@pytest.mark.parametrize("arch", ["resnet18", "timm/resnet18"])
@pytest.mark.parametrize(
    "name, made, says",
    [
        ("code.pth", lambda f: torch.save({"conv1.weight": RunsCode()}, f), "code would run"),
        ("junk.pth", lambda f: f.write_bytes(b"hello"), "cannot be read as weights"),
        ("empty.pth", lambda f: f.touch(), "cannot be read as weights"),
        ("junk.safetensors", lambda f: f.write_bytes(b"hello"), "cannot be read as weights"),
        ("list.pth", lambda f: torch.save([1, 2], f), "list"),
        ("other.safetensors", lambda f: save_file(tvm.resnet34().state_dict(), f), "layer1.2"),
    ],
)
def test_a_file_that_holds_no_such_weights(arch, name, made, says):
    file = Path(name)
    made(file)
    with pytest.raises(WeightsError, match=says) as e:
        load_backbone(arch, weights=file)
    assert not Path("it_ran").exists() and "weights_only" not in str(e.value)


def test_a_state_dict_is_taken_out_of_a_whole_checkpoint():
    state = tvm.resnet18().state_dict()
    torch.save(dict(model=state, opt=None), "learner.pth")
    assert read_state(Path("learner.pth")).keys() == state.keys()
    torch.save(dict(weights_of_mine=state, opt=None), "learner.pth")
    with pytest.raises(WeightsError, match="a dict of weights_of_mine, opt"):
        read_state(Path("learner.pth"))
