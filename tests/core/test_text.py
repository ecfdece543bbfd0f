"Output that is not UTF-8: a log of Windows, an old terminal. Nothing is lost, and no job ends in its last line."

import io
import json
import shutil
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import pytest

from fastai_tl.core.files import write_text
from fastai_tl.core.progress import ProgressLines
from fastai_tl.core.text import say
from fastai_tl.datasets.samples import sample_path
from fastai_tl.interface.cli import main
from fastai_tl.interface.quickstart import Screen


encodings = pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp932", "utf-8"])


@contextmanager
def output(encoding):
    "Inside, what is printed goes to a file of that encoding"
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding, errors="strict") for _ in range(2))
    with redirect_stdout(out), redirect_stderr(err):
        yield lambda: tuple((f.flush(), f.buffer.getvalue().decode(encoding))[1] for f in (out, err))


@encodings
def test_lines_are_printed_everywhere(encoding):
    with output(encoding) as printed:
        for say_it in (say, ProgressLines().say, Screen().say, Screen().warn):
            say_it("2×3 → Katze 猫 \udcff")
    lines = printed()[0].splitlines()
    assert len(lines) == 4 and len({line.strip().removeprefix("Warning: ") for line in lines}) == 1


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pets")
    for c, like in (("猫", "bird"), ("grün", "flower")):
        (folder / c).mkdir()
        for p in sorted((sample_path() / like).glob("*.jpg"))[:3]:
            shutil.copy(p, folder / c)
    return folder


@encodings
def test_the_command_line_prints_any_name(encoding, pets):
    with output(encoding) as printed:
        for args in (["doctor", str(pets)], ["lessons", "list"], ["doctor", str(pets / "猫 gone")]):
            with pytest.raises(SystemExit):
                main(args)
    out, err = printed()
    assert "no such folder" in err and ("猫" in out or "\\u732b" in out)


def test_a_file_name_that_is_no_text_is_written_and_read_again(tmp_path):
    rows = [dict(path="b\udcff.jpg", label="猫")]
    write_text(tmp_path / "f.json", json.dumps(rows, ensure_ascii=False))
    assert json.loads((tmp_path / "f.json").read_text(encoding="utf-8")) == rows
