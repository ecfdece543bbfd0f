"""Does what holds on a CPU hold on a GPU, and what is gained there? Six minutes, for a machine with one card.

python tools/gpu_check.py [--wheels FOLDER] [--device cuda] [--out FILE] [--minutes 6] [--rows NAME …]

It runs with the Python that it is given, makes no environment and asks no network: what PyTorch's machine lacks comes
from a folder of wheels that `tools/gpu_wheels.py` has made. Each row is written to the file at once, the most telling
first; rows for which the time is over say so. Made images, from memory but in the row `jpeg`. "plain" is fastai's
`vision_learner` with the same weights, images, rate and batch size; each time includes making features. Without a card
the rows run small on the CPU, and the file says so. Apple's MPS: `--device mps`, written from the documentation only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
import traceback
import zipfile
from pathlib import Path

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for the row `resume`, before CUDA starts
REPO = Path(__file__).resolve().parent.parent
QUIET = lambda *a: None
LR, CLASSES = 2e-3, 10
LITE = "tf_efficientnet_lite0"


def use_wheels(folder: Path) -> None:
    "Make the packages of a folder of wheels importable, here and in worker processes"
    site = tempfile.mkdtemp(prefix="gpu-check-")
    for wheel in sorted(folder.glob("*.whl")):
        zipfile.ZipFile(wheel).extractall(site)
    sys.path.insert(0, site)
    os.environ["PYTHONPATH"] = os.pathsep.join([site, os.environ.get("PYTHONPATH", "")])


class Made:
    "Images of a coloured shape on noise: the class decides colour and place"

    def __init__(self, n, size, seed):
        import numpy as np

        rng = np.random.default_rng(seed)
        self.size, self.y = size, rng.integers(0, CLASSES, n)
        self.x = rng.integers(0, 120, (n, 3, size, size), dtype=np.uint8)
        for x, y in zip(self.x, self.y):
            at, side = size // 5 * (y % 5), size // 3
            x[y % 3, at : at + side, size // 4 : size // 4 + side] += np.uint8(100 + 10 * y)

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        from fastai.vision.core import TensorImage
        from fastai.torch_core import TensorCategory
        import torch

        return TensorImage(torch.from_numpy(self.x[i])), TensorCategory(int(self.y[i]))


class Check:
    "What all rows use"

    def __init__(self, a):
        self.device, self.small = a.device, a.device == "cpu"
        self.size, self.bs = a.size, a.batch
        self.sets = Made(a.images, a.size, 0), Made(a.images // 4, a.size, 1)

    def dls(self):
        from fastai.data.core import DataLoaders
        from fastai.data.transforms import IntToFloatTensor

        dls = DataLoaders.from_dsets(
            *self.sets, bs=self.bs, num_workers=0, device=self.device, after_batch=[IntToFloatTensor()]
        )
        dls.c, dls.vocab = CLASSES, [str(i) for i in range(CLASSES)]
        return dls

    def ours(self, arch=LITE, dls=None, seed=0):
        from fastai.losses import CrossEntropyLossFlat
        from fastai.torch_core import set_seed
        from fastai_tl.all import reseed, transfer_learner

        set_seed(seed)
        loss = CrossEntropyLossFlat()
        learn = transfer_learner(dls or self.dls(), arch, pretrained=arch == LITE, head="fastai", loss_func=loss)
        reseed(learn, seed)
        return learn

    def plain(self, arch=LITE, dls=None):
        "fastai's own Learner with the weights of ours"
        import torch
        from fastai.losses import CrossEntropyLossFlat
        from fastai.metrics import accuracy
        from fastai.vision.learner import vision_learner
        from fastai_tl.all import reseed
        from torchvision import models

        like = self.ours(arch, dls)
        body = arch.rpartition("/")[2]
        learn = vision_learner(
            like.dls,
            getattr(models, body, body),
            pretrained=False,
            normalize=False,
            metrics=accuracy,
            loss_func=CrossEntropyLossFlat(),
        )
        with torch.no_grad():
            for a, b in zip(learn.model, like.model):
                mine, theirs = list(a.state_dict().values()), list(b.state_dict().values())
                if [x.shape for x in mine] != [x.shape for x in theirs]:
                    raise RuntimeError(f"{arch}: fastai builds another network")
                for x, y in zip(mine, theirs):
                    x.copy_(y)
        learn.freeze()
        reseed(learn, 0)
        return learn

    def seconds(self, run):
        "Seconds of `run()`, and what it gave"
        self.wait()
        began = time.perf_counter()
        out = run()
        self.wait()
        return round(time.perf_counter() - began, 3), out

    def wait(self):
        import torch

        if self.device == "cuda":
            torch.cuda.synchronize()
        elif self.device == "mps":
            torch.mps.synchronize()

    def fit_plain(self, learn, epochs):
        from fastai_tl.core.progress import quiet

        with quiet(learn):
            learn.fit_one_cycle(epochs, LR)
        return round(float(learn.recorder.values[-1][2]), 4)

    def fit_ours(self, learn, epochs):
        from fastai_tl.all import frozen_cache
        from fastai_tl.core.progress import quiet

        with frozen_cache(learn, fused=True, on_progress=QUIET), quiet(learn):
            learn.fit_one_cycle(epochs, LR)
        return round(float(learn.recorder.values[-1][2]), 4)

    def head(self, arch, epochs, to=None, **kw):
        "The head by both: seconds, accuracy, ratio"
        change = lambda learn: getattr(learn, to)() if to else learn
        plain, mine = change(self.plain(arch, **kw)), change(self.ours(arch, **kw))
        t0, a0 = self.seconds(lambda: self.fit_plain(plain, epochs))
        t1, a1 = self.seconds(lambda: self.fit_ours(mine, epochs))
        return dict(epochs=epochs, plain=t0, ours=t1, ratio=round(t0 / t1, 2), accuracy_plain=a0, accuracy_ours=a1)


def tensors(model):
    return {n: t.detach().clone() for n, t in model.state_dict().items()}


def frozen(c):
    "Bits of frozen tensors after real steps: without and with stored features, and with half of the body frozen"
    import torch
    from fastai_tl.all import Plan, freeze_to, layer_groups, run_plan, unfreeze

    out = {}
    for name, cache in (("head", False), ("head, features", True), ("half", False)):
        learn = c.ours()
        groups = list(layer_groups(learn))
        if name == "half":
            unfreeze(learn)
            freeze_to(learn, groups[len(groups) // 2])
        train = "head" if name != "half" else groups[len(groups) // 2]
        before, trains = tensors(learn.model), {n for n, p in learn.model.named_parameters() if p.requires_grad}
        run_plan(learn, Plan.head_only(2, lr=LR) if train == "head" else _stage(train), cache=cache, on_progress=QUIET)
        moved = {n for n, t in learn.model.state_dict().items() if not torch.equal(t, before[n])}
        held = _held(learn)
        out[name] = dict(
            frozen=len(held), frozen_moved=len(moved & held), trained=len(trains), trained_moved=len(moved & trains)
        )
    if any(r["frozen_moved"] or not r["frozen"] or r["trained_moved"] < r["trained"] for r in out.values()):
        out["failed"] = "a frozen tensor moved, or one that trains did not"
    return out


def _stage(train):
    from fastai_tl.all import Stage

    return Stage(name="half", train=train, epochs=1, lr=LR)


def _held(learn):
    "Names of frozen parameters, and of the running statistics beside them"
    fixed = {n for n, p in learn.model.named_parameters() if not p.requires_grad}
    places = {n.rpartition(".")[0] for n in fixed}
    return fixed | {n for n, _ in learn.model.named_buffers() if n.rpartition(".")[0] in places}


def find_lr(c):
    "A sweep of 100 batches: plain; ours with features still to be made; ours with features that are there"
    from fastai_tl.all import find_lr as sweep
    from fastai_tl.all import frozen_cache
    from fastai_tl.core.progress import quiet

    n, plain, mine = 20 if c.small else 100, c.plain(), c.ours()
    with quiet(plain):
        t0, _ = c.seconds(lambda: plain.lr_find(show_plot=False, num_it=n))
    t1, _ = c.seconds(lambda: sweep(mine, num_it=n, on_progress=QUIET))
    mine = c.ours()
    with frozen_cache(mine, fused=True, on_progress=QUIET), quiet(mine):
        mine.fit(1, LR)
        t2, _ = c.seconds(lambda: sweep(mine, num_it=n, on_progress=QUIET))
    return dict(batches=n, plain=t0, ours=t1, ours_built=t2, ratio=round(t0 / t1, 2), ratio_built=round(t0 / t2, 2))


def resume(c):
    "A run that is stopped in its second epoch and goes on, against one that is not; with torch's exact algorithms, too"
    import torch
    from fastai_tl.all import Control, Plan, Stage, run_plan

    plan, out = Plan((Stage("all", "all", 2, 1e-4),)), {}
    for exact in (False, True):
        torch.use_deterministic_algorithms(exact, warn_only=True)
        try:
            whole, rest, twice = c.ours(), c.ours(), c.ours()
            run_plan(whole, plan, cache=False, on_progress=QUIET)
            run_plan(twice, plan, cache=False, on_progress=QUIET)
            control, n = Control(), len(rest.dls.train) + 2

            def stop(done, *a, control=control, n=n):
                if done == n:
                    control.stop()

            with tempfile.TemporaryDirectory() as d:
                run_plan(rest, plan, d, control=control, cache=False, on_progress=stop)
                run_plan(rest, plan, d, cache=False, on_progress=QUIET)
            out["exact algorithms" if exact else "as it is"] = dict(
                run_again=_difference(whole, twice), resumed=_difference(whole, rest)
            )
        finally:
            torch.use_deterministic_algorithms(False)
    return out


def _difference(a, b):
    "The largest difference of a weight; 0.0: the same bits"
    pairs = zip(a.model.state_dict().values(), b.model.state_dict().values())
    return max(float((x.double().cpu() - y.double().cpu()).abs().max()) for x, y in pairs if x.numel())


def memory(c):
    "Peak memory of the card in MB: the head by both, and all layers by both"
    import torch
    from fastai_tl.all import unfreeze

    if c.device != "cuda":
        return dict(skipped="needs CUDA")
    out = {}
    for name, make, fit, whole in (
        ("head, plain", c.plain, c.fit_plain, False),
        ("head, ours", c.ours, c.fit_ours, False),
        ("all layers, plain", c.plain, c.fit_plain, True),
        ("all layers, ours", c.ours, c.fit_plain, True),
    ):
        learn = make()
        if whole:
            learn.unfreeze() if name.endswith("plain") else unfreeze(learn)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        fit(learn, 1)
        out[name] = round(torch.cuda.max_memory_allocated() / 2**20)
        del learn
    return out


def jpeg(c):
    "The head on JPEG files of 256 pixels: plain with its faster number of workers, and ours with the same"
    from PIL import Image
    from fastai_tl.all import folder_dls

    epochs, n = (1, 40) if c.small else (3, len(c.sets[0]))
    with tempfile.TemporaryDirectory() as d:
        data = Made(n, 64, 2)
        for i, (x, y) in enumerate(zip(data.x, data.y)):
            f = Path(d) / str(y) / f"{i}.jpg"
            f.parent.mkdir(exist_ok=True)
            Image.fromarray(x.transpose(1, 2, 0)).resize((256, 256)).save(f, quality=90)
        make = lambda w: folder_dls(d, size=c.size, bs=min(c.bs, n // 4), num_workers=w, device=c.device)
        choices = (0, min(8, os.cpu_count() or 1))
        times = {w: c.seconds(lambda w=w: c.fit_plain(c.plain(dls=make(w)), epochs))[0] for w in choices}
        w = min(times, key=times.get)
        mine, _ = c.seconds(lambda: c.fit_ours(c.ours(dls=make(w)), epochs))
    return dict(epochs=epochs, plain=times, workers=w, ours=mine, ratio=round(times[w] / mine, 2))


def fp16(c):
    "to_fp16: what is frozen stays, the loss falls, and the Learner is exported with the same answers"
    import torch
    from fastai_tl.all import evaluate, frozen_cache
    from fastai_tl.core.progress import quiet

    learn = c.ours().to_fp16()
    held, before = _held(learn), tensors(learn.model)
    with frozen_cache(learn, on_progress=QUIET), quiet(learn):
        learn.fit_one_cycle(2, LR)
    moved = sum(not torch.equal(t, before[n]) for n, t in learn.model.state_dict().items() if n in held)
    losses = [float(v[0]) for v in learn.recorder.values]
    return dict(
        frozen_moved=moved, losses=losses, accuracy=round(float(evaluate(learn, on_progress=QUIET).accuracy), 4)
    )


def export(c):
    "A Learner of image files, in mixed precision, is exported and gives the same answers on the CPU"
    from fastai_tl.all import evaluate, export, load_predictor, sample_dls

    learn = c.ours(dls=sample_dls("clipart", size=64, n_per_class=4, device=c.device)).to_fp16()
    with tempfile.TemporaryDirectory() as d:
        model = load_predictor(export(learn, Path(d) / "m", onnx=False))
        got = model.predict(list(learn.dls.valid_ds.items))
    probs = evaluate(learn, on_progress=QUIET).probs
    return dict(largest_difference=max(float(abs(g.probabilities - p).max()) for g, p in zip(got, probs)))


def out_of_memory(c):
    "A batch too large: an error in words, the Learner as it was, and training goes on afterwards"
    import torch
    from fastai_tl.all import OutOfMemory, Plan, Stage, run_plan

    if c.device != "cuda":
        return dict(skipped="needs CUDA")
    learn, plan = c.ours(), Plan((Stage("all", "all", 1, 1e-4),))
    before = tensors(learn.model)
    torch.cuda.empty_cache()
    used, total = torch.cuda.memory_reserved(), torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((used + 300 * 2**20) / total)
    try:
        run_plan(learn, plan, cache=False, on_progress=QUIET)
        said = ""
    except OutOfMemory as e:
        said = str(e)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    same = all(torch.equal(t, before[n]) for n, t in learn.model.state_dict().items())
    run_plan(learn, plan, cache=False, on_progress=QUIET)
    out = dict(said=said, as_it_was=same)
    return out if said and same else out | dict(failed="no OutOfMemory, or the weights moved")


ROWS = {
    "frozen": frozen,
    "head5_fp32": lambda c: c.head(LITE, 2 if c.small else 5),
    "head5_bf16": lambda c: c.head(LITE, 2 if c.small else 5, to="to_bf16"),
    "find_lr": find_lr,
    "resnet50": lambda c: c.head("resnet50", 2 if c.small else 5),
    "resume": resume,
    "memory": memory,
    "head30": lambda c: c.head(LITE, 4 if c.small else 30),
    "jpeg": jpeg,
    "vit_small": lambda c: c.head("timm/vit_small_patch16_224", 1 if c.small else 3) if c.size == 224 else _vit(c),
    "fp16": fp16,
    "export": export,
    "out_of_memory": out_of_memory,
}


def _vit(c):
    return dict(skipped=f"needs images of 224 pixels, not {c.size}")


def machine(device):
    import torch
    from importlib.metadata import PackageNotFoundError, version

    def of(name):
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    card = torch.cuda.get_device_name() if device == "cuda" else None
    names = ("torch", "torchvision", "numpy", "timm", "fastai", "fastcore", "fasttransform", "pandas", "pillow")
    return dict(
        card=card,
        note="" if card else "No GPU: a small run, which shows only that the script works; its times say nothing.",
        device=device,
        cores=os.cpu_count(),
        python=platform.python_version(),
        **{n: of(n) for n in names},
    )


def run(a) -> dict:
    "All rows; the file is written after each"
    result = dict(machine=machine(a.device), images=a.images, size=a.size, batch=a.batch, rows={})
    check, end = Check(a), time.monotonic() + 60 * a.minutes
    warm, _ = check.seconds(lambda: check.fit_plain(check.plain(), 1))
    result["warm_up"] = warm
    for name in a.rows or ROWS:
        began = time.monotonic()
        if began > end:
            row = dict(skipped=f"the {a.minutes:g} minutes were over")
        else:
            try:
                row = ROWS[name](check)
            except Exception as e:  # the other rows run all the same
                row = dict(failed=f"{type(e).__name__}: {e}"[:500], where=traceback.format_exc().splitlines()[-4:])
        result["rows"][name] = row | dict(row_seconds=round(time.monotonic() - began, 1))
        print(f"{name}: {json.dumps(result['rows'][name])}", flush=True)
        a.out.parent.mkdir(parents=True, exist_ok=True)
        a.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--wheels", type=Path, help="folder made by tools/gpu_wheels.py; without it, what is installed")
    p.add_argument("--device", choices=("cuda", "mps", "cpu"), help="the card, if there is one")
    p.add_argument("--out", type=Path, help="benchmarks/results/gpu.json, or gpu_check_cpu.json without a card")
    p.add_argument("--minutes", type=float, default=6, help="no row begins after that")
    p.add_argument("--images", type=int, help="to train on: 2000, or 64 on a CPU")
    p.add_argument("--size", type=int, help="pixels: 224, or 64 on a CPU")
    p.add_argument("--batch", type=int, help="64, or 16 on a CPU")
    p.add_argument("--rows", nargs="+", choices=ROWS, help="only these")
    a = p.parse_args()
    use_wheels(a.wheels) if a.wheels else sys.path.insert(0, str(REPO))
    import torch

    a.device = a.device or ("cuda" if torch.cuda.is_available() else "cpu")
    cpu = a.device == "cpu"
    a.images, a.size, a.batch = (
        a.images or (64 if cpu else 2000),
        a.size or (64 if cpu else 224),
        a.batch or (16 if cpu else 64),
    )
    a.out = a.out or REPO / "benchmarks" / "results" / ("gpu_check_cpu.json" if cpu else "gpu.json")
    rows = run(a)["rows"]
    bad = [n for n, r in rows.items() if "failed" in r]
    print(f"{len(rows)} rows in {a.out}" + (f"; failed: {', '.join(bad)}" if bad else ""))
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
