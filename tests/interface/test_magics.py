"""The magic `%tl` in a real InteractiveShell, as a notebook runs it."""

import subprocess
import sys

import pytest
from helpers import noisy_learner
from IPython.core.interactiveshell import InteractiveShell

import fastai_tl.panels.freeze as freeze_panel
from fastai_tl.interface.panel_table import PANELS
from fastai_tl.interface.magics import complete, names_in
from fastai_tl.panels.jobs import Job


@pytest.fixture
def ip():
    shell = InteractiveShell.instance()
    shell.run_line_magic("load_ext", "fastai_tl")
    before = set(shell.user_ns)
    yield shell
    shell.run_line_magic("unload_ext", "fastai_tl")
    for k in set(shell.user_ns) - before:
        del shell.user_ns[k]
    InteractiveShell.clear_instance()


def said(ip, capsys, line):
    "What a cell with `%tl line` prints; an error is one sentence, not a traceback"
    r = ip.run_cell(f"%tl {line}")
    text = capsys.readouterr()
    if not r.success:
        assert "Traceback" not in text.out + text.err and "UsageError" in text.err and "--->" not in text.err
    return r, text.out + text.err


def test_usage(ip, capsys):
    for line in ("", "help"):
        r, text = said(ip, capsys, line)
        assert r.success and "%tl doctor" in text and "%tl NAME PANEL" in text


def test_opens_the_panel_that_fits_under_the_name_of_the_variable(ip):
    ip.user_ns["net"] = learn = noisy_learner()
    panel = ip.run_line_magic("tl", "net")
    assert type(panel) is freeze_panel.FreezePanel and panel.learn is learn and panel.name == "net"
    panel.close()
    ip.run_cell("class Box: pass\nbox = Box(); box.learn = net")
    panel = ip.run_line_magic("tl", "box.learn freeze")
    assert panel.learn is learn and panel.name == "box.learn"
    panel.close()


def test_a_learner_that_is_trained_opens_its_training(ip):
    import threading

    go, at_work = threading.Event(), threading.Event()
    ip.user_ns["net"] = learn = noisy_learner()
    job = Job(learn, "TrainPanel", lambda job: (at_work.set(), go.wait(60))).start()
    at_work.wait(60)
    try:
        panel = ip.run_line_magic("tl", "net")
        assert type(panel).__name__ == "TrainPanel" and panel.learn is learn
        panel.close()
    finally:
        go.set()
        assert job.wait(60)
    assert type(p := ip.run_line_magic("tl", "net")).__name__ == "FreezePanel"
    p.close()


@pytest.mark.parametrize("word", [w for w in PANELS if w != "workbench"])
def test_each_panel_by_its_word(ip, word):
    cls = PANELS[word].name
    ip.user_ns["net"] = learn = noisy_learner()
    for line in (f"net {word}", word, f"{word} net"):
        panel = ip.run_line_magic("tl", line)
        assert type(panel).__name__ == cls and panel.learn is learn and panel.name == "net"
        panel.close()


def test_data_opens_the_workbench(ip, small_dls, tmp_path):
    (tmp_path / "my pictures").mkdir()
    ip.user_ns.update(data=small_dls)
    for line in ("data", "data workbench", f"'{tmp_path}/my pictures'"):
        panel = ip.run_line_magic("tl", line)
        assert (
            type(panel).__name__ == "Workbench"
            and panel.name == "learn"
            and panel.dls is (small_dls if line.startswith("data") else None)
        )
        panel.close()


def test_doctor_takes_the_only_patient(ip, capsys, small_dls):
    r, text = said(ip, capsys, "doctor")
    assert not r.success and "transfer_learner" in text
    ip.user_ns["net"] = learn = noisy_learner()
    ip.user_ns["dls"] = learn.dls  # the data of the only Learner
    r, text = said(ip, capsys, "doctor")
    assert type(r.result).__name__ == "Diagnosis" and repr(r.result) in text
    ip.user_ns["other"] = small_dls
    r, text = said(ip, capsys, "doctor")
    assert not r.success and "net, other" in text and "%tl doctor net" in text
    assert type(said(ip, capsys, "doctor other")[0].result).__name__ == "Diagnosis"


@pytest.mark.medium
def test_backbones_table(ip, capsys):
    r, text = said(ip, capsys, "backbones VGG")
    assert r.success and "vgg16_bn" in text and "resnet18" not in text and "top-1" in text
    r, text = said(ip, capsys, "backbones resnt")
    assert not r.success and "Did you mean 'resnet'" in text


@pytest.mark.parametrize(
    "line, cure",
    [
        ("nett", "Did you mean 'net'?"),
        ("docter", "Did you mean 'doctor'?"),
        ("net finde", "Did you mean 'finder'?"),
        ("net qqq", "The panels of a Learner are"),
        ("net finder now", "a word too many ('now')"),
        ("'net", "quotation mark"),
        ("x", "x is a int: give a Learner"),
        ("net.dlz", "Did you mean 'dls'?"),
        ("net.dls finder", "is for a Learner: %tl net.dls opens the workbench"),
        ("net workbench", "%tl net.dls opens it"),
        ("zzzz", "There is net."),
    ],
)
def test_errors_are_one_sentence_with_a_cure(ip, capsys, line, cure):
    ip.user_ns.update(net=noisy_learner(), x=3)
    r, text = said(ip, capsys, line)
    assert not r.success and cure in text, text


def test_names(small_dls):
    learn = noisy_learner()
    assert names_in(dict(a=learn, b=learn, dls=learn.dls, other=small_dls, _hidden=learn, x=1)) == {
        "a": "Learner",
        "other": "DataLoaders",
    }


def test_completion(ip):
    ip.user_ns["net"] = noisy_learner()
    assert complete(ip.user_ns, "%tl ")[0] == "net" and "doctor" in complete(ip.user_ns, "%tl d")
    assert (
        "finder" in complete(ip.user_ns, "%tl net fi")
        and complete(ip.user_ns, "%tl doctor ") == ["net"]
        and not complete(ip.user_ns, "%tl net finder ")
    )
    assert "finder" in ip.complete("fi", "%tl net fi", 10)[1]


def test_a_learner_shows_its_strip_while_the_extension_is_loaded(ip):
    from fastai_tl.freezing.freeze import freeze_to
    from fastai_tl.panels.freeze_strip import strip_html

    learn = noisy_learner()
    freeze_to(learn, -1)
    html = ip.display_formatter.format(learn)[0]["text/html"]
    assert html == strip_html(learn)
    ip.run_line_magic("unload_ext", "fastai_tl")
    assert "text/html" not in ip.display_formatter.format(learn)[0] and "tl" not in ip.magics_manager.magics["line"]
    ip.run_line_magic("load_ext", "fastai_tl")


def test_loading_imports_nothing_heavy():
    code = (
        "from IPython.core.interactiveshell import InteractiveShell; ip = InteractiveShell.instance(); "
        "ip.run_line_magic('load_ext', 'fastai_tl')\nip.run_cell('%tl')\nassert ip.run_cell('3').success\nimport sys; "
        "print(sorted({'torch', 'fastai', 'ipywidgets', 'pandas'} & set(sys.modules)))"
    )
    r = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert r.stdout.strip().endswith("[]"), r.stdout
