"""Workbench: six steps to an exported model, and a notebook that makes the same model again."""

import nbformat
import pytest
from nbclient import NotebookClient
from safetensors.numpy import load_file

from fastai_tl.all import Plan, Stage, fingerprint, load_predictor, sample_dls, sample_path, set_lrs, unfreeze
from fastai_tl.core.errors import InputError, StateError
from fastai_tl.panels.panel import descendants
from fastai_tl.panels.six_steps import STEPS
from fastai_tl.panels.workbench import Workbench


@pytest.fixture
def bench(small_dls):
    b = Workbench(sample_dls("clipart", size=48, bs=8, n_per_class=4, seed=3), seed=5)
    yield b
    b.close()


def made(bench, arch="resnet_mini", head=None):
    "Steps 1 and 2 as a person does them"
    bench.go(0)
    bench.arch.value = arch
    bench.next.click()
    bench.head.value = head or "linear"
    job = bench.make()
    assert job.wait(60) and job.error is None, job.error
    return bench.learn


def test_nothing_is_done_before_it_is_asked_for(bench):
    assert bench.learn is None and bench.code == "from fastai_tl.all import *" and not bench.done
    for i in range(2, 6):
        bench.go(i)
        assert "Build the model first" in bench.page.children[0].value
        assert bench.next.description == "Build model and continue" and not bench.next.disabled
    bench.save.click()
    assert "Nothing has been done yet" in bench.say_box.value
    assert all(len(why.split(". ")) >= 2 for why in (step.why for step in STEPS))


@pytest.mark.medium
def test_backbones_are_listed_with_their_facts(bench):
    assert {"resnet_mini", "vgg_mini", "mobilenet_mini", "tf_efficientnet_lite0"} == {v for _, v in bench.arch.options}
    bench.arch.value = "vgg_mini"
    assert "294,522" in bench.facts.value and "mit" in bench.facts.value
    bench.family.value = "VGG"
    assert (
        "vgg16_bn" in {v for _, v in bench.arch.options}
        and "are downloaded" in {v: k for k, v in bench.arch.options}["vgg16_bn"]
    )


@pytest.mark.medium
def test_all_six_steps_and_the_notebook_makes_the_same_model(bench, tmp_path, monkeypatch):
    learn = made(bench, head="linear")
    bench.next.click()
    freezer = bench.page.children[0]
    freezer.set_groups(["layer4"], frozen=False)  # the last block learns with the head
    bench.next.click()
    finder, epochs, trainer = bench.page.children
    epochs.value = 1
    set_lrs(learn, {"layer4": 1e-3, "head": 1e-2})
    bench.refresh()
    assert (
        trainer.plan.stages[0].train == "layer4"
        and trainer.plan.stages[0].lr == {"layer4": 1e-3, "head": 1e-2}
        and trainer.plan.epochs == 1
    )
    trainer.start_button.click()
    assert trainer.wait(120).finished
    bench.next.click()
    assert "ftl-error" not in bench.say_box.value, bench.say_box.value
    planner, trainer = bench.page.children
    planner.plan = Plan((Stage("tune", "all", 1, 1e-4),))
    assert trainer.plan == planner.plan
    trainer.start_button.click()
    assert trainer.wait(120).finished
    bench.next.click()
    monkeypatch.chdir(tmp_path)
    bench.folder.value = "out"
    job = bench.export()
    assert job.wait(120) and job.error is None, job.error
    assert "Exported and checked" in bench.say_box.value
    picture = next(sample_path("clipart").rglob("*.jpg"))
    assert load_predictor("out").predict(picture).label in learn.dls.vocab

    (tmp_path / "again").mkdir()
    path = bench.save_notebook("again/session.ipynb")
    nb = nbformat.read(path, 4)
    nbformat.validate(nb)
    heads = [c.source.splitlines()[0] for c in nb.cells if c.source.startswith("## ")]
    assert heads == [f"## {i + 1} {n}" for i, n in enumerate(step.label for step in STEPS)]
    NotebookClient(nb, timeout=300, resources={"metadata": {"path": str(tmp_path / "again")}}).execute()
    mine, again = load_file("out/model.safetensors"), load_file("again/out/model.safetensors")
    assert mine.keys() == again.keys()
    for k in mine:
        assert (mine[k] == again[k]).all(), k


@pytest.mark.medium
def test_a_new_learner_begins_a_new_session(bench):
    first = made(bench)
    bench.go(3)
    panel = bench.page.children[2]
    second = made(bench, "vgg_mini")
    assert second is not first and len(bench.done) == 2 and "vgg_mini" in bench.code and "resnet_mini" not in bench.code
    assert panel.closed
    bench.go(3)
    assert bench.page.children[2].learn is second


@pytest.mark.medium
def test_changes_behind_its_back_are_noticed(bench, tmp_path):
    learn = made(bench)
    bench.save_notebook(tmp_path / "a.ipynb")
    unfreeze(learn)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 1e-3)
    with pytest.raises(StateError, match="has been changed since"):
        bench.save_notebook(tmp_path / "b.ipynb")
    assert not (tmp_path / "b.ipynb").exists()


def test_what_cannot_be_written_down(small_dls, tmp_path):
    b = Workbench(small_dls)  # of picture_dls, which leaves no note of how it was called
    made(b)
    with pytest.raises(StateError, match="data_code="):
        b.save_notebook(tmp_path / "a.ipynb")
    with pytest.raises(InputError, match="ends with .ipynb"):
        b.save_notebook(tmp_path / "a.txt")
    b.close()


def test_bad_input(tmp_path):
    with pytest.raises(InputError, match="folder with one subfolder"):
        Workbench(7)
    b = Workbench(tmp_path / "nowhere")
    b.go(1)
    b.make().wait(60)
    assert "nowhere" in b.say_box.value and b.learn is None and not b.next.disabled
    b.close()


def test_an_export_that_fails_leaves_the_session(bench, tmp_path):
    made(bench)
    bench.go(5)
    (tmp_path / "file").write_text("x")
    bench.folder.value = str(tmp_path / "file")
    bench.export().wait(60)
    assert 'role="alert"' in bench.say_box.value and not bench.export_button.disabled and len(bench.done) == 2
    bench.folder.value = " "
    bench.export_button.click()
    assert "Give a folder" in bench.say_box.value


@pytest.mark.medium
def test_closing(small_dls):
    import ipywidgets as w

    b = Workbench(small_dls)
    learn = made(b)
    for i in range(6):
        b.go(i)
    ids = {c.model_id for c in descendants(b)}
    b.close()
    assert not ids & set(w.widgets.widget._instances) and fingerprint(learn)
