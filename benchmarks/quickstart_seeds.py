"""The quickstart's comparison over seeds 0 to 4: how much transfer learning helps on the sample set, and how sure that
is.

Each seed draws another split, other new weights and another order of training; within a seed, all arms share the
pictures. Run: make bench, or python benchmarks/quickstart_seeds.py [--seeds 5]. Prints a table, writes
benchmarks/out/quickstart_seeds.json.
"""

import argparse
import json
import tempfile
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from fastai_tl.interface.quickstart_run import ARMS
from fastai_tl.interface.quickstart import Screen, run_quickstart

OUT = Path(__file__).parent / "out"


class Quiet(Screen):
    "Says nothing"

    def step(self, i, step):
        pass

    def after(self, text, file):
        pass

    def say(self, text):
        pass

    @contextmanager
    def progress(self, title):
        yield lambda done, total, note="": None


def spread(values):
    "Mean and standard deviation over the seeds, in points"
    v = 100 * np.asarray(values)
    return f"{v.mean():5.1f} ± {v.std(ddof=1) if len(v) > 1 else 0:4.1f}"


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--seeds", type=int, default=5, help="how many seeds, from 0")
    n = ap.parse_args().seeds
    warnings.filterwarnings("ignore", category=FutureWarning)
    runs = []
    with tempfile.TemporaryDirectory() as d:
        for seed in range(n):
            r = run_quickstart(Path(d) / str(seed), seed=seed, screen=Quiet(), baseline_share=np.inf)
            runs.append(
                {
                    "seed": seed,
                    **r["accuracy"],
                    "n_valid": r["n_valid"],
                    "seconds": round(sum(r["seconds"].values()), 1),
                }
            )
            print(
                f"seed {seed}: "
                + ", ".join(f"{k} {r['accuracy'][k]:.3f}" for k in ARMS)
                + f"; {runs[-1]['seconds']:.0f} s",
                flush=True,
            )
    acc = {k: np.array([r[k] for r in runs]) for k in ARMS}
    print(f"\n{'accuracy in points, mean ± standard deviation over ' + str(n) + ' seeds':60s}")
    for k in ARMS:
        print(f"  {k:14s}{spread(acc[k])}")
    print("frozen minus the others, paired by seed")
    for k in ("scratch", "scratch_long", "pixels"):
        print(f"  {k:14s}{spread(acc['frozen'] - acc[k])}   smallest {100 * (acc['frozen'] - acc[k]).min():.1f}")
    OUT.mkdir(exist_ok=True)
    (OUT / "quickstart_seeds.json").write_text(json.dumps(runs, indent=1) + "\n")
    print(f"written to {OUT / 'quickstart_seeds.json'}")


if __name__ == "__main__":
    main()
