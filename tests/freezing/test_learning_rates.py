"""Learning rates: what is set is what trains, through schedules and new optimizers; what is refused changes nothing."""

import copy
import math
import pickle
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import everything, same, tensors
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.optimizer import SGD, Adam, OptimWrapper, ranger
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import TensorDataset

from fastai_tl.freezing.batchnorm import batch_norms, bn_policy, hook_of
from fastai_tl.core.errors import InputError
from fastai_tl.freezing.freeze import freeze_to, set_frozen, unfreeze
from fastai_tl.freezing.layer_groups import GroupError, GroupSpec, layer_groups, name_groups, pinned
from fastai_tl.core.progress import quiet
from fastai_tl.freezing.learning_rates import (
    PerGroup,
    decayed_lrs,
    layer_decay,
    layer_spec,
    lrs_of,
    next_lrs,
    set_lrs,
    split_layers,
    spread_lrs,
)

RATE = st.floats(1e-12, 1e3)
OPTS = {
    "fastai": Adam,
    "torch": lambda ps, **k: OptimWrapper(ps, torch.optim.AdamW, **k),
    "partial with a rate": partial(SGD, lr=0.5, mom=0.9),
    "torch, partial": partial(OptimWrapper, opt=torch.optim.SGD, lr=0.5, momentum=0.9),
    "lookahead": ranger,
}


class Hypers(Callback):
    "Notes the rate of each group at every step"

    order = 61  # after ParamScheduler

    def __init__(self):
        self.seen = []

    def before_step(self):
        self.seen.append([float(h["lr"]) for h in self.opt.hypers])


def net():
    conv = lambda a, b: nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU())
    return nn.Sequential(
        conv(3, 4),
        nn.Sequential(conv(4, 4), conv(4, 8)),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)),
    )


SPEC = GroupSpec((("stem", ("0",)), ("body", ("1",)), ("head", ("2",))))


def learner(opt="fastai", model=None, spec=SPEC, **kw):
    ds = TensorDataset(torch.randn(32, 3, 8, 8), torch.randint(0, 2, (32,)))
    dls = DataLoaders.from_dsets(ds, ds, bs=8, num_workers=0, device="cpu")
    return Learner(dls, model or net(), CrossEntropyLossFlat(), splitter=spec, opt_func=OPTS[opt], **kw)


@given(RATE, RATE, st.integers(1, 60))
def test_spread_is_increasing_in_equal_ratios(a, b, n):
    lo, hi = sorted((a, b))
    lrs = spread_lrs(lo, hi, n)
    assert len(lrs) == n and lrs[-1] == pytest.approx(hi) and (n == 1 or lrs[0] == pytest.approx(lo))
    assert all(x <= y * (1 + 1e-12) for x, y in zip(lrs, lrs[1:])) and all(type(v) is float for v in lrs)
    if n > 2:
        np.testing.assert_allclose(np.diff(np.log(lrs)), math.log(hi / lo) / (n - 1), atol=1e-9)


@given(RATE, st.integers(1, 60), st.floats(1, 100))
def test_decayed_divides_by_the_factor(lr, n, factor):
    lrs = decayed_lrs(lr, n, factor)
    assert len(lrs) == n and lrs[-1] == lr
    for x, y in zip(lrs, lrs[1:]):
        assert y / x == pytest.approx(factor)


@pytest.mark.parametrize("bad", [0, -1e-3, float("nan"), float("inf"), True, "1e-3", None])
def test_rates_that_are_none(bad):
    for f in (lambda: spread_lrs(bad, 1, 3), lambda: spread_lrs(1e-9, bad, 3), lambda: decayed_lrs(bad, 3)):
        with pytest.raises(InputError, match="above 0"):
            f()


@pytest.mark.parametrize(
    "call",
    [
        lambda: spread_lrs(1e-2, 1e-3, 3),
        lambda: spread_lrs(1e-3, 1e-2, 0),
        lambda: spread_lrs(1e-3, 1e-2, 2.5),
        lambda: decayed_lrs(1e-3, 0),
        lambda: decayed_lrs(1e-3, 3, 0.9),
        lambda: decayed_lrs(1e-3, 3, float("nan")),
        lambda: decayed_lrs(1e-3, 3, None),
        lambda: decayed_lrs(1e-300, 60, 1e100),
    ],
)
def test_counts_and_factors_that_are_refused(call):
    with pytest.raises(InputError):
        call()


FORMS = [
    ({"stem": 1e-4, "body": 1e-3, "head": 1e-2}, [1e-4, 1e-3, 1e-2]),
    ([1e-4, 1e-3, 1e-2], [1e-4, 1e-3, 1e-2]),
    ((1e-4, 1e-3, 1e-2), [1e-4, 1e-3, 1e-2]),
    (np.array([1e-4, 1e-3, 1e-2]), [1e-4, 1e-3, 1e-2]),
    (torch.tensor([1e-4, 1e-3, 1e-2], dtype=torch.float64), [1e-4, 1e-3, 1e-2]),
    (3e-3, [3e-3] * 3),
    (np.float32(0.5), [0.5] * 3),
    (slice(1e-4, 1e-2), [1e-4, 1e-3, 1e-2]),
    (slice(1e-2), [1e-3, 1e-3, 1e-2]),
    (lambda i, name, n: 10.0 ** (i - n - (name == "stem")), [1e-4, 1e-2, 1e-1]),
    ({"head": 1e-2}, [1e-3, 1e-3, 1e-2]),
    ({-1: 1e-2, "stem": 1e-5}, [1e-5, 1e-3, 1e-2]),
]


@pytest.mark.parametrize("form,want", FORMS, ids=lambda o: str(o)[:25])
def test_every_form(form, want):
    learn = learner()
    assert list(set_lrs(learn, form)) == ["stem", "body", "head"]
    np.testing.assert_allclose(list(lrs_of(learn).values()), want)
    assert isinstance(learn.lr, list) and all(type(v) is float for v in learn.lr)


@pytest.mark.parametrize("opt", OPTS)
@pytest.mark.parametrize("fit", ["fit", "fit_one_cycle", "fit_flat_cos", "new optimizer", "reset_opt"])
def test_what_is_set_is_what_trains(opt, fit):
    import fastai.callback.schedule  # noqa: F401

    learn, cb, want = learner(opt), Hypers(), np.array([1e-4, 1e-3, 1e-2])
    learn.add_cb(cb)
    set_lrs(learn, list(want))
    if fit == "new optimizer":
        learn.create_opt()
    with quiet(learn):
        if fit == "fit_one_cycle":
            learn.fit_one_cycle(3)
        elif fit == "fit_flat_cos":
            learn.fit_flat_cos(1)
        else:
            learn.fit(1, reset_opt=fit == "reset_opt")
    seen = np.array(cb.seen)
    np.testing.assert_allclose(seen / seen[:, -1:], np.tile(want / want[-1], (len(seen), 1)), rtol=1e-9)
    if fit == "fit_one_cycle":  # begins at a 25th, comes to the peak, ends near 0; and the next one has the same peaks
        np.testing.assert_allclose(seen[0], want / 25)
        np.testing.assert_allclose(seen.max(0), want, rtol=0.05)
        assert lrs_of(learn)["head"] < 1e-3 and next_lrs(learn) == dict(stem=1e-4, body=1e-3, head=1e-2)
        cb.seen.clear()
        with quiet(learn):
            learn.fit_one_cycle(3)
        np.testing.assert_allclose(cb.seen, seen)
    elif fit == "fit_flat_cos":
        np.testing.assert_allclose(seen[0], want)
    else:
        np.testing.assert_allclose(seen, np.tile(want, (len(seen), 1)))


def test_rates_really_differ_in_effect():
    "A step of plain SGD moves each group by its own rate"
    learn = learner(opt="torch, partial")
    set_lrs(learn, [1e-6, 1e-4, 1e-2])
    learn.opt.set_hyper("mom", 0.0)
    learn.wd = 0.0
    before = [p.detach().clone() for p in learn.model.parameters()]

    class OneStep(Callback):
        def after_step(self):
            from fastai.callback.core import CancelFitException

            self.learn.kept = [p.grad.clone() for p in self.model.parameters()]
            raise CancelFitException()

    with quiet(learn):
        learn.fit(1, cbs=OneStep())
    rate = {id(p): lr for ps, lr in zip(layer_groups(learn).values(), [1e-6, 1e-4, 1e-2]) for p in ps}
    for b, p, g in zip(before, learn.model.parameters(), learn.kept):
        torch.testing.assert_close(p.detach(), b - rate[id(p)] * g)


BAD = [
    [1e-3, 1e-2],
    [1e-3] * 4,
    [],
    {"haed": 1e-3},
    {"body": -1},
    {"stem": 1e-3, "head": float("nan")},
    {7: 1e-3},
    -1,
    0,
    "high",
    None,
    slice(None),
    slice(1e-2, 1e-3),
    slice(1e-4, 1e-2, 3),
    {1e-3, 1e-2, 1e-4},
    lambda i, name, n: -1.0,
    lambda i, name, n: 1 / 0,
]


@pytest.mark.parametrize("bad", BAD, ids=lambda o: str(o)[:25])
@pytest.mark.parametrize("opt", ["fastai", "torch"])
def test_an_error_changes_nothing(bad, opt):
    learn = learner(opt)
    freeze_to(learn, "body")
    with quiet(learn):
        learn.fit(1)
    before, lr, f = everything(learn), learn.lr, learn.opt_func
    with pytest.raises((InputError, ZeroDivisionError)):
        set_lrs(learn, bad)
    same(everything(learn), before)
    assert learn.lr is lr and learn.opt_func is f


def test_errors_say_what_to_do():
    learn = learner()
    with pytest.raises(GroupError, match="2 rates for 3 groups.*stem, body, head"):
        set_lrs(learn, [1, 2])
    with pytest.raises(GroupError, match="Did you mean 'head'"):
        set_lrs(learn, {"haed": 1})
    with pytest.raises(InputError, match="lr of 'body'"):
        set_lrs(learn, {"body": 0})
    assert learn.opt is None, "not even an optimizer was made"


def test_after_one_cycle_a_partial_dict_keeps_the_rates_that_were_set():
    "not what the schedule has left in the optimizer, which is next to nothing"
    learn = learner()
    set_lrs(learn, [1e-4, 1e-3, 1e-2])
    with quiet(learn):
        learn.fit_one_cycle(1)
    assert lrs_of(learn)["stem"] < 9e-5
    assert set_lrs(learn, {"head": 5e-2}) == dict(stem=1e-4, body=1e-3, head=5e-2)


def test_reading_changes_nothing():
    learn = learner()
    assert lrs_of(learn) == next_lrs(learn) == dict(stem=1e-3, body=1e-3, head=1e-3) and learn.opt is None
    learn.lr = slice(1e-4, 1e-2)
    np.testing.assert_allclose(list(lrs_of(learn).values()), [1e-4, 1e-3, 1e-2])
    learn.lr = [1e-3, 1e-2]
    with pytest.raises(GroupError, match="learn.lr has 2 rates for 3 groups"):
        lrs_of(learn)


def test_setting_keeps_what_is_frozen():
    learn = learner()
    freeze_to(learn, "head", bn="affine")
    flags = [p.requires_grad for p in learn.model.parameters()]
    set_lrs(learn, [1e-4, 1e-3, 1e-2])
    assert [p.requires_grad for p in learn.model.parameters()] == flags and learn.opt.frozen_idx == 2


def test_a_learner_with_rates_can_be_copied_and_exported(tmp_path):
    learn = learner("torch, partial", path=tmp_path)
    layer_decay(learn, 1e-2)
    assert isinstance(learn.opt_func, PerGroup) and "OptimWrapper" in repr(learn.opt_func)
    twin = copy.deepcopy(learn)
    twin.create_opt()
    assert lrs_of(twin) == lrs_of(learn)
    set_lrs(learn, 1e-3)
    assert not isinstance(learn.opt_func.func, PerGroup), "wrapped once"
    assert pickle.loads(pickle.dumps(learn.splitter)) == learn.splitter


@pytest.mark.medium
@pytest.mark.filterwarnings("ignore:.*")
def test_groups_without_names():
    "A tabular learner has one group, called 'all'; a text classifier on AWD-LSTM has five, named by what they are"
    from fastai.tabular.all import CategoryBlock, RandomSplitter, TabularDataLoaders, tabular_learner  # noqa: F401

    rng = np.random.default_rng(0)
    df = pd.DataFrame(dict(a=rng.normal(size=64), b=rng.normal(size=64), y=rng.choice(["no", "yes"], 64)))
    dls = TabularDataLoaders.from_df(
        df,
        y_names="y",
        cont_names=["a", "b"],
        y_block=CategoryBlock(),
        valid_idx=list(range(16)),
        bs=16,
        num_workers=0,
        device="cpu",
    )
    learn = tabular_learner(dls, layers=[8, 4])
    assert set_lrs(learn, 2e-3) == {"all": 2e-3}
    with quiet(learn):
        learn.fit(1)
    assert lrs_of(learn) == {"all": 2e-3}
    with pytest.raises(GroupError, match="name_groups"):
        split_layers(learn)
    learn = tabular_learner(dls, layers=[8, 4])
    name_groups(learn)
    assert len(set_lrs(learn, lambda i, name, n: 1e-3 * (i + 1))) > 1

    from fastai.text.all import AWD_LSTM, TextDataLoaders, text_classifier_learner

    texts = pd.DataFrame(dict(text=["a good film", "a bad film"] * 16, label=["pos", "neg"] * 16))
    dls = TextDataLoaders.from_df(
        texts, text_col="text", label_col="label", valid_col=None, bs=4, seq_len=8, num_workers=0, device="cpu"
    )
    learn = text_classifier_learner(
        dls,
        AWD_LSTM,
        pretrained=False,
        config=dict(
            emb_sz=8,
            n_hid=8,
            n_layers=3,
            pad_token=1,
            bidir=False,
            output_p=0.1,
            hidden_p=0.1,
            input_p=0.1,
            embed_p=0.1,
            weight_p=0.1,
        ),
    )
    names = list(layer_groups(learn))
    assert len(names) == 5
    rates = set_lrs(learn, decayed_lrs(1e-2, 5))
    assert list(rates) == names and set_lrs(learn, {"encoder": 1e-6})["encoder"] == 1e-6


# layers


def test_split_layers_keeps_everything_else():
    learn = learner()
    with quiet(learn):
        learn.fit(1)  # momentum
    freeze_to(learn, "body", bn="affine")
    set_frozen(learn, "1.1.0.weight")
    set_lrs(learn, {"stem": 1e-5, "body": 1e-4, "head": 1e-2})
    with quiet(learn):
        learn.fit(1)
    learn.opt.set_hyper("wd", [0.1, 0.2, 0.3])
    before = everything(learn)
    state = {id(p): dict(learn.opt.state[p]) for p in learn.model.parameters()}
    new = split_layers(learn)
    after = everything(learn)
    for k in before.keys() - {"opt", "attrs"}:
        same(after[k], before[k], k)
    assert new.names == ("stem", "body.0", "body.1", "head") and bn_policy(learn) == "affine"
    assert [h["wd"] for h in learn.opt.hypers] == [0.1, 0.2, 0.2, 0.3] and [h["mom"] for h in learn.opt.hypers] == [
        learn.opt.hypers[0]["mom"]
    ] * 4
    assert lrs_of(learn) == next_lrs(learn) == {"stem": 1e-5, "body.0": 1e-4, "body.1": 1e-4, "head": 1e-2}
    for p in learn.model.parameters():
        same(dict(learn.opt.state[p]), state[id(p)])
    assert all(hook_of(m) is not None for m in batch_norms(learn.model).values())
    held = [id(p) for ps in learn.opt.param_lists for p in ps]
    assert sorted(held) == sorted(map(id, learn.model.parameters()))
    opt = learn.opt
    assert split_layers(learn) is new and learn.opt is opt, "a second call changes nothing"


@pytest.mark.parametrize("opt", OPTS)
def test_training_goes_on_the_same_after_a_split(opt):
    "The same steps with the same rates, once with three groups and once with four"
    torch.manual_seed(1)
    learn = learner(opt)
    set_lrs(learn, 1e-2)
    with quiet(learn):
        learn.fit(1)
    twin = copy.deepcopy(learn)
    split_layers(twin)
    for o in (learn, twin):
        for dl in o.dls.loaders:
            dl.rng.seed(0)
        torch.manual_seed(0)
        with quiet(o):
            o.fit(1)
    if opt == "lookahead":
        return  # its slow weights begin anew
    a, b = tensors(learn.model), tensors(twin.model)
    for k in a:
        torch.testing.assert_close(a[k], b[k], rtol=0, atol=0)


def test_freeze_and_rates_by_the_old_names():
    learn = learner()
    split_layers(learn)
    freeze_to(learn, "body")
    assert [all(p.requires_grad for p in ps) for ps in layer_groups(learn).values()] == [
        False,
        True,
        True,
        True,
    ] and learn.opt.frozen_idx == 1
    assert set_lrs(learn, {"body.1": 1e-2, "body": 1e-4, "head": 1e-1}) == {
        "stem": 1e-3,
        "body.0": 1e-4,
        "body.1": 1e-2,
        "head": 1e-1,
    }
    unfreeze(learn)
    assert all(p.requires_grad for p in learn.model.parameters())


def test_pins_hold_through_a_split():
    learn = learner()
    set_frozen(learn, "1.0", pin=True)
    names = pinned(learn)
    layer_decay(learn, 1e-2)
    learn.unfreeze()
    assert pinned(learn) == names and not any(p.requires_grad for n, p in learn.model.named_parameters() if n in names)
    before = tensors(learn.model)
    with quiet(learn):
        learn.fit(1)
    assert all(torch.equal(before[n], dict(learn.model.named_parameters())[n]) for n in names)


def test_layer_decay_refuses_before_it_splits():
    learn = learner()
    for bad in (dict(lr=0), dict(lr=1e-2, factor=0.5)):
        with pytest.raises(InputError):
            layer_decay(learn, **bad)
    assert learn.splitter is SPEC and learn.opt is None


def test_an_optimizer_that_exists_already_cannot_be_split():
    model = net()
    learn = learner(model=model)
    learn.opt_func = OptimWrapper(opt=torch.optim.SGD([dict(params=ps) for ps in SPEC(model)], lr=1e-3))
    assert set_lrs(learn, [1e-4, 1e-3, 1e-2]) == dict(stem=1e-4, body=1e-3, head=1e-2)
    with pytest.raises(GroupError, match="opt_func=partial"):
        split_layers(learn)
    assert learn.splitter is SPEC


class Stage(nn.Module):
    "A module around a list of blocks, with a parameter of its own, as timm has them"

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.down, self.blocks = (
            nn.Linear(4, 4),
            nn.Sequential(*[nn.TransformerEncoderLayer(4, 1, 8, batch_first=True) for _ in range(2)]),
        )

    def forward(self, x):
        return self.blocks(self.down(x) * self.scale)


def test_what_a_layer_is():
    tied = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    model = nn.ModuleDict(
        dict(
            stem=nn.Linear(4, 4),
            norm=nn.LayerNorm(4),
            stage=Stage(),
            tied=tied,
            cat=nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4)),
            fc=nn.Linear(4, 2),
        )
    )
    spec = layer_spec(
        model,
        GroupSpec(
            (
                ("stem", ("stem", "norm")),
                ("stage", ("stage",)),
                ("tied", ("tied",)),
                ("cat", ("cat",)),
                ("head", ("fc",)),
            )
        ),
    )
    assert spec.names == ("stem", "stage.down", "stage.blocks.0", "stage.blocks.1", "tied.0", "tied.2", "cat", "head")
    sizes = dict(zip(spec.names, map(len, spec(model))))
    assert sizes["stem"] == 4 and sizes["stage.down"] == 3 and sizes["tied.0"] == 1 and sizes["cat"] == 4
    whole = layer_spec(model, GroupSpec((("all the body", ("",)), ("head", ("fc",)))))
    assert whole.names[-2:] == ("all the body.cat", "head") and len(whole(model)) == len(whole.names)


@pytest.mark.medium
@pytest.mark.parametrize(
    "arch,layers",
    [
        ("resnet18", 8),
        ("mobilenet_v3_small", 11),
        ("vgg11_bn", 8),
        ("timm/convnext_atto", 12),
        ("timm/vit_tiny_patch16_224", 12),
        ("tf_efficientnet_lite0", 16),
    ],
)
def test_real_backbones(small_dls, arch, layers):
    "At least so many blocks; every parameter and every running statistic in exactly one layer"
    from fastai_tl.models.transfer_learner import transfer_learner

    learn = transfer_learner(small_dls, arch, pretrained=False, path=".")
    old = layer_groups(learn)
    flags = [p.requires_grad for p in learn.model.parameters()]
    rates = layer_decay(learn, 1e-2, 1.25)
    assert len(rates) >= layers + 1 and len(rates) >= len(old)
    held = [id(p) for ps in learn.opt.param_lists for p in ps]
    assert (
        sorted(held) == sorted(map(id, learn.model.parameters()))
        and [p.requires_grad for p in learn.model.parameters()] == flags
    )
    spec = learn.splitter
    assert all(spec.group_of(n) for n, _ in learn.model.named_buffers())
    in_order = [
        g
        for ps in old.values()
        for g in dict.fromkeys(next(n for n, qs in layer_groups(learn).items() if any(q is p for q in qs)) for p in ps)
    ]
    assert sorted(set(in_order), key=in_order.index) == list(rates), "the old groups one after the other"
