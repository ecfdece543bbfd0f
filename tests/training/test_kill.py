"""A process that runs a plan is killed at random moments, resumed each time, and ends with the weights of one that
was not.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import wait_until
from kill_child import N_EPOCH, N_STAGE

TOTAL = 3 * N_STAGE * N_EPOCH


class Children:
    "Sessions in children of one process that has imported everything already"

    def __init__(self):
        path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
        env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
        cmd = [sys.executable, "-W", "ignore", str(Path(__file__).parent / "kill_child.py")]
        self.proc = subprocess.Popen(cmd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env, bufsize=1)
        assert self.proc.stdout.readline() == "ready\n"

    def start(self, *words):
        self.proc.stdin.write(" ".join(map(str, words)) + "\n")
        return int(self.proc.stdout.readline())

    def wait(self):
        return int(self.proc.stdout.readline())

    def close(self):
        self.proc.stdin.close()
        self.proc.wait(30)
        self.proc.stdout.close()


@pytest.fixture(scope="module")
def children():
    c = Children()
    yield c
    c.close()


@pytest.fixture(scope="module")
def whole(children, tmp_path_factory):
    "Weights, history and duration of the run that is not killed"
    tmp = tmp_path_factory.mktemp("whole")
    t = time.monotonic()
    children.start("-", "epoch", 0, tmp / "log", tmp / "result")
    assert children.wait() == 0
    took = time.monotonic() - t
    assert [int(x) for x in (tmp / "log").read_text().split()] == list(range(TOTAL))
    return np.load(tmp / "result.npz"), json.loads((tmp / "result").read_text()), took


def lines(log):
    return [int(x) for x in log.read_text().split()] if log.exists() else []


def runs(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def begun(log, seen, pid):
    "Wait for the first batch of a session; one that was killed after the last batch of all has none"
    wait_until(lambda: len(lines(log)) > seen or not runs(pid), 60, "its first batch")


@pytest.mark.medium
@pytest.mark.parametrize(
    "every,kills",
    [(3, 2), *(pytest.param(*o, marks=pytest.mark.kills) for o in [(3, 6), ("epoch", 8), (1, 10), ("0.1_s", 8)])],
)
def test_killed_and_resumed(children, whole, every, kills, tmp_path):
    rnd = random.Random(str(every))
    done = 0
    chain = 0
    in_writing = 0
    while done < kills:
        chain += 1
        folder, log, result = tmp_path / f"run{chain}", tmp_path / f"log{chain}", tmp_path / f"result{chain}"
        session, code = 0, None
        while code != 0:
            session += 1
            seen = lines(log)
            # each session begins with other weights and random states
            pid = children.start(folder, every, session - 1, log, result)
            if done < kills:
                begun(log, len(seen), pid)
                if rnd.random() < 0.4:  # while a checkpoint is being written
                    until = time.monotonic() + whole[2]
                    while not any(folder.glob(".last.*.partial")) and time.monotonic() < until and runs(pid):
                        pass
                    in_writing += any(folder.glob(".last.*.partial"))
                else:
                    time.sleep(rnd.uniform(0, 0.5 * whole[2]))
                if not result.exists() and not Path(str(result) + ".npz").exists():
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        pass
            code = children.wait()
            assert code in (0, -signal.SIGKILL)
            new = lines(log)[len(seen) :]
            if seen and new:  # it went on, at most one interval before the batch at which it was killed
                interval = dict(epoch=N_EPOCH).get(every, every if isinstance(every, int) else TOTAL)
                assert seen[-1] + 1 - interval <= new[0] <= seen[-1] + 1, (seen[-1], new[0])
                assert new == list(range(new[0], new[0] + len(new)))
            done += code != 0
        facts, weights = json.loads(result.read_text()), np.load(str(result) + ".npz")
        for k in whole[0]:
            np.testing.assert_array_equal(weights[k], whole[0][k], err_msg=k)
        assert facts["finished"] and facts["values"] == whole[1]["values"] and facts["losses"] == whole[1]["losses"]
        if session > 1:
            last = facts["sessions"][-1]
            s, e, b = last["start"]
            # the history says so, too: only what was left
            assert last["batches"] == TOTAL - ((s * N_STAGE + e) * N_EPOCH + b)
    assert done >= kills
    print(f"{done} kills, {in_writing} of them while a checkpoint was written, {chain} runs")
