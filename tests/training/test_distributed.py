"""Two processes on the CPU (gloo), through accelerate and fastai's distrib_ctx.

The same weights on both, one set of checkpoints, a resume that changes nothing."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import noisy_learner

from fastai_tl.training.run_control import Control
from fastai_tl.training.multiprocess import check_distributed
from fastai_tl.core.errors import StateError
from fastai_tl.freezing.freeze import freeze_to

HERE = Path(__file__).parent
ENV = os.environ | {
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")]),
}


class Forks:
    "Two processes at a time, forked from one that has imported everything (distributed_forks.py)"

    def __init__(self, log):
        cmd = [sys.executable, "-W", "ignore", HERE / "distributed_forks.py"]
        self.log = log
        with log.open("w") as f:
            self.proc = subprocess.Popen(
                cmd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=f, text=True, env=ENV, bufsize=1
            )
        assert self.proc.stdout.readline() == "ready\n", log.read_text()

    def __call__(self, module, folder, *args):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        self.proc.stdin.write(json.dumps([module, port, str(folder), *args]) + "\n")
        while (line := self.proc.stdout.readline()).startswith("[Gloo]"):
            pass  # torch 2.9 says who is connected
        assert line == "[0, 0]\n", self.log.read_text()[-3000:]

    def close(self):
        self.proc.stdin.close()
        self.proc.wait(30)
        self.proc.stdout.close()


@pytest.fixture(scope="module")
def forks(tmp_path_factory):
    f = Forks(tmp_path_factory.mktemp("forks") / "log")
    yield f
    f.close()


def torchrun(module, folder, *args):
    "As a person starts them"
    cmd = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--rdzv-backend",
        "c10d",
        "--rdzv-endpoint",
        "127.0.0.1:0",
        HERE / f"{module}.py",
        folder,
        *map(str, args),
    ]
    done = subprocess.run(cmd, env=ENV, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(params=["forks", pytest.param("torchrun", marks=pytest.mark.distributed)])
def two(request):
    "`two(folder, *args, child=module)`: weights and facts of both processes"
    launch = torchrun if request.param == "torchrun" else request.getfixturevalue("forks")

    def f(folder, *args, child="distributed_child"):
        folder.mkdir(exist_ok=True)
        launch(child, folder, *args)
        return [np.load(folder / f"rank{r}.npz") for r in (0, 1)], [
            json.loads((folder / f"rank{r}.json").read_text()) for r in (0, 1)
        ]

    return f


def assert_equal(a, b):
    for k in a:
        np.testing.assert_array_equal(a[k], b[k], err_msg=k)


def test_two_processes_train_stop_and_resume_as_one(two, tmp_path):
    weights, facts = two(tmp_path / "whole")
    assert_equal(*weights)
    assert facts[0] == facts[1] and facts[0]["finished"] and facts[0]["world"] == 2
    assert facts[0]["batches"] == [12]  # 48 pictures in batches of 8 over two processes, 4 epochs
    # one process is asked to stop in the second epoch; both do, at the same batch
    halves, stopped = two(tmp_path / "parts", 7)
    assert_equal(*halves)
    assert [f["finished"] for f in stopped] == [False, False] and stopped[0]["batches"] == stopped[1]["batches"] == [5]
    names = sorted(p.name for p in (tmp_path / "parts" / "run").iterdir())
    assert names == ["best.safetensors", "last.safetensors", "previous.safetensors"]
    resumed, facts2 = two(tmp_path / "parts")
    assert_equal(*resumed)
    assert_equal(resumed[0], weights[0])
    assert facts2[0]["batches"] == [5, 7] and facts2[0]["values"] == facts[0]["values"]


def test_two_processes_share_features_through_a_folder(two, tmp_path):
    child = "distributed_cache_child"
    ours, facts = two(tmp_path / "features", child=child)
    assert_equal(*ours)
    assert facts[0]["seconds"] > 0 and facts[1]["seconds"] == 0  # the first has made them, the second has read them
    # two cuts of training and validation data
    assert len([d for d in (tmp_path / "features" / "store").iterdir() if (d / "manifest.json").exists()]) == 4
    assert (
        "after 2.1" in facts[1]["cache"][0]
        and "after 0" in facts[1]["cache"][1]
        and facts[0]["left"] == facts[1]["left"] == []
    )
    assert all("store=folder" in f["why"] for f in facts)
    plain, facts2 = two(tmp_path / "pictures", "pictures", child=child)
    for k in plain[0]:
        np.testing.assert_allclose(ours[0][k], plain[0][k], rtol=1e-3, atol=1e-4, err_msg=k)
    for a, b in zip(facts[0]["values"], facts2[0]["values"]):
        np.testing.assert_allclose(a, b, rtol=1e-3)
    again, facts3 = two(tmp_path / "features", child=child)  # another session
    assert_equal(again[0], ours[0])
    assert facts3[0]["seconds"] == facts3[1]["seconds"] == 0


def test_batch_norms_that_would_be_replaced_are_refused():
    class DistributedTrainer:  # as fastai's, which needs a process group to be made
        sync_bn = True

    learn = noisy_learner()
    freeze_to(learn, "head")
    learn.cbs.append(DistributedTrainer())
    with pytest.raises(StateError, match=r"sync_bn=False"):
        check_distributed(learn)
    learn.cbs[-1].sync_bn = False
    check_distributed(learn)


def test_what_trains_cannot_change_in_a_stage_of_several_processes():
    c = Control()
    c.unfreeze_next()
    with pytest.raises(StateError, match="stage of its own"):
        c.attach(["a", "b"], fixed=True)
    c = Control()
    c.attach(["a", "b"], fixed=True)
    with pytest.raises(StateError, match="stage of its own"):
        c.unfreeze_next()
