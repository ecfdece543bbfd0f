"""Features on disk: found again only if nothing has changed, whole or not at all, and no more of them in memory than
allowed.
"""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import QUIET, Passes, fit, moved, still_learner, tensors
from fastai.data.core import DataLoaders
from fastai.vision.augment import Resize, ResizeMethod, aug_transforms

from fastai_tl.core.errors import FileError, KitWarning
from fastai_tl.cache.callback import frozen_cache
from fastai_tl.cache import store
from fastai_tl.cache.feature_tables import FeatureTables
from fastai_tl.cache.store import Hasher, NoKey, Table
from fastai_tl.freezing.freeze import freeze_to
from fastai_tl.cache.split_point import NoCache
from fastai_tl.datasets.picture_folder import ClassOf, picture_dls
from fastai_tl.datasets.samples import sample_path, split_sample
from fastai_tl.core.random_state import reseed
from fastai_tl.models.transfer_learner import transfer_learner


def pictures(size=48, folder=None, n=4, **kw):
    folder = folder or sample_path("clipart")
    train, valid = split_sample(folder, n)
    return picture_dls(train, valid[::8], ClassOf(folder), size=size, bs=8, path=".", **kw)


def learner(seed=0, **kw):
    torch.manual_seed(seed)
    learn = transfer_learner(pictures(**kw), "resnet_mini")
    reseed(learn, 1)
    return learn


def passes(learn, store, epochs=1, **kw):
    "Pictures that go through the body, beyond those by which the cut is found and the stored features are looked at"
    with frozen_cache(learn, store=store, on_progress=QUIET, **kw):
        p = Passes(learn.model)
        fit(learn, epochs)
    conv = learn.model.body[0]
    while isinstance(conv, torch.nn.Sequential):
        conv = conv[0]
    conv.__dict__.pop("forward", None)
    return p.n


@pytest.mark.medium
def test_found_again_and_only_if_nothing_has_changed(tmp_path):
    n = len(pictures().train_ds) + len(pictures().valid_ds)
    a = learner()
    assert passes(a, tmp_path / "s") == n
    b = learner()
    assert passes(b, tmp_path / "s") <= 8  # some items are looked at
    assert moved(tensors(a.model), b.model) == []
    for changed in (dict(size=56), dict(n=3), dict(item_tfms=Resize(48, ResizeMethod.Squish, resamples=(0, 0)))):
        assert passes(learner(**changed), tmp_path / "s") > 8
    c = learner()
    next(c.model.body.parameters()).data[0, 0, 0, 0] += 1e-6
    assert passes(c, tmp_path / "s") == n
    assert passes(learner(), tmp_path / "s", dtype=torch.float16) == n
    assert passes(learner(), tmp_path / "s", dtype=torch.float16) <= 8
    freeze_to(d := learner(), "layer3")
    assert passes(d, tmp_path / "s") == n


@pytest.mark.medium
def test_a_picture_that_was_replaced_is_noticed(tmp_path):
    import shutil

    shutil.copytree(sample_path("clipart"), tmp_path / "pics")
    store = tmp_path / "s"
    learn = learner(folder=tmp_path / "pics")
    assert passes(learn, store) > 8 and passes(learner(folder=tmp_path / "pics"), store) <= 8
    pic = Path(learn.dls.train_ds.items[-1])
    shutil.copy(learn.dls.train_ds.items[0], pic)
    assert passes(learner(folder=tmp_path / "pics"), store) > 8


@pytest.mark.medium
@pytest.mark.parametrize("what", ["x.bin", "y0.npy", "manifest.json", "missing", "version", "other network"])
def test_damaged_features_are_not_used(what, tmp_path):
    a = learner()
    n = passes(a, tmp_path)
    for d in list(tmp_path.iterdir()):
        m = json.loads((d / "manifest.json").read_text())
        if what == "missing":
            (d / "x.bin").unlink()
        elif what == "version":
            (d / "manifest.json").write_text(json.dumps(m | dict(format=99)))
        elif what == "manifest.json":
            (d / what).write_text("{")
        elif what == "other network":  # with a manifest that fits
            (d / "x.bin").write_bytes(torch.randn(m["rows"] * m["shape"][0]).numpy().tobytes())
            from fastai_tl.cache.store import _checksum

            (d / "manifest.json").write_text(json.dumps(m | dict(sums=m["sums"] | {"x.bin": _checksum(d / "x.bin")})))
        else:
            b = bytearray((d / what).read_bytes())
            b[-1] ^= 1
            (d / what).write_bytes(bytes(b))
    b = learner()
    with pytest.warns(KitWarning, match="Stored features"):
        assert passes(b, tmp_path) >= n
    assert moved(tensors(a.model), b.model) == []
    assert passes(learner(), tmp_path) <= 8  # repaired


CHILD = """
import os, signal, sys, warnings
warnings.filterwarnings('ignore')
sys.path[:0] = [{tests!r}, {tests!r} + '/..']
from test_store import *
learn, n = learner(), []
def report(*a):
    n.append(1)
    print('batch', flush=True)
    if len(n) == 2: os.kill(os.getpid(), signal.SIGKILL)
with frozen_cache(learn, store={store!r}, on_progress=report): fit(learn, 1)
"""


@pytest.mark.medium
def test_a_crash_while_building_leaves_nothing_that_is_believed(tmp_path):
    tests = str(Path(__file__).parent)
    r = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHILD.format(tests=tests, store=str(tmp_path))],
        capture_output=True,
        text=True,
    )
    assert r.returncode == -signal.SIGKILL and r.stdout.count("batch") == 2, r.stderr[-500:]
    left = list(tmp_path.iterdir())
    assert len(left) == 1 and left[0].name.endswith(".partial")
    learn = learner()
    n = len(learn.dls.train_ds) + len(learn.dls.valid_ds)
    assert passes(learn, tmp_path) == n
    assert not left[0].exists()  # cleared away
    assert passes(learner(), tmp_path) <= 8


def test_an_interrupt_while_building_leaves_no_folder(tmp_path):
    def report(*a):
        raise KeyboardInterrupt("stop")

    with pytest.raises(KeyboardInterrupt), frozen_cache(learn := learner(), store=tmp_path, on_progress=report):
        fit(learn, 1)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(FileError, match="another folder"),
        frozen_cache(learn := learner(), store=tmp_path / "file" / "x", on_progress=QUIET),
    ):
        fit(learn, 1)


def test_what_has_no_content_has_no_key(tmp_path):
    with pytest.raises(NoKey):
        Hasher().add(x for x in range(3))
    h = lambda *a: Hasher().add(*a).hexdigest()
    assert (
        h(1, 2) != h(12)
        and h("a", "b") != h("ab")
        and h([1], 2) != h([1, 2])
        and h(1) != h(1.0) != h(True)
        and h({1: 2}) != h({2: 1})
    )
    loop = []
    loop.append(loop)
    assert h(loop) == h(loop)
    assert h({3, 1, 2}) == h({2, 3, 1})


# ---------------------------------------------------------------- memory


@pytest.mark.parametrize("kw", [dict(memory_limit=1000), dict(dtype=torch.float16), dict(dtype=torch.bfloat16)])
def test_on_disk_and_in_half_precision(kw):
    a, b = still_learner(), still_learner()
    reseed(a, 3)
    fit(a, 2)
    reseed(b, 3)
    with frozen_cache(b, on_progress=QUIET, **kw) as c:
        fit(b, 2)
        assert ("on disk" in repr(c)) == ("memory_limit" in kw)
        if "memory_limit" in kw:
            file = c.tables.all[0].file
        assert c.tables.all[0].dtype == kw.get("dtype", torch.float32)
    exact = "memory_limit" in kw
    for x, y in zip(a.recorder.values, b.recorder.values):
        torch.testing.assert_close(torch.tensor(x), torch.tensor(y), rtol=1e-4 if exact else 3e-2, atol=1e-3)
    if exact:
        assert not file.exists()


def test_a_table_in_a_file_is_the_table_in_memory(tmp_path):
    x = torch.randn(500, 3, 5)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        mem, disk = Table((3, 5), 500, dtype), Table((3, 5), 500, dtype, tmp_path / f"{dtype}")
        for t in (mem, disk):
            for i in range(0, 500, 60):
                t.put_rows(i, x[i : i + 60])
        idx = torch.randperm(500)[:64].tolist()
        assert torch.equal(mem.rows(idx), disk.rows(idx)) and torch.equal(mem.rows(idx), x[idx].to(dtype))
        disk.rows(idx).zero_()
        assert torch.equal(mem.rows(idx), disk.rows(idx))  # a copy


BIG = """
import resource, sys, time, warnings
warnings.filterwarnings('ignore')
import torch
from torch import nn
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
import fastai.callback.schedule
from fastai_tl.cache.callback import frozen_cache
from fastai_tl.freezing.freeze import freeze_to
from fastai_tl.freezing.layer_groups import GroupSpec
from fastai_tl.core.progress import quiet
N, LIMIT = int(sys.argv[1]), int(sys.argv[2])
class Seeded(torch.utils.data.Dataset):
    def __init__(self, n): self.n = n
    def __len__(self): return self.n
    def __getitem__(self, i): return torch.full((8,), i % 10 / 10), i % 10
def rss(): return int(next(l for l in open('/proc/self/status') if l.startswith('VmRSS')).split()[1]) / 1024
net = nn.Sequential(nn.Sequential(nn.Linear(8, 2048), nn.ReLU()), nn.Linear(2048, 10))
dls = DataLoaders.from_dsets(Seeded(500), Seeded(500), bs=250, num_workers=0, device='cpu'); dls.c = 10
large = DataLoaders.from_dsets(Seeded(N), Seeded(500), bs=250, num_workers=0, device='cpu'); large.c = 10
learn = Learner(dls, net, CrossEntropyLossFlat(), splitter=GroupSpec.of(net))
freeze_to(learn, -1)
with quiet(learn): learn.fit(1, 1e-3)   # what torch and fastai take anyway
peak, before = [0], rss()
def watch(*a): peak[0] = max(peak[0], rss())
from fastai.callback.core import Callback
class Watch(Callback):
    def after_batch(self): watch()
learn.dls = large
with frozen_cache(learn, memory_limit=LIMIT, on_progress=watch) as c, quiet(learn):
    t = time.time()
    learn.fit(2, 1e-3, cbs=Watch())
    print(c, f'{time.time()-t:.0f} s', file=sys.stderr)
print(before, peak[0], float(learn.recorder.losses[0]), float(learn.recorder.losses[-1]))
"""


@pytest.mark.medium
@pytest.mark.parametrize("n", [20_000, pytest.param(100_000, marks=pytest.mark.large)])
def test_a_large_set_trains_in_bounded_memory(n):
    "Items of 2048 numbers, as after ResNet-50's pooling: 156 or 781 MB, of which 32 MB may be in memory"
    r = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BIG, str(n), str(32 * 2**20)], capture_output=True, text=True
    )
    assert r.returncode == 0, r.stderr[-2000:]
    before, peak, *losses = map(float, r.stdout.split())
    assert "on disk" in r.stderr and losses[1] < 0.8 * losses[0]
    assert peak - before < 100, (before, peak, r.stderr[-300:])


# ---------------------------------------------------------------- views


@pytest.mark.medium
def test_views_are_drawn_anew_each_epoch():
    dls = pictures(item_tfms=Resize(48), batch_tfms=aug_transforms(max_rotate=20))
    learn = transfer_learner(dls, "resnet_mini")
    with pytest.raises(NoCache, match="views=4"), frozen_cache(learn):
        pass
    with frozen_cache(learn, views=4, on_progress=QUIET) as c:
        fit(learn, 1)
        t, n = c.tables[learn.dls.train], len(learn.dls.train_ds)
        assert len(t) == 4 * n and len(c.tables[learn.dls.valid]) == len(learn.dls.valid_ds)
        rows = torch.stack([t.rows(range(v * n, (v + 1) * n)) for v in range(4)])
        # four different views
        assert min(float((rows[i] - rows[j]).abs().max()) for i in range(4) for j in range(i)) > 1e-3
        from fastai_tl.cache.callback import FeatureLoader

        features = FeatureLoader(c, learn.dls.train)
        seen = [{i % n: i // n for i in features.get_idxs()} for _ in range(3)]
        assert (
            all(len(s) == n for s in seen) and seen[0] != seen[1] != seen[2] and set(seen[0].values()) == {0, 1, 2, 3}
        )
        with pytest.raises(KeyError):
            seen[0][n]


@pytest.mark.medium
def test_weighted_sampling_and_workers_are_followed():
    from fastai.callback.data import WeightedDL

    for workers in (0, 2):
        learners = []
        for cached in (False, True):
            learn = still_learner()
            ds = learn.dls.train_ds
            wgts = torch.linspace(0.1, 1, len(ds)).numpy()
            train = WeightedDL(
                ds, bs=8, wgts=wgts, shuffle=True, drop_last=True, num_workers=workers, device=torch.device("cpu")
            )
            learn.dls = DataLoaders(train, learn.dls.valid)
            learn.dls.c = 3
            for dl in learn.dls.loaders:
                dl._one_pass()
            reseed(learn, 3)
            if cached:
                with frozen_cache(learn, on_progress=QUIET):
                    fit(learn, 2)
            else:
                fit(learn, 2)
            learners.append(learn)
        for a, b in zip(*(o.model.state_dict().values() for o in learners)):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_rows_stay_on_a_device_where_they_fit(monkeypatch):
    "Sent once, and anew after a change; batch by batch where it needs more than a quarter of what is free"
    room, device = 8 * 16, torch.device("meta")
    monkeypatch.setattr(store, "free_memory", lambda device: room)
    tables, t = FeatureTables(10**6), Table((4,), 2, torch.float32)
    tables["dl"] = t
    got = t.rows_on([1, 0, 1], device, torch.float16)
    assert got.shape == (3, 4) and got.dtype == torch.float16 and got.device == t.there.device == device
    there = t.there
    assert t.rows_on([0], device, torch.float32).device == device and t.there is there
    t.put_rows(0, torch.ones(1, 4))
    assert t.there is None and t.rows_on([0], torch.device("cpu"), torch.float32).tolist() == [[1.0] * 4]
    t.rows_on([0], device, torch.float32)
    tables.clear()
    assert t.there is None
    room -= 1
    assert t.rows_on([0], device, torch.float32).device == device and t.there is None
