"""Oblong images, one output for two classes, thousands of classes, half precision on a CPU"""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback
from fastai.losses import BCEWithLogitsLossFlat

import fastai.callback.fp16  # noqa: F401 (to_fp16)

from fastai_tl.core.errors import InputError
from fastai_tl.core.progress import quiet
from fastai_tl.datasets.image_table import table_dls
from fastai_tl.datasets.picture_folder import ClassOf, folder_dls, picture_dls
from fastai_tl.datasets.samples import sample_dls, sample_path, split_sample
from fastai_tl.deploy.export import export
from fastai_tl.deploy.torch_predictor import load_predictor
from fastai_tl.diagnosis.doctor import diagnose
from fastai_tl.evaluation.classification import Evaluation, evaluate
from fastai_tl.models.transfer_learner import transfer_learner
from fastai_tl.training.lr_finder import find_lr
from fastai_tl.training.plan import Plan
from fastai_tl.training.run_plan import run_plan
from helpers import QUIET, few_images

pytestmark = pytest.mark.medium


def from_table(size):
    files = [f for c in ("bird", "bug") for f in sorted((sample_path() / c).glob("*.jpg"))[:6]]
    return table_dls(pd.DataFrame(dict(file=files, label=[f.parent.name for f in files])), "label", size=size)


@pytest.mark.parametrize(
    "make", [lambda s: sample_dls(size=s, n_per_class=2), lambda s: folder_dls(sample_path(), s), from_table]
)
def test_a_size_may_be_height_and_width(make):
    dls = make((32, 48))
    assert dls.one_batch()[0].shape[-2:] == (32, 48)
    for bad in ((32,), (32, 48, 3), (4, 48), "32", 5000, (32.5, 48)):
        with pytest.raises(InputError, match=r"8 to 4096 pixels, or \(height, width\)"):
            make(bad)


def test_oblong_images_all_the_way(tmp_path):
    dls = few_images(size=(32, 48))
    learn = transfer_learner(dls, "resnet_mini")
    run_plan(learn, Plan.head_only(2, lr=1e-2), on_progress=QUIET)
    model = load_predictor(export(learn, tmp_path / "m", onnx=False))
    assert model.manifest["preprocessing"]["size"] == [32, 48]
    got = np.stack([p.probabilities for p in model.predict(list(dls.valid_ds.items))])
    np.testing.assert_allclose(got, evaluate(learn, on_progress=QUIET).probs, atol=1e-4)


def test_one_output_for_two_classes_trains_and_is_judged():
    train, valid = ([p for p in o if p.parent.name in ("bird", "bug")] for o in split_sample(sample_path("clipart"), 4))
    dls = picture_dls(train, valid[::4], ClassOf(sample_path("clipart")), size=32, bs=4, path=".")
    learn = transfer_learner(dls, "resnet_mini", n_out=1, loss_func=BCEWithLogitsLossFlat())
    assert "n_out" not in [f.code for f in diagnose(learn).findings]
    run_plan(learn, Plan.head_only(2, lr=1e-2), on_progress=QUIET)
    ev = evaluate(learn, on_progress=QUIET)
    assert ev.vocab == ["bug"] and ev.targets.ravel().tolist() == [p.parent.name == "bug" for p in ev.items]


def test_thousands_of_classes_stay_small():
    k, n = 5000, 300
    targets = np.arange(n) * 7 % k
    probs = np.zeros((n, k), dtype=np.float32)
    probs[np.arange(n), np.where(np.arange(n) % 2, targets, (targets + 1) % k)] = 1
    ev = Evaluation([f"class {i}" for i in range(k)], probs, targets)
    d = ev.to_dict()
    assert len(json.dumps(d)) < 2e6 and d["confusion"] is None
    cm = np.zeros((k, k), dtype=int)
    for i, j, times in d["confusion_cells"]:
        cm[i, j] = times
    assert (cm == ev.confusion()).all() and cm.trace() == n // 2
    html = ev._repr_html_()
    assert len(html) < 3e5 and "100 of 5000 classes with the most mistakes" in html
    assert len(ev.plot_confusion().get_xticklabels()) < 50
    few = Evaluation(["a", "b"], np.eye(2), np.array([0, 0]))
    assert few.to_dict()["confusion"] == [[1, 1], [0, 0]] and "confusion_cells" not in few.to_dict()


@pytest.mark.parametrize("how", ["to_fp16", "to_bf16"])
def test_mixed_precision_on_a_cpu(tmp_path, how):
    learn = getattr(transfer_learner(few_images(), "resnet_mini"), how)()
    find_lr(learn, num_it=3, on_progress=QUIET)
    history = run_plan(learn, Plan.head_only(2, lr=1e-2), on_progress=QUIET)
    assert "rows of features" in history.stages[0].cache and np.isfinite(history.to_frame()["train_loss"]).all()
    model = load_predictor(export(learn, tmp_path / "m", onnx=False))
    ev = evaluate(learn, on_progress=QUIET)
    got = np.stack([p.probabilities for p in model.predict(list(learn.dls.valid_ds.items))])
    np.testing.assert_allclose(got, ev.probs, atol=1e-2 if how == "to_bf16" else 1e-4)


class AsOnAGPU(Callback):
    "fastai's mixed precision, which on a CPU rounds nothing"

    def before_batch(self):
        self.rounding = torch.autocast("cpu", torch.bfloat16)
        self.rounding.__enter__()

    def after_pred(self):
        self.rounding.__exit__(None, None, None)


def test_export_is_compared_in_full_precision(tmp_path):
    "Mixed precision rounds by more than an export may differ, and does not keep a Learner from being exported"
    learn = transfer_learner(few_images(), "resnet_mini", cbs=AsOnAGPU()).to_bf16()
    with quiet(learn):
        rounded = learn.get_preds()[0].float().numpy()
    model = load_predictor(export(learn, tmp_path / "m", onnx=False))
    got = np.stack([p.probabilities for p in model.predict(list(learn.dls.valid_ds.items))])
    assert 1e-4 < np.abs(got - rounded).max() < 0.1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_in_half_precision_are_refused_in_words(dtype):
    learn = transfer_learner(few_images(), "resnet_mini")
    learn.model.to(dtype)
    for use in (lambda: evaluate(learn, on_progress=QUIET), learn.validate):
        with pytest.raises(InputError, match=r"weights are .*float16.*learn.model.float\(\)"):
            use()
    learn.model.float()
    assert evaluate(learn, on_progress=QUIET).n
