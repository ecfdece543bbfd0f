"""What tests share: small networks on small pictures, comparisons, and waits that end."""

import copy
import random
import time

import numpy as np
import torch
from fastai.callback import schedule  # noqa: F401 (fit_one_cycle)
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import accuracy
from fastai.torch_core import set_seed
from ipywidgets import Widget
from PIL import features
from torch import nn

from fastai_tl.core.progress import quiet
from fastai_tl.core.random_state import reseed
from fastai_tl.freezing.freeze import freeze_to
from fastai_tl.freezing.guard import FreezeGuard
from fastai_tl.freezing.layer_groups import GroupSpec

QUIET = lambda *a: None  # a reporter that says nothing
AVIF = features.check("avif")  # Pillow from 11.3 on


def wait_until(cond, timeout=30, what="what was waited for"):
    "Wait until `cond()` is true, and return that; fails after `timeout` seconds"
    end = time.monotonic() + timeout
    while True:
        if r := cond():
            return r
        assert time.monotonic() < end, f"{what} did not happen in {timeout} s; last: {r!r}"
        time.sleep(0.002)


def widgets_made(make):
    "What `make()` gives, and how many widgets it has made on the way"
    made = []
    Widget.on_widget_constructed(lambda w: made.append(w.__class__))
    try:
        return make(), len(made)
    finally:
        Widget.on_widget_constructed(None)


class Noisy(torch.utils.data.Dataset):
    "Small pictures that are read with noise from Python, NumPy and torch, so that a random state that is off shows"

    def __init__(self, n, noise=True):
        gen = torch.Generator().manual_seed(5)
        self.x, self.y, self.noise = (
            torch.randn(n, 3, 8, 8, generator=gen),
            torch.randint(0, 3, (n,), generator=gen),
            noise,
        )

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        if not self.noise:
            return self.x[i], self.y[i]
        return self.x[i] + 0.1 * random.random() + 0.1 * np.random.rand() + 0.1 * torch.randn(1), self.y[i]


def noisy_learner(n=48, bs=8, cbs=(), ballast=0, seed=0, **kw):
    """A small network with batch norm and dropout on `Noisy` pictures, the same for the same seed; `ballast`:
    further parameters, to make files larger
    """

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU()),
        nn.Sequential(nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8)),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(8, 3)),
    )
    if ballast:
        net[2].register_buffer("ballast", torch.randn(ballast))
    dls = DataLoaders.from_dsets(Noisy(n), Noisy(n // 2, False), bs=bs, num_workers=0, device="cpu")
    dls.c = 3
    for dl in dls.loaders:
        dl._one_pass()  # fastai reads one item more the first time
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return Learner(
        dls, net, CrossEntropyLossFlat(), splitter=GroupSpec.of(net), **{"metrics": accuracy, "cbs": list(cbs), **kw}
    )


def few_images(size=32, n_per_class=4, every=8):
    "DataLoaders of sample images: `n_per_class` to train on, each `every`-th of those to validate; made anew each time"
    from fastai_tl.datasets.picture_folder import ClassOf, picture_dls
    from fastai_tl.datasets.samples import sample_path, split_sample

    train, valid = split_sample(sample_path("clipart"), n_per_class)
    return picture_dls(train, valid[::every], ClassOf(sample_path("clipart")), size=size, bs=8, path=".")


def tensors(model):
    "A copy of every tensor of a model"
    return {k: v.detach().clone() for k, v in model.state_dict().items()}


def moved(before, model):
    "Names of the tensors that differ"
    return [k for k, v in model.state_dict().items() if not torch.equal(v, before[k])]


def everything(learn):
    "All of a Learner that a sweep could disturb, as plain values to compare"
    plain = lambda v: v.detach().clone() if isinstance(v, torch.Tensor) else copy.deepcopy(v)
    opt, rec = learn.opt, learn.recorder
    return dict(
        tensors=tensors(learn.model),
        grads=[None if p.grad is None else p.grad.clone() for p in learn.model.parameters()],
        requires_grad=[p.requires_grad for p in learn.model.parameters()],
        modes=[m.training for m in learn.model.modules()],
        opt=None
        if opt is None
        else dict(
            id=id(opt),
            frozen_idx=opt.frozen_idx,
            hypers=[dict(h) for h in opt.hypers],
            state=[{k: plain(v) for k, v in opt.state[p].items()} for ps in opt.param_lists for p in ps],
        ),
        recorder={
            k: plain(v)
            for k, v in vars(rec).items()
            if k in ("lrs", "losses", "values", "iters", "log", "metric_names")
        },
        smooth=plain(rec.smooth_loss.val) if hasattr(rec.smooth_loss, "val") else None,
        cbs=[id(c) for c in learn.cbs],
        attrs=sorted(vars(learn)),
        loss=id(learn.loss_func),
        dls=id(learn.dls),
        python=random.getstate(),
        numpy=[np.asarray(o).tolist() for o in np.random.get_state()[1:3]],
        torch=torch.random.get_rng_state(),
        loaders=[dl.rng.getstate() for dl in learn.dls.loaders],
    )


def same(a, b, where=""):
    "Assert that two results of `everything` are equal, naming the place where they are not"
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for k in a:
            same(a[k], b[k], f"{where}.{k}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b)):
            same(x, y, f"{where}[{i}]")
    elif isinstance(a, torch.Tensor):
        assert isinstance(b, torch.Tensor) and torch.equal(a, b), where
    else:
        assert a == b or (a != a and b != b), f"{where}: {a} != {b}"


def still_learner(n=50, bs=8, seed=0, stride=1, **kw):
    "A small network on pictures that are the same each time, frozen to the head, with dropout in it"
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 6, 3, stride, bias=False), nn.BatchNorm2d(6), nn.ReLU(inplace=True)),
        nn.Sequential(nn.Conv2d(6, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True)),
        nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 16, bias=False),
            nn.BatchNorm1d(16),
            nn.Dropout(0.3),
            nn.Linear(16, 3),
        ),
    )
    dls = DataLoaders.from_dsets(Noisy(n, False), Noisy(n // 2, False), bs=bs, num_workers=0, device="cpu")
    dls.c = 3
    for dl in dls.loaders:
        dl._one_pass()
    set_seed(seed)
    learn = Learner(dls, net, CrossEntropyLossFlat(), splitter=GroupSpec.of(net), **{"metrics": accuracy, **kw})
    learn.add_cb(FreezeGuard())
    freeze_to(learn, "head")
    reseed(learn, 7)
    return learn


class Passes:
    "How many pictures have gone through the first layer of a model"

    def __init__(self, learn):
        self.n, conv = 0, getattr(learn, "model", learn)[0][0]
        while isinstance(conv, nn.Sequential):
            conv = conv[0]
        self.old = conv.forward
        conv.__dict__["forward"] = self.count

    def count(self, x):
        self.n += len(x)
        return self.old(x)


def fit(learn, n=2, **kw):
    with quiet(learn):
        learn.fit_one_cycle(n, 1e-2, **kw)
    return learn
