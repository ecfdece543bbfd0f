"""A confusion matrix and its follow-ups: fastai's ClassificationInterpretation and `evaluate`, on the same Learner and
the same pictures.

Both give: confusion matrix drawn, most confused pairs, top losses, classification report. fastai's side is fastai's own
code, as its documentation shows it. A third column adds what only ours has: bootstrap intervals, calibration and the
HTML display with pictures. One process, one thread, the same DataLoader without workers, turn by turn, the median of
three after a warm-up. Results are checked to be the same. Run: python benchmarks/evaluate.py [--n 3]. Prints a table
and writes benchmarks/out/evaluate.json.
"""

import argparse
import contextlib
import io
import json
import os
import statistics
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
OUT = Path(__file__).parent / "out"
BACKBONES = {"tf_efficientnet_lite0": 128, "resnet_mini": 48}
TARGET = 3.0


def with_fastai(learn):
    "fastai's own way: matrix, pairs, losses and report as text"
    from fastai.interpret import ClassificationInterpretation
    from matplotlib import pyplot as plt

    said = io.StringIO()
    with contextlib.redirect_stdout(said), learn.no_bar(), learn.no_logging():
        it = ClassificationInterpretation.from_learner(learn)
        it.plot_confusion_matrix()
        pairs = it.most_confused()
        losses, idxs = it.top_losses(9)
        it.print_classification_report()
    plt.close("all")
    return pairs, [int(i) for i in idxs], said.getvalue()


def with_kit(learn):
    "The same with `evaluate`"
    import numpy as np
    from sklearn.metrics import classification_report

    from fastai_tl.evaluation.classification import evaluate

    ev = evaluate(learn, on_progress=lambda *a: None)
    ev.plot_confusion()
    pairs, top = ev.most_confused(), np.argsort(-ev.losses, kind="stable")[:9].tolist()
    report = classification_report(
        ev.targets, ev.preds, labels=range(len(ev.vocab)), target_names=ev.vocab, zero_division=0
    )
    return pairs, top, report, ev


def with_more(learn):
    "The same, intervals, calibration and the HTML display"
    ev = with_kit(learn)[3]
    ev.bootstrap()
    ev.ece()
    ev._repr_html_()


def passes_of(learn, f):
    "How many batches the network sees"
    seen = []
    h = learn.model.register_forward_hook(lambda *a: seen.append(1))
    f(learn)
    h.remove()
    return len(seen) / len(learn.dls.valid)


def measure(name, size, n):
    "Seconds of both, turn by turn"
    import torch

    from fastai_tl.training.plan import Plan
    from fastai_tl.datasets.samples import sample_dls
    from fastai_tl.training.run_plan import run_plan
    from fastai_tl.models.transfer_learner import transfer_learner

    torch.set_num_threads(1)
    torch.manual_seed(0)
    learn = transfer_learner(sample_dls("clipart", size=size, n_per_class=8, num_workers=0), name)
    run_plan(learn, Plan.head_only(1, lr=2e-3), on_progress=lambda *a: None)
    pairs, top, report = with_fastai(learn)
    pairs2, top2, report2 = with_kit(learn)[:3]
    with_more(learn)
    assert sorted((str(a), str(b), int(k)) for a, b, k in pairs) == sorted(pairs2), "the confused pairs differ"
    assert set(top) == set(top2) and report.split() == report2.split(), "losses or reports differ"
    ways = dict(fastai=with_fastai, kit=with_kit, kit_with_more=with_more)
    seconds = {k: [] for k in ways}
    for _ in range(n):
        for key, f in ways.items():
            t = time.perf_counter()
            f(learn)
            seconds[key].append(time.perf_counter() - t)
    mid = {k: statistics.median(v) for k, v in seconds.items()}
    return dict(
        backbone=name,
        size=size,
        pictures=len(learn.dls.valid_ds),
        classes=len(learn.dls.vocab),
        num_workers=0,
        threads=1,
        passes={k: passes_of(learn, f) for k, f in ways.items()},
        seconds={k: round(v, 3) for k, v in mid.items()},
        all_seconds={k: [round(s, 3) for s in v] for k, v in seconds.items()},
        times_faster=round(mid["fastai"] / mid["kit"], 2),
        times_faster_with_more=round(mid["fastai"] / mid["kit_with_more"], 2),
    )


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--n", type=int, default=3, help="times each")
    ap.add_argument("--json", type=Path, default=OUT / "evaluate.json")
    args = ap.parse_args()
    warnings.simplefilter("ignore")
    import matplotlib

    matplotlib.use("agg")
    print(
        f"{'':24s}{'pictures':>9s}{'fastai':>18s}{'fastai_tl':>18s}{'with more':>18s}   times faster (target "
        f"{TARGET:g})"
    )
    records = []
    for name, size in BACKBONES.items():
        records.append(r := measure(name, size, args.n))
        print(
            f"{name:24s}{r['pictures']:9d}",
            *(
                f"{r['seconds'][k]:8.2f} s, {r['passes'][k]:.0f} pass{'es'[: 2 * (r['passes'][k] > 1)]:2s}"
                for k in r["seconds"]
            ),
            f"  {r['times_faster']:.1f}, {r['times_faster_with_more']:.1f}",
            sep="",
            flush=True,
        )
        args.json.parent.mkdir(exist_ok=True)
        args.json.write_text(json.dumps(records, indent=1) + "\n")


if __name__ == "__main__":
    main()
