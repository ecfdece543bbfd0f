"""One picture: how long until its label, from a file, with fastai's `learn.predict` and with an exported model, torch
and ONNX.

All in one process, one thread, turn by turn (so that a busy machine slows them alike); the median of many. The times to
open the model are noted, too. Run: python benchmarks/predict_one.py [--n 60]. Prints a table and writes
benchmarks/out/predict_one.json.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
OUT = Path(__file__).parent / "out"
NAMES = {"resnet_mini": 48, "tf_efficientnet_lite0": 128, "mobilenet_v3_small": 128, "resnet18": 128}


def compare(name, size, n):
    "Milliseconds of each way, and how many times faster than `learn.predict`"
    import numpy as np
    import torch

    from fastai_tl.deploy.export import export
    from fastai_tl.deploy.torch_predictor import load_predictor
    from fastai_tl.datasets.samples import sample_dls, sample_path
    from fastai_tl.deploy.onnx_runtime import load_onnx
    from fastai_tl.models.transfer_learner import transfer_learner

    torch.set_num_threads(1)
    torch.manual_seed(0)
    learn = transfer_learner(
        sample_dls("clipart", size=size, n_per_class=2),
        name,
        pretrained=name in ("resnet_mini", "tf_efficientnet_lite0"),
    )
    files = sorted(sample_path("clipart").glob("*/*.jpg"))[::7][:n]
    with tempfile.TemporaryDirectory() as d:
        folder, opened = export(learn, Path(d) / "m"), {}

        def timed(f, key):
            t = time.perf_counter()
            out = f()
            opened[key] = round(time.perf_counter() - t, 3)
            return out

        torch_, onnx = (
            timed(lambda: load_predictor(folder), "torch"),
            timed(lambda: load_onnx(folder, threads=1), "onnx"),
        )

        def plain(f):
            with learn.no_bar(), learn.no_logging():
                return learn.predict(f)[2].numpy()

        ways = dict(
            fastai=plain, torch=lambda f: torch_.predict(f).probabilities, onnx=lambda f: onnx.predict(f).probabilities
        )
        ms = {k: [] for k in ways}
        for i, f in enumerate([*files[:3], *files]):  # the first three warm up
            out = {}
            for k, way in ways.items():
                t = time.perf_counter()
                out[k] = way(f)
                if i >= 3:
                    ms[k].append((time.perf_counter() - t) * 1e3)
            for k in ("torch", "onnx"):
                np.testing.assert_allclose(out[k], out["fastai"], atol=1e-4, rtol=0)
    mid = {k: statistics.median(v) for k, v in ms.items()}
    return dict(
        name=name,
        size=size,
        pictures=len(files),
        ms={k: round(v, 2) for k, v in mid.items()},
        opened_seconds=opened,
        times_faster={k: round(mid["fastai"] / mid[k], 2) for k in ("torch", "onnx")},
    )


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--n", type=int, default=40, help="pictures")
    ap.add_argument("--json", type=Path, default=OUT / "predict_one.json")
    args = ap.parse_args()
    warnings.simplefilter("ignore")
    records = []
    print(f"{'':24s}{'px':>5s}{'fastai':>10s}{'torch':>10s}{'onnx':>10s}   times faster")
    for name, size in NAMES.items():
        records.append(r := compare(name, size, args.n))
        print(
            f"{name:24s}{size:5d}",
            *(f"{r['ms'][k]:7.1f} ms" for k in ("fastai", "torch", "onnx")),
            f"  {r['times_faster']['torch']:.1f}, {r['times_faster']['onnx']:.1f}",
            sep="",
            flush=True,
        )
        args.json.parent.mkdir(exist_ok=True)
        args.json.write_text(json.dumps(records, indent=1) + "\n")


if __name__ == "__main__":
    main()
