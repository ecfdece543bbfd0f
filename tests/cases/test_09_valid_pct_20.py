"A parameter that is called a percentage takes a share: 20 left two images to train on"

import numpy as np
import pytest
from PIL import Image

from fastai_tl.all import folder_dls, read_folder
from fastai_tl.core.errors import InputError
from fastai_tl.datasets.picture_folder import split_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("d")
    rng = np.random.default_rng(0)
    for c in ("bird", "flower"):
        (root / c).mkdir()
        for i in range(12):
            Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(root / c / f"{i}.png")
    return root


def test_20_is_refused_and_the_share_is_named(folder):
    with pytest.raises(InputError, match=r"valid_pct=20: give a share between 0 and 1.*20 per cent is 0\.2\."):
        folder_dls(folder, size=32, valid_pct=20)


@pytest.mark.parametrize("v", [0, 0.0, 1.0, 1, -0.2, 100, float("nan"), float("inf"), True, "0.2", None])
def test_what_is_no_share_is_refused(folder, v):
    for f in (lambda: folder_dls(folder, size=32, valid_pct=v), lambda: split_folder(read_folder(folder), v)):
        with pytest.raises(InputError, match="There is always a validation part"):
            f()


@pytest.mark.parametrize("v, n", [(0.2, 2), (np.float32(0.5), 6), (0.001, 1), (0.999, 11)])
def test_shares_work(folder, v, n):
    dls = folder_dls(folder, size=32, valid_pct=v)
    assert (len(dls.train_ds), len(dls.valid_ds)) == (24 - 2 * n, 2 * n)
