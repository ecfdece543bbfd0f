"""Training on features of frozen layers against plain fastai: same pictures, network, weights, head, batch size,
schedule and seeds, in one process and one go.

Baseline: `vision_learner` with fastai's defaults; a second row with frozen batch norm (`train_bn=False` and
`BnFreeze`). Both sides read pictures with the number of worker processes, of 0 and 2, with which the baseline is
faster. Each time is the median of three runs, everything included: finding the split point, running the body over the
pictures, validation. Floor: the body once over all pictures, and the head's forward, backward and fused Adam step in
plain torch, everything as it is; ours runs frozen convolutions with channels last. Gradual: `run_plan` as it is by
default, with cache='auto'. Beside the seconds are those of the processor (of this process,
without workers), which say more than the clock where other programs run; with OMP_NUM_THREADS=1. Run on a quiet
machine: python benchmarks/cache.py [parts …] [--runs 3] [--seeds 5]. Parts: heads long finder gradual accuracy. Prints
a table and writes benchmarks/out/cache.json after each part, with the load of the machine.
"""

import argparse
import copy
import json
import os
import time
import warnings
from pathlib import Path
from statistics import median

OUT = Path(__file__).parent / "out"
SIZE, LR = 128, 3e-3
QUIET = lambda *a: None
LEFT_OUT = ("what", "times", "accuracies", "other_workers")


def pictures(workers=0, seed=0):
    from fastai_tl.datasets.samples import sample_dls

    return sample_dls("clipart", size=SIZE, seed=seed, num_workers=workers)


def ours(arch, workers=0, seed=0):
    from fastai.torch_core import set_seed

    from fastai_tl.core.random_state import reseed
    from fastai_tl.models.transfer_learner import transfer_learner

    set_seed(seed)
    # there are no weights offline for the others
    learn = transfer_learner(pictures(workers, seed), arch, pretrained=arch == "tf_efficientnet_lite0", head="fastai")
    reseed(learn, seed)
    return learn


def plain(arch, workers=0, seed=0, frozen_bn=False):
    "fastai's own Learner, with the weights of ours in its body and head"
    from fastai.callback.training import BnFreeze
    from fastai.metrics import accuracy
    from fastai.vision.learner import vision_learner
    from torchvision import models

    from fastai_tl.core.random_state import reseed

    like = ours(arch, workers, seed)
    name = getattr(models, arch, arch)
    learn = vision_learner(
        like.dls,
        name,
        pretrained=False,
        normalize=False,
        metrics=accuracy,
        train_bn=not frozen_bn,
        cbs=BnFreeze if frozen_bn else None,
    )
    for a, b in zip(learn.model, like.model):
        mine, theirs = list(a.state_dict().values()), list(b.state_dict().values())
        assert len(mine) == len(theirs) and all(x.shape == y.shape for x, y in zip(mine, theirs)), (
            arch,
            len(mine),
            len(theirs),
        )
        for x, y in zip(mine, theirs):
            x.copy_(y)
    learn.freeze()
    reseed(learn, seed)
    return learn


def timed(make, run, n):
    "Median seconds of `run(make())` in `n` runs, and what the last gave"
    times = []
    for _ in range(n):
        learn = make()
        t = time.perf_counter(), time.process_time()
        out = run(learn)
        times.append((time.perf_counter() - t[0], time.process_time() - t[1]))
    return median(a for a, _ in times), times, out


def with_ratios(rows):
    for r in rows:
        r["cpu"] = median(b for _, b in r["times"])
    for r in rows:
        r["ratio"], r["cpu_ratio"] = rows[0]["seconds"] / r["seconds"], rows[0]["cpu"] / r["cpu"]
        if rows[-1]["what"] == "floor":
            r["to_floor"], r["cpu_to_floor"] = r["seconds"] / rows[-1]["seconds"], r["cpu"] / rows[-1]["cpu"]
    return rows


def fit_plain(epochs):
    def run(learn):
        with learn.no_bar(), learn.no_logging():
            learn.fit_one_cycle(epochs, LR)
        return learn.recorder.values[-1][2]

    return run


def fit_ours(epochs, fused=False):
    from fastai_tl.cache.callback import frozen_cache
    from fastai_tl.core.progress import quiet

    def run(learn):
        with frozen_cache(learn, fused=fused, on_progress=QUIET), quiet(learn):
            learn.fit_one_cycle(epochs, LR)
        return learn.recorder.values[-1][2]

    return run


def floor(epochs):
    "The body once, and the head in plain torch"
    import torch
    from torch import nn

    def run(learn):
        body, head = learn.model[0].eval(), learn.model[1]
        pool, rest = head[:2], head[2:].train()
        feats = []
        with torch.no_grad():
            for dl in learn.dls.loaders:
                got = [
                    (pool(body(x)).as_subclass(torch.Tensor), y.as_subclass(torch.Tensor))
                    for x, y in dl.new(shuffle=False, drop_last=False)
                ]
                feats.append(tuple(map(torch.cat, zip(*got))))
        opt, bs = torch.optim.AdamW(rest.parameters(), lr=LR, fused=True), learn.dls.bs
        x, y = feats[0]
        vx, vy = feats[1]
        for _ in range(epochs):
            rest.train()
            for idx in torch.randperm(len(x)).split(bs)[: len(x) // bs]:
                nn.functional.cross_entropy(rest(x[idx]), y[idx]).backward()
                opt.step()
                opt.zero_grad()
            rest.eval()
            with torch.no_grad():
                acc = sum(int((rest(a).argmax(1) == b).sum()) for a, b in zip(vx.split(bs), vy.split(bs))) / len(vx)
        return acc

    return run


def heads(arch, epochs, runs, workers=(0, 2)):
    base = {w: timed(lambda w=w: plain(arch, w), fit_plain(epochs), runs) for w in workers}
    w = min(base, key=lambda k: base[k][0])
    rows = [
        dict(
            what="fastai",
            seconds=base[w][0],
            times=base[w][1],
            accuracy=base[w][2],
            workers=w,
            other_workers={str(k): v[0] for k, v in base.items()},
        )
    ]
    for what, make, run in (
        ("fastai, frozen batch norm", lambda: plain(arch, w, frozen_bn=True), fit_plain(epochs)),
        ("ours", lambda: ours(arch, w), fit_ours(epochs)),
        ("ours, fused", lambda: ours(arch, w), fit_ours(epochs, True)),
        ("floor", lambda: ours(arch, w), floor(epochs)),
    ):
        s, times, acc = timed(make, run, runs)
        rows.append(dict(what=what, seconds=s, times=times, accuracy=acc, workers=w))
    return with_ratios([r | dict(arch=arch, epochs=epochs) for r in rows])


def finder(runs, arch="tf_efficientnet_lite0"):
    from fastai_tl.cache.callback import frozen_cache
    from fastai_tl.training.lr_finder import find_lr
    from fastai_tl.core.progress import quiet

    def theirs(learn):
        with quiet(learn):
            learn.lr_find(show_plot=False, num_it=100)
        return len(learn.recorder.losses)

    rows = []

    def add(what, make, run):
        s, times, n = timed(make, run, runs)
        rows.append(dict(what=what, seconds=s, times=times, batches=n))

    add("fastai lr_find", lambda: plain(arch), theirs)
    add("find_lr", lambda: ours(arch), lambda learn: len(find_lr(learn, on_progress=QUIET).losses))
    for fused in (False, True):
        learn = ours(arch)
        with frozen_cache(learn, fused=fused, on_progress=QUIET):
            find_lr(learn, on_progress=QUIET)
            add(
                "find_lr, cache built" + ", fused" * fused,
                lambda learn=learn: learn,
                lambda learn: len(find_lr(learn, on_progress=QUIET).losses),
            )
    return with_ratios(rows)


def gradual(runs, arch="tf_efficientnet_lite0"):
    from fastai_tl.freezing.layer_groups import layer_groups
    from fastai_tl.training.plan import Plan
    from fastai_tl.core.progress import quiet
    from fastai_tl.training.run_plan import run_plan

    # with 3e-3 layers that are freed learn so fast that roundings decide about a tenth of the accuracy, by either way
    lr = LR / 10
    plan = Plan.gradual(lr=lr)

    def by_hand(learn):
        groups = list(layer_groups(ours_groups))
        with quiet(learn):
            stages = plan.expand(groups).stages
            for s in stages:
                n = 0 if s.train == "all" else groups.index(s.train) if s.train in groups else len(groups) - 1
                learn.freeze_to(n)
                learn.fit_one_cycle(s.epochs, slice(lr / 100, lr) if n < len(groups) - 1 else lr)
        return learn.recorder.values[-1][2]

    def same_groups(seed):
        learn, like = plain(arch, seed=seed), ours(arch)
        index = {id(p): i for i, ps in enumerate(layer_groups(like).values()) for p in ps}
        place = [index[id(p)] for p in like.model.parameters()]

        def splitter(model):
            out = [[] for _ in range(max(place) + 1)]
            for p, i in zip(model.parameters(), place):
                out[i].append(p)
            return out

        learn.splitter = splitter
        learn.create_opt()
        return learn

    ours_groups = ours(arch)
    ways = (
        ("fastai, by hand", same_groups, by_hand),
        (
            "run_plan",
            lambda seed: ours(arch, seed=seed),
            lambda learn: run_plan(learn, plan, on_progress=QUIET).stages[-1].values[-1][2],
        ),
    )
    rows = [dict(what=what, times=[], accuracies=[]) for what, *_ in ways]
    for seed in range(runs):  # in turns, as the speed of a machine changes
        for r, (_, make, run) in zip(rows, ways):
            _, times, acc = timed(lambda make=make, seed=seed: make(seed), run, 1)
            r["times"] += times
            r["accuracies"].append(acc)
    for r in rows:
        r["seconds"], r["accuracy"] = median(a for a, _ in r["times"]), sum(r["accuracies"]) / runs
    return with_ratios(rows)


def accuracy(seeds, arch="tf_efficientnet_lite0", epochs=5):
    "Accuracy of the head by each way, over seeds, and the mean difference to ours with its 95 % interval (Student's t)"
    import numpy as np
    from scipy import stats

    a = {w: [] for w in ("ours", "ours, fused", "fastai", "fastai, frozen batch norm")}
    for s in range(seeds):
        a["ours"].append(fit_ours(epochs)(ours(arch, seed=s)))
        a["ours, fused"].append(fit_ours(epochs, True)(ours(arch, seed=s)))
        a["fastai"].append(fit_plain(epochs)(plain(arch, seed=s)))
        a["fastai, frozen batch norm"].append(fit_plain(epochs)(plain(arch, seed=s, frozen_bn=True)))
    rows = []
    for w, v in a.items():
        d = np.array(a["ours"]) - np.array(v)
        half = float(stats.t.ppf(0.975, seeds - 1) * d.std(ddof=1) / seeds**0.5) if seeds > 1 else float("nan")
        m = float(d.mean())
        rows.append(dict(what=w, accuracies=v, mean=float(np.mean(v)), ours_minus_it=m, interval=[m - half, m + half]))
    return rows


def show(part, rows):
    print(f"\n{part}")
    for r in rows:
        text = "  ".join(
            f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in r.items() if k not in LEFT_OUT
        )
        print(f"  {r['what']:28s} {text}", flush=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("parts", nargs="*", default=[], help="heads long finder gradual accuracy; none: all")
    ap.add_argument("--runs", type=int, default=3)
    ap.add_argument("--seeds", type=int, default=5)
    ap.add_argument("--workers", type=int, nargs="*", default=[0, 2], help="worker processes to try for the baseline")
    args = ap.parse_args()
    warnings.filterwarnings("ignore")
    import torch

    OUT.mkdir(exist_ok=True)
    file = OUT / "cache.json"
    result = json.loads(file.read_text()) if file.exists() and args.parts else {}
    jobs = {
        f"heads {a}": (lambda a=a: heads(a, 5, args.runs, args.workers))
        for a in ("tf_efficientnet_lite0", "resnet18", "mobilenet_v3_small")
    }
    jobs |= dict(
        finder=lambda: finder(args.runs),
        gradual=lambda: gradual(args.runs),
        accuracy=lambda: accuracy(args.seeds),
        long=lambda: heads("tf_efficientnet_lite0", 30, args.runs, args.workers),
    )
    fit_ours(1)(ours("tf_efficientnet_lite0"))  # warm up
    for part, job in jobs.items():
        if args.parts and not any(part.startswith(p) for p in args.parts):
            continue
        before, t = os.getloadavg()[0], time.time()
        rows = job()
        show(part, rows)
        result[part] = dict(
            rows=copy.deepcopy(rows),
            runs=args.runs,
            threads=torch.get_num_threads(),
            cpus=os.cpu_count(),
            load_before=before,
            load_after=os.getloadavg()[0],
            took=time.time() - t,
        )
        file.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
