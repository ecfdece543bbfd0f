"""What panels cost: training with a visible TrainPanel against the same training without one, and the kernel time that
each panel takes to appear.

The panel is open in JupyterLab in headless Chromium on this machine, so the browser's drawing competes for the same
cores. Pairs of runs alternate; each begins from the same weights, and must end with the same. Run: make bench-panels,
or python benchmarks/panels.py [--pairs 6]. Prints two tables, writes benchmarks/out/panels.json.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "benchmarks" / "out"
sys.path.insert(0, str(ROOT / "tests"))

SETUP = """
import time, warnings; warnings.filterwarnings('ignore')
import torch; torch.set_num_threads(2)
from fastai_tl.all import *
from fastai_tl.panels.train import TrainJob
learn = transfer_learner(sample_dls('clipart', size=96, bs=16), {arch!r}, pretrained={pretrained})
plan = Plan((Stage('head', 'head', {epochs}, 1e-2),))
start = {{k: v.clone() for k, v in learn.model.state_dict().items()}}
panel = TrainPanel(learn, plan, seed=0)
draws, draw, drew = 0, panel.draw, 0.
def counted():
    global draws, drew
    t = time.perf_counter(); draw(); draws += 1; drew += time.perf_counter()-t
panel.draw = counted
def once(watched):
    learn.model.load_state_dict(start); learn.opt = None
    job = TrainJob(learn, plan, 0)
    if watched: panel.job = job; panel.drawn = 0; job.viewers.add(panel)
    t = time.perf_counter(); job.start(); job.wait(); t = time.perf_counter()-t
    assert job.error is None, job.error
    return t, hash(tuple(fingerprint(learn).values()))
"""
RENDER = """
import time, warnings; warnings.filterwarnings('ignore')
from fastai_tl.all import *
learn = transfer_learner(sample_dls('clipart', size=64, bs=8), 'resnet50', pretrained=False)
took = {}
for cls in (FreezePanel, LRFinderPanel, PlanPanel, TrainPanel, EvaluatePanel):
    times = []
    for _ in range(5):
        t = time.perf_counter(); p = cls(learn); p._repr_mimebundle_(); times.append(time.perf_counter()-t); p.close()
    took[cls.__name__] = [times[0], sorted(times)[2]]
"""


def overhead(server, open_page, arch, pretrained, epochs, pairs):
    from browser.harness import Kernel, until

    name = server.notebook(f"{arch}.ipynb", SETUP.format(arch=arch, pretrained=pretrained, epochs=epochs), "panel")
    page = open_page(name)
    page.locator(".ftl-TrainPanel").wait_for(timeout=120000)
    k: Kernel = server.kernel(name)
    k.run("runs = []\nonce(True), once(False)", 600)  # warm
    rows = []
    for i in range(pairs):
        order = (True, False) if i % 2 else (False, True)
        k.run(f"pair = {{w: once(w) for w in {order}}}", 900)
        rows.append(k.ev("[pair[False][0], pair[True][0], pair[False][1] == pair[True][1]]"))
        print(f"{arch} pair {i + 1}: {rows[-1][0]:.2f} s without, {rows[-1][1]:.2f} s with", flush=True)
    until(lambda: page.locator(".ftl-TrainPanel svg").count() > 0, 10)
    draws, drew = k.ev("[draws, drew]")
    assert all(r[2] for r in rows), "the weights differ"
    ratios = sorted(b / a for a, b, _ in rows)
    watched = sum(b for _, b, _ in rows)
    return dict(
        arch=arch,
        epochs=epochs,
        pairs=pairs,
        without=statistics.median(r[0] for r in rows),
        watched=statistics.median(r[1] for r in rows),
        ratio=statistics.median(ratios),
        lowest=ratios[0],
        highest=ratios[-1],
        draws=draws,
        share_of_drawing=drew * pairs / (pairs + 1) / watched,
    )


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--pairs", type=int, default=6)
    a = ap.parse_args()
    from browser.harness import TOKEN, Lab, chromium
    from playwright.sync_api import sync_playwright

    server = Lab(Path(tempfile.mkdtemp()))
    try:
        with sync_playwright() as p:
            browser = p.chromium.launch(
                executable_path=chromium(),
                headless=True,
                args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
            )

            def open_page(name):
                page = browser.new_page(viewport=dict(width=1200, height=1000))
                page.goto(f"{server.url}/doc/tree/{name}?token={TOKEN}&reset")
                page.wait_for_selector(".jp-Notebook", timeout=60000)
                page.wait_for_function(
                    "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'",
                    timeout=60000,
                )
                page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells') }")
                return page

            runs = [
                overhead(server, open_page, *args, a.pairs)
                for args in (("tf_efficientnet_lite0", True, 2), ("mobilenet_v3_small", False, 4))
            ]
            name = server.notebook("render.ipynb", RENDER)
            open_page(name)
            k = server.kernel(name)
            took = k.ev("took", 300)
    finally:
        server.close()
    print("\ntraining with a visible TrainPanel, against the same without")
    for r in runs:
        print(
            f"  {r['arch']}: ratio {r['ratio']:.3f} (pairs from {r['lowest']:.3f} to {r['highest']:.3f}), "
            f"{r['draws']} drawings, {r['share_of_drawing']:.1%} of the time spent drawing"
        )
    print("\nkernel time to appear, resnet50, seconds: first, and median of 5")
    for n, (first, med) in took.items():
        print(f"  {n}: {first:.3f}, {med:.3f}")
    OUT.mkdir(exist_ok=True)
    (OUT / "panels.json").write_text(json.dumps(dict(overhead=runs, seconds_to_appear=took), indent=1) + "\n")


if __name__ == "__main__":
    main()
