"Line art as PNG with transparency lost its content when it was opened: black on black, and nothing was said"

import numpy as np
import pytest
from fastai.vision.all import ImageDataLoaders, PILImage, Resize
from PIL import Image, ImageDraw

from fastai_tl.all import diagnose, export, folder_dls, load_predictor, set_opening, transfer_learner
from fastai_tl.core.errors import KitWarning
from fastai_tl.core.images import FASTAI
from fastai_tl.deploy.web_page import ModelPage


def draw(folder, mode="RGBA", ink=0, n=12):
    for c, shape in (("ring", "ellipse"), ("box", "rectangle")):
        (folder / c).mkdir(parents=True)
        for i in range(n):
            im = Image.new("LA", (64, 64), (ink, 0))
            getattr(ImageDraw.Draw(im), shape)((8 + i, 8, 50, 50), outline=(ink, 255), width=4)
            if mode == "P":  # transparency as one number for each entry of the palette
                grey = im.getchannel("A").quantize(4)
                grey.putpalette([ink] * 12)
                alpha = bytes(255 if v == grey.getpixel((8 + i, 8 + 21)) else 0 for v in range(4))
                grey.save(folder / c / f"{i}.png", transparency=alpha)
            else:
                im.convert(mode).save(folder / c / f"{i}.png")
    return folder


def said(diagnosis):
    return {f.code: f.what for f in diagnosis.findings}


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_the_drawings_are_on_white_and_it_is_said(tmp_path, mode, recwarn, capsys):
    dls = folder_dls(draw(tmp_path / "art", mode), size=32)
    assert "Note: 24 of 24 images have transparent parts, which are put on white" in capsys.readouterr().out
    x = dls.one_batch()[0]
    assert x.std() > 0.1 and 0.7 < x.mean() < 0.99, "black on white"
    assert said(diagnose(dls)) == {"transparency": "24 of 24 images have transparent parts, which are put on white."}
    assert not [w for w in recwarn if "Palette" in str(w.message)], "Pillow's own warning does not come"


def test_drawings_that_vanish_on_white_are_named(tmp_path):
    found = said(diagnose(folder_dls(draw(tmp_path / "art", ink=255), size=32)))
    assert found["one_colour"].startswith("24 of 24 images are one colour, or nearly once transparency is put on white")


def test_what_is_hidden_under_transparency_is_never_seen(tmp_path):
    "Under transparent pixels there is often a colour left over"
    a = np.zeros((40, 40, 4), dtype=np.uint8)
    a[..., 0], a[10:20, 10:20] = 255, (0, 0, 255, 255)
    for c in "ab":
        (tmp_path / c).mkdir()
        for i in range(3):
            Image.fromarray(a).save(tmp_path / c / f"{i}.webp", lossless=True)
    x = folder_dls(tmp_path, size=40).one_batch()[0]
    assert x[0, 1, 0, 0] == 1 and x[0, 2, 15, 15] == 1 and x[0, 0, 15, 15] == 0


@pytest.mark.medium
def test_dls_of_ones_own_and_every_way_to_predict_see_the_same(tmp_path):
    art = draw(tmp_path / "art", n=6)
    dls = ImageDataLoaders.from_folder(art, valid_pct=0.3, seed=0, item_tfms=Resize(32), bs=4, num_workers=0)
    assert dls.one_batch()[0].std() == 0, "plain fastai sees black on black"
    assert "once transparency is dropped" in said(diagnose(dls))["one_colour"]
    learn = transfer_learner(dls, "resnet_mini", pretrained=False)
    assert dls.one_batch()[0].std() > 0.1, "the user's own dls follow"
    export(learn, tmp_path / "m", onnx=False)
    pred = load_predictor(tmp_path / "m")
    assert pred.manifest["preprocessing"]["transparency"] == "white"
    file = art / "box" / "1.png"
    with learn.no_bar():
        want = learn.predict(file)[2].numpy()
        for given in (PILImage.create(file.read_bytes()), Image.open(file), file.read_bytes()):
            if not isinstance(given, PILImage):
                np.testing.assert_allclose(learn.predict(given)[2].numpy(), want, atol=1e-6)
    np.testing.assert_allclose(pred.predict(file).probabilities, want, atol=1e-4)
    np.testing.assert_allclose(pred.predict(Image.open(file)).probabilities, want, atol=1e-4)
    page = ModelPage(tmp_path / "m")
    np.testing.assert_allclose(page.classify(file.read_bytes(), "1.png").probabilities, want, atol=1e-4)


def test_the_way_of_fastai_can_be_kept(tmp_path):
    dls = folder_dls(draw(tmp_path / "art", n=6), size=32)
    set_opening(dls, values="cut", exif="ignored", transparency="dropped")
    with pytest.warns(KitWarning, match="one colour"):
        learn = transfer_learner(dls, "resnet_mini", pretrained=False)
    assert learn.dls.valid_ds.tls[0].tfms.fs[-1].rule == FASTAI, "a rule that is set stays"


def test_colours_that_are_to_be_told_apart_do_not_warn(tmp_path):
    "Colour charts are images of one colour each; scans that came out black are not"
    for folder, colour in (("chart", lambda i: (i * 20, 250 - i * 20, 90)), ("black", lambda i: (i % 3, 2, 1))):
        for c in "ab":
            (tmp_path / folder / c).mkdir(parents=True)
            for i in range(6):
                Image.new("RGB", (20, 20), colour(i + 6 * (c == "b"))).save(tmp_path / folder / c / f"{i}.png")
        finding = next(f for f in diagnose(folder_dls(tmp_path / folder, size=16)).findings if f.code == "one_colour")
        assert finding.severity == ("info" if folder == "chart" else "warn")
