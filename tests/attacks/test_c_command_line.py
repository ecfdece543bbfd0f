"""The command line with each wrong kind of argument, place and encoding: one line and a right exit status."""

import json
import os
import shutil
import signal
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from PIL import Image

import fastai_tl.all  # noqa: F401 (forked processes have it imported)
import fastai_tl.deploy.web_app  # noqa: F401
import fastai_tl.interface.cli as cli
from fastai_tl.deploy.staged_folder import staged_folder
from fastai_tl.core.errors import FileError

MODEL = Path(__file__).parents[1] / "fixtures" / "0.1.0" / "model"
ODD = os.fsdecode(b"caf\xe9[red]\x1b[31m:dog:\n.png")  # not UTF-8, markup, an escape sequence, a picture, a line end
FULL = "/dev/full"


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (30, 30), "red").save("a.png")
    Image.new("RGB", (30, 30), "red").save(os.fsencode(ODD), "PNG")
    (tmp_path / "text.txt").write_text("hello")
    (tmp_path / "empty").mkdir()
    os.mkfifo("pipe")
    return tmp_path


def run(*args, to=None, encoding="utf-8", before=lambda: None, **env):
    "Exit code, output and errors of a command in a forked process, in which everything is imported already"
    files = [Path(f".{k}").absolute() for k in ("stdout", "stderr")]
    pid = os.fork()
    if not pid:
        code = 99
        try:
            for fd, name in zip((1, 2), (to or files[0], files[1])):
                os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | (0 if to else os.O_TRUNC)), fd)
            sys.stdout = open(1, "w", encoding=encoding, closefd=False)
            sys.stderr = open(2, "w", encoding=encoding, closefd=False, buffering=1)
            os.environ.update(env)
            before()
            cli.main(list(map(str, args)))
        except SystemExit as e:
            code = e.code or 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    said = [f.read_text(encoding, errors="replace") if f.exists() else "" for f in files]
    for f in files:
        f.unlink(missing_ok=True)
    return os.waitstatus_to_exitcode(status), *said


def one_error(result):
    code, _, err = result
    lines = [line for line in err.splitlines() if line.strip()]
    assert code == 2 and "Traceback" not in err and "a fault of" not in err, result
    assert lines and ("Error" in lines[-1] or "╰" in lines[-1]), result
    assert "\x1b" not in err
    return lines[-1]


# what stands in the place of each argument
WRONG = ["", "/nowhere/at/all", "text.txt", "empty", "pipe", "/dev/zero", "x" * 300, ODD, "a\0b"]
VERBS = {
    "predict: model": ("predict", None, "a.png"),
    "predict: image": ("predict", MODEL, None),
    "predict: table": ("predict", MODEL, "a.png", "--data", None),
    "predict: json": ("predict", MODEL, "a.png", "--json", None, "--force"),
    "predict: backend": ("predict", MODEL, "a.png", "--backend", None),
    "export: model": ("export", None, "out", "--no-onnx"),
    "export: folder": ("export", MODEL, None, "--no-onnx"),
    "serve: folder": ("serve", None, "--no-browser"),
    "backbones: family": ("backbones", "--family", None),
    "lessons copy: lesson": ("lessons", "copy", "course", None),
    "lessons check: notebook": ("lessons", "check", None),
    "lessons progress: folder": ("lessons", "progress", None),
    "doctor: data": ("doctor", None),
    "doctor: arch": ("doctor", "--arch", None),
    "quickstart: data": ("quickstart", "--out", "q", "--data", None),
    "quickstart: csv": ("quickstart", "--out", "q", "--csv", None),
    "quickstart: arch": ("quickstart", "--out", "q", "--arch", None),
    "quickstart: epochs": ("quickstart", "--out", "q", "--epochs", None),
    "quickstart: json": ("quickstart", "--out", "q", "--data", "empty", "--json", None),
}


def try_all(place, verbs, wrong):
    n = 0
    for name in verbs:
        for value in wrong:
            result = run(*(value if a is None else a for a in VERBS[name]))
            n += 1
            code, _, err = result
            assert code in (0, 1, 2) and "Traceback" not in err and "a fault of" not in err, (name, value, result)
            if code == 2:
                one_error(result)
            assert not list(place.glob(".*.partial")), (name, value)
            shutil.rmtree(place / "q", ignore_errors=True)
    return n


LIGHT = ["predict: model", "predict: image", "predict: json", "lessons check: notebook", "lessons progress: folder"]


@pytest.mark.medium
def test_wrong_arguments_a_few(place, counts):
    counts("command_line", "Verbs by wrong argument", tried=try_all(place, LIGHT, WRONG[:1] + WRONG[2:5] + WRONG[6:]))


@pytest.mark.attacks
def test_wrong_arguments_all(place, counts):
    counts("command_line", "Verbs by wrong argument", tried=try_all(place, VERBS, WRONG))


OUTPUTS = [
    ("--version",),
    ("--help",),
    ("predict", MODEL, "a.png"),
    ("predict", MODEL, ODD, "--json", "-"),
    ("lessons", "list"),
]


@pytest.mark.medium
def test_outputs_that_are_full_narrow_or_ascii(place, counts):
    for args in OUTPUTS:
        line = one_error(run(*args, to=FULL))
        assert "the output cannot be" in line and "No space left" in line
        code, out, err = run(*args, encoding="ascii")
        assert code == 0 and out.isascii() and "Traceback" not in err
        code, out, _ = run(*args, COLUMNS="1")
        assert code == 0 and out.strip()
    assert "a.png" in run("predict", MODEL, "a.png", COLUMNS="1")[1]
    counts("command_line", "Outputs: full, ASCII, one column", tried=3 * len(OUTPUTS))


def test_names_are_shown_as_they_are(place):
    code, out, err = run("predict", MODEL, ODD, "text.txt")
    assert code == 0 and "\x1b" not in out + err
    assert "caf\\xe9[red]\\x1b[31m:dog:\\n" in out.replace("\n", ""), out
    rows = json.loads(run("predict", MODEL, ODD, "--json", "-")[1])
    assert os.fsencode(rows[0]["path"]) == os.fsencode(ODD)


@pytest.fixture
def disk(tmp_path_factory):
    "Mounts a file system of some kilobytes; skips where that is not allowed"
    made = []

    def mount(options):
        folder = tmp_path_factory.mktemp("disk")
        if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True).returncode:
            pytest.skip("mounting a file system needs root")
        made.append(folder)
        return folder

    yield mount
    for folder in made:
        subprocess.run(["umount", folder], check=True)


WRITERS = {
    "predict": lambda d: ("predict", MODEL, "a.png", "--json", d / "x.json"),
    "export": lambda d: ("export", MODEL, d / "m", "--no-onnx"),
    "lessons copy": lambda d: ("lessons", "copy", d / "course"),
    "quickstart": lambda d: ("quickstart", "--out", d / "q"),
}


@pytest.mark.medium
@pytest.mark.parametrize("options", ["size=8k", "size=1m,ro"])
def test_disks_that_are_full_or_read_only(place, disk, options, counts):
    folder = disk(options)
    if "ro" not in options:
        (folder / "fill").write_bytes(b"x")
        with open(folder / "more", "wb", buffering=0) as f:
            f.write(bytes(4096))
    before = sorted(p.name for p in folder.rglob("*"))
    for args in WRITERS.values():
        one_error(run(*args(folder)))
        left = [p for p in folder.rglob("*") if p.is_file() and p.name not in before]
        assert not left, "nothing half-written is left"
    counts("command_line", f"Verbs that write, on a disk of {options}", refused=len(WRITERS))


@pytest.mark.medium
def test_ctrl_c_at_each_operation_on_a_file(place, counts):
    "A command that copies lessons is interrupted at its n-th operation on a file; what is there is whole"

    def interrupt_at(n):
        left = [n]

        def hook(event, _):
            if event in ("open", "os.rename", "os.mkdir", "os.remove"):
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGINT)

        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.addaudithook(hook)

    n = stopped = 0
    while True:
        n += 2
        shutil.rmtree(place / "course", ignore_errors=True)
        code, _, err = run("lessons", "copy", "course", "1", before=lambda n=n: interrupt_at(n))
        if code == 0:
            break
        stopped += 1
        assert code == 130 and "Traceback" not in err, (n, code, err)
        for p in (place / "course").rglob("*.ipynb"):
            json.loads(p.read_text(encoding="utf-8"))
        assert run("lessons", "copy", "course", "1")[0] == 0
        assert n < 2000
    counts("command_line", "Ctrl-C at operations on files", interrupted=stopped)


def test_two_exports_into_one_folder(tmp_path):
    with pytest.raises(FileError, match="already holds"):
        with staged_folder(tmp_path / "m", False) as tmp:
            (tmp / "manifest.json").write_text("{}")
            with staged_folder(tmp_path / "m", False) as other:
                (other / "manifest.json").write_text("{} ")
    assert (tmp_path / "m" / "manifest.json").read_text() == "{} "
