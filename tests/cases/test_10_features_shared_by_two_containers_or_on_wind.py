"Features shared by two containers, machines or on Windows: only what is known to be left over is removed."

import os
import shutil
import subprocess
import sys

import pytest
import torch

from fastai_tl.cache.store import DiskStore, Table
from fastai_tl.core import machine
from fastai_tl.core.files import partial_path
from fastai_tl.training.checkpoint import FolderStore


def another_pod(pid, sig):
    raise ProcessLookupError


def test_another_writer_is_not_taken_for_dead(tmp_path, monkeypatch):
    mine = DiskStore(tmp_path / "feats").begin()
    monkeypatch.setattr(os, "kill", another_pod)
    DiskStore(tmp_path / "feats").begin()
    assert mine.exists()


def test_no_process_is_asked_for_by_a_signal_on_windows(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "kill", lambda *a: pytest.fail("os.kill"))
    monkeypatch.setattr(machine.psutil, "pid_exists", lambda pid: False)  # on Windows it sends no signal
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    name = machine.process_mark().replace(f"-{os.getpid()}-", f"-{ended.pid}-")
    assert machine.has_ended(name) and not machine.has_ended(machine.process_mark())


WRITER = """
import sys
sys.path.insert(0, {repo!r})
from pathlib import Path
from fastai_tl.core.files import partial_folder
print(partial_folder(Path({store!r}), "features"), flush=True)
input()
"""


@pytest.mark.skipif(
    not shutil.which("unshare")
    or subprocess.run(["unshare", "--pid", "--fork", "true"], capture_output=True).returncode,
    reason="may not make a container",
)
def test_a_container_of_the_same_name_is_another_machine(tmp_path):
    "A process in a PID namespace of its own has a small number, which means another process here, or none"
    code = WRITER.format(repo=os.path.dirname(os.path.dirname(machine.__file__)) + "/..", store=str(tmp_path))
    with subprocess.Popen(
        ["unshare", "--pid", "--fork", sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as pod:
        theirs = pod.stdout.readline().strip()
        DiskStore(tmp_path).begin()
        assert os.path.isdir(theirs)
        pod.stdin.write("\n")


def test_what_has_ended_or_is_very_old_is_removed(tmp_path):
    store, ended = DiskStore(tmp_path), subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = tmp_path / partial_path(tmp_path, "features").name.replace(f"-{os.getpid()}-", f"-{ended.pid}-")
    old, busy, before = (tmp_path / f".features-pod{i}-01234567-1-1-ab.partial" for i in range(3))
    for d in (left, old, busy, before):
        d.mkdir()
        (d / "x.bin").touch()
        os.utime(d, (0, 0)) if d != left else None
    os.utime(old / "x.bin", (0, 0))
    os.utime(before / "x.bin", (0, 0))
    store.begin()
    assert not left.exists() and not old.exists() and busy.exists()  # its file has just been written


def test_a_number_that_another_process_has_now_is_not_the_writer(tmp_path):
    _, pid, start = machine.process_mark().rsplit("-", 2)
    parent = os.getppid()
    mark = machine.process_mark().replace(f"-{pid}-{start}", f"-{parent}-1")
    assert machine.has_ended(mark)  # the parent began later than second 1


def test_two_writers_of_one_table(tmp_path):
    "The second to finish takes the first one's"
    stores, made = [DiskStore(tmp_path) for _ in range(2)], []
    for store in stores:
        new = store.begin()
        t = Table((4,), 10, torch.float32, new / "x.bin")
        t.put_rows(0, torch.arange(40.0).view(10, 4))
        t.targets = [torch.arange(10)]
        made.append((store, new, t))
    for store, new, t in made:
        store.finish(new, "key", t)
    for store, _, t in made:
        assert torch.equal(t.rows([9, 0]), store.load("key", 10**9).rows([9, 0]))
        t.close()
    assert [p.name for p in tmp_path.iterdir()] == ["key"]


def test_a_checkpoint_that_another_machine_is_writing_stays(tmp_path):
    mine = partial_path(tmp_path, "last.safetensors")
    theirs = tmp_path / ".last.safetensors-pod7-01234567-1-1-ab.partial"
    mine.touch()
    theirs.touch()
    FolderStore(tmp_path).open()
    assert mine.exists() and theirs.exists() and len(list(tmp_path.iterdir())) == 2
