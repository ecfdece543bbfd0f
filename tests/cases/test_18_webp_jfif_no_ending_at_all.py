"Images of an unlisted kind were left out, and nobody was told"

import mimetypes
import os

import numpy as np
import pytest
from PIL import Image

from fastai_tl.all import folder_dls, read_folder
from fastai_tl.core.errors import FileError
from fastai_tl.core.image_files import CIRCLE, find_images, known_facts, printable
from fastai_tl.core.images import VIEW
from fastai_tl.datasets.picture_folder import FolderError, folder_notes
from fastai_tl.interface.cli import _pictures
from helpers import AVIF


def image(seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (24, 24, 3), dtype=np.uint8))


@pytest.fixture
def folder(tmp_path):
    for k, c in enumerate(("bird", "flower")):
        d = tmp_path / "w" / c
        d.mkdir(parents=True)
        for i in range(4):
            image(10 * k + i).save(d / f"{i}.jpg")
            image(10 * k + i).save(d / f"{i}.webp")
        image(k).save(d / "a.jfif", "JPEG")
        image(k).save(d / "without_ending", "JPEG")
        image(k).save(d / "b.jp2")
        image(k).save(d / ("c.avif" if AVIF else "c.tga"))
        image(k).save(d / "wrong.txt", "PNG")
    return tmp_path / "w"


def test_all_that_can_be_opened_is_read(folder, monkeypatch):
    monkeypatch.setattr(mimetypes, "types_map", {})  # as in a slim container
    found = read_folder(folder)
    assert {c: len(v) for c, v in found.train.items()} == {"bird": 13, "flower": 13}
    assert found.skipped == [] and found.passed == []
    good, bad = _pictures([folder / "bird"], VIEW)
    assert len(good) == 13 and not bad, "and fastai-tl predict reads the same"


def test_what_is_passed_over_is_counted_and_named(folder, capsys):
    d = folder / "bird"
    (d / "notes.txt").write_text("P1 is no image, II neither")
    (d / "logo.svg").write_text("<svg/>")
    (d / "IMG_1.NEF").write_bytes(b"II*\0")
    (d / "empty").touch()
    (d / "film.mov").write_bytes(b"\0\0\0\x14ftypqt  \0\0\0\0qt  " + b"\0" * 40)
    (d / ".cache").mkdir()
    (d / ".DS_Store").touch()
    (d / "Thumbs.db").touch()
    (d / "gone.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(d / "pipe")
    image().save(folder / "loose.png")
    dls = folder_dls(folder, size=32)
    assert len(dls.train_ds) + len(dls.valid_ds) == 26
    said = capsys.readouterr().out
    for text in (
        "9 passed over",
        "hidden: .cache",
        "not an image: empty, film.mov, notes.txt",
        "a raw file of a camera: develop it to JPEG: IMG_1.NEF",
        "a drawing of lines: save it as PNG: logo.svg",
        "a link to nothing: gone.jpg",
        "not a file: pipe",
        "beside the class folders: loose.png",
    ):
        assert text in said, text
    assert ".DS_Store" not in said and "Thumbs" not in said


def test_links_in_circles_end(folder):
    (folder / "bird" / "self").symlink_to(folder / "bird")
    (folder / "flower" / "up").symlink_to(folder)
    (folder / "flower" / "knot").symlink_to("knot")
    (folder / "again").symlink_to(folder)
    found = read_folder(folder)
    assert {c: len(v) for c, v in found.train.items()} == {"bird": 13, "flower": 13}
    circles = [p.name for p, why in found.passed if why == CIRCLE]
    assert sorted(circles) == ["again", "knot", "self", "up"]


def test_a_class_called_unknown(folder):
    (folder / "flower").rename(folder / "__unknown__")
    assert read_folder(folder).classes == ["__unknown__", "bird"]


def test_names_that_are_not_utf8(folder, capsys):
    raw = os.fsencode(folder / "bird") + b"/caf\xe9.jpg"
    image().save(os.fsdecode(raw), "JPEG")
    with open(os.fsencode(folder / "bird") + b"/torn\xe9.png", "wb") as f:
        f.write(b"\x89PNG\r\n\x1a\n")
    found = read_folder(folder)
    assert len(found.train["bird"]) == 14 and "torn\ufffd.png" in found.skipped[0][1]
    found.skipped.clear()
    dls = folder_dls(found, size=32)
    assert dls.one_batch()[0].shape[1:] == (3, 32, 32)
    for note in folder_notes(found):
        note.encode()
    assert printable(os.fsdecode(raw)).endswith("caf\ufffd.jpg")
    os.rename(os.fsencode(folder / "flower"), os.fsencode(folder) + b"/fl\xe9ur")
    with pytest.raises(FolderError, match="not UTF-8.*Rename the folder"):
        read_folder(folder)


def test_progress_is_told_and_facts_are_kept(folder):
    seen = []
    found = read_folder(folder, lambda done, total: seen.append((done, total)))
    assert seen == [(i, 26) for i in range(1, 27)]
    file = found.train["bird"][0]
    facts = known_facts(file)
    assert facts is not None and not facts.flat
    Image.new("RGB", (30, 30)).save(file)
    assert known_facts(file) is None, "another file is looked at again"


def test_find_images_of_one_folder_alone(folder):
    assert find_images(folder, deep=False).images == [] and len(find_images(folder).images) == 26


def test_predict_says_that_a_folder_has_no_images(folder):
    (folder / "none").mkdir()
    (folder / "none" / "notes.txt").write_text("hello")
    with pytest.raises(FileError, match="none has no pictures in it"):
        _pictures([folder / "bird", folder / "none"], VIEW)
