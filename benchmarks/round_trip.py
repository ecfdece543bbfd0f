"""Export and load again: 20 backbones of all families, each with random weights, both backends, predictions compared
with the Learner's.

Each is built on the sample set with random weights and the running statistics of the pictures, exported with ONNX, and
opened with torch and with ONNX Runtime; every validation picture is classified by all three. One process each. Run:
python benchmarks/round_trip.py [names …]. Prints a line each and writes benchmarks/out/round_trip.json.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

OUT = Path(__file__).parent / "out"
NAMES = {
    "resnet_mini": 48,
    "mobilenet_mini": 48,
    "tf_efficientnet_lite0": 64,
    "resnet18": 64,
    "vgg11_bn": 64,
    "mobilenet_v2": 64,
    "mobilenet_v3_small": 64,
    "efficientnet_b0": 64,
    "efficientnet_v2_s": 128,
    "resnext50_32x4d": 64,
    "wide_resnet50_2": 64,
    "swin_v2_t": 64,
    "convnext_tiny": 64,
    "densenet121": 64,
    "regnet_y_400mf": 64,
    "vit_b_16": 224,
    "swin_t": 64,
    "squeezenet1_1": 64,
    "googlenet": 64,
    "inception_v3": 128,
    "mnasnet0_5": 64,
    "shufflenet_v2_x0_5": 64,
    "maxvit_t": 224,
    "alexnet": 96,
    "timm/resnet10t": 64,
    "timm/vit_tiny_patch16_224": 224,
    "timm/mobilenetv4_conv_small": 64,
    "timm/ghostnet_050": 64,
}  # side of the pictures, in pixels
# At 64 pixels the random efficientnet_v2_s answers differently by 4e-4 in batches of 8 and of 32, in torch itself:
# rounding grows in its 42 blocks.
TOL = 1e-4


def learner(name, size):
    "On a few pictures of the sample set, with weights that make the classes differ"
    import torch
    from torch import nn

    from fastai_tl.freezing.freeze import freeze_to, unfreeze
    from fastai_tl.datasets.picture_folder import ClassOf, picture_dls
    from fastai_tl.datasets.samples import sample_path, split_sample
    from fastai_tl.models.transfer_learner import transfer_learner

    torch.manual_seed(0)
    train, valid = split_sample(sample_path("clipart"), 2)
    dls = picture_dls(train, valid[::6], ClassOf(sample_path("clipart")), size=size, bs=8, path=".")
    learn = transfer_learner(dls, name, pretrained=False)
    norms = [m for m in learn.model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    unfreeze(learn)  # frozen norms would keep their statistics
    with torch.no_grad():
        for m in norms:
            m.reset_running_stats()
            m.momentum = None  # statistics of the pictures, or little of them would arrive at the head
        learn.model.train()
        for m in learn.model.modules():
            m.training = isinstance(m, nn.modules.batchnorm._BatchNorm)
        for x, _ in learn.dls.valid:
            nn.Sequential.forward(learn.model, x)
        learn.model.eval()
        spread = torch.cat([learn.model(x) for x, _ in learn.dls.valid]).std(0).mean()
        last = [m for m in learn.model.modules() if isinstance(m, nn.Linear)][-1]
        # random networks hardly tell pictures apart; rounding errors grow as much
        last.weight *= float(min(0.1 / max(spread, 1e-6), 1e4))
    freeze_to(learn, "head")
    return learn


def check(name, size):
    "The record of one backbone"
    import numpy as np

    from fastai_tl.deploy.export import export
    from fastai_tl.deploy.torch_predictor import load_predictor
    from fastai_tl.core.progress import quiet

    learn = learner(name, size)
    with quiet(learn):
        want = learn.get_preds()[0].numpy()
    items, apart = list(learn.dls.valid_ds.items), float(want.std(0).mean())
    assert apart > 1e-3, f"the pictures' probabilities hardly differ ({apart:.1g}): equality would prove nothing"
    with tempfile.TemporaryDirectory() as d:
        t = time.perf_counter()
        folder = export(learn, Path(d) / "m")
        rec = dict(
            name=name,
            size=size,
            params=sum(p.numel() for p in learn.model.parameters()),
            pictures=len(items),
            spread=round(apart, 4),
            export_seconds=round(time.perf_counter() - t, 1),
            mb={f.name: round(f.stat().st_size / 2**20, 1) for f in folder.glob("model.*")},
        )
        if why := json.loads((folder / "manifest.json").read_text())["onnx"].get("error"):
            rec["onnx_error"] = why
        for backend in ("torch",) if why else ("torch", "onnx"):
            pred = load_predictor(folder, backend)
            rec[backend] = float(np.abs(np.stack([p.probabilities for p in pred.predict(items)]) - want).max())
            assert rec[backend] <= TOL, f"{backend} differs by {rec[backend]:.2g}"
    return rec


def in_its_own_process(name, size):
    r = subprocess.run([sys.executable, __file__, "--one", name, str(size)], capture_output=True, text=True)
    try:
        return json.loads(r.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return dict(name=name, error=f"exit code {r.returncode}: {(r.stderr.strip().splitlines() or [''])[-1][:300]}")


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("names", nargs="*")
    ap.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    ap.add_argument("--json", type=Path, default=OUT / "round_trip.json")
    args = ap.parse_args()
    if args.one:
        warnings.simplefilter("ignore")
        print(json.dumps(check(args.one[0], int(args.one[1]))))
        return
    records = []
    for name in args.names or NAMES:
        records.append(r := in_its_own_process(name, NAMES.get(name, 224)))
        onnx = r.get("onnx_error") or f"{r.get('onnx', 1):.0e}"
        print(
            f"{name:30s}",
            r.get("error")
            or f"{r['params'] / 1e6:6.1f} M  torch {r['torch']:.0e}  onnx {onnx}  {r['export_seconds']} s",
            flush=True,
        )
        args.json.parent.mkdir(exist_ok=True)
        args.json.write_text(json.dumps(records, indent=1) + "\n")
    bad, both = [r["name"] for r in records if "error" in r], sum("onnx" in r for r in records)
    print(f"{len(records)} backbones, {both} with both backends within {TOL:g}, {len(bad)} failed: {', '.join(bad)}")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
