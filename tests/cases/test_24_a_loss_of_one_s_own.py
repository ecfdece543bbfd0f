"""A loss of one's own. Public reports: fastai/fastai#3110 (focal loss of one's own), timeseriesAI/tsai#805 (losses
without activation). A plain loss trained well, but decoding and export did not know it.
"""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastai.losses import BaseLoss, FocalLossFlat
from helpers import QUIET
from timm.loss import BinaryCrossEntropy
from timm.loss import LabelSmoothingCrossEntropy as TimmSmoothing
from torch import nn

from fastai_tl.all import KitError, evaluate, export, load_predictor, sample_dls, transfer_learner


@pytest.fixture(scope="module")
def learn():
    torch.manual_seed(0)
    return transfer_learner(sample_dls(size=32, n_per_class=6), "resnet_mini")


@pytest.fixture(scope="module")
def logits(learn):
    with learn.no_bar():
        return learn.get_preds(act=lambda z: z)[0]


def exported(learn, folder, **kw):
    return load_predictor(export(learn, folder, onnx=False, force=True, **kw))


def focal(z, y):
    ce = F.cross_entropy(z, y, reduction="none")
    return ((1 - torch.exp(-ce)) ** 2 * ce).mean()


def brier(p, y):
    "Wants probabilities, so nothing can be told from it"
    return ((p - F.one_hot(y, p.shape[1])) ** 2).sum(1).mean()


@pytest.mark.medium
@pytest.mark.parametrize(
    "loss",
    [
        F.cross_entropy,
        partial(F.cross_entropy, label_smoothing=0.1),
        TimmSmoothing(),
        FocalLossFlat(),
        nn.CrossEntropyLoss(weight=torch.ones(8, dtype=torch.float64)),  # as NumPy's class weights are
        focal,
        BaseLoss(nn.CrossEntropyLoss),  # says of itself that outputs stay as they are
    ],
)
def test_evaluation_and_export_agree(learn, logits, tmp_path, loss):
    learn.loss_func = loss
    ev = evaluate(learn, on_progress=QUIET)
    np.testing.assert_allclose(ev.probs, logits.softmax(1).numpy(), atol=1e-6)
    assert learn.loss_func is loss
    np.testing.assert_allclose(exported(learn, tmp_path / "m").values(ev.items[:20]), ev.probs[:20], atol=1e-5)


@pytest.mark.medium
@pytest.mark.parametrize("loss", [brier, nn.MultiMarginLoss()])
def test_where_it_cannot_be_known_both_ask(learn, logits, tmp_path, loss):
    learn.loss_func = loss
    for what in (
        lambda **kw: evaluate(learn, on_progress=QUIET, **kw),
        lambda **kw: exported(learn, tmp_path / "m", **kw),
    ):
        with pytest.raises(KitError, match="activation='softmax'"):
            what()
        with pytest.raises(KitError, match="'softmax' or 'sigmoid' or 'none'"):
            what(activation="relu")
    assert not list(tmp_path.iterdir())
    ev = evaluate(learn, activation="softmax", on_progress=QUIET)
    np.testing.assert_allclose(ev.probs, logits.softmax(1).numpy(), atol=1e-6)
    said = exported(learn, tmp_path / "m", activation="softmax")
    np.testing.assert_allclose(said.values(ev.items[:20]), ev.probs[:20], atol=1e-5)


@pytest.mark.medium
def test_outputs_that_are_no_probabilities_are_not_taken_for_some(learn, logits, tmp_path):
    learn.loss_func = brier
    with pytest.raises(KitError, match="no probabilities"):
        evaluate(learn, activation="none", on_progress=QUIET)
    loss = BaseLoss(nn.NLLLoss)
    loss.activation = torch.nn.LogSoftmax(-1)
    learn.loss_func = loss
    with pytest.raises(KitError, match="no probabilities"):
        evaluate(learn, on_progress=QUIET)
    with pytest.raises(KitError, match="activation of its own"):
        exported(learn, tmp_path / "m")


@pytest.mark.medium
def test_an_activation_that_is_noted_on_the_loss(learn, logits, tmp_path):
    loss = partial(brier)
    loss.activation = torch.nn.Softmax(-1)
    learn.loss_func = loss
    np.testing.assert_allclose(evaluate(learn, on_progress=QUIET).probs, logits.softmax(1).numpy(), atol=1e-6)
    assert exported(learn, tmp_path / "m").manifest["activation"] == "softmax"


@pytest.mark.medium
def test_each_class_against_the_others(learn, logits, tmp_path):
    "timm's BinaryCrossEntropy for whole classes, as in its recipes"
    learn.loss_func = BinaryCrossEntropy(smoothing=0.1)
    ev = evaluate(learn, on_progress=QUIET)
    assert ev.task == "classes"
    np.testing.assert_allclose(ev.probs, logits.sigmoid().numpy(), atol=1e-6)
    assert exported(learn, tmp_path / "m").predict(ev.items[0]).label == ev.vocab[ev.preds[0]]
