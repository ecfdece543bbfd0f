"""How often the checks that judge a result are wrong, over 24 seeds: a good answer refused, or a bad one let through.

Run: python benchmarks/check_thresholds.py. Prints two tables and writes benchmarks/results/check_thresholds.json.

- rates-pick: a student takes the rate that one sweep suggests (good), a tenth or ten times of it, or the rate at
  which the loss is lowest (bad).
- project-model: a network trained for six epochs at a rate found by a sweep (good), or not at all (bad), on three
  classes of drawings.
"""

import json
import warnings
from pathlib import Path

from fastai_tl.all import Plan, evaluate, find_lr, reseed, run_plan, sample_dls, set_lrs, transfer_learner, sample_path
from fastai_tl.course.grading import judge
from fastai_tl.evaluation.calibration import wilson
from fastai_tl.course.lessons import load_exercises
from fastai_tl.datasets.picture_folder import ClassOf, picture_dls
from fastai_tl.datasets.samples import split_sample

SEEDS, QUIET = 24, lambda *a: None
OUT = Path(__file__).parent / "results" / "check_thresholds.json"


def share(passed):
    low, high = wilson(sum(passed), len(passed))
    return dict(passed=sum(passed), of=len(passed), low=round(low, 3), high=round(high, 3))


def rates_pick():
    out = {k: [] for k in ("suggested", "ten times lower", "ten times higher", "lowest loss")}
    for seed in range(SEEDS):
        dls = sample_dls("digits", size=28, bs=16, n_per_class=20, channels=1, seed=seed)
        reseed(dls, seed)
        learn = transfer_learner(dls, "resnet_mini")
        one = find_lr(learn, on_progress=QUIET)
        picks = (one.suggested, one.suggested / 10, one.suggested * 10, float(one.lrs[one.losses.argmin()]))
        for k, lr in zip(out, picks):
            set_lrs(learn, lr)
            reseed(dls, 1000 + seed)
            out[k].append(judge("rates-pick", dict(learn=learn)).passed)
        print(f"rates-pick: seed {seed + 1} of {SEEDS}", end="\r", flush=True)
    return {k: share(v) for k, v in out.items()}


def three_classes(seed):
    root = sample_path("clipart")
    keep = lambda ps: [p for p in ps if p.parent.name in ("fruit", "bug", "vehicle")]
    train, valid = split_sample(root, None, seed)
    return picture_dls(keep(train), keep(valid), ClassOf(root), size=64, bs=16, seed=seed, path=".")


def project_model():
    out = {"trained": [], "not trained": []}
    for seed in range(SEEDS):
        dls = three_classes(seed)
        reseed(dls, seed)
        learn = transfer_learner(dls, "tf_efficientnet_lite0")
        out["not trained"].append(judge("project-model", dict(learn=learn, dls=dls)).passed)
        run_plan(learn, Plan.head_only(6), on_progress=QUIET)
        out["trained"].append(judge("project-model", dict(learn=learn, dls=dls)).passed)
        print(
            f"project-model: seed {seed + 1} of {SEEDS}, accuracy {evaluate(learn, on_progress=QUIET).accuracy:.2f}",
            end="\r",
            flush=True,
        )
    return {k: share(v) for k, v in out.items()}


def main():
    warnings.simplefilter("ignore")
    for name in ("rates", "project"):
        load_exercises(name)
    result = {"rates-pick": rates_pick(), "project-model": project_model()}
    for name, rows in result.items():
        print(f"\n{name:24}passed   95 % interval")
        for k, r in rows.items():
            print(f"  {k:20} {r['passed']:3} of {r['of']}   {r['low']:.0%} to {r['high']:.0%}")
    OUT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
