"""The command line as people use it: real processes, their files, exit codes and messages."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import wait_until
from PIL import Image

from fastai_tl.interface.cli import main
from fastai_tl.datasets.samples import sample_path

EXE = Path(sys.executable).parent / "fastai-tl"
FAST = "[fastai_tl]\nsize = 48\nepochs = 1\n"


def process(*args, code=0, cwd=None):
    "Run the installed command"
    r = subprocess.run(
        [str(EXE), *map(str, args)], capture_output=True, text=True, cwd=cwd, env={**os.environ, "COLUMNS": "200"}
    )
    assert r.returncode == code, r.stdout + r.stderr
    return r


@pytest.fixture
def run(capsys, monkeypatch):
    "The same command line inside this process, without the seconds that a new one takes to load torch"

    def f(*args, code=0, cwd="."):
        monkeypatch.chdir(cwd)
        with pytest.raises(SystemExit) as e:
            main(list(map(str, args)))
        text = capsys.readouterr()
        assert (e.value.code or 0) == code, text.out + text.err
        return SimpleNamespace(stdout=text.out, stderr=text.err)

    return f


def flat(text):
    return " ".join(text.split())


def quickstart(d):
    "A quickstart on a folder of one's own, with awkward names and one broken picture; what it says is in two files"
    (d / "settings.ini").write_text(FAST + "backbone = resnet_mini\n")
    for c, name in (("bird", "oiseaux <b>é</b>".replace("/", "∕")), ("fruit", "fruit & veg"), ("bug", "bug")):
        (d / "pics" / name).mkdir(parents=True)
        for p in sorted((sample_path("clipart") / c).glob("*.jpg"))[:10]:
            (d / "pics" / name / p.name).write_bytes(p.read_bytes())
    (d / "pics" / "bug" / "torn <i>.jpg").write_bytes(b"\xff\xd8 not a picture")
    r = process(
        "quickstart", "--data", "pics", "--out", "out", "--json", "figures.json", "--seed", 1, "--balance", cwd=d
    )
    (d / "stdout").write_text(r.stdout)
    (d / "stderr").write_text(r.stderr)


@pytest.fixture(scope="module")
def done(made_once, tmp_path_factory):
    "A finished quickstart: its folder, and what it said"
    d = tmp_path_factory.mktemp("quick") / "quick start"
    shutil.copytree(made_once("quick start", quickstart), d)
    return d, SimpleNamespace(**{n: (d / n).read_text() for n in ("stdout", "stderr")})


@pytest.mark.medium
def test_quickstart_says_six_steps_and_names_the_broken_picture(done):
    d, r = done
    assert re.findall(r"Step (\d) of 6", r.stdout) == list("123456")
    assert (
        "torn <i>.jpg" in flat(r.stdout)
        and "1 unreadable picture was" in flat(r.stdout)
        and "bit for bit" in flat(r.stdout)
    )
    assert "Traceback" not in r.stderr and "Warning" not in r.stderr, r.stderr


@pytest.mark.medium
def test_quickstart_json(done):
    d, _ = done
    j = json.loads((d / "figures.json").read_text())
    assert [k for k in j if k not in ("macro_f1", "recall")] == [
        "steps",
        "accuracy",
        "exported",
        "n_train",
        "n_valid",
        "classes",
        "seconds",
        "baseline_seconds",
        "model",
        "report",
    ]
    assert list(j["macro_f1"]) == list(j["recall"]) == list(j["accuracy"])
    assert list(j["recall"]["frozen"]) == j["classes"]
    assert len(j["steps"]) == 6 and list(j["seconds"]) == j["steps"]
    assert [k for k in j["accuracy"] if k not in ("pixels", "scratch")] == ["frozen", "fine_tuned"]
    assert j["exported"] == max(("frozen", "fine_tuned"), key=j["accuracy"].get), "the better model"
    assert all(0 <= v <= 1 for v in j["accuracy"].values())
    assert (j["n_train"], j["n_valid"], len(j["classes"])) == (24, 6, 3)
    assert (d / j["model"] / "manifest.json").is_file() and (d / j["report"]).is_file()


@pytest.mark.medium
def test_quickstart_says_how_long_and_shows_the_answer_before_the_baselines(done):
    lines = done[1].stdout.splitlines()
    at = lambda text: next(i for i, line in enumerate(lines) if text in line)
    order = [
        "Six steps from images",
        "Step 1 of 6",
        " to the model: ",
        "The model is the one of",
        "The model and its report",
    ]
    order += ["Baselines that had no pretraining follow, at most ", "Logistic regression on frozen features  ", "Done"]
    assert [at(o) for o in order] == sorted(at(o) for o in order)
    assert "\r" not in done[1].stdout and "█" not in done[1].stdout


@pytest.mark.medium
def test_report_is_one_self_contained_page(done):
    d, _ = done
    page = (d / "out" / "report.html").read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page), "nothing is loaded from elsewhere"
    assert "<script" not in page and "oiseaux &lt;b&gt;" in page and "<b>é" not in page and "fruit &amp; veg" in page
    assert page.count("data:image/jpeg;base64,") >= 6 and page.count("<svg") == 2
    for text in (
        "Confusion matrix",
        "Layer table",
        "it was solved, not trained",
        "torn &lt;i&gt;.jpg",
        "macro-F1",
        "balance=",
    ):
        assert text in page


@pytest.mark.medium
def test_predict(done, run):
    d, _ = done
    r = run("predict", "out/model", "pics/bug", "pics/fruit & veg", "--json", "p.json", cwd=d)
    rows = json.loads((d / "p.json").read_text())
    assert len(rows) == 20 and all(
        set(o) == {"path", "label", "probability"} and 0 < o["probability"] <= 1 for o in rows
    )
    assert "torn <i>.jpg" in flat(r.stderr) and "1 of 21 files" in flat(r.stderr)
    assert (
        json.loads(run("predict", "out/model", "pics/bug", "pics/fruit & veg", "--json", "-", cwd=d).stdout) == rows
    ), "- prints the same, and nothing else"
    same = run("predict", "out", d / rows[0]["path"], cwd=d)  # the quickstart's own folder works, too
    assert rows[0]["label"] in same.stdout


@pytest.mark.medium
def test_predict_a_table(done, run, tmp_path):
    "One answer a row, in order, also where a file is named twice; rows without a picture are named"
    d, _ = done
    a, b = sorted((d / "pics" / "fruit & veg").glob("*.jpg"))[:2]
    names = [f"pics/fruit & veg/{b.name}", a.stem, "gone.jpg", "", f"fruit & veg/{b.name}", "torn <i>.jpg"]
    (tmp_path / "mine.csv").write_text("weight;Filename\n" + "".join(f"1,5;{n}\n" for n in names))
    r = run("predict", "out", tmp_path / "mine.csv", "--data", "pics", "--json", "-", cwd=d)
    rows = json.loads(r.stdout)
    assert [Path(o["path"]).name for o in rows] == [a.name, b.name] and set(rows[0]) == {"path", "label", "probability"}
    assert rows == json.loads(run("predict", "out", *(o["path"] for o in rows), "--json", "-", cwd=d).stdout)
    said = flat(r.stderr)
    for text in ("row 2 (gone.jpg): there is no such file in pics", "row 3: no file is named", "torn <i>.jpg: cannot"):
        assert text in said, said
    assert "4 of 6 files" in said and f"row 0 ({names[0]})" in said, "relative to the folder that was given"
    (d / "own.csv").write_text("number,photo\n1," + names[0] + "\n2," + names[0] + "\n")
    try:
        out = run("predict", "out", "own.csv", "--file", "photo", cwd=d).stdout
        assert out.count(b.name) == 2, "beside the table, and each row has its answer"
        for args, text in (
            (["own.csv"], "Say it with --file; the columns are number, photo"),
            (["own.csv", "--file", "foto"], "Did you mean 'photo'"),
            (["own.csv", "--file", "number"], "row 0 (1): there is no such file in .); say with --data"),
            ([a, "--file", "photo"], "give a CSV file"),
        ):
            assert text in flat(run("predict", "out", *args, code=2, cwd=d).stderr)
    finally:
        (d / "own.csv").unlink()


@pytest.mark.medium
def test_export(done, run, tmp_path):
    "The quickstart's model with ONNX: the same answers without torch"
    d, _ = done
    assert "model.onnx" in run("export", d / "out", tmp_path / "m").stdout and (tmp_path / "m" / "README.md").is_file()
    rows = []
    for model, more in ((d / "out", ()), (tmp_path / "m", ("--backend", "onnx"))):
        run("predict", model, "pics/fruit & veg", "--json", tmp_path / "p.json", "--force", *more, cwd=d)
        rows.append(json.loads((tmp_path / "p.json").read_text()))
    for a, b in zip(*rows):
        assert a["label"] == b["label"] and abs(a["probability"] - b["probability"]) < 1e-4
    code = (
        "import sys\nfrom fastai_tl.interface.cli import main\ntry: main()\nfinally: assert not {'torch', 'fastai'} & "
        "set(sys.modules)"
    )
    for more in ((), ("--backend", "onnx")):  # with an ONNX network, torch is not even loaded
        r = subprocess.run(
            [sys.executable, "-c", code, "predict", str(tmp_path / "m"), "pics/fruit & veg", "--json", "-", *more],
            capture_output=True,
            text=True,
            cwd=d,
        )
        assert r.returncode == 0 and json.loads(r.stdout) == rows[1], r.stderr
    (tmp_path / "t.csv").write_text("file\n" + "".join(f"{o['path']}\n" for o in rows[1]))
    args = ["predict", str(tmp_path / "m"), str(tmp_path / "t.csv"), "--data", ".", "--json", "-"]
    r = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, cwd=d)
    assert r.returncode == 0 and json.loads(r.stdout) == rows[1], r.stderr
    assert "auto, onnx or torch" in flat(run("predict", tmp_path / "m", d / "pics", "--backend", "tf", code=2).stderr)
    assert "already holds an exported model" in flat(run("export", d / "out", tmp_path / "m", code=2).stderr)
    assert "holds no ONNX" in flat(run("predict", d / "out", d / "pics", "--backend", "onnx", code=2).stderr)
    run("export", tmp_path / "m", tmp_path / "m", "--force", "--no-onnx")
    assert not (tmp_path / "m" / "model.onnx").exists()


@pytest.mark.medium
def test_nothing_is_written_over(done, run):
    d, _ = done
    stamp = {p: p.stat().st_mtime_ns for p in d.rglob("*") if p.is_file()}
    for args in (
        ["quickstart", "--out", "out"],
        ["quickstart", "--out", "new", "--json", "figures.json"],
        ["predict", "out", "pics/bug", "--json", "figures.json"],
    ):
        assert "--force" in flat(run(*args, code=2, cwd=d).stderr)
    assert stamp == {p: p.stat().st_mtime_ns for p in d.rglob("*") if p.is_file()} and not (d / "new").exists()


@pytest.fixture
def pets(tmp_path):
    for c in ("cat", "dog"):
        (tmp_path / "pets" / c).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (20, 20), (70 * i, 9, 9)).save(tmp_path / "pets" / c / f"{i}.png")
    return tmp_path


def test_bad_input_gets_one_sentence_and_exit_code_2(pets, run):
    (pets / "empty").mkdir()
    (pets / "one" / "cat").mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(pets / "one" / "cat" / "1.png")
    (pets / "single" / "a").mkdir(parents=True)
    (pets / "single" / "b").mkdir()
    for f in ("a/1", "a/2", "b/1"):
        Image.new("RGB", (9, 9)).save(pets / "single" / f"{f}.png")
    (pets / "file").write_text("x")
    cases = [
        (["--data", "gone"], "gone: there is no such folder"),
        (["--data", "empty"], "no pictures"),
        (["--data", "one"], "one class"),
        (["--data", "single"], "'b' has 1"),
        (["--data", "pets", "--arch", "resnet81"], "Did you mean"),
        (["--data", "pets", "--epochs", "0"], "epochs=0"),
        (["--out", "file"], "is a file"),
        (["--json", "no/where.json"], "no such folder"),
        (["--seed", "-1"], "seed=-1"),
    ]
    for args, text in cases:
        r = run("quickstart", *args, code=2, cwd=pets)
        assert text in flat(r.stderr) and "Traceback" not in r.stderr, r.stderr
        assert not (pets / "quickstart-out").exists(), args
    r = process("quickstart", "--data", "gone", code=2, cwd=pets)
    assert r.stderr.startswith("Error: gone: there is no such folder") and "Traceback" not in r.stderr
    assert "Traceback" in process("quickstart", "--data", "gone", "--debug", code=1, cwd=pets).stderr


def test_bad_settings(pets, run):
    (pets / "settings.ini").write_text("[fastai_tl]\nbackbne = resnet18\n")
    r = run("quickstart", "--data", "pets", code=2, cwd=pets)
    assert "backbne" in r.stderr and "settings.ini" in r.stderr and "Did you mean 'backbone'" in flat(r.stderr)


@pytest.mark.medium
def test_predict_errors(done, pets, run):
    (pets / "words.jpg").write_text("words")
    for args, text in (
        [["gone", "pets"], "no such folder"],
        [["pets", "pets"], "not an exported model"],
        [[done[0] / "out", "gone.jpg"], "no such file"],
        [[done[0] / "out", "words.jpg"], "no picture to classify"],
    ):
        assert text in flat(run("predict", *args, code=2, cwd=pets).stderr)


def test_backbones(run):
    assert "tf_efficientnet_lite0" in run("backbones", "--offline").stdout
    some, all_of_them = (run("backbones", "--family", "resnet", *more).stdout for more in ((), ("--all",)))
    assert (
        "resnet18" in some and "resnet10t" not in some and "of timm: add --all" in some and "resnet10t" in all_of_them
    )
    nc = run("backbones", "--family", "fastvit").stdout  # a family that only timm has
    assert "fastvit_mci2 NC" in nc and "forbids commercial use" in nc and "fastvit_t8 NC" not in nc
    assert "VGG" in run("backbones", "--family", "vggg", code=2).stderr


def test_a_forgotten_section_is_noticed(pets, run):
    (pets / "settings.ini").write_text("size = 64\n")
    assert "[fastai_tl]" in run("quickstart", "--data", "pets", code=2, cwd=pets).stderr


@pytest.mark.medium
def test_ctrl_c_leaves_nothing_behind(pets):
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); sys.argv = ['fastai-tl']; from "
        "fastai_tl.interface.cli import main; main(%r)"
    )
    p = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code % ["quickstart", "--data", "pets", "--json", "r.json"]],
        cwd=pets,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in p.stdout:
        if "Step 4" in line:
            break
    p.send_signal(signal.SIGINT)
    _, err = p.communicate(timeout=60)
    assert p.returncode == 130 and "Stopped" in err and "Traceback" not in err
    assert sorted(o.name for o in pets.iterdir()) == ["pets"]


def test_help_lists_the_commands(run):
    r = run("--help")
    for c in ("quickstart", "doctor", "lab", "predict", "export", "backbones"):
        assert c in r.stdout
    assert "--data" in run("quickstart", "--help").stdout and "fastai-tl" in run("--version").stdout


@pytest.mark.medium
def test_doctor(pets, run, tmp_path):
    assert "pictures of 8 classes" in run("doctor").stdout
    r = run("doctor", pets / "pets", "--arch", "resnet_mini")
    assert "pictures of 2 classes" in r.stdout
    copy = tmp_path / "copy"
    shutil.copytree(pets / "pets", copy)
    one, other = [d for d in sorted(copy.iterdir()) if d.is_dir()][:2]
    for p in list(one.iterdir()):
        (other / f"copy_of_{p.name}").write_bytes(p.read_bytes())  # the same pictures in two classes
    r = run("doctor", copy, "--arch", "resnet_mini")
    assert "duplicates" in r.stdout and "cure:" in r.stdout
    assert "nowhere" in run("doctor", "nowhere", code=2).stderr


@pytest.mark.medium
def test_lab(tmp_path):
    "JupyterLab starts with the notebook and the side panel"
    (tmp_path / "jovyan").mkdir()
    env = {**os.environ, "HOME": str(tmp_path / "jovyan"), "JUPYTER_RUNTIME_DIR": str(tmp_path / "run")}
    cmd = [EXE, "lab", tmp_path / "work", "--data", tmp_path / "pets", "--no-browser", "--jupyter=--allow-root"]
    log = tmp_path / "log"
    with log.open("w") as out:
        p = subprocess.Popen(cmd, env=env, stdout=out, stderr=out, start_new_session=True)

    def address():
        assert p.poll() is None, log.read_text()
        return re.search(r"http://127\.0\.0\.1:(\d+)/lab\S*\?token=(\w+)", log.read_text())

    def answer():
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{port}/lab?token={token}", timeout=10).read().decode()
        except OSError:
            return ""

    try:
        port, token = wait_until(address, 90, "the address of JupyterLab").groups()
        assert '"fastai-tl"' in wait_until(answer, 60)
    finally:
        os.killpg(p.pid, signal.SIGTERM)
        p.wait(30)
    assert "folder_dls" in (tmp_path / "work" / "transfer-learning.ipynb").read_text() and "Wrote" in log.read_text()
