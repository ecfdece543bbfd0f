"""Freezing on every backbone: each is built, frozen to its head, trained for one step, frozen to its middle group,
trained for another.

After each step every tensor is compared by its hash: none that is frozen may have moved, and all that trained must
have. The same name is then given to plain fastai: does it build, how many groups, is it normalised, how many tensors of
its frozen body move? Run: python benchmarks/every_backbone.py [names or patterns …]. One process each. Without names:
all of torchvision's classifiers, and the cheapest model of each of timm's families. Prints a line each and writes
benchmarks/out/every_backbone.json.
"""

import argparse
import fnmatch
import json
import subprocess
import sys
import time
import warnings
from pathlib import Path

OUT = Path(__file__).parent / "out"
LR = 1e-2


def data(size, n_in=3, n=4, bs=2):
    "Random pictures of two classes, (n, n_in, size, size); two go into a batch and `n-2` serve as the validation set"
    import torch
    from fastai.data.core import DataLoaders
    from torch.utils.data import TensorDataset

    torch.manual_seed(0)
    x, y = torch.randn(n, n_in, size, size), torch.arange(n) % 2
    dls = DataLoaders.from_dsets(
        TensorDataset(x[:bs], y[:bs]), TensorDataset(x[bs:], y[bs:]), bs=bs, num_workers=0, device="cpu"
    )
    dls.c = 2
    return dls


def one_step(learn):
    """One epoch of one batch; names of the tensors that moved, and of parameters that could not, since their gradient
    is zero.

    Each gradient is scaled to a maximum of 1: with two pictures through dozens of batch norms and random weights it
    would explode or vanish.
    """
    import torch
    from fastai.callback.core import Callback

    from fastai_tl.freezing.fingerprint import fingerprint
    from fastai_tl.core.progress import quiet

    class Scaled(Callback):
        zero = ()

        def before_step(self):
            ps = {n: p for n, p in self.model.named_parameters(remove_duplicate=False) if p.requires_grad}
            largest = {n: 0.0 if p.grad is None else float(p.grad.abs().max()) for n, p in ps.items()}
            for p in {id(p): p for p in ps.values()}.values():
                if p.grad is not None and torch.any(p.grad):
                    p.grad /= p.grad.abs().max()
            self.zero = {n for n, v in largest.items() if not v}

    before, seen = fingerprint(learn), Scaled()
    with quiet(learn):
        learn.fit(1, LR, cbs=seen)
    now = fingerprint(learn)
    return {k for k in before if now[k] != before[k]}, set(seen.zero)


def live_zeros(model):
    """Fill parameters that start as zeros, or nearly: behind them no gradient would flow in the first step, and
    standing still would prove nothing
    """
    import torch

    with torch.no_grad():
        for p in model.parameters():
            if p.abs().max() < 1e-3:
                p.normal_(std=0.02)


def intended(learn, where):
    """Names of the tensors that must move when the groups from `where` on train: their parameters, and running
    statistics in them
    """
    from fastai_tl.freezing.batchnorm import batch_norms
    from fastai_tl.freezing.layer_groups import group_spec, layer_groups

    spec, groups = group_spec(learn), layer_groups(learn)
    trains = list(groups)[list(groups).index(where) :]
    ids = {id(p) for g in trains for p in groups[g]}  # by identity: a shared parameter has several names
    stats = {f"{path}.{b}" for path, m in batch_norms(learn.model).items() for b, _ in m.named_buffers(recurse=False)}
    return {n for n, p in learn.model.named_parameters(remove_duplicate=False) if id(p) in ids} | {
        n for n in stats if spec.group_of(n) in trains
    }


def check(name):
    "Build, freeze, train and compare; raises AssertionError with the tensors that are not as they should be"
    from fastai_tl.models.registry import facts, find_arch
    from fastai_tl.freezing.freeze import freeze_to
    from fastai_tl.freezing.layer_table import layer_table
    from fastai_tl.freezing.layer_groups import layer_groups
    from fastai_tl.models.transfer_learner import transfer_learner

    f = facts(find_arch(name))
    size, t = f["min_size"] or f["input_size"], time.perf_counter()
    learn = transfer_learner(data(size, f["n_in"]), name, pretrained=False, normalize=False)
    groups = list(layer_groups(learn))
    assert len(groups) >= 3 and groups[-1] == "head", groups
    live_zeros(learn.model)
    every = set(learn.model.state_dict())
    moved, still = one_step(learn)
    head = {n for n in every if n.startswith("head.")}
    assert not (bad := moved - head), f"{len(bad)} tensors of the frozen body moved: {sorted(bad)[:5]}"
    assert moved == head, f"tensors of the head stood still: {sorted(head - moved)[:5]}"
    middle = groups[len(groups) // 2]
    freeze_to(learn, middle)
    want = intended(learn, middle)
    moved, still = one_step(learn)
    assert not (bad := moved - want), f"frozen to {middle}: {len(bad)} frozen tensors moved: {sorted(bad)[:5]}"
    assert not (bad := want - moved - still), (
        f"frozen to {middle}: {len(bad)} tensors that train stood still: {sorted(bad)[:5]}"
    )
    assert head <= moved, f"tensors of the head stood still: {sorted(head - moved)[:5]}"
    table = layer_table(learn)
    assert table.parameters.sum() == sum(p.numel() for p in learn.model.parameters()), (
        "the layer table has another number of parameters"
    )
    assert table.to_csv() and set(table.group) == set(groups), set(table.group) ^ set(groups)
    return dict(
        name=name,
        size=size,
        groups=groups,
        middle=middle,
        tensors=len(every),
        frozen=len(every - want),
        trained=len(want),
        moved=len(moved),
        no_gradient=len(want - moved),
        params=f["params"],
        seconds=round(time.perf_counter() - t, 2),
    )


def plain(name):
    """What fastai's `vision_learner` does with the same name and pictures: groups, normalisation, tensors of the
    frozen body that move
    """
    import torch
    from fastai.losses import CrossEntropyLossFlat
    from fastai.vision.learner import model_meta, vision_learner
    from torchvision import models as tvm

    from fastai_tl.models.registry import facts, find_arch

    full = find_arch(name)
    source, bare = full.split("/")
    f = facts(full)
    if source == "kit":
        return None
    try:
        arch = getattr(tvm, bare) if source == "torchvision" else bare
        learn = vision_learner(
            data(f["min_size"] or f["input_size"], f["n_in"]),
            arch,
            pretrained=False,
            loss_func=CrossEntropyLossFlat(),
            normalize=False,
            n_out=2,
            n_in=f["n_in"],
        )
        learn.freeze()
        body = set(learn.model[0].state_dict())
        moved, _ = one_step(learn)
    except Exception as e:
        return dict(error=f"{type(e).__name__}: {str(e).strip().splitlines()[0][:120] if str(e).strip() else ''}")
    groups = len(learn.opt.param_lists)
    frozen = {f"0.{k}" for k in body} if groups > 1 else set()
    normal = source == "timm" or "stats" in model_meta.get(arch, {})
    del learn
    torch.manual_seed(0)
    return dict(groups=groups, normalised=normal, body=len(body), moved=len(moved & frozen))


# What `make test` tries: the kit's own, and those that differ most in how they are built. `make test-zoo`: all others
OFTEN = set(
    """mobilenet_mini resnet_mini vgg_mini tf_efficientnet_lite0 efficientvim_m1 mnasnet0_5 mobilenet_v3_small resnet18
    shufflenet_v2_x0_5 squeezenet1_1 swin_t""".split()
)


def by_family(source="timm"):
    "The cheapest model of each family of a library that has features to pool"
    from fastai_tl.models.registry import backbone_names, facts, family_of, find_arch

    best = {}
    for n in backbone_names(source):
        full = find_arch(n)
        f = facts(full)
        if f is None:
            continue
        k = family_of(full)
        if k not in best or f["gmacs"] < best[k][0]:
            best[k] = (f["gmacs"], n)
    return {k: n for k, (_, n) in sorted(best.items())}


def selection(patterns):
    """Names to run: all of torchvision's, the smallest of each of timm's families, the kit's own; or those that a
    pattern fits
    """
    from fastai_tl.models.registry import backbone_names, facts, find_arch

    if not patterns:
        names = [*backbone_names("kit"), *backbone_names("torchvision"), *by_family().values()]
        return [n for n in names if facts(find_arch(n))]
    every = backbone_names()
    return [n for p in patterns for n in fnmatch.filter(every, p)]


def in_its_own_process(name):
    "The record of `check` and `plain` for one name, from a fresh process"
    r = subprocess.run([sys.executable, __file__, "--one", name], capture_output=True, text=True)
    try:
        return json.loads(r.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return dict(name=name, error=f"exit code {r.returncode}: {(r.stderr.strip().splitlines() or [''])[-1][:200]}")


def one(name):
    warnings.simplefilter("ignore")
    try:
        rec = check(name)
    except Exception as e:
        rec = dict(name=name, error=f"{type(e).__name__}: {e}"[:400])
    rec["fastai"] = plain(name)
    print(json.dumps(rec))


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("names", nargs="*")
    ap.add_argument("--one", help=argparse.SUPPRESS)
    ap.add_argument("--json", type=Path, default=OUT / "every_backbone.json", help="where to write the records")
    args = ap.parse_args()
    if args.one:
        return one(args.one)
    from rich.progress import track

    records = []
    for n in track(selection(args.names), "Backbones"):
        r = in_its_own_process(n)
        records.append(r)
        ours = r.get("error") or f"{len(r['groups'])} groups, {r['seconds']:.1f} s"
        f = r.get("fastai")
        theirs = (
            "" if not f else f.get("error") or f"{f['groups']} groups, {f['moved']} of {f['body']} frozen tensors moved"
        )
        print(f"{n:40s} {ours:40s} fastai: {theirs}", flush=True)
        args.json.parent.mkdir(exist_ok=True)
        args.json.write_text(json.dumps(records, indent=1) + "\n")
    bad = [r["name"] for r in records if "error" in r]
    print(f"{len(records)} backbones, {len(bad)} failed: {', '.join(bad)}")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
