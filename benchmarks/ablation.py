"""What each part of acceleration and cache saves: the time of `run_plan` with one part switched off.

Runs: `Plan.head_only`, `Plan.fine_tune` and `Plan.gradual` at 96 px, `Plan.fine_tune` at 224 px.
Networks: tf_efficientnet_lite0 (pretrained), mobilenet_v2 and resnet18 (random weights, as there are none offline).
Images: 96 for training, 24 for validation, of the clipart sample; batch 16, no worker processes.
The learning rate is fixed, as a sweep of 75 batches would dominate so short a run; `head_only find` is one run more,
with the sweep of the default plan.

A part is switched off by a patch while the run lasts. Rows: full; each part off; the feature cache alone (all parts
off); cache=False. A part that a run never uses is not timed there. Each run: one untimed warm-up, then three rounds of
all rows in turn. The saving of a part is 1 - seconds(full) / seconds(off). A part stays if it saves 15 % in the median
and in two of three rounds of at least one run.

benchmarks/results/ablation.json was measured before the parts that save less were removed: batch norms folded into
convolutions, convolution kernels of our own, items opened once, callbacks skipped, features of later stages stored on
the way. No run had 15 % of one of them in two of three rounds. All five together had saved 20 % of fine_tune and, in
one round, 28 % of gradual (lite0, 96 px; ablation_extra.json).

Run: taskset -c 0 python benchmarks/ablation.py. Each time goes into benchmarks/out/ablation.json as it is taken; a
second call goes on from there. --check counts what each switch changes, and compares the losses; weights that are
nudged by a rounding are the yardstick. --also: rows with several parts off. --rounds: more rounds, for parts near the
limit.
"""

import argparse
import gc
import json
import os
import statistics
import time
import warnings
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("OMP_NUM_THREADS", "1")
OUT = Path(__file__).parent / "out" / "ablation.json"
PER_CLASS = 12
VALID_PER_CLASS = 3
ROUNDS = 3
LIMIT = 0.15
PARTS = {
    "channels last": "convolutions get their inputs with channels last",
    "fused Adam": "Adam's step in one pass",
}
WHOLE = ("feature cache alone", "cache=False")
NUDGED = "full, weights nudged"
NETS = ("tf_efficientnet_lite0", "mobilenet_v2", "resnet18")
RUNS = [(plan, net, 96) for net in NETS[:2] for plan in ("fine_tune", "gradual")]
RUNS += [(plan, net, 96) for net in NETS[:2] for plan in ("head_only", "head_only find")]
RUNS += [(plan, NETS[2], 96) for plan in ("fine_tune", "gradual", "head_only", "head_only find")]
RUNS += [("fine_tune", net, 224) for net in NETS]


def product():
    "All of fastai_tl that is used or patched here"
    import fastai_tl.all as kit
    from fastai_tl.acceleration import fused_adam
    from fastai_tl.cache import callback, split_point
    from fastai_tl.datasets.picture_folder import ClassOf, picture_dls
    from fastai_tl.datasets.samples import split_sample

    return SimpleNamespace(
        Plan=kit.Plan,
        run_plan=kit.run_plan,
        transfer_learner=kit.transfer_learner,
        reseed=kit.reseed,
        sample_path=kit.sample_path,
        ClassOf=ClassOf,
        picture_dls=picture_dls,
        split_sample=split_sample,
        callback=callback,
        split_point=split_point,
        fused_adam=fused_adam,
    )


# -- switches


@contextmanager
def patched(*changes):
    "Inside, attributes are others: (object, name, value)"
    old = [(obj, name, vars(obj).get(name, patched)) for obj, name, _ in changes]  # `patched`: there is none
    try:
        for obj, name, value in changes:
            setattr(obj, name, value)
        yield
    finally:
        for obj, name, value in reversed(old):
            if value is patched:
                delattr(obj, name)
            else:
                setattr(obj, name, value)


def no_channels_last(p):
    never = lambda *args, **kwargs: False
    return [(p.callback, "runs_channels_last", never), (p.split_point, "_features_run_channels_last", never)]


def no_fused(p):
    return [(p.fused_adam, "fused_step", lambda opt: False)]


SWITCHES = {"channels last": no_channels_last, "fused Adam": no_fused}


@contextmanager
def off(row, p):
    "Inside, what a row names is switched off"
    with ExitStack() as stack:
        for name in PARTS if row == "feature cache alone" else row.split(" + "):
            if name in SWITCHES:
                stack.enter_context(patched(*SWITCHES[name](p)))
        yield


# -- what is used


@contextmanager
def uses(p):
    "How often each part is used inside"
    n = Counter()

    def counted(part, f, counts=lambda out: True):
        def g(*args, **kwargs):
            out = f(*args, **kwargs)
            n[part] += bool(counts(out))
            return out

        return g

    changes = [(p.fused_adam, "fused_step", counted("fused Adam", p.fused_adam.fused_step, lambda taken: taken))]
    with patched(*changes):
        yield n
    n["channels last"] = 1  # of every run: it takes the whole network


@contextmanager
def counts():
    "Counts that no part of the product makes: calls of torch, of files and of callbacks"
    import torch
    from fastai.callback.core import Callback
    from PIL import Image
    from torch.utils._python_dispatch import TorchDispatchMode

    n, call, opened = Counter(), Callback.__call__, Image.open

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            name = func.__name__.partition(".")[0]
            if name == "convolution":
                x = args[0]
                n["convolutions"] += 1
                n["with channels last"] += x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
                n["images through the stem"] += len(x) if x.shape[1] == 3 else 0
            n["batch norms"] += name.strip("_").startswith("native_batch_norm") and "backward" not in name
            n["fused steps"] += name == "_fused_adamw_"
            return func(*args, **(kwargs or {}))

    def called(self, name):
        n["callbacks asked"] += 1
        return call(self, name)

    def open_(*args, **kwargs):
        n["files opened"] += 1
        return opened(*args, **kwargs)

    with patched((Callback, "__call__", called), (Image, "open", open_)), Watch():
        yield n


# -- runs


def images(p, size):
    import random

    train, valid = p.split_sample(p.sample_path("clipart"), PER_CLASS, 0)
    by_class = {}
    for f in valid:
        by_class.setdefault(f.parent, []).append(f)
    valid = [f for fs in by_class.values() for f in random.Random(0).sample(fs, VALID_PER_CLASS)]
    return p.picture_dls(train, valid, p.ClassOf(p.sample_path("clipart")), size, 16, 0)


def learner(p, net, size):
    from fastai.torch_core import set_seed

    set_seed(0)
    learn = p.transfer_learner(images(p, size), net, pretrained=net == "tf_efficientnet_lite0", head="fastai")
    p.reseed(learn, 0)
    return learn


def plan_of(p, name):
    return {
        "head_only": lambda: p.Plan.head_only(5, lr=3e-3),
        "head_only find": lambda: p.Plan.head_only(5),
        "fine_tune": lambda: p.Plan.fine_tune(2, lr=3e-3, freeze_epochs=1),
        "gradual": lambda: p.Plan.gradual(1, last_epochs=1, lr=1e-3),
    }[name]()


def nudged(learn):
    "Every weight a rounding away from what it was: how far apart do losses come by roundings alone?"
    import torch

    with torch.no_grad():
        rng = torch.Generator().manual_seed(1)
        for w in learn.model.parameters():
            w.mul_(1 + 1e-7 * torch.empty_like(w).uniform_(-1, 1, generator=rng))


def once(p, run, row, watch=None):
    "Seconds of the clock and of the processor, and the losses; `watch`: what to count with"
    plan, net, size = run
    learn = learner(p, net, size)
    if row == NUDGED:
        nudged(learn)
    gc.collect()
    with off(row, p), ExitStack() as stack:
        n = stack.enter_context(watch) if watch is not None else None
        begun = time.perf_counter(), time.process_time()
        cache = False if row == "cache=False" else "auto"
        history = p.run_plan(learn, plan_of(p, plan), cache=cache, on_progress=lambda *args: None)
        seconds = time.perf_counter() - begun[0], time.process_time() - begun[1]
    losses = [float(o) for s in history.stages for o in s.losses]
    valid, notes = float(history.stages[-1].values[-1][1]), [s.cache for s in history.stages]
    return SimpleNamespace(seconds=seconds, losses=losses, valid=valid, counts=n, notes=notes)


def check(p, only):
    "What each switch changes, in small runs"
    for run in (("gradual", NETS[0], 96), ("fine_tune", NETS[1], 96), ("head_only", NETS[2], 96)):
        if not name_of(run).startswith(only):
            continue
        print(f"\n{name_of(run)}", flush=True)
        full = None
        for row in ("full", NUDGED, *PARTS, *WHOLE):
            one = once(p, run, row, counts())
            full = full or one
            first = max(abs(a - b) for a, b in zip(full.losses[:6], one.losses[:6]))
            apart = max(abs(a - b) for a, b in zip(full.losses, one.losses))
            keys = [k for k in full.counts | one.counts if row == "full" or full.counts[k] != one.counts[k]]
            changed = ", ".join(f"{k} {full.counts[k]} → {one.counts[k]}" for k in keys)
            print(
                f"  {row:22s} losses differ by {first:.0e} (6 batches), {apart:.0e} (all {len(one.losses)}); {changed}",
                flush=True,
            )
            if row == "full":
                print("    " + "\n    ".join(one.notes))


# -- results


def name_of(run):
    return f"{run[0]}, {run[1]}, {run[2]} px"


def write(result, file):
    tmp = file.with_suffix(".tmp")
    tmp.write_text(json.dumps(result, indent=1) + "\n")
    tmp.replace(file)


def savings(result):
    "Of each run and row: median seconds of both, saving in the median and in each round"
    out = {}
    for name, r in result["runs"].items():
        times = {}
        for t in r["times"]:
            times.setdefault(t["row"], {})[t["round"]] = t["seconds"]
        full = times.get("full", {})
        for row, ts in times.items():
            rounds = sorted(set(ts) & set(full))
            if row == "full" or not rounds:
                continue
            a, b = [full[i] for i in rounds], [ts[i] for i in rounds]
            mid = statistics.median(a), statistics.median(b)
            out.setdefault(name, {})[row] = SimpleNamespace(
                full=mid[0],
                off=mid[1],
                spread=(max(a) - min(a), max(b) - min(b)),
                n=len(rounds),
                saving=1 - mid[0] / mid[1],
                rounds=[1 - x / y for x, y in zip(a, b)],
            )
    return out


def verdict(result):
    "Of each part: 'keep', 'cut' or 'open', the run with the largest saving, and the runs that are missing"
    table, out = savings(result), {}
    for part in PARTS:
        rows = {name: t[part] for name, t in table.items() if part in t}
        good = [
            n for n, s in rows.items() if s.saving >= LIMIT and sum(x >= LIMIT for x in s.rounds) > max(s.n, ROUNDS) / 2
        ]
        unused = [n for n, r in result["runs"].items() if part in r.get("unused", ())]
        missing = [n for n in map(name_of, RUNS) if n not in unused and (n not in rows or rows[n].n < ROUNDS)]
        best = max(good or rows, key=lambda n: rows[n].saving, default=None)
        out[part] = dict(
            decision="keep" if good else "open" if missing else "cut",
            best=best,
            runs_that_keep=good,
            missing=missing,
            saving=rows[best].saving if best else None,
            rounds=rows[best].rounds if best else [],
        )
    return out


def _cell(s):
    if s is None:
        return ""
    return f"{s.off:.2f} ({s.saving:+.0%}" + (")" if s.n >= ROUNDS else f", {s.n} of {ROUNDS})")


def report(result):
    "Both tables, as Markdown"
    more = {t["row"]: 0 for r in result["runs"].values() for t in r["times"] if " + " in t["row"]}
    columns = (*PARTS, *more, *WHOLE)
    table = savings(result)
    lines = ["| part | decision | largest saving | in | rounds | other runs with 15 % or more |", "|---" * 6 + "|"]
    for part, v in verdict(result).items():
        if v["best"] is None:
            continue
        rounds = ", ".join(f"{x:.0%}" for x in v["rounds"])
        missing = f" ({len(v['missing'])} runs are missing)" if v["missing"] else ""
        others = "; ".join(n for n in v["runs_that_keep"] if n != v["best"])
        cells = part, f"**{v['decision']}**{missing}", f"{v['saving']:.0%}", v["best"], rounds, others
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "Seconds with the part off (saving of the part); full: median ± half of the spread", ""]
    lines += ["| run | full | " + " | ".join(columns) + " |", "|---" * (2 + len(columns)) + "|"]
    for name, rows in table.items():
        any_ = max(rows.values(), key=lambda s: s.n)
        unused = result["runs"][name].get("unused", ())
        cells = ["not used" if k in unused else _cell(rows.get(k)) for k in columns]
        lines.append(f"| {name} | {any_.full:.2f} ± {any_.spread[0] / 2:.2f} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--check", action="store_true")
    ap.add_argument("--also", nargs="*", default=[], help="rows with several parts off, such as 'events + fused Adam'")
    ap.add_argument("--only", default="", help="runs whose name begins so, such as 'gradual, mobilenet_v2'")
    ap.add_argument("--json", type=Path, default=OUT)
    ap.add_argument("--rows", nargs="*", help="these rows alone, beside full")
    ap.add_argument("--rounds", type=int, default=ROUNDS)
    ap.add_argument("--report", type=Path, help="a file for the tables, written after each round")
    args = ap.parse_args()
    warnings.filterwarnings("ignore")
    p = product()
    if args.check:
        return check(p, args.only)
    import torch

    args.json.parent.mkdir(exist_ok=True)
    result = json.loads(args.json.read_text()) if args.json.exists() else dict(runs={})
    result |= dict(
        threads=torch.get_num_threads(),
        cpus=os.cpu_count(),
        cores=sorted(os.sched_getaffinity(0)),
        torch=torch.__version__,
        cpu=torch.backends.cpu.get_cpu_capability(),
        train=8 * PER_CLASS,
        valid=8 * VALID_PER_CLASS,
        limit=LIMIT,
    )
    begun, done = time.time(), sum(len(r["times"]) for r in result["runs"].values())
    print(f"{done} times are there already; cores {result['cores']}, load {os.getloadavg()[0]:.2f}", flush=True)
    for run in RUNS:
        name = name_of(run)
        if not name.startswith(args.only):
            continue
        r = result["runs"].setdefault(name, dict(times=[], unused=None))
        took, warm = time.time(), False
        for i in range(args.rounds):
            rows = ["full", *(args.rows or (*PARTS, *WHOLE, *args.also))]
            have = {t["row"] for t in r["times"] if t["round"] == i}
            todo = [row for row in rows if row not in have and not (r["unused"] and row in r["unused"])]
            if not todo:
                continue
            if not warm:  # also after a restart
                n = once(p, run, "full", uses(p)).counts
                r["unused"] = [part for part in PARTS if not n[part]]
                warm = True
            for row in todo:
                if row in r["unused"]:
                    continue
                before = os.getloadavg()[0]
                one = once(p, run, row)
                r["times"].append(
                    dict(
                        row=row,
                        round=i,
                        seconds=one.seconds[0],
                        cpu=one.seconds[1],
                        loss=one.losses[-1],
                        valid=one.valid,
                        load=before,
                        cores=result["cores"],
                        at=time.strftime("%H:%M:%S"),
                    )
                )
                write(result, args.json)
                print(
                    f"{(time.time() - begun) / 60:5.1f} min  {name}, round {i + 1}, {row}: {one.seconds[0]:.2f} s "
                    f"(processor {one.seconds[1]:.2f} s)",
                    flush=True,
                )
            result["verdict"] = verdict(result)
            write(result, args.json)
            if args.report:
                args.report.write_text(report(result))
        if warm:
            r["took"] = r.get("took", 0) + time.time() - took
            write(result, args.json)
    print("\n" + report(result))


if __name__ == "__main__":
    main()
