"""Loaders that are copied keep their weights, their number of items, their order and their class"""

import numpy as np
import pytest
import torch
from fastai.callback.data import PartialDL, WeightedDL
from fastai.data.block import CategoryBlock, DataBlock
from fastai.data.core import DataLoaders, TfmdDL
from fastai.data.transforms import RandomSplitter, parent_label
from fastai.vision.augment import Resize
from fastai.vision.data import ImageBlock

from fastai_tl.cache.callback import cache_of, frozen_cache
from fastai_tl.cache.split_point import NoCache
from fastai_tl.core.errors import InputError
from fastai_tl.datasets.samples import sample_path
from fastai_tl.evaluation.classification import evaluate
from fastai_tl.experiments.strategies import compare
from fastai_tl.models.transfer_learner import transfer_learner
from helpers import QUIET

pytestmark = pytest.mark.medium
FILES = [f for c in ("bird", "flower", "mammal") for f in sorted((sample_path() / c).glob("*.jpg"))[:12]]
BLOCK = DataBlock(
    (ImageBlock, CategoryBlock), get_y=parent_label, splitter=RandomSplitter(seed=0), item_tfms=Resize(32, "squish")
)
WEIGHTS = np.array([50.0 if f.parent.name == "bird" else 1.0 for f in FILES])


def weighted():
    return BLOCK.weighted_dataloaders(FILES, WEIGHTS, bs=8, num_workers=0)


def share_of_birds(dl, idxs=None):
    return np.mean([dl.dataset.items[i].parent.name == "bird" for i in (dl.get_idxs() if idxs is None else idxs)])


def test_the_weights_stay():
    dls = weighted()
    learn = transfer_learner(dls, "resnet_mini")
    assert isinstance(learn.dls.train, WeightedDL) and learn.dls.train is not dls.train
    np.testing.assert_array_equal(learn.dls.train.wgts, dls.train.wgts)
    assert share_of_birds(learn.dls.train) > 0.8


def test_a_fit_on_cached_features_draws_by_the_weights():
    learn = transfer_learner(weighted(), "resnet_mini")
    seen = []
    with frozen_cache(learn, on_progress=QUIET):
        features = cache_of(learn)
        assert features is not None
        from fastai.callback.core import Callback

        class See(Callback):
            def before_batch(self):
                if self.training:
                    seen.extend(self.yb[0].tolist())

        with learn.no_bar(), learn.no_logging():
            learn.fit(1, cbs=See())
    bird = list(learn.dls.vocab).index("bird")
    assert len(seen) == 24 and np.mean(np.array(seen) == bird) > 0.7


def test_a_part_of_the_items_stays_a_part():
    dsets = BLOCK.datasets(FILES)
    dls = dsets.partial_dataloaders(8, bs=4, after_item=BLOCK.item_tfms, after_batch=BLOCK.batch_tfms, num_workers=0)
    learn = transfer_learner(dls, "resnet_mini")
    assert isinstance(learn.dls.train, PartialDL) and len(learn.dls.train) == 2 == len(list(learn.dls.train))


def test_compare_keeps_the_weights():
    seen = []

    def learner(dls, pretrained):
        seen.append(dls.train)
        return transfer_learner(dls, "resnet_mini", pretrained)

    dls = weighted()
    compare(dls, "linear_probe", 1, learner=learner, epochs=2, lr=1e-2, corruptions=None, on_progress=QUIET)
    assert seen[0] is not dls.train and np.ptp(seen[0].wgts) == np.ptp(dls.train.wgts) > 0


class Every(TfmdDL):
    "A user's class: each k-th item, in an order of its own"

    def __init__(self, dataset, step, **kw):
        super().__init__(dataset, **kw)
        self.step = step

    def get_idxs(self):
        return list(range(0, self.n, self.step))

    def __len__(self):
        return -(-len(range(0, self.n, self.step)) // self.bs)


class InPairs(TfmdDL):
    "A user's class that makes its batches itself"

    def create_batches(self, samps):
        yield from super().create_batches(i for i in samps for _ in range(2))


def with_train(make):
    dls = BLOCK.dataloaders(FILES, bs=8, num_workers=0)
    kw = dict(bs=8, num_workers=0, after_item=dls.train.after_item, after_batch=dls.train.after_batch)
    return DataLoaders(make(dls.train.dataset, **kw), dls.valid)


def test_a_class_of_the_users_own_is_kept_whatever_its_arguments():
    dls = with_train(lambda ds, **kw: Every(ds, 3, **kw))
    learn = transfer_learner(dls, "resnet_mini")
    assert type(learn.dls.train) is Every and learn.dls.train.step == 3
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    with frozen_cache(learn, on_progress=QUIET) as cache:
        assert cache.split is not None
        with learn.no_bar(), learn.no_logging():
            learn.fit(1)
    with pytest.raises(InputError, match=r"Every cannot be made again.*learn.dls.test_dl"):
        evaluate(learn, learn.dls.train)


def test_a_class_that_makes_its_own_batches_is_refused_by_the_cache_by_name():
    learn = transfer_learner(with_train(InPairs), "resnet_mini")
    assert type(learn.dls.train) is InPairs and sum(len(b[1]) for b in learn.dls.train) == 58
    with pytest.raises(NoCache, match=r"InPairs makes its batches in a way of its own \(create_batches\)"):
        with frozen_cache(learn):
            pass


def test_an_order_given_as_a_method_stays():
    class Backwards:
        def order(self):
            return list(range(23, -1, -1))

    learn = transfer_learner(with_train(lambda ds, **kw: TfmdDL(ds, get_idxs=Backwards().order, **kw)), "resnet_mini")
    y = torch.cat([b[1] for b in learn.dls.train]).tolist()
    assert y == [int(learn.dls.train_ds[i][1]) for i in range(23, -1, -1)][: len(y)]
