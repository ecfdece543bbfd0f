"""The whole comparison on the sample set with the offline backbone: six strategies and all offline backbones, with
three seeds, and how long it takes.

96 training and 115 validation pictures of clipart, 128 px, at equal numbers of epochs; corrupted pictures as by
default. Run: python benchmarks/compare.py [--seeds 3]. Prints both tables and writes benchmarks/out/compare.json.
"""

import argparse
import json
import os
import time
import warnings
from pathlib import Path

OUT = Path(__file__).parent / "out"


def timed(f):
    "What a comparison found, with wall-clock and processor seconds"
    import torch

    t, c = time.perf_counter(), time.process_time()
    out = f()
    print(f"{out}\n{out.method}\n")
    return dict(
        seconds=round(time.perf_counter() - t, 1),
        processor_seconds=round(time.process_time() - c, 1),
        threads=torch.get_num_threads(),
        cores=os.cpu_count(),
        **out.to_dict(),
    )


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--seeds", type=int, default=3, help="how many, from 0")
    ap.add_argument("--epochs", type=int, default=6, help="of each strategy")
    ap.add_argument("--json", type=Path, default=OUT / "compare.json")
    args = ap.parse_args()
    warnings.simplefilter("ignore")
    from fastai_tl.experiments.backbones import compare_backbones
    from fastai_tl.datasets.samples import sample_dls
    from fastai_tl.experiments.strategies import compare

    dls = sample_dls("clipart", size=128, bs=16, n_per_class=12, seed=42)
    quiet = lambda *a: None
    r = dict(
        backbones=timed(lambda: compare_backbones(dls, seeds=args.seeds, on_progress=quiet)),
        strategies=timed(
            lambda: compare(
                dls,
                seeds=args.seeds,
                arch="tf_efficientnet_lite0",
                epochs=args.epochs,
                head="fastai",
                on_progress=quiet,
            )
        ),
    )
    for k, v in r.items():
        print(f"{k}: {v['seconds']:.0f} s, {v['processor_seconds']:.0f} s of processor time, {v['threads']} thread(s)")
    args.json.parent.mkdir(exist_ok=True)
    args.json.write_text(json.dumps(r, indent=1) + "\n")


if __name__ == "__main__":
    main()
