"""Folders and images from strangers: links, pipes, archives, and images that are far larger than their files."""

import gc
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastai_tl.all import folder_dls
from fastai_tl.core import large_images
from fastai_tl.core.image_files import AGAIN, CIRCLE, find_images, image_facts, kind_of
from fastai_tl.core.images import FASTAI, VIEW, OpenRule, open_picture
from fastai_tl.datasets.folder_layout import FolderError
from fastai_tl.datasets.picture_folder import read_folder, split_folder


def picture(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (12, 12, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path):
    for c in "ab":
        for i in range(4):
            picture(tmp_path / "d" / c / f"{i}.png", f"{c}{i}".encode()[0] * 10 + i)
    return tmp_path / "d"


def identities(paths):
    return [(os.stat(p).st_dev, os.stat(p).st_ino) for p in paths]


def to_itself(d):
    (d / "a" / "self").symlink_to(".")
    (d / "a" / "self2").symlink_to(".")


def to_another_class(d):
    (d / "a" / "other").symlink_to("../b")
    (d / "b" / "other").symlink_to("../a")


def to_a_file(d):
    (d / "a" / "again.png").symlink_to("0.png")
    (d / "b" / "0a.png").symlink_to("../a/0.png")


def to_the_root(d):
    (d / "a" / "root").symlink_to("/")
    (d / "a" / "proc").symlink_to("/proc/self/root")


def by_two_names(d):
    (d / "0a").symlink_to("a")
    (d / "0b").symlink_to(d / "b")


def a_staircase(d):
    "Two links in each folder to the next: 2^40 ways down"
    for i in range(40):
        (d / "a" / f"s{i}").mkdir()
        if i < 39:
            for k in "xy":
                (d / "a" / f"s{i}" / k).symlink_to(f"../s{i + 1}")
    picture(d / "a" / "s39" / "deep.png", 99)


def outside_and_back(d):
    (d.parent / "elsewhere").mkdir()
    picture(d.parent / "elsewhere" / "more.png", 77)
    (d.parent / "elsewhere" / "back").symlink_to(d)
    (d.parent / "elsewhere" / "up").symlink_to(d.parent)
    (d / "a" / "more").symlink_to(d.parent / "elsewhere")


LINKS = {
    make.__name__: (make, more)
    for make, more in (
        (to_itself, 0),
        (to_another_class, 0),
        (to_a_file, 0),
        (to_the_root, 0),
        (a_staircase, 1),
        (outside_and_back, 1),
    )
}


@pytest.mark.parametrize("kind", LINKS)
def test_what_a_link_leads_to_counts_once(folder, kind):
    make, more = LINKS[kind]
    make(folder)
    found = read_folder(folder)
    assert {c: len(ps) for c, ps in found.train.items()} == {"a": 4 + more, "b": 4}
    train, valid = split_folder(found)
    files = identities(train + valid)
    assert len(set(files)) == len(files) == 8 + more, "no file twice, nor on both sides"
    assert {why for _, why in found.passed} <= {AGAIN, CIRCLE}
    assert len(found.passed) < 90


def test_a_class_that_is_a_link_to_another_is_refused_by_name(folder):
    by_two_names(folder)
    with pytest.raises(FolderError, match="'0a' has 0, '0b' has 0"):
        read_folder(folder)


def test_class_folders_that_are_links_to_elsewhere_are_read(folder, tmp_path):
    (tmp_path / "subset").mkdir()
    for c in "ab":
        (tmp_path / "subset" / c).symlink_to(folder / c)
    assert {c: len(ps) for c, ps in read_folder(tmp_path / "subset").train.items()} == dict(a=4, b=4)


def test_a_link_between_the_parts_of_a_split(folder):
    whole = folder.parent / "whole"
    (whole / "valid" / "a").mkdir(parents=True)
    os.rename(folder, whole / "train")
    picture(whole / "valid" / "a" / "new.png", 5)
    (whole / "valid" / "b").symlink_to("../train/b")
    found = read_folder(whole)
    assert len(found.train["b"]) == 4 and [p.name for p in found.valid["a"]] == ["new.png"] and not found.valid["b"]


def test_folders_nested_deeper_than_python_recurses(tmp_path):
    at = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    picture(tmp_path / "top.png", 1)
    try:
        assert [p.name for p in find_images(tmp_path).images] == ["top.png"]
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)  # pytest cannot


def test_what_is_no_folder_is_refused_by_name(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "photos.zip").write_bytes(b"PK\3\4" + bytes(300))
    (tmp_path / "photos.tar").write_bytes(bytes(257) + b"ustar\x0000" + bytes(300))
    (tmp_path / "text").write_text("hello")
    kinds = {
        "pipe": "a pipe",
        "photos.zip": "an archive: unpack it",
        "photos.tar": "an archive: unpack it",
        "text": "a file",
    }
    for path, kind in [(tmp_path / name, kind) for name, kind in kinds.items()] + [(Path("/dev/zero"), "a device")]:
        with pytest.raises(FolderError, match=f"{path.name} is {kind}"):
            read_folder(path)
    assert kind_of(tmp_path) == "a folder"


def test_a_pipe_and_an_archive_beside_pictures_are_passed_over(folder):
    os.mkfifo(folder / "a" / "pipe.png")
    (folder / "a" / "more.zip").write_bytes(b"PK\3\4" + bytes(300))
    (folder / "a" / "null.jpg").symlink_to("/dev/zero")
    found = read_folder(folder)
    assert {p.name: why for p, why in found.passed} == {
        "pipe.png": "not a file",
        "more.zip": "an archive: unpack it",
        "null.jpg": "not a file",
    }
    assert len(found.train["a"]) == 4


# --- images that are larger than their files --------------------------------------------------------------------------

SIDE = 600


@pytest.fixture
def a_hundredth(monkeypatch):
    "Images of 600 x 600 pixels are large, so that these tests take no time"
    monkeypatch.setattr(large_images, "LARGE", 2**18)
    monkeypatch.setattr(large_images, "_MOST_HELD", 2**19)


MODES = {
    "1": ("PNG", 1),
    "L": ("PNG", 200),
    "P": ("PNG", 7),
    "RGB": ("PNG", (10, 120, 200)),
    "RGBA": ("PNG", (10, 120, 200, 255)),
    "I;16": ("PNG", 30000),
    "CMYK": ("TIFF", (0, 0, 0, 0)),
    "JPEG": ("JPEG", (10, 120, 200)),
}


@pytest.mark.usefixtures("a_hundredth")
@pytest.mark.parametrize("mode", MODES)
def test_a_large_image_is_opened_at_a_fraction_of_its_size(tmp_path, mode):
    kind, colour = MODES[mode]
    im = Image.new("RGB" if mode == "JPEG" else mode, (SIDE, SIDE), colour)
    if mode == "P":
        im.putpalette([i for n in range(256) for i in (n, n * 3 % 256, 9)])
    im.save(file := tmp_path / "large", kind, **({"compression": "tiff_lzw"} if kind == "TIFF" else {}))
    small = open_picture(file, rule=VIEW)
    assert small.size == (SIDE // 2, SIDE // 2) and small.width * small.height <= large_images.LARGE
    if mode != "I;16":
        expected = im.crop((0, 0, 1, 1)).convert("RGB").getpixel((0, 0))
        assert max(abs(a - b) for a, b in zip(small.getpixel((SIDE // 4, SIDE // 4)), expected)) <= 3
    assert image_facts(file).flat is not None


@pytest.mark.usefixtures("a_hundredth")
def test_large_images_keep_orientation_and_transparency(tmp_path):
    im = Image.new("RGBA", (800, 440), (200, 0, 0, 255))
    im.paste((0, 0, 255, 0), (0, 0, 400, 440))
    exif = Image.Exif()
    exif[0x112] = 6  # a quarter turn to the right
    im.save(file := tmp_path / "turned.png", exif=exif)
    small = open_picture(file)
    assert small.size == (220, 400)
    assert small.getpixel((100, 10)) == (255, 255, 255) and small.getpixel((100, 390)) == (200, 0, 0)
    hidden = open_picture(file, rule=OpenRule("ignored", "dropped"))
    assert hidden.size == (400, 220) and hidden.getpixel((10, 100)) == (0, 0, 255)
    assert open_picture(file, rule=FASTAI).size == (400, 220)


@pytest.mark.medium
@pytest.mark.usefixtures("a_hundredth")
def test_a_batch_of_large_images_does_not_pile_up(tmp_path):
    for c in "ab":
        for i in range(4):
            (tmp_path / c).mkdir(exist_ok=True)
            Image.new("L", (SIDE, SIDE), 20 * i).save(tmp_path / c / f"{i}.png", compress_level=1)
    dls = folder_dls(tmp_path, size=32, bs=2, valid_pct=0.5)
    gc.collect()
    gc.disable()
    try:
        for _ in range(2):
            for _ in dls.train:
                pass
        held = [o for o in gc.get_objects() if isinstance(o, Image.Image) and o.width >= 100]
        assert len(held) <= 7, "the collector ran before memory did"
        assert max(o.width for o in held) == SIDE // 2 if held else True
    finally:
        gc.enable()


def test_an_image_of_36_million_pixels_in_a_file_of_some_kilobytes(tmp_path):
    Image.new("1", (6000, 6000), 1).save(file := tmp_path / "a.png")
    assert file.stat().st_size < 20_000
    assert open_picture(file, "L").size == (3000, 3000)
