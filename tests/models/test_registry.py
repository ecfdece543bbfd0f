"""`backbones()` says what torchvision and timm publish, read from their own metadata."""

import pandas as pd
import pytest
import timm
from torchvision import models as tvm

from fastai_tl.models.registry import facts, is_noncommercial, noncommercial_weights, timm_names, tv_names
from fastai_tl.datasets.samples import sample_dls
from fastai_tl.freezing.layer_groups import layer_groups
from fastai_tl.models.transfer_learner import backbones, transfer_learner


@pytest.fixture(scope="module")
def table():
    return backbones().set_index("name")


@pytest.mark.medium
@pytest.mark.parametrize("name", tv_names())
def test_torchvision(table, name):
    row, meta = table.loc[name], tvm.get_model_weights(name).DEFAULT.meta
    assert (
        row.source == "torchvision"
        and row.params == meta["num_params"]
        and row["size"] == pytest.approx(meta["num_params"] * 4 / 2**20)
    )
    assert row.gmacs == pytest.approx(meta["_ops"], rel=1e-3, abs=0.00051)  # published to three decimals
    assert row.top1 == meta["_metrics"]["ImageNet-1K"]["acc@1"]
    assert row.licence == meta["license"] if meta.get("license") else pd.isna(row.licence) and "licence" in row.note
    assert row.noncommercial == bool(meta.get("license")), (
        "all that torchvision names a licence of is SWAG's, CC-BY-NC 4.0"
    )


def test_every_licence_that_torchvision_names_is_judged():
    named = {w.meta["license"] for n in tv_names() for w in tvm.get_model_weights(n) if w.meta.get("license")}
    assert named == {"https://github.com/facebookresearch/SWAG/blob/main/LICENSE"}, (
        "a new one: does it forbid commercial use?"
    )


@pytest.mark.medium
def test_timm(table):
    rows = {
        n: table.loc[k]
        for n in timm_names()
        if (k := n if n in table.index and table.loc[n].source == "timm" else f"timm/{n}") in table.index
    }
    assert len(rows) > 1300 and len(rows) == sum(table.source == "timm")
    for name, row in rows.items():
        licence = timm.get_pretrained_cfg(name).license
        assert row.licence == licence if licence else pd.isna(row.licence) and "no licence" in row.note, name
        assert row.top1 != row.top1 and "no top-1" in row.note, name
    assert not set(timm_names()) - set(rows) - {n for n in timm_names() if facts(f"timm/{n}") is None}


@pytest.mark.medium
def test_every_cc_by_nc_model_of_timm_is_marked(table):
    marked = set()
    for full in timm.list_pretrained():
        name, _, tag = full.partition(".")
        if "-nc" not in (timm.get_pretrained_cfg(full).license or "") or facts(f"timm/{name}") is None:
            continue
        row = table.loc[f"timm/{name}" if f"timm/{name}" in table.index else name]
        assert tag in noncommercial_weights(f"timm/{name}")
        assert row.noncommercial or "no commercial use of weights=" in row.note and repr(tag) in row.note, full
        marked.add(full)
    assert len(marked) > 60
    default = {n for n in timm_names() if "-nc" in (timm.get_pretrained_cfg(n).license or "") and facts(f"timm/{n}")}
    assert default <= {n.removeprefix("timm/") for n in table.index[table.noncommercial]}


FORBID = "cc-by-nc-4.0", "CC-BY-NC-SA-4.0", "fair-noncommercial-research-license", "apple-amlr", "seer-license"


@pytest.mark.parametrize("licence", [*FORBID, "apache-2.0", "mit", "unknown", "", None])
def test_words_of_licences(licence):
    assert is_noncommercial(licence) == (licence in FORBID)


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet_mini", "vgg_mini", "mobilenet_mini"])
def test_the_catalogue_counts_groups_as_a_learner_has_them(name):
    row = backbones(name + "*", source="kit").iloc[0]
    learn = transfer_learner(sample_dls(size=32, n_per_class=2), name, pretrained=False)
    assert row.groups == len(layer_groups(learn))
    assert repr(learn).startswith(f"TransferLearner({name}: trains head, ") and "16 images to train" in repr(learn)
