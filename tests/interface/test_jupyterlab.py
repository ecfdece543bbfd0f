"""What the side panel asks of a kernel, without a browser; and that its bundle belongs to this package."""

import json
import os
import subprocess
import sys
import threading
import tomllib
import venv
import warnings
from pathlib import Path

import nbformat
import pytest

import fastai_tl
from fastai_tl.interface import jupyterlab as lab
from fastai_tl.all import Plan, Stage, freeze_to, run_plan, sample_dls, transfer_learner
from fastai_tl.core.errors import FileError, InputError
from fastai_tl.core.learner_lock import Busy, Owner, acquire, release

ROOT = Path(__file__).parents[2]
EXTENSION = ROOT / "labextension"


@pytest.fixture
def learn():
    return transfer_learner(sample_dls(size=32, bs=8, n_per_class=6), "resnet_mini")


@pytest.fixture
def ns(learn):
    names = dict(learn=learn, dls=learn.dls, x=1, _hidden=learn)
    yield names
    names.clear()
    lab.look(ns=names)  # closes the panels


def test_a_look_imports_nothing_heavy():
    code = (
        "import sys; from fastai_tl.interface.jupyterlab import look; a = look(ns=dict(x=1, torch='no')); "
        "assert a['learners'] == [] and a['data'] == [];bad = {'torch', 'fastai', 'ipywidgets', 'numpy', "
        "'matplotlib', 'IPython'} & set(sys.modules); sys.exit(' '.join(bad) or 0)"
    )
    r = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert r.returncode == 0, r.stderr


def test_learners_by_name(learn, ns):
    a = lab.look(ns=ns)
    (o,) = a["learners"]
    assert (
        o["name"] == "learn"
        and o["training"] is None
        and a["version"] == fastai_tl.__version__
        and json.dumps(a._repr_json_())
    )
    n = sum(p.numel() for p in learn.model.parameters())
    assert o["frozen"] == round(sum(p.numel() for p in learn.model.parameters() if not p.requires_grad) / n, 4)
    freeze_to(learn, 0)
    assert lab.look(ns=ns)["learners"][0]["frozen"] == 0
    other = ns["other"] = transfer_learner(learn.dls, "resnet_mini")
    assert [o["name"] for o in lab.look(ns=ns)["learners"]] == ["learn", "other"]
    ids = {o["id"] for o in lab.look(ns=ns)["learners"]}
    ns["learn"] = other
    assert {o["id"] for o in lab.look(ns=ns)["learners"]} < ids  # one object, once


@pytest.mark.parametrize("tab", lab.TABS)
def test_each_tab(ns, tab):
    a = lab.show("learn", tab, ns=ns)
    panel = lab.panels_by_name("learn", ns).panel(tab)
    assert a["model"] == panel.model_id and a["code"] == panel.code and panel.name == "learn"
    assert lab.show("learn", tab, ns=ns)["model"] == a["model"]  # the same when asked again
    code = lab.code("learn", tab, ns=ns)["code"]
    assert code.startswith("from fastai_tl.all import *\n\n")
    names = dict(ns)
    exec("from fastai_tl.all import *", names)
    assert lab.with_import(panel.code, names) == panel.code


def test_unknown_names_and_tabs(ns):
    with pytest.raises(InputError, match="no Learner 'gone'"):
        lab.show("gone", "layers", ns=ns)
    with pytest.raises(InputError, match="no Learner 'x'"):
        lab.show("x", "layers", ns=ns)
    with pytest.raises(InputError, match="no tab 'nothing'"):
        lab.show("learn", "nothing", ns=ns)


def test_another_learner_of_the_same_name_gets_panels_of_its_own(learn, ns):
    old = lab.panels_by_name("learn", ns).panel("layers")
    ns["learn"] = transfer_learner(learn.dls, "vgg_mini")
    lab.look(ns=ns)
    assert old.closed
    assert lab.panels_by_name("learn", ns).panel("layers").learn is ns["learn"]


def test_panels_follow_a_learner_to_another_name(learn, ns):
    panel = lab.panels_by_name("learn", ns).panel("layers")
    first = panel.model_id
    ns["other"] = ns.pop("learn")
    assert [o["name"] for o in lab.look(ns=ns)["learners"]] == ["other"]
    assert lab.show("other", "layers", ns=ns)["model"] == first and not panel.closed and "(other" in panel.code
    held = [ns.pop("other")]
    assert lab.look(ns=ns)["learners"] == [] and panel.closed
    ns["learn"] = held[0]  # back again: a panel of its own
    again = lab.show("learn", "layers", ns=ns)
    assert again["model"] != first and lab.panels_by_name("learn", ns).panel("layers").learn is learn


@pytest.mark.medium
def test_training_whose_learner_lost_its_name_can_be_stopped(learn, ns):
    train = lab.panels_by_name("learn", ns).panel("train")
    train.plan = Plan.head_only(epochs=200, lr=1e-3)
    train.start()
    ns["learn"] = transfer_learner(learn.dls, "resnet_mini")
    names = [o["name"] for o in lab.look(ns=ns)["learners"]]
    assert names == ["learn", "learn (earlier)"] and not train.closed
    assert (
        lab.panels_by_name("learn (earlier)", ns).panel("train") is train
        and lab.panels_by_name("learn", ns).panel("train") is not train
    )
    train.stop()
    train.wait(60)
    assert [o["name"] for o in lab.look(ns=ns)["learners"]] == ["learn"] and train.closed


@pytest.mark.medium
def test_the_plan_is_what_train_runs(ns):
    board = lab.panels_by_name("learn", ns)
    train = board.panel("train")
    plan = board.panel("plan")
    assert train.plan == plan.plan
    plan.plan = Plan.head_only(epochs=1, lr=1e-3)
    assert train.plan == plan.plan
    train.start().wait()
    assert train.history.finished


@pytest.mark.medium
@pytest.mark.parametrize("how", ["run_plan", "fit"])
def test_training_is_told_while_it_goes(learn, ns, how):
    from fastai.callback.core import Callback

    told = []
    watch = lab.TrainingWatch(ns, told.append)

    class Tell(Callback):
        order = 2000

        def after_batch(self):
            watch.tell()

    learn.add_cb(Tell())
    if how == "run_plan":
        run_plan(
            learn,
            Plan((Stage("head", train="head", epochs=1, lr=1e-3), Stage("tune", train="all", epochs=2, lr=1e-4))),
            cache=False,
        )
    else:
        with learn.no_bar():
            learn.fit(2)
    watch.tell()
    seen = [d["learners"][0]["training"] for d in told]
    assert seen[-1] is None and all(d["kind"] == "learners" for d in told)
    if how == "run_plan":
        at = [(t["stage"], t["number"], t["stages"], t["epoch"], t["epochs"]) for t in seen[:-1]]
        assert list(dict.fromkeys(at)) == [("head", 1, 2, 1, 1), ("tune", 2, 2, 1, 2), ("tune", 2, 2, 2, 2)]
        assert {
            d["learners"][0]["frozen"]
            for d in told
            if d["learners"][0]["training"] and d["learners"][0]["training"]["stage"] == "tune"
        } == {0}
    else:
        assert list(dict.fromkeys((t["who"], t["epoch"], t["epochs"]) for t in seen[:-1])) == [
            ("fit", 1, 2),
            ("fit", 2, 2),
        ]
    n = len(told)
    watch.tell()
    assert len(told) == n  # nothing new


@pytest.mark.medium
def test_export(learn, ns, tmp_path, monkeypatch):
    told, done = [], threading.Event()
    watch = lab.TrainingWatch(ns, lambda d: (told.append(d), done.set()))
    monkeypatch.setattr(lab, "_watches", {watch})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        a = lab.export_model("learn", str(tmp_path / "m"), ns=ns)
        assert done.wait(120)
    assert told == [dict(kind="exported", job=a["job"], folder=str(tmp_path / "m"), error=None)]
    assert (tmp_path / "m" / "manifest.json").is_file() and "export(learn, " in a["code"]
    with pytest.raises(FileError, match="force=True"):
        lab.export_model("learn", str(tmp_path / "m"), ns=ns)
    acquire(learn, own := Owner("somebody"))
    own.thread = -1
    try:
        with pytest.raises(Busy):
            lab.export_model("learn", str(tmp_path / "n"), ns=ns)
    finally:
        release(learn)


@pytest.mark.medium
@pytest.mark.parametrize("folder", [None, pytest.param("pictures", marks=pytest.mark.course)])
def test_the_new_notebook_runs(folder, tmp_path, monkeypatch):
    "Every cell of the template, on few small pictures"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "settings.ini").write_text("[fastai_tl]\nsize = 32\nepochs = 1\n")
    if folder:
        from fastai_tl.datasets.samples import sample_path

        for d in [d for d in sorted(sample_path().iterdir()) if d.is_dir()][:2]:
            c = d.name
            (tmp_path / folder / c).mkdir(parents=True)
            for p in sorted(d.rglob("*.jpg"))[:20]:
                (tmp_path / folder / c / p.name).write_bytes(p.read_bytes())
    nb = nbformat.read(lab.write_notebook("n.ipynb", folder), 4)
    nbformat.validate(nb)
    from nbclient import NotebookClient

    for c in nb.cells:
        c.source = (
            c.source.replace("epochs=5", "epochs=1")
            .replace("epochs=3", "epochs=1")
            .replace("tf_efficientnet_lite0", "resnet_mini")
        )
    NotebookClient(nb, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert (tmp_path / "model" / "manifest.json").is_file()
    said = [
        o
        for c in nb.cells
        if c.cell_type == "code"
        for o in c.outputs
        if o.output_type == "stream" and o.name == "stderr"
    ]
    assert not [o.text for o in said if "KitWarning" in o.text]
    with pytest.raises(FileError, match="there already"):
        lab.write_notebook("n.ipynb")


def test_course(tmp_path):
    c = lab.course(str(tmp_path / "c"))
    assert (
        [r["number"] for r in c["lessons"]] == list(range(8))
        and c["next"] == "0_setup.ipynb"
        and not (tmp_path / "c").exists()
    )
    c = lab.start_course(str(tmp_path / "c"))
    assert all(r["here"] for r in c["lessons"])
    f = tmp_path / "c" / "progress.json"
    d = json.loads(f.read_text())
    from fastai_tl.course.student_notebooks import exercises_in, read_notebook

    d["exercises"] = {
        n: dict(tries=1, passed=True) for n in exercises_in(read_notebook(tmp_path / "c" / "0_setup.ipynb"))
    }
    f.write_text(json.dumps(d))
    c = lab.course(str(tmp_path / "c"))
    assert c["next"] == "1_why_transfer.ipynb" and c["passed"] == len(d["exercises"]) and json.dumps(c._repr_json_())
    f.write_text("damaged")
    assert lab.course(str(tmp_path / "c"))["passed"] == 0
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError):
        lab.start_course(str(tmp_path / "file"))


def test_the_bundle_is_of_this_version():
    about = json.loads((EXTENSION / "package.json").read_text())
    built = json.loads((EXTENSION / "dist" / "fastai-tl" / "package.json").read_text())
    lock = json.loads((EXTENSION / "package-lock.json").read_text())
    assert about["version"] == built["version"] == lock["version"] == fastai_tl.__version__
    assert (EXTENSION / "dist" / "fastai-tl" / built["jupyterlab"]["_build"]["load"]).is_file()
    assert "resolved" not in (EXTENSION / "package-lock.json").read_text()  # no registry is named
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        from labextension import MARK, source_hash
    finally:
        sys.path.remove(str(ROOT / "tools"))
    assert MARK.read_text().strip() == source_hash(), "run make labextension"
    files = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["data-files"]
    shipped = {p for patterns in files.values() for g in patterns for p in ROOT.glob(g)}
    assert {
        p for p in (EXTENSION / "dist" / "fastai-tl").rglob("*") if p.is_file()
    } <= shipped and EXTENSION / "install.json" in shipped


@pytest.mark.medium
def test_the_wheel_brings_the_extension(wheel, tmp_path):
    "Installed into an environment of its own, without Node, JupyterLab lists it as enabled and OK"
    venv.create(tmp_path / "env", symlinks=True)
    site = next((tmp_path / "env" / "lib").glob("python*")) / "site-packages"
    (site / "rest.pth").write_text("\n".join(p for p in sys.path if p.endswith("site-packages")))  # what it depends on
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "--python",
            str(python),
            "install",
            "--quiet",
            "--no-deps",
            "--ignore-installed",
            str(wheel),
        ],
        check=True,
    )
    env = {
        **{k: v for k, v in os.environ.items() if not k.startswith("JUPYTER")},
        "PATH": str(tmp_path / "env" / "bin"),
        "HOME": str(tmp_path),
    }
    r = subprocess.run(
        [python, "-m", "jupyterlab.labextensions", "list"], env=env, capture_output=True, text=True, cwd=tmp_path
    )
    said = r.stdout + r.stderr
    line = next(s for s in said.splitlines() if "fastai-tl" in s)
    assert (
        f"v{fastai_tl.__version__}" in line and "enabled" in line and "OK" in line and "(python, fastai-tl)" in line
    ), said
