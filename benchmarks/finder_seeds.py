"""How much chance there is in a suggested learning rate: our finder and fastai's on the same Learner, over seeds, and
the head trained at each rate.

Each seed draws other head weights and another order of the same 96 pictures; both finders sweep 100 batches from 1e-7
to 10. Less spread is better if the accuracy is no worse. Run: python benchmarks/finder_seeds.py [--seeds 8]. Prints a
table, writes benchmarks/out/finder_seeds.json.
"""

import argparse
import json
import warnings
from pathlib import Path

import numpy as np

OUT = Path(__file__).parent / "out"


def one(seed, epochs=5):
    "Rates suggested by both, and accuracy 0..1 of a head trained at each"
    from fastai.torch_core import set_seed

    from fastai_tl.training.lr_finder import find_lr
    from fastai_tl.core.progress import quiet
    from fastai_tl.datasets.samples import sample_dls
    from fastai_tl.models.transfer_learner import transfer_learner

    def learner():
        set_seed(seed)
        return transfer_learner(sample_dls("clipart", size=96, n_per_class=12), "tf_efficientnet_lite0", head="fastai")

    learn = learner()
    ours = find_lr(learn, on_progress=lambda *a: None)
    three = find_lr(learn, num_it=100, seeds=3, on_progress=lambda *a: None) if seed < 3 else None
    with quiet(learn):
        fastai = learn.lr_find(show_plot=False).valley
    rec = dict(
        seed=seed, ours=ours.suggested, reliable=ours.reliable, fastai=fastai, three_sweeps=three and three.suggested
    )
    for who in ("ours", "fastai"):
        learn = learner()
        with quiet(learn):
            learn.fit_one_cycle(epochs, rec[who])
        rec[f"accuracy_{who}"] = learn.recorder.values[-1][2]
    return rec


def summary(records):
    "Rows of: finder, lowest and highest rate, their ratio, mean accuracy and its standard deviation in %"
    rows = []
    for who in ("ours", "fastai"):
        r, a = np.array([x[who] for x in records]), 100 * np.array([x[f"accuracy_{who}"] for x in records])
        rows.append(
            dict(
                finder=who,
                seeds=len(r),
                lowest=r.min(),
                highest=r.max(),
                ratio=r.max() / r.min(),
                accuracy=a.mean(),
                sd=a.std(ddof=1),
            )
        )
    return rows


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--seeds", type=int, default=8, help="how many seeds, from 0")
    args = ap.parse_args()
    warnings.filterwarnings("ignore")
    records = []
    for s in range(args.seeds):
        records.append(one(s))
        print(records[-1], flush=True)
    for r in summary(records):
        print(
            f"{r['finder']:7s} {r['lowest']:.1e} to {r['highest']:.1e}, ratio {r['ratio']:.1f}; accuracy "
            f"{r['accuracy']:.1f} ± {r['sd']:.1f} %"
        )
    OUT.mkdir(exist_ok=True)
    (OUT / "finder_seeds.json").write_text(json.dumps(records, indent=1) + "\n")


if __name__ == "__main__":
    main()
