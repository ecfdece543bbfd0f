"""Runs a plan again and again in fork()ed children, for test_kill.py, which kills them.

Usage: kill_child.py; each line of input: FOLDER EVERY SEED LOG RESULT."""

import json
import os
import sys
import time

import numpy as np
import torch
from helpers import QUIET, noisy_learner, tensors
from fastai.callback.core import Callback
from fastai.torch_core import set_seed

from fastai_tl.training.plan import Plan
from fastai_tl.training.stage import Stage
from fastai_tl.training.run_plan import run_plan

PLAN = Plan(
    (
        Stage("probe", "head", 2, 1e-2),
        Stage("tune", "all", 2, "find", lr_mult=10, hold_stats=True),
        Stage("operate", ("1",), 2, "same", keep="best"),
    )
)
N_STAGE, N_EPOCH = 2, 8  # epochs a stage, training batches an epoch


class Log(Callback):
    "Write down each training batch before anything else happens to it, and take some time"

    order, run_valid = -20, False

    def __init__(self, file):
        self.file = file

    def before_fit(self):
        self.stage = 0 if self.opt.hypers[-1]["lr"] == 1e-2 else 2 if not self.model[0][0].weight.requires_grad else 1

    def after_batch(self):
        if getattr(self.learn, "lr_finder", None) is not None:
            return
        os.write(self.file, f"{(self.stage * N_STAGE + self.epoch) * N_EPOCH + self.iter}\n".encode())
        time.sleep(0.004)


def child(folder, every, seed, log, result):
    "One session"
    learn = noisy_learner(n=64, seed=int(seed), ballast=300_000)
    set_seed(7 + int(seed))
    if seed == "0":
        set_seed(7)
    learn.add_cb(Log(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)))
    history = run_plan(
        learn,
        PLAN,
        None if folder == "-" else folder,
        int(every) if every.isdigit() else every.replace("_", " "),
        on_progress=QUIET,
    )
    np.savez(result + ".npz", **{k: v.numpy() for k, v in tensors(learn.model).items()})
    with open(result, "w") as f:
        json.dump(
            dict(
                finished=history.finished,
                sessions=history.sessions,
                values=[s.values for s in history.stages],
                losses=[s.losses.tolist() for s in history.stages],
            ),
            f,
        )


def main():
    torch.set_num_threads(1)  # before anything is computed: no threads are lost in a fork
    print("ready", flush=True)
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            try:
                child(*line.split())
            except BaseException as e:
                print(f"{type(e).__name__}: {e}", file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
