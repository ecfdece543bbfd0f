"""What each of two processes runs in test_distributed.py: the same plan, stopped and resumed.

Usage: torchrun --nproc-per-node 2 distributed_child.py FOLDER [STOP_AT]"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from helpers import noisy_learner, tensors
from fastai.torch_core import num_distrib, rank_distrib
import fastai.distributed  # noqa: F401 (gives Learner its distrib_ctx)

from fastai_tl.training.run_control import Control
from fastai_tl.training.plan import Plan
from fastai_tl.training.stage import Stage
from fastai_tl.training.run_plan import run_plan

PLAN = Plan((Stage("probe", "head", 2, 1e-2), Stage("tune", "all", 2, "find", lr_mult=10, hold_stats=True)))


def main(folder, stop_at=None):
    torch.set_num_threads(1)
    learn, control = noisy_learner(), Control()
    seen, rank = [], rank_distrib()

    def report(done, total, note):
        seen.append(done)
        if len(seen) == stop_at and rank == 0:
            control.stop()  # only one process is asked

    with learn.distrib_ctx(cpu=True, sync_bn=False):
        history = run_plan(learn, PLAN, folder / "run", 2, control=control, on_progress=report)
    np.savez(folder / f"rank{rank}.npz", **{k: v.numpy() for k, v in tensors(learn.model).items()})
    facts = dict(
        world=num_distrib(),
        finished=history.finished,
        batches=[s["batches"] for s in history.sessions],
        lrs=[s.lrs for s in history.stages],
        values=[s.values for s in history.stages],
    )
    (folder / f"rank{rank}.json").write_text(json.dumps(facts))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
