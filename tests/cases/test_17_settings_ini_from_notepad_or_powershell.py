"`settings.ini` as Notepad, PowerShell and others write it is read, or refused with the cure; never passed over."

import os
import stat
from pathlib import Path

import pytest

from fastai_tl.core.files import decode_text
from fastai_tl.core.settings import SettingsError, load_settings

TEXT = "[fastai_tl]\nsize = 64   # für die Klasse\n"


@pytest.mark.parametrize("encoding", "utf-8 utf-8-sig utf-16 utf-16-le utf-16-be utf-32".split())
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_what_says_its_encoding_is_read(encoding, end):
    Path("settings.ini").write_bytes(TEXT.replace("\n", end).encode(encoding))
    assert load_settings().size == 64


@pytest.mark.parametrize("text, encoding", [(TEXT, "cp1252"), ("[fastai_tl]\n# класс\n", "cp1251")])
@pytest.mark.parametrize("sub", [".", "lesson 1"])
def test_another_encoding_is_refused_with_the_line(text, encoding, sub):
    Path("settings.ini").write_bytes(text.encode(encoding))
    Path(sub).mkdir(exist_ok=True)
    with pytest.raises(SettingsError, match="not UTF-8: line 2.*Save it as UTF-8"):
        load_settings(sub)


def test_half_a_character_at_the_end_is_refused():
    Path("settings.ini").write_bytes(TEXT.encode("utf-16")[:-1])
    with pytest.raises(SettingsError, match="UTF-8"):
        load_settings()


def test_a_file_of_another_program_in_another_encoding_is_passed_over():
    Path("a").mkdir()
    Path("settings.ini").write_text(TEXT, encoding="utf-8-sig")
    Path("a/settings.ini").write_bytes("[andere]\nwert = grün\n".encode("cp1252"))
    assert load_settings("a").size == 64


@pytest.mark.parametrize("line", ["[Fastai_TL]", "[fastai-tl]", "[ fastai_tl ]", "[fastaitl]"])
def test_a_section_that_is_nearly_right_is_refused(line):
    Path("settings.ini").write_text(f"{line}\nsize = 64\n")
    with pytest.raises(SettingsError, match=r"Write \[fastai_tl\]"):
        load_settings()


def test_a_comment_behind_the_section_is_one():
    Path("settings.ini").write_text("[fastai_tl]  # for class 7b\nsize = 64\n")
    assert load_settings().size == 64


def test_an_ending_that_notepad_has_added_is_named():
    Path("settings.ini.txt").write_text(TEXT, encoding="utf-8")
    with pytest.raises(SettingsError, match="Rename it to settings.ini"):
        load_settings()


def denied(*args):
    raise PermissionError(13, "Denied")


def test_a_file_that_cannot_be_opened_is_refused(monkeypatch):
    Path("settings.ini").write_text(TEXT, encoding="utf-8")
    Path("settings.ini").chmod(0)
    if os.geteuid() == 0:  # root opens what has no permissions
        monkeypatch.setattr("fastai_tl.core.settings.open", denied, raising=False)
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings()
    assert stat.S_ISREG(os.stat("settings.ini").st_mode)


def test_a_text_without_letters_is_a_text():
    assert [decode_text(b) for b in (b"", b"\xef\xbb\xbf", b"\xff\xfe", "ü".encode())] == ["", "", "", "ü"]
