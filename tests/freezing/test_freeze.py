"""Frozen holds on any Learner and through everything that trains; where plain fastai's own way moves tensors, the
same lines without the kit show it.
"""

import copy
import pickle
from collections import OrderedDict

import fastai.callback.schedule  # noqa: F401
import pandas as pd
import pytest
import torch
from helpers import moved, tensors
from fastai.callback.core import Callback
from fastai.callback.training import GradientAccumulation
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from torch import nn
from torch.utils.data import TensorDataset

from fastai_tl.core.errors import InputError
from fastai_tl.training.lr_finder import find_lr
from fastai_tl.freezing.fingerprint import check_frozen, fingerprint
from fastai_tl.freezing.freeze import freeze_to, set_frozen, unfreeze
from fastai_tl.freezing.layer_table import layer_table
from fastai_tl.freezing.layer_groups import GroupError, GroupSpec, layer_groups, name_groups, pinned
from fastai_tl.freezing.guard import FreezeGuard
from fastai_tl.core.progress import quiet


def block(i, o):
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(i, o, 3, padding=1), bn=nn.BatchNorm2d(o), relu=nn.ReLU()))


def net():
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    return nn.Sequential(OrderedDict(stem=block(3, 4), middle=block(4, 8), head=head))


def dls(shape=(3, 8, 8), n=24):
    train, valid = (TensorDataset(torch.randn(n, *shape), torch.arange(n) % 2) for _ in range(2))
    out = DataLoaders.from_dsets(train, valid, bs=8, num_workers=0, device="cpu")
    out.c = 2
    return out


def learner(model=None, **kw):
    model = model or net()
    return Learner(
        dls(),
        model,
        CrossEntropyLossFlat(),
        **({"splitter": GroupSpec.of(model), "path": ".", "cbs": FreezeGuard()} | kw),
    )


def train(learn, epochs=1, **kw):
    "Names of the tensors that one fit moves"
    before = tensors(learn.model)
    with quiet(learn):
        learn.fit(epochs, 1e-2, **kw)
    return set(moved(before, learn.model))


def under(model, *prefixes):
    return {k for k in model.state_dict() if k.startswith(prefixes)}


# -- what plain fastai gets wrong: the first part of each test shows it, the second that the kit does not


def test_frozen_batch_norm():
    plain = learner(cbs=None)
    plain.freeze()
    assert train(plain) & under(plain.model, "stem", "middle"), "fastai: batch norm of the frozen body moves"
    ours = learner()
    freeze_to(ours, "head")
    assert train(ours) == under(ours.model, "head")


def test_freezing_again_after_training_everything():
    def again(learn, freeze, free):
        free(learn)
        train(learn)
        freeze(learn)
        return train(learn) - {k for k in learn.model.state_dict() if "running" in k or "batches" in k}

    plain = again(learner(cbs=None, train_bn=False), lambda o: o.freeze(), lambda o: o.unfreeze())
    assert plain & {"stem.conv.weight", "middle.conv.weight"}, (
        "fastai: a gradient of zeros and weight decay move frozen weights"
    )
    ours = learner()
    assert again(ours, lambda o: freeze_to(o, "head"), unfreeze) == under(ours.model, "head")


def test_one_group():
    one = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.ReLU(), nn.Linear(4, 2))
    plain = learner(one, splitter=lambda m: [list(m.parameters())], cbs=None)
    plain.freeze()
    assert all(p.requires_grad for p in one.parameters()), "fastai: freeze() freezes nothing, in silence"
    with pytest.raises(GroupError, match="name_groups"):
        freeze_to(plain, "head")
    name_groups(plain)
    freeze_to(plain, "head")
    assert train(plain) == under(one, "3")


@pytest.mark.parametrize("where", [-100, 100, 4, "heads", "layer9", None, True, 1.5])
def test_out_of_range(where):
    plain = learner(cbs=None)
    plain.freeze_to(-100)
    assert all(p.requires_grad for p in plain.model.parameters()), "fastai: freeze_to(-100) freezes nothing, in silence"
    ours = learner()
    freeze_to(ours, "middle")
    before = [p.requires_grad for p in ours.model.parameters()], ours.opt.frozen_idx, ours.opt
    with pytest.raises(GroupError, match="0 'stem', 1 'middle', 2 'head'"):
        freeze_to(ours, where)
    assert before == ([p.requires_grad for p in ours.model.parameters()], ours.opt.frozen_idx, ours.opt)


# -- bad input leaves everything as it was


@pytest.mark.parametrize(
    "patterns, says",
    [
        ("nothing*", "No layer matches"),
        (["stem", "midle"], "middle"),
        ("*", "freeze everything"),
        ("head.0", "no parameters"),
        (["stem", 3], "not a text"),
        (["stem", "middle", "head"], "freeze everything"),
    ],
)
def test_bad_patterns(patterns, says):
    learn = learner()
    freeze_to(learn, "middle")
    before = [p.requires_grad for p in learn.model.parameters()], learn.opt, learn.splitter, dict(learn.opt.hypers[0])
    with pytest.raises(InputError, match=says):
        set_frozen(learn, patterns)
    assert before == (
        [p.requires_grad for p in learn.model.parameters()],
        learn.opt,
        learn.splitter,
        dict(learn.opt.hypers[0]),
    )


def test_groups_against_the_forward_order():
    learn = learner(splitter=lambda m: [list(m.parameters())])
    splitter = learn.splitter
    with pytest.raises(GroupError, match="stem, middle, head"):
        name_groups(learn, {"middle": "middle", "stem": "stem", "head": "head"})
    with pytest.raises(GroupError, match="No group has the parameters"):
        name_groups(learn, {"stem": "stem", "head": "head"})
    assert learn.splitter is splitter


# -- it holds through everything


@pytest.mark.parametrize(
    "how",
    [
        "fit_one_cycle",
        "lr_find",
        "find_lr",
        "accumulation",
        "bfloat16",
        "deepcopy",
        "new optimizer",
        "save and load",
        "export",
    ],
)
def test_it_holds_through(how, tmp_path):
    learn = learner(path=tmp_path)
    set_frozen(learn, ["stem", "middle.conv"])
    free = under(learn.model, "head", "middle.bn")
    fit = train

    class Autocast(Callback):
        def before_batch(self):
            self.context = torch.autocast("cpu", torch.bfloat16)
            self.context.__enter__()

        def after_loss(self):
            self.context.__exit__(None, None, None)

        def after_cancel_batch(self):
            self.context.__exit__(None, None, None)

    if how == "fit_one_cycle":

        def fit(o):
            before = tensors(o.model)
            with quiet(o):
                o.fit_one_cycle(1, 1e-2)
            return set(moved(before, o.model))

    if how == "lr_find":
        before = fingerprint(learn)
        with quiet(learn):
            learn.lr_find(num_it=12, show_plot=False)
        assert check_frozen(learn, before) == 9
    if how == "find_lr":
        find_lr(learn, num_it=12)
    if how == "accumulation":
        fit = lambda o: train(o, cbs=GradientAccumulation(16))
    if how == "bfloat16":
        fit = lambda o: train(o, cbs=Autocast())
    if how == "deepcopy":
        learn = copy.deepcopy(learn)
    if how == "new optimizer":
        learn.create_opt()
    if how == "save and load":
        learn.save("m")
        learn = learn.load("m")
    if how == "export":
        learn = learner(pickle.loads(pickle.dumps(learn.model)))  # what learn.export writes of it
    assert fit(learn) == free
    words = layer_table(learn).set_index("layer").frozen.to_dict()
    assert words == {"stem.conv": "yes", "stem.bn": "yes", "middle.conv": "yes", "middle.bn": "no", "head.2": "no"}


def test_fastais_own_calls_reset_what_is_not_pinned_and_the_table_says_so():
    learn = learner()
    set_frozen(learn, "stem.conv")
    with quiet(learn):
        learn.fine_tune(1, 1e-2)
    assert all(p.requires_grad for p in learn.model.parameters())
    assert "fine_tune" in layer_table(learn).note
    set_frozen(learn, "stem", pin=True)
    assert not layer_table(learn).note
    before = tensors(learn.model)
    with quiet(learn):
        learn.fine_tune(1, 1e-2)
    learn.unfreeze()
    train(learn)
    assert set(moved(before, learn.model)) == under(learn.model, "middle", "head")
    assert set(layer_table(learn).set_index("layer").frozen[["stem.conv", "stem.bn"]]) == {"pinned"}
    assert (
        copy.deepcopy(learn).splitter.names
        == pinned(learn)
        == {n for n, _ in learn.model.named_parameters() if n.startswith("stem")}
    )
    set_frozen(learn, "stem", False)
    assert not pinned(learn) and train(learn) == under(learn.model, "stem", "middle", "head")


def test_shared_parameters_are_one():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.mix, self.out = nn.Linear(6, 6, bias=False), nn.Linear(6, 6), nn.Linear(6, 6)
            self.out.weight = self.embed.weight

        def forward(self, x):
            return self.out(self.mix(self.embed(x)))[:, :2]

    model = Tied()
    learn = Learner(dls((6,)), model, CrossEntropyLossFlat(), splitter=GroupSpec.of(model), path=".", cbs=FreezeGuard())
    assert set_frozen(learn, "out.weight") == ["embed.weight", "out.weight"]
    assert train(learn) == {"mix.weight", "mix.bias", "out.bias"}
    t = layer_table(learn).set_index("layer")
    assert t.parameters.sum() == sum(p.numel() for p in model.parameters()) and "shared" in t.kind["out"]


@pytest.mark.medium
def test_text_classifier():
    from fastai.text.data import TextDataLoaders
    from fastai.text.learner import text_classifier_learner
    from fastai.text.models.awdlstm import AWD_LSTM

    df = pd.DataFrame(dict(text=["good day sun shine", "bad night rain fall"] * 12, label=["a", "b"] * 12))
    data = TextDataLoaders.from_df(
        df, text_col="text", label_col="label", valid_pct=0.25, bs=6, num_workers=0, device="cpu"
    )
    small = dict(
        n_hid=12,
        emb_sz=8,
        n_layers=2,
        output_p=0.1,
        hidden_p=0.1,
        input_p=0.1,
        embed_p=0.02,
        weight_p=0.1,
        bidir=False,
        pad_token=1,
    )
    learn = text_classifier_learner(data, AWD_LSTM, pretrained=False, config=small, path=".")
    groups = layer_groups(learn)
    assert list(groups)[-1] == "head" and len(groups) >= 3
    freeze_to(learn, "head")
    head = {id(p) for p in groups["head"]}
    want = {n for n, p in learn.model.named_parameters() if id(p) in head}
    names = train(learn) & {n for n, _ in learn.model.named_parameters()}
    assert names == want
    assert set(layer_table(learn).frozen) == {"yes", "no"}


def test_tabular_learner():
    from fastai.data.transforms import RandomSplitter
    from fastai.tabular.core import Categorify, FillMissing, Normalize, TabularPandas
    from fastai.tabular.learner import tabular_learner

    df = pd.DataFrame(dict(a=["x", "y"] * 20, b=range(40), y=["p", "q", "q", "p"] * 10))
    to = TabularPandas(df, [Categorify, FillMissing, Normalize], ["a"], ["b"], "y", splits=RandomSplitter(seed=0)(df))
    learn = tabular_learner(to.dataloaders(bs=8, device="cpu"), layers=[8, 6], path=".")
    name_groups(learn)
    groups = layer_groups(learn)
    assert len(groups) >= 3
    last = list(groups)[-1]
    freeze_to(learn, last)
    ids = {id(p) for p in groups[last]}
    assert train(learn) & {n for n, _ in learn.model.named_parameters()} == {
        n for n, p in learn.model.named_parameters() if id(p) in ids
    }


@pytest.mark.medium
@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels(channels):
    from fastai_tl.models.transfer_learner import transfer_learner

    for arch in ("resnet18", "mobilenet_v2", "timm/vgg11", "resnet_mini"):
        learn = transfer_learner(dls((channels, 48, 48), 16), arch, pretrained=False, normalize=False)
        assert next(m for m in learn.model.modules() if isinstance(m, nn.Conv2d)).in_channels == channels
        assert train(learn) == under(learn.model, "head")
