"""Damaged and malicious models and pictures: whatever is in the files, the answer is a prediction or one of the kit's
errors, soon.

Each case is made from its number, so any can be run again: a manifest, a weight file or an ONNX network of a real
export, or a real picture, is changed (bits, bytes, lengths, values, whole parts), and for most of the changed files the
checksum in the manifest is made to fit, as an attacker would do. Then the model is opened and classifies a picture.
Counted are predictions, errors of each type, and what must not be: any other exception, a case that takes longer than
its limit, a crash of the process. Run: python benchmarks/fuzz_models.py [--n 12000] [--seed 0]. Prints a line for each
kind and writes benchmarks/out/fuzz_models.json.
"""

import argparse
import collections
import hashlib
import io
import json
import pickle
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

OUT = Path(__file__).parent / "out"
KINDS = dict(manifest=0.3, weights=0.25, onnx=0.15, picture=0.3)  # share of the cases
LIMIT = 20  # seconds for one case


class TooSlow(BaseException):
    "A case that takes longer than `LIMIT`; not an Exception, so that nothing on the way can swallow it"


def model_folder(folder):
    "A real export of a small network, 32 px, with ONNX"
    import torch

    from fastai_tl.deploy.export import export
    from fastai_tl.datasets.picture_folder import ClassOf, picture_dls
    from fastai_tl.datasets.samples import sample_path, split_sample
    from fastai_tl.models.transfer_learner import transfer_learner

    torch.manual_seed(0)
    train, valid = split_sample(sample_path("clipart"), 2)
    dls = picture_dls(train, valid[::8], ClassOf(sample_path("clipart")), size=32, bs=8, path=".")
    return export(transfer_learner(dls, "resnet_mini", head="linear"), folder)


WORDS = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2,
    7,
    10**6,
    10**12,
    10**400,
    0.5,
    -1e-300,
    1e308,
    "",
    "x",
    "x" * 5000,
    "\ud800",
    "\0",
    "../../etc/passwd",
    "/etc/passwd",
    "C:\\x",
    "model.onnx",
    "fastai_tl/1",
    "fastai_tl/3",
    "torchvision/vit_h_14",
    "torchvision/resnet18",
    "torchvision/vgg16",
    "timm/vit_tiny_patch16_224",
    "timm/resnet10t.c3_in1k",
    "kit/vgg_mini",
    "own/Net",
    "hf-hub:a/b",
    "crop",
    "pad",
    "linear",
    [],
    {},
    [[]],
    [1],
    [32, 32],
    [4096, 4096],
    [1, 4096],
    ["a"] * 8,
    [0.5] * 3,
    [0] * 3,
    {"a": {}},
    {"file": "../x"},
    {"file": "model.onnx"},
]


def places(v, path=()):
    "Paths to every value of nested lists and dicts"
    items = v.items() if isinstance(v, dict) else enumerate(v) if isinstance(v, list) else ()
    return [path, *(p for k, o in items for p in places(o, (*path, k)))]


def at(v, path):
    for k in path:
        v = v[k]
    return v


def changed_json(rng, doc):
    "A JSON document with one to three values replaced, removed, repeated or exchanged"
    doc = json.loads(json.dumps(doc))
    for _ in range(rng.choice((1, 1, 2, 3))):
        path = rng.choice(places(doc)[1:] or [None])
        if path is None:
            break
        parent, key = at(doc, path[:-1]), path[-1]
        do = rng.randrange(6)
        if do == 0:
            del parent[key]
        elif do == 1 and isinstance(parent, list):
            parent.extend(parent[key : key + 1] * rng.choice((1, 50)))
        elif do == 2:
            parent[key] = json.loads(json.dumps(at(doc, rng.choice(places(doc)))))
        elif do == 3 and isinstance(parent[key], (int, float)):
            parent[key] = parent[key] * rng.choice((-1, 2, 1000, 10**9))
        else:
            parent[key] = json.loads(json.dumps(rng.choice(WORDS)))
    return doc


def changed_bytes(rng, data):
    "Bytes with bits flipped, cut off, doubled, overwritten, or replaced altogether"
    b = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        n, do = len(b), rng.randrange(9)
        # heads of files matter most
        i = rng.randrange(max(n, 1)) if rng.random() < 0.5 else rng.randrange(max(min(n, 400), 1))
        if do <= 1 and n:
            b[i] ^= 1 << rng.randrange(8)
        elif do == 2 and n:
            b[i] = rng.choice((0, 255, 127, 128))
        elif do == 3:
            del b[i:]
        elif do == 4:
            del b[i : i + rng.choice((1, 4, 100))]
        elif do == 5:
            b[i:i] = rng.randbytes(rng.choice((1, 4, 100)))
        elif do == 6:
            b[i : i + 4] = rng.choice(
                (b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", struct.pack("<I", rng.randrange(2**32)))
            )
        elif do == 7:
            b[i:i] = b[i : i + rng.choice((10, 1000))]
        elif do == 8 and rng.random() < 0.1:
            b = bytearray(
                rng.choice((b"", b"\0" * 64, rng.randbytes(200), pickle.dumps({"a": 1}), b"PK\3\4" + bytes(b[:500])))
            )
    return bytes(b)


def changed_weights(rng, data):
    "A safetensors file with its bytes, its header or the length of the header changed"
    if rng.random() < 0.5:
        return changed_bytes(rng, data)
    (n,) = struct.unpack("<Q", data[:8])
    head = json.dumps(changed_json(rng, json.loads(data[8 : 8 + n]))).encode()
    length = (
        len(head)
        if rng.random() < 0.8
        else rng.choice((0, 1, len(head) - 1, len(head) + 1, 10**8, 2**40, 2**63, 2**64 - 1))
    )
    return struct.pack("<Q", length) + head + data[8 + n :]


def picture_bytes(rng):
    "A small picture of any format and mode that Pillow writes"
    import numpy as np
    from PIL import Image

    mode = rng.choice(("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F", "YCbCr"))
    w, h = rng.choice(((1, 1), (3, 200), (40, 30), (97, 61)))
    if mode == "I;16":
        im = Image.fromarray(np.frombuffer(rng.randbytes(2 * w * h), np.uint16).reshape(h, w))
    else:
        im = Image.fromarray(np.frombuffer(rng.randbytes(3 * w * h), np.uint8).reshape(h, w, 3)).convert(mode)
    kind, buf = (
        rng.choice(
            (
                "PNG",
                "JPEG",
                "GIF",
                "WEBP",
                "TIFF",
                "BMP",
                "ICO",
                "PPM",
                "PCX",
                "TGA",
                "SGI",
                "JPEG2000",
                "AVIF",
                "EPS",
                "QOI",
            )
        ),
        io.BytesIO(),
    )
    more = (
        dict(save_all=True, append_images=[im.rotate(90)])
        if kind in ("GIF", "TIFF", "WEBP") and rng.random() < 0.3
        else {}
    )
    if kind in ("JPEG", "PNG") and rng.random() < 0.3:
        exif = Image.Exif()
        exif[0x112] = rng.randrange(10)
        more["exif"] = exif
    try:
        im.save(buf, kind, **more)
    except (OSError, KeyError, ValueError):
        im.convert("RGB").save(buf := io.BytesIO(), "PNG")
    return buf.getvalue()


def fitting(manifest, name, data):
    "The manifest as it would be if the file had been exported"
    m = json.loads(json.dumps(manifest))
    m["files"][name] = dict(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
    return m


class Fuzz:
    "A model to damage, in a folder of its own"

    def __init__(self, good, work, seed=0):
        from fastai_tl.deploy.torch_predictor import load_predictor

        self.good = Path(good)
        self.work = Path(work)
        self.seed = seed
        self.load = load_predictor
        shutil.copytree(good, self.work / "m", dirs_exist_ok=True)
        self.raw = {p.name: p.read_bytes() for p in self.good.iterdir()}
        self.manifest = json.loads(self.raw["manifest.json"])
        self.predictor = load_predictor(good)
        self.picture = self.good / "sample.png"

    def case(self, kind, i):
        "Write case `i` of a kind and use it; what came out"
        rng = random.Random(f"{self.seed} {kind} {i}")
        folder = self.work / "m"
        if kind == "picture":
            file = self.work / f"p{rng.choice(('.jpg', '.png', '.xyz', ''))}"
            file.write_bytes(changed_bytes(rng, picture_bytes(rng)))
            return self.predictor.predict(file)
        backend = dict(weights="torch", onnx="onnx").get(kind) or rng.choice(("torch", "onnx"))
        if kind == "manifest":
            raw = self.raw["manifest.json"]
            new = {
                "manifest.json": changed_bytes(rng, raw)
                if rng.random() < 0.2
                else json.dumps(changed_json(rng, self.manifest)).encode()
            }
        else:
            name = "model.safetensors" if kind == "weights" else "model.onnx"
            data = (changed_weights if kind == "weights" else changed_bytes)(rng, self.raw[name])
            new = {
                name: data,
                "manifest.json": json.dumps(
                    fitting(self.manifest, name, data) if rng.random() < 0.9 else self.manifest
                ).encode(),
            }
        for n, data in new.items():
            (folder / n).write_bytes(data)
        try:
            return self.load(folder, backend).predict(self.picture)
        finally:
            for n in new:
                (folder / n).write_bytes(self.raw[n])

    def run(self, kind, n, limit=LIMIT, start=0):
        "Counts of the outcomes of `n` cases, what went wrong, and the slowest, in seconds"
        from fastai_tl.core.errors import KitError

        def ring(*_):
            raise TooSlow

        old = signal.signal(signal.SIGALRM, ring)
        counts = collections.Counter()
        bad = []
        slowest = 0
        try:
            for i in range(start, start + n):
                (self.work / "now").write_text(f"{kind} {i}")  # if the process dies, this is why
                t = time.perf_counter()
                signal.setitimer(signal.ITIMER_REAL, limit)
                try:
                    counts[type(self.case(kind, i)).__name__] += 1
                except KitError as e:
                    counts[type(e).__name__] += 1
                except TooSlow:
                    bad.append(f"{kind} {i}: more than {limit} s")
                except Exception as e:
                    place = traceback.extract_tb(e.__traceback__)[-1]
                    bad.append(
                        f"{kind} {i}: {type(e).__name__}: {str(e)[:200]} ({Path(place.filename).name}:{place.lineno})"
                    )
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
                slowest = max(slowest, time.perf_counter() - t)
        finally:
            signal.signal(signal.SIGALRM, old)
        return dict(kind=kind, n=n, outcomes=dict(counts.most_common()), bad=bad, slowest=round(slowest, 2))


def one(kind, n, seed, good):
    "In a process of its own: a crash ends this one alone"
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_DATA, (16 * 2**30,) * 2)
    with tempfile.TemporaryDirectory() as d:
        print(json.dumps(Fuzz(good, d, seed).run(kind, n)))


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--n", type=int, default=12_000, help="cases in all")
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--json", type=Path, default=OUT / "fuzz_models.json")
    ap.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = ap.parse_args()
    if args.one:
        return one(args.one[0], int(args.one[1]), args.seed, args.one[2])
    records = []
    with tempfile.TemporaryDirectory() as d:
        good = model_folder(Path(d) / "model")
        for kind, share in KINDS.items():
            t, n = time.perf_counter(), round(args.n * share)
            r = subprocess.run(
                [sys.executable, __file__, "--seed", str(args.seed), "--one", kind, str(n), str(good)],
                capture_output=True,
                text=True,
            )
            try:
                rec = json.loads(r.stdout.splitlines()[-1])
            except (IndexError, ValueError):
                rec = dict(kind=kind, n=n, outcomes={}, slowest=0, bad=[f"exit code {r.returncode}: {r.stderr[-400:]}"])
            records.append(rec | dict(seconds=round(time.perf_counter() - t, 1)))
            print(
                f"{kind:9s} {n:6,} cases, {len(rec['bad'])} bad, slowest {rec['slowest']} s: {rec['outcomes']}",
                *rec["bad"][:10],
                sep="\n  ",
                flush=True,
            )
    total, bad = sum(r["n"] for r in records), sum(len(r["bad"]) for r in records)
    args.json.parent.mkdir(exist_ok=True)
    args.json.write_text(json.dumps(dict(n=total, bad=bad, seed=args.seed, kinds=records), indent=1) + "\n")
    print(f"{total:,} cases, {bad} bad")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
