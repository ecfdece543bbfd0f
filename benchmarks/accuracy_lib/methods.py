"""The methods that are compared, all on the same images, opened on white and squeezed to a square.

Each takes a `Task` and gives a function from images to classes. Only `our_default` and `our_fine_tuning` are of this
package; the others are fastai, scikit-learn and two recipes in plain torch.
"""

import copy
import math
import random
import time
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

BATCH = 16  # for all Learners: with fastai's default of 64, the smallest set would have no full batch
QUIET = lambda *a: None


class CannotRun(Exception):
    "A method that the data do not allow; the text says why"


@dataclass
class Task:
    "One set, network, size and seed, with what several methods share and how long it took to make"

    parts: object
    arch: str
    size: int  # side in pixels
    seed: int
    weights: object = None  # file with the network's weights; `None`: where the package looks for them
    kept: dict = field(default_factory=dict)  # what several methods share, by name
    spent: dict = field(default_factory=dict)  # processor seconds that each of them took
    used: set = field(default_factory=set)  # names of those that the method at work has asked for

    def dls(self, **kw):
        "Loaders of the training and validation part"
        from fastai_tl.datasets.picture_folder import ClassOf, picture_dls

        p = self.parts
        return picture_dls(p.train, p.valid, ClassOf(*p.roots), self.size, BATCH, self.seed, **kw)

    @property
    def n_classes(self):
        return len(self.vocab)

    @cached_property
    def vocab(self):
        return list(self.dls().vocab)

    def targets(self, part):
        from fastai_tl.datasets.picture_folder import ClassOf

        class_of = ClassOf(*self.parts.roots)
        return torch.tensor([self.vocab.index(class_of(p)) for p in getattr(self.parts, part)])

    @cached_property
    def _backbone(self):
        from fastai_tl.models.transfer_learner import load_backbone

        return load_backbone(self.arch, weights=self.weights)

    @property
    def stats(self):
        "Mean and deviation of each channel, as the network wants its pixels"
        b = self._backbone
        return (torch.tensor(v).view(1, 3, 1, 1) for v in (b.mean, b.std))

    def body(self):
        "A fresh network without its classifier, in eval mode, and its number of features"
        return copy.deepcopy(self._backbone.body).eval(), self._backbone.n_features

    def pixels(self, part):
        "Images of a part, uint8, shape (n, 3, size, size)"
        return self._shared(f"pixels {part}", lambda: self._read(part))

    def _read(self, part):
        dl = self.dls().test_dl(getattr(self.parts, part))
        return torch.cat([(b[0].as_subclass(torch.Tensor) * 255).round().byte() for b in dl])

    def features(self, part):
        "Averaged last maps of the pretrained network in eval mode, shape (n, n_features)"
        x = self.pixels(part)
        return self._shared(f"features {part}", lambda: self._pooled(x))

    def _pooled(self, x):
        body, (mean, std) = self.body()[0], self.stats
        with torch.no_grad():
            return torch.cat([pooled(body((x[i : i + 64] / 255 - mean) / std)) for i in range(0, len(x), 64)])

    def _shared(self, name, make):
        self.used.add(name)
        if name not in self.kept:
            t = time.process_time()
            self.kept[name] = make()
            self.spent[name] = time.process_time() - t
        return self.kept[name]

    def run(self, method):
        "Processor seconds of a method, with those of all that it shares with others; and what it gives"
        had, self.used = set(self.kept), set()
        t = time.process_time()
        predict = method(self)
        seconds = time.process_time() - t
        return seconds + sum(self.spent[n] for n in self.used & had), predict


def pooled(x):
    "Average of each map"
    return x.mean((2, 3)) if x.dim() == 4 else x


def spread_seed(seed):
    "Seed all random states"
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def of_learner(learn):
    "Classes of files, by a fastai Learner"

    def predict(part):
        dl = learn.dls.test_dl(part)
        out = []
        learn.model.eval()
        with torch.no_grad():
            for b in dl:
                out.append(learn.model(b[0].as_subclass(torch.Tensor)).argmax(1))
        return torch.cat(out)

    return lambda task, part: predict(getattr(task.parts, part))


# ---- ours -----------------------------------------------------------------------------------------------------------


def our_default(task):
    "What `transfer_learner`, the quickstart and the Workbench do: a linear head, solved on the features"
    from fastai_tl.all import Plan, run_plan, transfer_learner

    learn = transfer_learner(task.dls(), task.arch, weights=task.weights)
    run_plan(learn, Plan.probe(), on_progress=QUIET)
    return of_learner(learn)


def our_fine_tuning(task):
    "What we recommend: the head solved, all layers on augmented images, the head solved anew; the best is kept"
    from fastai_tl.all import Plan, run_plan, transfer_learner

    learn = transfer_learner(task.dls(), task.arch, weights=task.weights)
    run_plan(learn, Plan.lp_ft(), on_progress=QUIET)
    return of_learner(learn)


# ---- fastai ---------------------------------------------------------------------------------------------------------


def fastai_learner(task, frozen_bn):
    "`vision_learner` with the pretrained weights, frozen to the head; batch norm of the body held in eval mode, or not"
    from fastai.callback.core import Callback
    from fastai.data.transforms import Normalize
    from fastai.metrics import accuracy
    from fastai.vision.learner import Learner, add_head, default_split, vision_learner

    dls, (body, n_features) = task.dls(), task.body()
    mean, std = (v.flatten().tolist() for v in task.stats)
    dls.add_tfms([Normalize.from_stats(mean, std, cuda=False)], "after_batch")

    class HoldBatchNorm(Callback):
        "fastai's `BnFreeze` lets go once all layers train; this one does not"

        def before_batch(self):
            for m in self.learn.model[0].modules():
                if isinstance(m, nn.BatchNorm2d):
                    m.eval()

    cbs = [HoldBatchNorm()] if frozen_bn else []
    if task.arch == "tf_efficientnet_lite0":
        learn = vision_learner(dls, task.arch, pretrained=False, normalize=False, metrics=accuracy, cbs=cbs)
        mine, theirs = list(body.state_dict().values()), list(learn.model[0].state_dict().values())
        assert [t.shape for t in mine] == [t.shape for t in theirs]
        for a, b in zip(theirs, mine):
            a.copy_(b)
    else:  # vision_learner fails on MobileNetV2, and does not know the mini nets: its parts, put together as it does
        model = add_head(body, n_features, task.n_classes)
        learn = Learner(dls, model, splitter=default_split, metrics=accuracy, cbs=cbs)
    learn.freeze()
    return learn


def fastai_default(task, frozen_bn=False):
    "`vision_learner(dls, arch).fine_tune(5)` and nothing else: Howard and Gugger (2020), arXiv 2002.04688"
    learn = fastai_learner(task, frozen_bn)
    with learn.no_bar(), learn.no_logging():
        learn.fine_tune(5)
    return of_learner(learn)


def fastai_frozen_bn(task):
    "The same with the body's batch norm in eval mode throughout"
    return fastai_default(task, frozen_bn=True)


# ---- scikit-learn on the same features ------------------------------------------------------------------------------


def of_features(predict):
    "Classes of a part, by a function of its features"
    return lambda task, part: torch.as_tensor(predict(task.features(part).numpy()))


def logistic_regression(task):
    """scikit-learn's LogisticRegressionCV: 10 strengths by 5 folds, on the features as they are; the loss chooses. On
    three seeds of three sets this was better than with standardised features, and than choosing by accuracy
    """
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.model_selection import StratifiedKFold

    x, y = task.features("train").double().numpy(), task.targets("train").numpy()
    n_folds = min(5, np.bincount(y).min())
    if n_folds < 2:
        raise CannotRun("one image a class: no folds")
    folds = StratifiedKFold(n_folds, shuffle=True, random_state=task.seed)
    model = LogisticRegressionCV(
        cv=folds, max_iter=1000, scoring="neg_log_loss", use_legacy_attributes=False, l1_ratios=(0,)
    ).fit(x, y)
    return of_features(lambda f: model.predict(f.astype(np.float64)))


def k_nearest(task):
    "scikit-learn's k-NN by cosine distance; the validation part chooses k among 1, 3, 5, 9 and 15"
    from sklearn.neighbors import KNeighborsClassifier

    x, y = task.features("train").numpy(), task.targets("train").numpy()
    fits = [KNeighborsClassifier(min(k, len(x)), metric="cosine").fit(x, y) for k in (1, 3, 5, 9, 15)]
    judged = [m.score(task.features("valid").numpy(), task.targets("valid").numpy()) for m in fits]
    best = fits[int(np.argmax(judged))]
    return of_features(best.predict)


# ---- recipes in plain torch -----------------------------------------------------------------------------------------


def of_network(net):
    "Classes of a part, by a network that takes scaled pixels"

    def predict(task, part):
        x, (mean, std) = task.pixels(part), task.stats
        net.eval()
        with torch.no_grad():
            return torch.cat([net((x[i : i + 64] / 255 - mean) / std).argmax(1) for i in range(0, len(x), 64)])

    return predict


def turned(x, degrees=36.0):
    "Flipped at random and turned by up to so many degrees, mirrored at the border: as Keras's RandomRotation(0.1)"
    n = len(x)
    a = (torch.rand(n) * 2 - 1) * math.radians(degrees)
    flip = torch.where(torch.rand(n) < 0.5, -1.0, 1.0)
    zero = torch.zeros(n)
    grid = torch.stack(
        [torch.stack([a.cos() * flip, -a.sin(), zero], 1), torch.stack([a.sin() * flip, a.cos(), zero], 1)], 1
    )
    return F.grid_sample(
        x, F.affine_grid(grid, x.shape, align_corners=False), padding_mode="reflection", align_corners=False
    )


def keras_guide(task):
    """The recipe of Keras's guide "Transfer learning & fine-tuning" (Chollet 2020,
    keras.io/guides/transfer_learning): flips and turns, average pooling, dropout 0.2, one linear layer; Adam at 1e-3
    for 20 epochs on a frozen body, then at 1e-5 for 10 on all layers; batch norm in inference mode throughout;
    batches of 32
    """
    x, y = task.pixels("train"), task.targets("train")
    mean, std = task.stats
    body, n_features = task.body()
    head = nn.Linear(n_features, task.n_classes)
    nn.init.xavier_uniform_(head.weight)
    nn.init.zeros_(head.bias)

    def fit(params, lr, n_epoch):
        opt = torch.optim.Adam(params, lr, eps=1e-7)
        for _ in range(n_epoch):
            for i in torch.randperm(len(x)).split(32):
                b = (turned(x[i] / 255) - mean) / std
                with torch.set_grad_enabled(body_trains):
                    f = pooled(body(b))
                loss = F.cross_entropy(head(F.dropout(f, 0.2)), y[i])
                opt.zero_grad()
                loss.backward()
                opt.step()

    body_trains = False
    fit(head.parameters(), 1e-3, 20)
    body_trains = True
    fit([*body.parameters(), *head.parameters()], 1e-5, 10)
    return of_network(nn.Sequential(body, _Pool(), head))


class _Pool(nn.Module):
    def forward(self, x):
        return pooled(x)


def timm_linear_probe(task, n_epoch=30):
    """A linear probe with the defaults of timm's train.py (Wightman, github.com/huggingface/pytorch-image-models) on a
    frozen body: its augmentation for training (crops of 8 to 100 %, flip, colour jitter 0.4), SGD with momentum 0.9 and
    weight decay 2e-5, cosine with 5 epochs of warm-up, label smoothing 0.1. Its rate is 0.1 for 256 images a batch;
    0.3, 1 and 3 are trained beside it, and the validation part chooses, as in DINOv2 (Oquab and others 2023, arXiv
    2304.07193). 30 epochs in batches of 32, not 300
    """
    from PIL import Image
    from timm.data import create_transform

    x, y = task.pixels("train"), task.targets("train")
    mean, std = task.stats
    images = [Image.fromarray(a) for a in x.permute(0, 2, 3, 1).numpy()]
    flat = lambda v: tuple(v.flatten().tolist())
    tfm = create_transform(task.size, is_training=True, mean=flat(mean), std=flat(std), interpolation="bicubic")
    body, n_features = task.body()
    rates = (0.1, 0.3, 1.0, 3.0)
    heads = nn.ModuleList([nn.Linear(n_features, task.n_classes) for _ in rates])
    groups = [dict(params=h.parameters(), lr=r * 32 / 256) for h, r in zip(heads, rates)]
    opt = torch.optim.SGD(groups, momentum=0.9, weight_decay=2e-5, nesterov=True)
    steps = n_epoch * -(-len(x) // 32)
    warm = steps * 5 / n_epoch
    factor = lambda i: (i + 1) / warm if i < warm else 0.5 * (1 + math.cos(math.pi * (i - warm) / (steps - warm)))
    schedule = torch.optim.lr_scheduler.LambdaLR(opt, factor)
    for _ in range(n_epoch):
        for i in torch.randperm(len(x)).split(32):
            with torch.no_grad():
                f = pooled(body(torch.stack([tfm(images[j]) for j in i])))
            loss = sum(F.cross_entropy(h(f), y[i], label_smoothing=0.1) for h in heads)
            opt.zero_grad()
            loss.backward()
            opt.step()
            schedule.step()
    with torch.no_grad():
        fv, yv = task.features("valid"), task.targets("valid")
        best = max(heads, key=lambda h: (h(fv).argmax(1) == yv).float().mean())
    return of_network(nn.Sequential(body, _Pool(), best))


METHODS = {  # name: function, and whether only features of a frozen body are used
    "our default": (our_default, True),
    "our fine-tuning": (our_fine_tuning, False),
    "logistic regression": (logistic_regression, True),
    "k-NN": (k_nearest, True),
    "fastai": (fastai_default, False),
    "fastai, frozen batch norm": (fastai_frozen_bn, False),
    "Keras guide": (keras_guide, False),
    "timm linear probe": (timm_linear_probe, False),
}
