"""The mini nets on handwritten digits, 10 labels a class: a frozen pretrained body with a new head, against the same
net from scratch.

Both have fastai's head and train on the same pictures for the same number of batches. The frozen arm has one
learning rate; the one from scratch trains everything, with the best of three rates, chosen by its own accuracy on the
validation pictures, which favours it. Each seed draws other pictures, weights and orders. Run: python
benchmarks/minis_transfer.py [--seeds 10] [--epochs 5] [--head fastai]. Prints a table, writes
benchmarks/out/minis_transfer.json.
"""

import argparse
import json
import warnings
from pathlib import Path

import numpy as np

OUT = Path(__file__).parent / "out"
FROZEN_LR, SCRATCH_LRS = 5e-3, (1e-3, 3e-3, 1e-2)


def accuracy(name, seed, frozen, lr, epochs, head="fastai", n_per_class=10):
    "Accuracy on the validation digits, 0..1"
    from fastai.torch_core import set_seed

    from fastai_tl.freezing.freeze import unfreeze
    from fastai_tl.core.progress import quiet
    from fastai_tl.datasets.samples import sample_dls
    from fastai_tl.models.transfer_learner import transfer_learner

    set_seed(seed)
    dls = sample_dls("digits", size=28, bs=16, n_per_class=n_per_class, seed=seed, channels=1)
    learn = transfer_learner(dls, name, pretrained=frozen, head=head)
    if not frozen:
        unfreeze(learn)
    with quiet(learn):
        learn.fit_one_cycle(epochs, lr)
    return learn.recorder.values[-1][2]


def compare(name, seeds, epochs, head="fastai", report=lambda *a: None):
    "One record a seed: accuracy frozen, and from scratch at each rate"
    out = []
    for s in seeds:
        scratch = {f"{lr:g}": accuracy(name, s, False, lr, epochs, head) for lr in SCRATCH_LRS}
        out.append(
            dict(
                net=name,
                seed=s,
                epochs=epochs,
                head=head,
                frozen=accuracy(name, s, True, FROZEN_LR, epochs, head),
                scratch=scratch,
            )
        )
        report(out[-1])
    return out


def summary(records):
    "Rows of: net, mean accuracies in %, and the smallest lead of a seed over its best run from scratch, in points"
    rows = []
    for net in dict.fromkeys(r["net"] for r in records):
        f, s = (
            np.array(v) * 100
            for v in zip(*((r["frozen"], max(r["scratch"].values())) for r in records if r["net"] == net))
        )
        rows.append(
            dict(
                net=net,
                seeds=len(f),
                frozen=f.mean(),
                scratch=s.mean(),
                lead=(f - s).mean(),
                smallest_lead=(f - s).min(),
            )
        )
    return rows


def main():
    from fastai_tl.models.mini_nets import MINIS

    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--seeds", type=int, default=10, help="how many seeds, from 0")
    ap.add_argument("--epochs", type=int, default=5)
    ap.add_argument("--head", choices=("fastai", "linear"), default="fastai")
    args = ap.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    records = []
    for net in MINIS:
        records += compare(
            net,
            range(args.seeds),
            args.epochs,
            args.head,
            lambda r: print(
                f"{r['net']:15s} seed {r['seed']}: frozen {r['frozen']:.3f}, from scratch "
                f"{max(r['scratch'].values()):.3f}",
                flush=True,
            ),
        )
    for r in summary(records):
        print(
            f"{r['net']:15s} frozen {r['frozen']:.1f} %, from scratch {r['scratch']:.1f} %, lead {r['lead']:.1f} "
            f"(smallest {r['smallest_lead']:.1f}) points"
        )
    OUT.mkdir(exist_ok=True)
    (OUT / "minis_transfer.json").write_text(json.dumps(records, indent=1) + "\n")


if __name__ == "__main__":
    main()
