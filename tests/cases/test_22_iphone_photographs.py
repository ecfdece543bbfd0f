"HEIC images were refused although the plug-in for Pillow was there"

import numpy as np
import pytest
from fastai.vision.core import PILImage
from PIL import Image, ImageFile

from fastai_tl.all import folder_dls, read_folder
from fastai_tl.core import images
from fastai_tl.core.errors import KitWarning
from fastai_tl.core.images import PictureError, open_bytes, open_picture
from helpers import AVIF


class Heif(ImageFile.ImageFile):
    format = "HEIF"

    def _open(self):
        self._mode, self._size = "RGB", (40, 40)

    def load(self):
        self.im = Image.new("RGB", (40, 40), "teal").im
        if self._exclusive_fp:
            self.fp.close()
        return super(ImageFile.ImageFile, self).load()


@pytest.fixture
def formats(monkeypatch):
    "Pillow without a plug-in for HEIF; what is registered meanwhile is gone afterwards"
    Image.init()
    monkeypatch.setattr(Image, "OPEN", {k: v for k, v in Image.OPEN.items() if k != "HEIF"})
    monkeypatch.setattr(Image, "ID", [k for k in Image.ID if k != "HEIF"])
    monkeypatch.setattr(images, "_add_heif", lambda: False)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for c in ("bird", "flower"):
        (tmp_path / "h" / c).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(tmp_path / "h" / c / f"{i}.jpg")
        for name in ("IMG_1.HEIC", "IMG_2.jpg"):  # phones and chats name HEIC files .jpg, too
            (tmp_path / "h" / c / name).write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 40)
    return tmp_path / "h"


def test_a_plug_in_that_is_registered_is_used(formats, folder):
    Image.register_open("HEIF", Heif, lambda b: b[4:8] == b"ftyp")
    file = folder / "bird" / "IMG_1.HEIC"
    assert PILImage.create(file).size == open_picture(file).size == (40, 40)
    found = read_folder(folder)
    assert found.skipped == [] and [len(v) for v in found.train.values()] == [6, 6]
    assert len(folder_dls(found, size=32, num_workers=0).train_ds) == 10


def test_without_it_the_cure_is_said(formats, folder):
    found = read_folder(folder)
    assert [len(v) for v in found.train.values()] == [4, 4] and len(found.skipped) == 4
    assert all("pip install 'fastai-tl[phone]'" in why for _, why in found.skipped)
    with pytest.warns(KitWarning, match="HEIC, as phones write it: pip install"):
        folder_dls(folder, size=32)
    with pytest.raises(PictureError, match="convert it to JPEG"):
        open_bytes((folder / "bird" / "IMG_1.HEIC").read_bytes(), name="IMG_1.HEIC")


def test_pillow_heif_needs_no_call(tmp_path):
    "The extra `phone` is enough: nobody has to register it, and the image comes upright"
    heif = pytest.importorskip("pillow_heif")
    a = np.zeros((48, 64, 3), dtype=np.uint8)
    a[:, 32:] = 255
    exif = Image.Exif()
    exif[0x112] = 6  # the right of the file is the bottom of the scene
    file = tmp_path / "photo.jpg"
    heif.from_pillow(Image.fromarray(a)).save(file, exif=exif.tobytes(), quality=90)
    im = open_picture(file)
    assert im.size == (48, 64) and im.getpixel((24, 60))[0] > 240 and im.getpixel((24, 4))[0] < 15


@pytest.mark.skipif(not AVIF, reason="Pillow reads AVIF from 11.3 on")
def test_avif_is_read_by_pillow_itself_and_turned(tmp_path):
    a = np.zeros((48, 64, 3), dtype=np.uint8)
    a[:, 32:] = 255
    exif = Image.Exif()
    exif[0x112] = 6
    Image.fromarray(a).save(tmp_path / "photo.avif", exif=exif, quality=90)
    im = open_picture(tmp_path / "photo.avif")
    assert im.size == (48, 64) and im.getpixel((24, 60))[0] > 240 and im.getpixel((24, 4))[0] < 15


def test_avif_without_support_says_so(formats, tmp_path):
    if AVIF:
        Image.OPEN.pop("AVIF")
        Image.ID.remove("AVIF")
    (tmp_path / "a.avif").write_bytes(b"\0\0\0\x1cftypavif\0\0\0\0mif1avifmiaf" + b"\0" * 40)
    with pytest.raises(PictureError, match="Pillow 11.3 or newer"):
        open_picture(tmp_path / "a.avif")
