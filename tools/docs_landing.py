"""The freeze map on the landing page: made from the real network, and worked by a script in the page, without
Python.
"""

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "docs" / "_static" / "freeze-map.js"


def landing_cells() -> list:
    "What comes under the title of the first page"
    from nbformat.v4 import new_markdown_cell

    return [new_markdown_cell(landing())]


def landing() -> str:
    "Three claims with their proofs, and the map"
    facts, ratio = network(), speed()
    fast = f"{ratio} times as fast as plain fastai on this network" if ratio else "many times as fast"
    proofs = [
        (
            "Frozen means frozen",
            (
                "Running statistics included: 0 tensors move, on 175 networks of torchvision and timm; in plain "
                "fastai, some of 147."
            ),
        ),
        ("Frozen layers run once", f"Their outputs are stored behind the same Learner: {fast}, with the same results."),
        ("Nothing is fetched", "Weights, pictures, lessons and these pages work with the network off."),
    ]
    cards = "".join(f"<div><b>{a}</b><span>{b}</span></div>" for a, b in proofs)
    return (
        '<div class="proofs">' + cards + "</div>\n\n"
        '<div class="freeze-map" id="freeze-map" role="group" aria-label="Freeze map of tf_efficientnet_lite0">'
        '<noscript>The map needs JavaScript; <code>FreezePanel(learn)</code> in a notebook does not.</noscript>'
        f'<script type="application/json">{json.dumps(facts)}</script></div>\n'
        f"<script>{SCRIPT.read_text(encoding='utf-8')}</script>\n"
    )


def network() -> dict:
    "Groups of the offline backbone with eight classes: layers, parameters"
    import torch
    from fastai_tl.all import layer_table, sample_dls, transfer_learner

    torch.manual_seed(0)
    learn = transfer_learner(sample_dls("clipart", n_per_class=4, num_workers=0), "tf_efficientnet_lite0")
    t = layer_table(learn)
    groups = [
        dict(name=name, parameters=int(part.parameters.sum()), layers=len(part))
        for name, part in t.groupby("group", sort=False)
    ]
    return dict(name="tf_efficientnet_lite0", groups=groups)


def speed() -> str:
    "How many times faster five epochs on a frozen body are, of the results that are kept; `''`: not measured"
    file = ROOT / "benchmarks" / "results" / "cache.json"
    rows = (
        json.loads(file.read_text(encoding="utf-8")).get("heads tf_efficientnet_lite0", {}).get("rows", [])
        if file.exists()
        else []
    )
    return next((f"{r['ratio']:.0f}" for r in rows if r["what"] == "ours"), "")
