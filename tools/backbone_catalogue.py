"""Write fastai_tl/data/backbones.csv: facts of every network of torchvision and timm, computed on the meta device.

Takes about ten minutes.
"""

import csv
import sys
import time
from importlib.metadata import version
from pathlib import Path

from rich.progress import track

from fastai_tl.models.registry import CATALOGUE, KIT, measure, timm_names, tv_names
from fastai_tl.models.body import CutError

COLUMNS = "name params gmacs input_size n_in fixed min_size groups kind n_features top1 licence note seconds".split()


def row(full):
    t = time.perf_counter()
    try:
        r = measure(full)
    except (CutError, NotImplementedError) as e:
        return dict(name=full, note=str(e).replace("\n", " "), kind="")
    r = {k: "" if v is None else v for k, v in r.items()}
    return dict(name=full, **r | dict(gmacs=f"{r['gmacs']:.4g}")), time.perf_counter() - t


def main(only):
    names = [f"kit/{n}" for n in KIT] + [f"torchvision/{n}" for n in tv_names()] + [f"timm/{n}" for n in timm_names()]
    names = [n for n in names if not only or any(o in n for o in only)]
    rows, failed = [], []
    for n in track(names, "Networks"):
        try:
            r = row(n)
        except Exception as e:
            failed.append(f"{n}: {type(e).__name__}: {e}"[:300])
            continue
        rows.append(r[0] if isinstance(r, tuple) else r)
    print(f"{len(rows)} rows, {sum(not r['kind'] for r in rows)} without features to pool, {len(failed)} failed")
    print("\n".join(failed))
    if only:
        return print("\n".join(map(str, rows)))
    out = Path(__file__).parents[1] / "fastai_tl" / "data" / CATALOGUE
    with open(out, "w", newline="", encoding="utf-8") as f:
        f.write(
            f"# written by tools/backbone_catalogue.py with timm {version('timm')}, torchvision "
            f"{version('torchvision').partition('+')[0]}\n"
        )
        w = csv.DictWriter(f, [c for c in COLUMNS if c != "seconds"], lineterminator="\n", extrasaction="ignore")
        w.writeheader()
        w.writerows(rows)


if __name__ == "__main__":
    main(sys.argv[1:])
