"""Which recipe of fine-tuning `Plan.lp_ft` follows: rates, a second solution of the head, and the way half back.

Plain torch, so that each part can be left out. On each set and seed the head is solved on frozen features, from one
view of each image or from five; all layers train for 8 epochs at each rate; the head is solved anew, with the strength
of the first solution; for the highest rate also after the weights went half way back (Wortsman and others 2022, arXiv
2109.01903). Each entry is (accuracy on validation, accuracy on test, loss on validation).

    OMP_NUM_THREADS=1 python benchmarks/recipe.py --seeds 1 2     # 20 minutes on one core

Needs what `python benchmarks/accuracy.py --fetch` brings. Writes benchmarks/results/recipe.json, a row a set and seed.
"""

import argparse
import copy
import json
import random
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accuracy_lib.data import HOME, load
from PIL import Image
from torch import nn

from fastai_tl.cache.linear_probe import linear_probe
from fastai_tl.models.transfer_learner import load_backbone

RESULTS = Path(__file__).parent / "results" / "recipe.json"
SETS = ("stamps", "clipart", "digits-16", "clipart-12")
RATES = (1e-4, 2e-4, 4e-4)  # of the body; the head has three times that
EPOCHS, BATCH = 8, 32
VIEWS, SIDE = 5, 96


def pixels(part):
    "Images of a part as bytes, (n, 3, SIDE, SIDE)"
    images = []
    for f in part:
        with Image.open(f) as im:
            images.append(np.asarray(im.convert("RGB").resize((SIDE, SIDE), Image.BILINEAR)))
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def window(h, w):
    "Rows and columns of a random part of an image: 60 to 100 % of its area"
    for _ in range(10):
        area, ratio = h * w * random.uniform(0.6, 1), np.exp(random.uniform(np.log(3 / 4), np.log(4 / 3)))
        hh, ww = round((area / ratio) ** 0.5), round((area * ratio) ** 0.5)
        if hh <= h and ww <= w:
            top, left = random.randint(0, h - hh), random.randint(0, w - ww)
            return slice(top, top + hh), slice(left, left + ww)
    return slice(0, h), slice(0, w)


def varied(x):
    "A random view of each image, in 0..1: cut, mirrored, with other brightness, contrast and saturation"
    n, (h, w) = len(x), x.shape[-2:]
    out = torch.empty(x.shape)
    for i in range(n):
        rows, columns = window(h, w)
        part = x[i : i + 1, :, rows, columns].float() / 255
        o = F.interpolate(part, (h, w), mode="bilinear", align_corners=False)[0]
        out[i] = o.flip(-1) if random.random() < 0.5 else o
    factor = [1 + (torch.rand(n, 1, 1, 1) * 2 - 1) * 0.2 for _ in range(3)]
    out = out * factor[0]
    mean = out.mean((1, 2, 3), keepdim=True)
    out = (out - mean) * factor[1] + mean
    grey = out.mean(1, keepdim=True)
    return ((out - grey) * factor[2] + grey).clamp(0, 1)


class Recipe:
    "One set and seed"

    def __init__(self, name, seed, home):
        parts = load(name, seed, home)
        random.seed(seed)
        torch.manual_seed(seed)
        back = load_backbone("tf_efficientnet_lite0")
        self.body = back.body
        self.mean, self.std = (torch.tensor(v).view(1, 3, 1, 1) for v in (back.mean, back.std))
        classes = sorted({Path(f).parent.name for f in parts.train})
        of = {p: [classes.index(Path(f).parent.name) for f in getattr(parts, p)] for p in ("train", "valid", "test")}
        self.x = {p: pixels(getattr(parts, p)) for p in of}
        self.y = {p: torch.tensor(v) for p, v in of.items()}
        self.n_out = len(classes)
        self.row = dict(set=name, seed=seed, n={p: len(v) for p, v in of.items()})

    def features(self, body, x, view=lambda x: x.float() / 255):
        "Pooled features of images as they are, or of a view of each, (n, n_features)"
        body.eval()
        out = []
        with torch.no_grad():
            for i in range(0, len(x), 64):
                out.append(body((view(x[i : i + 64]) - self.mean) / self.std).mean((2, 3)))
        return torch.cat(out)

    def judge(self, name, body, head):
        found = []
        for part in ("valid", "test"):
            with torch.no_grad():
                z = head(self.features(body, self.x[part])).float()
            found.append(round(float((z.argmax(1) == self.y[part]).float().mean()), 4))
            if part == "valid":
                loss = round(float(F.cross_entropy(z, self.y[part])), 4)
        self.row[name] = (*found, loss)

    def solve(self, body, strength=None, views=1):
        x, y = self.x["train"], self.y["train"]
        f = torch.cat([self.features(body, x), *(self.features(body, x, varied) for _ in range(views - 1))])
        kw = dict(groups=np.tile(np.arange(len(x)), views), sample_weight=torch.ones(len(f)).double() / views)
        return linear_probe(f, y.repeat(views), n_out=self.n_out, strength=strength, **(kw if views > 1 else {}))

    def train(self, start, rate):
        "All layers from a solved head; batch norm keeps its pretrained statistics"
        body = copy.deepcopy(self.body).train()
        for m in body.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.eval()
        head = nn.Linear(start.weight.shape[1], self.n_out)
        with torch.no_grad():
            head.weight.copy_(start.weight)
            head.bias.copy_(start.bias)
        groups = [dict(params=body.parameters(), lr=rate), dict(params=head.parameters(), lr=3 * rate)]
        opt = torch.optim.AdamW(groups, weight_decay=0.01)
        x, y = self.x["train"], self.y["train"]
        steps = EPOCHS * -(-len(x) // BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(opt, [rate, 3 * rate], total_steps=steps, pct_start=0.25)
        for _ in range(EPOCHS):
            for rows in torch.randperm(len(x)).split(BATCH):
                z = body((varied(x[rows]) - self.mean) / self.std).mean((2, 3))
                loss = F.cross_entropy(head(F.dropout(z, 0.2)), y[rows])
                opt.zero_grad()
                loss.backward()
                opt.step()
                schedule.step()
        return body, head

    def run(self):
        one, five = self.solve(self.body), self.solve(self.body, views=VIEWS)
        self.judge("solved", self.body, one)
        self.judge("solved on five views", self.body, five)
        for rate in RATES:
            body, head = self.train(one, rate)
            self.judge(f"trained at {rate:g}", body, head)
            self.judge(f"trained at {rate:g}, solved anew", body, self.solve(body, one.strength))
        half = copy.deepcopy(self.body)
        with torch.no_grad():
            for a, b in zip(half.parameters(), body.parameters()):
                a.lerp_(b, 0.5)
        self.judge(f"trained at {rate:g}, half way back, solved anew", half, self.solve(half, one.strength))
        return self.row


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--seeds", type=int, nargs="*", default=[1, 2])
    ap.add_argument("--sets", nargs="*", default=SETS)
    ap.add_argument("--home", type=Path, default=HOME, help="folder with the images")
    args = ap.parse_args()
    torch.set_num_threads(1)
    rows = json.loads(RESULTS.read_text()) if RESULTS.is_file() else []
    for name in args.sets:
        for seed in args.seeds:
            row = Recipe(name, seed, args.home).run()
            rows = [r for r in rows if (r["set"], r["seed"]) != (name, seed)] + [row]
            RESULTS.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")
            print({k: v[1] for k, v in row.items() if isinstance(v, tuple)}, flush=True)


if __name__ == "__main__":
    main()
