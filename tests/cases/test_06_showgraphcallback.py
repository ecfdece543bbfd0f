"`ShowGraphCallback` draws below fastai's bar: where the kit shows its own, it is left out, and that is said once"

import pytest
from fastai.callback.progress import ShowGraphCallback

from fastai_tl.all import Plan, find_lr, run_plan, sample_dls, transfer_learner


@pytest.mark.medium
def test_show_graph(capsys):
    learn = transfer_learner(sample_dls(size=32, n_per_class=4), "resnet_mini", cbs=ShowGraphCallback())
    find_lr(learn, num_it=3)
    history = run_plan(learn, Plan.fine_tune(1, lr=1e-3))
    assert capsys.readouterr().out.count("ShowGraphCallback is left out") == 1
    assert len(history.notes) == 1
    assert any(isinstance(cb, ShowGraphCallback) for cb in learn.cbs)
