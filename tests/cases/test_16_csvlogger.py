"`CSVLogger` writes one file for a run of several stages, and a sweep leaves it alone"

from pathlib import Path

import pytest
from fastai.callback.progress import CSVLogger

from fastai_tl.all import Plan, find_lr, run_plan, sample_dls, transfer_learner


@pytest.mark.medium
def test_csv_logger():
    learn = transfer_learner(sample_dls(size=32, n_per_class=4), "resnet_mini", cbs=CSVLogger(), path=Path("."))
    history = run_plan(learn, Plan.fine_tune(2, lr=1e-3))
    text = Path("history.csv").read_text()
    table = learn.csv_logger.read_log()
    assert table.epoch.tolist() == [0, 0, 1]
    assert table.valid_loss.tolist() == pytest.approx(history.to_frame().valid_loss.tolist())
    find_lr(learn, num_it=3)
    assert Path("history.csv").read_text() == text
