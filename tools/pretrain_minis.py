"""Pretrain the three mini nets on Fashion-MNIST and write fastai_tl/data/minis/: NAME.safetensors and the model card
README.md.

Each picture is seen in two views, turned, scaled, sheared, mirrored and softened at random. The loss is the classes'
cross-entropy and, beside it, a contrastive loss that asks for features by which the two views of a picture find each
other. Without the second, features of clothes are too much about texture and place to be of use on other shapes.

Usage: python tools/pretrain_minis.py [NAME ...] [--epochs 8] [--seed 0] [--data FOLDER]. About twenty minutes a net on
one core. The data is Debian's package dataset-fashion-mnist; the test pictures are used once, after the last epoch.
"""

import argparse
import gzip
import json
import random
import struct
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import fastai.callback.schedule  # noqa: F401 (fit_one_cycle)
from fastai.data.core import DataLoader, DataLoaders
from fastai.learner import Learner
from fastai.metrics import accuracy
from safetensors.torch import save_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fastai_tl.models.mini_nets import MINI_MEAN, MINI_SIZE, MINI_STD, MINIS, mini_net

HERE = Path(__file__).parents[1]
OUT = HERE / "fastai_tl" / "data" / "minis"
CLASSES = ["T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]


def read_idx(folder, name):
    "One file of the MNIST family as an array"
    files = [p for p in (folder / name, folder / f"{name}.gz") if p.is_file()]
    if not files:
        raise SystemExit(
            f"{folder / name}: there is no such file. Install Debian's package dataset-fashion-mnist, or give its "
            "folder with --data."
        )
    raw = gzip.open(files[0]).read() if files[0].suffix == ".gz" else files[0].read_bytes()
    dims = raw[3]
    shape = struct.unpack(f">{dims}I", raw[4 : 4 + 4 * dims])
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * dims).reshape(shape)


class Batches(DataLoader):
    "Batches of grey pictures, normalised: (bs, 1, 28, 28); in training two augmented views of each, (2*bs, 1, 28, 28)"

    def __init__(self, x, y, bs, train):
        super().__init__(range(len(x)), bs=bs, shuffle=train, drop_last=train, num_workers=0)
        self.x, self.y, self.train = x, y, train

    def create_batches(self, samples):
        ids = list(samples)
        for i in range(0, len(ids) - (len(ids) % self.bs if self.train else 0), self.bs):
            b = torch.tensor(ids[i : i + self.bs])
            x, y = self.x[b].float().div(255)[:, None], self.y[b]
            if self.train:
                x, y = augment(x.repeat(2, 1, 1, 1)), y.repeat(2)
            yield x.sub(MINI_MEAN[0]).div(MINI_STD[0]), y


def between(n, lo, hi):
    return lo + (hi - lo) * torch.rand(n)


def augment(x):
    """Turned by up to 25 degrees, scaled by 0.7 to 1.3, sheared by up to 0.3, shifted by up to 4 pixels, mirrored,
    softened, darkened: (B, 1, H, W) in 0..1
    """
    n = len(x)
    turn, scale, shear = between(n, -0.436, 0.436), 1 / between(n, 0.7, 1.3), between(n, -0.3, 0.3)
    scale_x = scale * torch.where(torch.rand(n) < 0.5, -1.0, 1.0)
    cos, sin = turn.cos(), turn.sin()
    theta = torch.stack(
        [
            scale_x * cos,
            scale * (shear * cos - sin),
            between(n, -0.3, 0.3),
            scale_x * sin,
            scale * (shear * sin + cos),
            between(n, -0.3, 0.3),
        ],
        1,
    )
    x = F.grid_sample(x, F.affine_grid(theta.view(n, 2, 3), x.shape, align_corners=False), align_corners=False)
    x = torch.where(torch.rand(n, 1, 1, 1) < 0.5, F.avg_pool2d(x, 3, 1, 1), x)
    return (x * between(n, 0.6, 1.1).view(n, 1, 1, 1)).clamp(0, 1)


class Pretrained(nn.Module):
    """A mini net and, in training, a projection of its pooled features: logits (B, 10), or logits and unit vectors
    (B, 64)
    """

    def __init__(self, net):
        super().__init__()
        self.net, n = net, net.n_features
        self.project = nn.Sequential(nn.Linear(n, n), nn.ReLU(), nn.Linear(n, 64))

    def forward(self, x):
        h = self.net.pool(self.net.body(x)).flatten(1)
        return (self.net.fc(h), F.normalize(self.project(h))) if self.training else self.net.fc(h)


def pretraining_loss(out, y, temperature=0.2, smooth=0.1):
    """Cross-entropy with smoothed labels, plus NT-Xent (Chen and others 2020, arXiv 2002.05709) between the first
    and the second half of the batch
    """
    if isinstance(out, torch.Tensor):
        return F.cross_entropy(out, y)
    logits, z = out
    n = len(z)
    near = (z @ z.T / temperature).masked_fill(torch.eye(n, dtype=torch.bool), -1e9)
    return F.cross_entropy(logits, y, label_smoothing=smooth) + F.cross_entropy(near, torch.arange(n).roll(n // 2))


def seed_all(seed):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def train(name, data, epochs, seed, lr):
    seed_all(seed)
    net = mini_net(name)
    dls = DataLoaders(Batches(*data["train"], 128, True), Batches(*data["valid"], 512, False), device="cpu")
    learn = Learner(dls, Pretrained(net), pretraining_loss, metrics=accuracy)
    t = time.perf_counter()
    learn.fit_one_cycle(epochs, lr, wd=0.05)
    seconds = time.perf_counter() - t
    valid = float(learn.recorder.values[-1][2])
    with learn.no_bar(), learn.no_logging():
        test = float(learn.validate(dl=Batches(*data["test"], 512, False))[1])
    with FlopCounterMode(display=False) as count:
        net.eval()(torch.zeros(1, 1, MINI_SIZE, MINI_SIZE))
    OUT.mkdir(parents=True, exist_ok=True)
    file = OUT / f"{name}.safetensors"
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, file)
    file.chmod(0o644)
    return dict(
        name=name,
        parameters=sum(p.numel() for p in net.parameters()),
        mmacs=round(count.get_total_flops() / 2e6, 2),
        bytes=file.stat().st_size,
        epochs=epochs,
        lr=lr,
        seed=seed,
        valid_accuracy=round(valid, 4),
        test_accuracy=round(test, 4),
        minutes=round(seconds / 60, 1),
        torch=torch.__version__.partition("+")[0],
    )


def card(facts):
    rows = "\n".join(
        f"| `{f['name']}` | {f['parameters']:,} | {f['mmacs']} | {f['bytes'] / 1e6:.2f} MB | {f['epochs']} | "
        f"{f['lr']} | {f['seed']} | {f['valid_accuracy']:.2%} | **{f['test_accuracy']:.2%}** |"
        for f in facts
    )
    return f"""# Mini nets: model card

Three small networks for classrooms and tests, pretrained on Fashion-MNIST.
This page is written by `tools/pretrain_minis.py`.

| net | parameters | million multiplications | file | epochs | rate | seed | validation accuracy | test accuracy |
|---|---|---|---|---|---|---|---|---|
{rows}

- **Networks.** `vgg_mini`: plain 3x3 convolutions and max-pooling, no batch norm (Simonyan and Zisserman 2014,
  arXiv 1409.1556). `resnet_mini`: residual blocks (He and others 2015, arXiv 1512.03385). `mobilenet_mini`: inverted
  residuals with depthwise convolutions (Sandler and others 2018, arXiv 1801.04381). Defined in \
`fastai_tl.models.mini_nets`.
- **Data.** Fashion-MNIST (Xiao, Rasul and Vollgraf 2017, arXiv 1708.07747), MIT licence, Copyright 2017 Zalando SE:
  60,000 training pictures, of which 2,000 were kept for validation, and 10,000 test pictures; grey,
  {MINI_SIZE}x{MINI_SIZE} pixels, 10 classes: {', '.join(CLASSES)}.
  From Debian's package `dataset-fashion-mnist`.
- **Training.** `python tools/pretrain_minis.py`, torch {facts[0]['torch']}: AdamW with a one-cycle schedule,
  batches of 128 pictures in two views each, weight decay 0.05; views turned by up to 25 degrees, scaled by 0.7 to 1.3,
  sheared, shifted, mirrored, softened and darkened at random. The loss is cross-entropy with labels smoothed by 0.1
  plus the contrastive loss NT-Xent at temperature 0.2 between the views (Chen and others 2020, arXiv 2002.05709).
  The test pictures were used once, after the last epoch.
- **Input.** One channel, light on dark, pixels from 0 to 1 minus {MINI_MEAN[0]} divided by {MINI_STD[0]};
  any side from 16 pixels.
- **Licence** of the weights: MIT, as the data.
- **For** learning and teaching transfer on small grey pictures, and for fast tests. Not for anything that matters:
  the data is small, and shows clothes only.
"""


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("names", nargs="*", default=list(MINIS), metavar="NAME")
    p.add_argument("--epochs", type=int, default=8)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--lr", type=float, default=4e-3)
    p.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    a = p.parse_args()
    x, y = (torch.from_numpy(read_idx(a.data, f"train-{k}").copy()) for k in ("images-idx3-ubyte", "labels-idx1-ubyte"))
    xt, yt = (
        torch.from_numpy(read_idx(a.data, f"t10k-{k}").copy()) for k in ("images-idx3-ubyte", "labels-idx1-ubyte")
    )
    data = dict(train=(x[:-2000], y[:-2000].long()), valid=(x[-2000:], y[-2000:].long()), test=(xt, yt.long()))
    for name in a.names:
        print(name, flush=True)
        facts = train(name, data, a.epochs, a.seed, a.lr)
        print(facts, flush=True)
        (OUT / f"{name}.json").write_text(json.dumps(facts, indent=1) + "\n")
    done = [json.loads((OUT / f"{n}.json").read_text()) for n in MINIS if (OUT / f"{n}.json").is_file()]
    (OUT / "README.md").write_text(card(done), encoding="utf-8")


if __name__ == "__main__":
    main()
