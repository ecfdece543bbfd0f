"""What each of two processes runs in test_distributed.py: a plan on features that they share, or on pictures.

Usage: torchrun --nproc-per-node 2 distributed_cache_child.py FOLDER [pictures]"""

import json
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from helpers import QUIET, still_learner, tensors
from fastai.torch_core import rank_distrib
import fastai.distributed  # noqa: F401 (gives Learner its distrib_ctx)

from fastai_tl.cache.callback import frozen_cache
from fastai_tl.training.plan import Plan
from fastai_tl.cache.split_point import NoCache
from fastai_tl.training.stage import Stage
from fastai_tl.training.run_plan import run_plan

PLAN = Plan((Stage("probe", "head", 3, 1e-2), Stage("tune", 1, 2, 1e-3)))


def main(folder, pictures=False):
    torch.set_num_threads(1)
    learn, rank, why = still_learner(), rank_distrib(), ""
    with learn.distrib_ctx(cpu=True, sync_bn=False):
        try:
            with frozen_cache(learn):
                pass
        except NoCache as e:
            why = str(e)  # without a folder
        with nullcontext() if pictures else frozen_cache(learn, store=folder / "store", on_progress=QUIET) as cache:
            history = run_plan(learn, PLAN, cache=not pictures, on_progress=QUIET)
            seconds = None if pictures else cache.seconds
    np.savez(folder / f"rank{rank}.npz", **{k: v.numpy() for k, v in tensors(learn.model).items()})
    facts = dict(
        values=[s.values for s in history.stages],
        seconds=seconds,
        cache=[s.cache for s in history.stages],
        why=why,
        left=[n for n, m in learn.model.named_modules() if "forward" in vars(m)],
    )
    (folder / f"rank{rank}.json").write_text(json.dumps(facts))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(bool, sys.argv[2:]))
