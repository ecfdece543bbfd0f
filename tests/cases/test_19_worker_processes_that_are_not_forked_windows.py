"Worker processes that are not forked, as on Windows and with Python 3.14: what is sent to them, and what cannot be."

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from fastai.data.core import DataLoaders, TfmdDL
from helpers import QUIET, quiet, still_learner

from fastai_tl.core import workers
from fastai_tl.core.errors import KitWarning
from fastai_tl.core.random_state import RandomState, seed_all
from fastai_tl.core.workers import start_method, use_possible_workers, why_not_sent
from fastai_tl.cache.callback import frozen_cache
from fastai_tl.datasets.samples import sample_dls
from fastai_tl.evaluation.classification import evaluate
from fastai_tl.training.learner_state import _Rest, _methods_replaced, rest_of_epoch
from fastai_tl.training.lr_finder import find_lr
from fastai_tl.training.plan import Plan
from fastai_tl.training.run_plan import run_plan


class Numbers:
    "48 items"

    def __len__(self):
        return 48

    def __getitem__(self, i):
        return i


def test_loaders_of_the_kit_can_be_sent():
    for dl in sample_dls(size=32, n_per_class=4, num_workers=1).loaders:
        assert why_not_sent(dl) == ""
        again = pickle.loads(pickle.dumps(dl))
        assert (again.do_item(3)[0] == dl.do_item(3)[0]).all()


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_rest_of_an_epoch_is_what_was_not_seen(num_workers):
    dl = TfmdDL(Numbers(), bs=8, shuffle=True, num_workers=num_workers)
    dl._one_pass()
    seed_all(3, [dl])
    start, seen = RandomState([dl]), []
    batches = iter(dl)
    for _ in range(2):
        seen += next(batches).tolist()
    now = RandomState([dl])
    batches.close()
    left = [b.tolist() for b in rest_of_epoch(dl, 2, start, now)]
    assert len(left) == 4 and sorted(seen + sum(left, [])) == list(range(48))


def test_the_rest_of_an_epoch_can_be_sent():
    dl = TfmdDL(Numbers(), bs=8, shuffle=True)
    rest = _Rest(dl, 2, RandomState([dl]))
    with _methods_replaced(dl, get_idxs=rest.get_idxs, create_batches=rest.create_batches):
        order = dl.get_idxs()
        there = pickle.loads(pickle.dumps(dl))
        assert [b.tolist() for b in there.create_batches(iter(order))] == [b.tolist() for b in dl.create_batches(order)]
    assert len(order) == 32


@pytest.fixture
def spawned(monkeypatch):
    monkeypatch.setattr(workers, "start_method", lambda: "spawn")


def with_lambda():
    learn = still_learner()
    dls = [
        TfmdDL(dl.dataset, bs=dl.bs, num_workers=2, after_batch=lambda b: b, device="cpu") for dl in learn.dls.loaders
    ]
    learn.dls = DataLoaders(*dls)
    learn.dls.c = 3
    return learn


def in_cache(learn):
    with frozen_cache(learn, on_progress=QUIET), quiet(learn):
        learn.fit(1)


@pytest.mark.parametrize(
    "use",
    [
        lambda o: run_plan(o, Plan.head_only(1, lr=1e-3), on_progress=QUIET),
        lambda o: find_lr(o, num_it=8, on_progress=QUIET),
        lambda o: evaluate(o, on_progress=QUIET),
        in_cache,
    ],
    ids=["run_plan", "find_lr", "evaluate", "frozen_cache"],
)
def test_a_loader_that_cannot_be_sent_reads_in_this_process(spawned, use):
    learn = with_lambda()
    with pytest.warns(KitWarning, match="num_workers=0.*lambda"):
        use(learn)


def test_what_was_defined_in_a_notebook_cannot_be_sent(monkeypatch):
    main = sys.modules["__main__"]
    f = type("Labels", (), {})
    f.__module__, f.__qualname__ = "__main__", "Labels"
    monkeypatch.setattr(main, "Labels", f, raising=False)
    monkeypatch.delattr(main, "__file__", raising=False)
    assert "notebook" in why_not_sent(f())


def test_forked_workers_need_nothing(monkeypatch):
    monkeypatch.setattr(workers, "start_method", lambda: "fork")
    learn = with_lambda()
    use_possible_workers(learn.dls.loaders)
    assert learn.dls.train.fake_l.num_workers == 2
    assert start_method.__module__ == "fastai_tl.core.workers"


SCRIPT = """
import sys
sys.path.insert(0, {repo!r})
from fastai_tl.all import *
if __name__ == "__main__":
    import torch.multiprocessing as mp
    mp.set_start_method({method!r})
    quiet = lambda *a: None
    make = lambda: transfer_learner(sample_dls(size=32, n_per_class=4, bs=16, num_workers=1), "resnet_mini")
    plan, c, n = Plan((Stage("a", "all", 2, 1e-3),)), Control(), []
    stop = lambda *a: (n.append(1), len(n) == 2 and c.stop())
    run_plan(make(), plan, "run", control=c, cache=False, on_progress=stop)
    print(len(run_plan(make(), plan, "run", cache=False, on_progress=quiet).to_frame()))
"""


@pytest.mark.distributed
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_run_goes_on_in_the_midst_of_an_epoch(method):
    Path("script.py").write_text(SCRIPT.format(repo=str(Path(__file__).parents[2]), method=method))
    r = subprocess.run([sys.executable, "-W", "ignore", "script.py"], capture_output=True, text=True)
    assert r.stdout.split()[-1:] == ["2"], r.stderr[-2000:]
