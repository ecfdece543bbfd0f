"A drive without permissions, flushing, memory maps or renaming: the file is whole, so it stays."

import errno
import mmap
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import QUIET, fit, noisy_learner, still_learner, tensors

from fastai_tl.cache.callback import frozen_cache
from fastai_tl.cache.store import DiskStore, Table
from fastai_tl.core.files import atomic_path, put_in_place, write_text
from fastai_tl.core.random_state import reseed
from fastai_tl.datasets.samples import sample_dls
from fastai_tl.deploy.export import export
from fastai_tl.deploy.torch_predictor import load_predictor
from fastai_tl.evaluation.classification import evaluate
from fastai_tl.models.transfer_learner import transfer_learner
from fastai_tl.training.plan import Plan
from fastai_tl.training.run_plan import run_plan


def refuse(number):
    def f(*a, **k):
        raise OSError(number, os.strerror(number))

    return f


@pytest.fixture
def drive(monkeypatch):
    "A drive on which nothing but writing works"
    for name, number in dict(chmod=errno.EPERM, fsync=errno.EINVAL).items():
        monkeypatch.setattr(os, name, refuse(number))
    monkeypatch.setattr(mmap, "mmap", refuse(errno.ENODEV))


@pytest.fixture(scope="module")
def learn():
    return transfer_learner(sample_dls(size=32, n_per_class=4), "resnet_mini")


@pytest.mark.medium
def test_checkpoint_report_and_export_are_written(tmp_path, drive, learn):
    run_plan(noisy_learner(), Plan.head_only(2, lr=1e-3), checkpoint=tmp_path / "run", on_progress=QUIET)
    assert {p.name for p in (tmp_path / "run").iterdir()} >= {"last.safetensors", "previous.safetensors"}
    evaluate(learn, on_progress=QUIET).to_html(tmp_path / "e.html")
    assert (tmp_path / "e.html").stat().st_size > 1000
    export(learn, tmp_path / "m", onnx=False)
    export(learn, tmp_path / "m", onnx=False, force=True)
    assert list(load_predictor(tmp_path / "m").classes) == list(learn.dls.vocab)


def test_features_are_kept_in_a_folder_and_in_a_file(tmp_path, drive):
    for kw in (dict(store=tmp_path / "s"), dict(memory_limit=1000)):
        a, b = still_learner(), still_learner()
        reseed(a, 3)
        fit(a, 1)
        reseed(b, 3)
        with frozen_cache(b, on_progress=QUIET, **kw) as c:
            fit(b, 1)
            assert "rows" in repr(c)
        for x, y in zip(tensors(a.model).values(), tensors(b.model).values()):
            torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)
    assert len(list((tmp_path / "s").iterdir())) == 2


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_disk_that_loses_what_was_written_is_an_error(tmp_path, monkeypatch, number):
    write_text(tmp_path / "f", "old")
    monkeypatch.setattr(os, "fsync", refuse(number))
    with pytest.raises(OSError) as e:
        write_text(tmp_path / "f", "new")
    assert e.value.errno == number and (tmp_path / "f").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_a_drive_that_cannot_rename(tmp_path, monkeypatch):
    "Folders on gcsfuse, and folders of an image's lower layer, are copied, the manifest last"
    monkeypatch.setattr(os, "replace", refuse(errno.EXDEV))
    t = Table((4,), 10, torch.float32)
    t.put_rows(0, torch.arange(40.0).view(10, 4))
    t.targets = [torch.arange(10)]
    store = DiskStore(tmp_path / "s")
    copied = []
    monkeypatch.setattr(shutil, "copyfile", lambda a, b, f=shutil.copyfile: (copied.append(Path(b).name), f(a, b)))
    store.finish(store.begin(), "key", t)
    assert copied == ["x.bin", "y0.npy", "manifest.json"]
    assert torch.equal(store.load("key", 10**9).rows([9]), t.rows([9]))
    with atomic_path(tmp_path / "f", keep=tmp_path / "before") as new:
        new.write_text("one")
    with atomic_path(tmp_path / "f", keep=tmp_path / "before") as new:
        new.write_text("two")
    assert [(tmp_path / n).read_text() for n in ("f", "before")] == ["two", "one"]
    assert {p.name for p in tmp_path.iterdir()} == {"s", "f", "before"}


def test_a_folder_that_cannot_be_copied_whole_is_not_there(tmp_path, monkeypatch):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "a").touch()
    monkeypatch.setattr(os, "replace", refuse(errno.EXDEV))
    monkeypatch.setattr(shutil, "copyfile", refuse(errno.ENOSPC))
    with pytest.raises(OSError):
        put_in_place(tmp_path / "new", tmp_path / "place")
    assert [p.name for p in tmp_path.iterdir()] == ["new"]


# What Python cannot stand for: safetensors maps files and asks for permissions in compiled code
DRIVE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
static int there(int fd) {
  char name[64], path[4096];
  if (fd < 0) return 0;
  snprintf(name, 64, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(name, path, 4095);
  if (n < 0) return 0;
  path[n] = 0;
  return strstr(path, "/drive/") != 0;
}
void *mmap(void *a, size_t l, int p, int f, int fd, off_t o) {
  static void *(*real)(void *, size_t, int, int, int, off_t);
  if (!real) real = dlsym(RTLD_NEXT, "mmap");
  if (there(fd)) { errno = ENODEV; return MAP_FAILED; }
  return real(a, l, p, f, fd, o);
}
void *mmap64(void *a, size_t l, int p, int f, int fd, off_t o) { return mmap(a, l, p, f, fd, o); }
int fsync(int fd) {
  static int (*real)(int);
  if (!real) real = dlsym(RTLD_NEXT, "fsync");
  if (there(fd)) { errno = EINVAL; return -1; }
  return real(fd);
}
int chmod(const char *path, unsigned mode) {
  static int (*real)(const char *, unsigned);
  if (!real) real = dlsym(RTLD_NEXT, "chmod");
  if (strstr(path, "/drive/")) { errno = EPERM; return -1; }
  return real(path, mode);
}
"""
CHILD = """
import os, sys
sys.path.insert(0, {repo!r})
from pathlib import Path
import torch
from safetensors import safe_open
from fastai_tl.cache.store import DiskStore, Table
from fastai_tl.training.checkpoint import FolderStore
drive = Path({drive!r})
checkpoints = FolderStore(drive / "run")
checkpoints.open()
for i in range(2): checkpoints.save(dict(w=torch.full((5,), i)), dict(epoch=i))
for f in (lambda: safe_open(str(drive / "run/last.safetensors"), "pt"), lambda: os.chmod(drive / "run", 0o755)):
    try: f()
    except OSError: pass
    else: sys.exit("the drive is too good")
tensors, state = checkpoints.load()
assert state == dict(epoch=1) and tensors["w"].tolist() == [1] * 5
store = DiskStore(drive / "s")
t = Table((4,), 10, torch.float32, (new := store.begin()) / "x.bin")
t.put_rows(0, torch.arange(40.0).view(10, 4))
store.finish(new, "key", t)
assert torch.equal(store.load("key", 0).rows([9]), torch.tensor([[36.0, 37, 38, 39]]))
print("whole")
"""


@pytest.mark.medium
@pytest.mark.skipif(not sys.platform.startswith("linux") or not shutil.which("gcc"), reason="needs a C compiler")
def test_checkpoints_are_read_from_a_drive_without_memory_maps(tmp_path):
    (tmp_path / "drive").mkdir()
    (tmp_path / "drive.c").write_text(DRIVE)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", "drive.so", "drive.c", "-ldl"], cwd=tmp_path, check=True)
    code = CHILD.format(repo=str(Path(__file__).parents[2]), drive=f"{tmp_path}/drive/")
    env = os.environ | dict(LD_PRELOAD=str(tmp_path / "drive.so"))
    r = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert r.stdout.endswith("whole\n"), r.stderr[-2000:]
