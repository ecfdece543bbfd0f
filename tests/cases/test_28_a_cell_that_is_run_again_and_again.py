"A panel that is made again replaces the one before it, so Learners are not kept alive by panels that nobody sees"

import gc
import weakref

import pytest
from helpers import still_learner

from fastai_tl.all import FreezePanel
from fastai_tl.panels.panel import refresh_all


def alive_after(n, make):
    "How many of `n` Learners, each shown by `make`, are alive after the loop"
    seen = []
    for _ in range(n):
        learn = still_learner()
        make(learn)
        seen.append(weakref.ref(learn))
    del learn
    gc.collect()
    refresh_all()
    return sum(r() is not None for r in seen)


@pytest.mark.medium
def test_a_loop_of_learners_with_panels():
    assert alive_after(10, FreezePanel) <= 1
    assert alive_after(3, lambda learn: None) == 0
