"Callbacks that save, stop or slow a training may be on the Learner: sweeps and evaluations run without them"

import os
from pathlib import Path

import pytest
import torch
from fastai.callback.tracker import EarlyStoppingCallback, ReduceLROnPlateau, SaveModelCallback

from fastai_tl.all import Plan, evaluate, find_lr, run_plan, sample_dls, transfer_learner


@pytest.mark.medium
def test_tracker_callbacks():
    cbs = [SaveModelCallback(), EarlyStoppingCallback(patience=3), ReduceLROnPlateau(patience=2)]
    learn = transfer_learner(sample_dls(size=32, n_per_class=4), "resnet_mini", cbs=cbs, path=Path("."))
    find_lr(learn, num_it=5)
    evaluate(learn)
    assert os.listdir() == []  # nothing was saved by a sweep
    assert run_plan(learn, Plan.head_only(1)).finished  # with a sweep of its own
    history = run_plan(learn, Plan.head_only(1, lr=1e-3))
    saved = torch.load("models/model.pth")
    assert all(torch.equal(t, saved[n]) for n, t in learn.model.state_dict().items())
    assert history.finished and learn.save_model.best == pytest.approx(history.stages[0].values[0][1])
    evaluate(learn)
    assert [cb for cb in learn.cbs if cb in cbs] == cbs
