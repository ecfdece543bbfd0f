"Killed at every file operation: what is there afterwards is whole, the next call goes on exactly, and nothing is left"

import itertools
import json
import random
import re
import shutil

import numpy as np
import pytest
import torch
from fastai.callback.tracker import SaveModelCallback
from fastai.torch_core import set_seed
from helpers import QUIET, few_images, noisy_learner, tensors
from kills import killed_at_each

from fastai_tl.cache.callback import frozen_cache
from fastai_tl.course.copies import copy_lessons
from fastai_tl.course.progress import FILE, read_progress, write_progress
from fastai_tl.deploy.export import export
from fastai_tl.deploy.staged_folder import staged_folder  # noqa: F401 (loaded before the forks)
from fastai_tl.deploy.torch_predictor import load_predictor
from fastai_tl.models.transfer_learner import transfer_learner
from fastai_tl.training.plan import Plan
from fastai_tl.training.run_plan import run_plan
from fastai_tl.training.stage import Stage

# the best epoch of a stage is not its last
PLAN = Plan(
    (
        Stage("probe", "head", 3, 3.0, schedule="constant", keep="best"),
        Stage("tune", "all", 2, 0.5, lr_mult=1, schedule="constant", keep="best"),
    )
)


@pytest.fixture
def folders(tmp_path):
    return (tmp_path / str(i) for i in itertools.count())


def clean(folder):
    assert not [p.name for p in folder.rglob(".*")], "something is left"


def learner(seed, save_model=None):
    learn = noisy_learner(n=24, seed=seed)
    set_seed(7 + seed)
    if save_model:
        learn.path = save_model
        learn.add_cb(SaveModelCallback())
    return learn


def train(folder, seed=0, save_model=False):
    learn = learner(seed, folder / "files" if save_model else None)
    plan = Plan(tuple(Stage(**{**vars(s), "keep": "last"}) for s in PLAN.stages)) if save_model else PLAN
    h = run_plan(learn, plan, folder, on_progress=QUIET, cache=False)
    return tensors(learn.model), h


def test_the_best_epoch_is_not_the_last(tmp_path):
    _, h = train(tmp_path)
    assert [s.best is not None for s in h.stages] == [True, True], h


@pytest.mark.medium
@pytest.mark.parametrize("save_model", [False, True])
@pytest.mark.parametrize("step", [23, pytest.param(1, marks=pytest.mark.attacks)])
def test_a_run_goes_on_exactly(folders, counts, step, save_model):
    "`step` 1: at each operation. A resumed run begins with other weights and random states"
    weights, h = train(next(folders), save_model=save_model)

    def check(folder):
        begun = any(folder.glob("*.safetensors"))  # else it begins anew
        got, again = train(folder, seed=1 if begun else 0, save_model=save_model)
        assert [s.values for s in again.stages] == [s.values for s in h.stages]
        for k in weights:
            assert torch.equal(got[k], weights[k]), k
        clean(folder)

    kills, n = killed_at_each(lambda d: train(d, save_model=save_model), check, folders, step)
    about = "a run with fastai's SaveModelCallback" if save_model else "a run of two stages that keep their best epoch"
    counts("kills", about, operations=n, kills=kills)
    assert kills > 2


@pytest.mark.medium
@pytest.mark.parametrize("step", [9, pytest.param(1, marks=pytest.mark.attacks)])
@pytest.mark.parametrize("there", [False, True])
def test_an_export_is_whole_or_the_one_before(folders, counts, step, there, tmp_path_factory):
    learn = transfer_learner(few_images(), "resnet_mini", pretrained=False)
    first = tmp_path_factory.mktemp("first")
    export(learn, first / "m", onnx=False)
    old = tensors(learn.model)
    with torch.no_grad():
        for p in learn.model.parameters():
            p.add_(1e-3)
    new = tensors(learn.model)

    def prepare(folder):
        if there:
            shutil.copytree(first / "m", folder / "m")

    def job(folder):
        export(learn, folder / "m", onnx=False, force=True)

    def check(folder):
        if (folder / "m" / "manifest.json").exists():
            got = tensors(load_predictor(folder / "m").model)
            assert any(all(torch.equal(got[k], w[k]) for k in w) for w in (old, new))
        else:
            assert not there, "there is no model"
        export(learn, folder / "other", onnx=False)  # beside it: it removes what is left
        clean(folder)
        export(learn, folder / "m", onnx=False, force=True)
        got = tensors(load_predictor(folder / "m").model)
        assert all(torch.equal(got[k], new[k]) for k in new)

    kills, n = killed_at_each(job, check, folders, step, prepare)
    counts("kills", "an export over an older one" if there else "an export", operations=n, kills=kills)
    assert kills > 2


@pytest.mark.medium
@pytest.mark.parametrize("step", [25, pytest.param(1, marks=pytest.mark.attacks)])
def test_a_store_of_features_is_whole_or_made_anew(folders, counts, step):
    dls = few_images()

    def train(folder):
        random.seed(0), np.random.seed(0), torch.manual_seed(0)
        learn = transfer_learner(dls, "resnet_mini", pretrained=False)
        with frozen_cache(learn, store=folder, on_progress=QUIET), learn.no_bar(), learn.no_logging():
            dls.rng = random.Random(0)
            learn.fit(1, 1e-2)
        return tensors(learn.model)

    right = train(next(folders))

    def check(folder):
        got = train(folder)
        assert all(torch.equal(got[k], right[k]) for k in right)
        clean(folder)

    kills, n = killed_at_each(train, check, folders, step)
    counts("kills", "a store of features", operations=n, kills=kills)


@pytest.mark.parametrize("step", [15, pytest.param(1, marks=pytest.mark.attacks)])
def test_progress_and_lessons_are_whole(folders, counts, step):
    lessons = [0, 1]
    right = next(folders)
    copy_lessons(right, lessons)
    before, after = ({"version": 1, "student": 5, "exercises": {}, "answers": {"a": i}} for i in range(2))

    def job(folder):
        copy_lessons(folder, lessons)
        for n in (before, after):
            write_progress(folder / FILE, n)
        copy_lessons(folder, lessons, force=True)

    def check(folder):
        if (folder / FILE).exists():
            d = json.loads((folder / FILE).read_text())
            assert d in (before, after) or d["answers"] == {}
            assert read_progress(folder / FILE) == d
        for p in folder.glob("*.ipynb"):
            assert p.read_text() == (right / re.sub(r"\.old(\.\d+)?", "", p.name)).read_text()
        copy_lessons(folder, lessons)
        assert {p.name for p in folder.iterdir()} >= {p.name for p in right.iterdir()}
        write_progress(folder / FILE, after)
        copy_lessons(folder, lessons, force=True)
        clean(folder)

    kills, n = killed_at_each(job, check, folders, step)
    counts("kills", "lessons copied, progress noted", operations=n, kills=kills)
