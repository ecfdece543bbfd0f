"""Every backbone: frozen means that no tensor moves, and what is not frozen moves.

A few here; one of each family and all of torchvision's in `make test-zoo`.
"""

import pytest
from every_backbone import OFTEN, by_family, check, in_its_own_process, plain

from fastai_tl.models.registry import backbone_names, facts, family_of, find_arch

TORCHVISION = by_family("torchvision")
TIMM = by_family("timm")
QUICK_TIMM = [n for k, n in TIMM.items() if k not in TORCHVISION and facts(find_arch(n))["gmacs"] < 0.5]


NAMES = [*backbone_names("kit"), *TORCHVISION.values(), *QUICK_TIMM[:12]]


@pytest.mark.medium
@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in OFTEN else [pytest.mark.zoo]) for n in NAMES])
def test_one_of_each_family(name):
    "`check` raises AssertionError with the tensors that moved and must not, or stood still and must not"
    r = check(name)
    assert r["frozen"] > 0 and r["trained"] > 0 and r["moved"] == r["trained"] - r["no_gradient"]
    assert r["no_gradient"] <= 0.1 * r["trained"], "hardly any gradient flows: this would prove nothing"


@pytest.mark.zoo
@pytest.mark.parametrize("name", backbone_names("torchvision"))
def test_every_one_of_torchvision(name):
    r = in_its_own_process(name)
    assert "error" not in r, r["error"]


@pytest.mark.zoo
@pytest.mark.parametrize("name", list(TIMM.values()))
def test_every_family_of_timm(name):
    r = in_its_own_process(name)
    assert "error" not in r, r["error"]


def test_enough_families():
    assert len(TIMM) >= 60 and {family_of(find_arch(n)) for n in backbone_names("torchvision")} == set(TORCHVISION)


@pytest.mark.medium
def test_plain_fastai_moves_frozen_tensors_of_the_same_network():
    "What the check above would find in fastai's own way: the check can fail"
    r = plain("resnet18")
    assert r["moved"] > 90 and r["groups"] == 3
    assert "error" in plain("mobilenet_v2") and "error" in plain("vit_b_16")
