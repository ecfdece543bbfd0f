"Corrupted pictures: any mode and size, the same for the same seed, worse with each severity, and never what came in"

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fastai_tl.datasets.corruptions import CORRUPTIONS, SEVERITIES, check_corruptions, corrupt
from fastai_tl.core.errors import InputError
from fastai_tl.datasets.samples import sample_path

MODES = {
    "1": "L",
    "L": "L",
    "LA": "LA",
    "P": "RGB",
    "PA": "RGBA",
    "RGB": "RGB",
    "RGBX": "RGB",
    "RGBA": "RGBA",
    "RGBa": "RGBA",
    "CMYK": "CMYK",
    "YCbCr": "YCbCr",
    "HSV": "HSV",
    "La": "LA",
}


def picture(mode="RGB", size=(40, 30), seed=0):
    "Random rectangles, in a mode"
    rng = np.random.default_rng(seed)
    im = Image.fromarray(rng.integers(0, 256, (4, 5, 4), dtype=np.uint8)).resize(size, Image.Resampling.NEAREST)  # RGBA
    via = {"RGBa": "RGBA", "La": "LA", "PA": "P", "HSV": "RGB", "YCbCr": "RGB", "CMYK": "RGB", "RGBX": "RGB"}.get(mode)
    return im.convert(via).convert(mode) if via else im.convert(mode)


@pytest.mark.parametrize("kind", CORRUPTIONS)
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_keeps_its_size_and_the_input_stays(mode, kind):
    im = picture(mode)
    before = im.tobytes()
    out = corrupt(im, kind, 4)
    assert out.size == im.size and out.mode == MODES[mode]
    assert im.tobytes() == before and im.mode == mode
    plain = lambda o: o.convert("LA").tobytes() if o.mode == "La" else o.convert("RGB").tobytes()
    assert plain(out) != plain(im)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparency_stays(mode):
    im = picture(mode)
    for kind in CORRUPTIONS:
        assert corrupt(im, kind, 5).getchannel("A").tobytes() == im.getchannel("A").tobytes()
    pal = Image.new("P", (8, 8), 1)
    pal.info["transparency"] = 0
    assert corrupt(pal, "noise", 1).mode == "RGBA"


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 50), st.integers(1, 50), st.sampled_from(CORRUPTIONS), st.sampled_from(SEVERITIES), st.integers(0, 9)
)
def test_any_size_and_the_same_again(w, h, kind, severity, seed):
    im = picture("RGB", (w, h), seed)
    a = corrupt(im, kind, severity, seed)
    assert a.size == (w, h) and a.tobytes() == corrupt(im.copy(), kind, severity, seed).tobytes()


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_stronger_is_farther_away(kind):
    ims = [
        Image.open(p).convert("RGB").resize((96, 96)) for p in sorted(sample_path("clipart").glob("bird/*.jpg"))[:10]
    ]
    error = lambda im, s: (np.asarray(corrupt(im, kind, s), dtype=float) - np.asarray(im, dtype=float)) ** 2
    off = [np.mean([error(im, s) for im in ims]) for s in SEVERITIES]
    assert all(a < b for a, b in zip(off, off[1:])) and off[0] > 5, off


def test_noise_depends_on_seed_and_picture_and_not_on_random_states():
    a, b = picture(seed=1), picture(seed=2)
    noise = lambda im, seed: np.asarray(corrupt(im, "noise", 3, seed), dtype=int) - np.asarray(im, dtype=int)
    np.random.seed(0)
    first, state = noise(a, 0), np.random.get_state()[1].copy()
    np.random.seed(1)
    assert (noise(a, 0) == first).all() and (noise(a, 1) != first).any()
    grey = Image.new("L", (60, 60), 127), Image.new("L", (60, 60), 128)
    assert (noise(grey[0], 0) != noise(grey[1], 0)).mean() > 0.5
    assert np.std(noise(grey[0], 0)) == pytest.approx(255 * 0.18, rel=0.05)
    np.random.seed(0)
    noise(b, 0)
    assert (np.random.get_state()[1] == state).all()


def test_contrast_keeps_the_mean_and_shrinks_the_spread():
    im = picture()
    x, y = (np.asarray(o, dtype=float) for o in (im, corrupt(im, "contrast", 2)))
    np.testing.assert_allclose(y.mean((0, 1)), x.mean((0, 1)), atol=0.5)
    np.testing.assert_allclose(y.std((0, 1)), 0.3 * x.std((0, 1)), rtol=0.05)


@pytest.mark.parametrize(
    "args, says",
    [
        (("x", "noise"), "str is not a picture"),
        ((picture(), "nois"), "Did you mean 'noise'"),
        ((picture(), "fog"), "noise, blur, contrast, jpeg"),
        ((picture(), "blur", 0), "1 \\(weak\\)"),
        ((picture(), "blur", True), "severity=True"),
        ((picture(), "blur", 2.0), "severity=2.0"),
        ((Image.new("I;16", (4, 4)), "blur"), "convert\\('RGB'\\)"),
        ((Image.new("F", (4, 4)), "blur"), "mode 'F'"),
        ((picture(), "noise", 1, -1), "seed=-1"),
        ((Image.new("RGB", (0, 4)), "blur"), "no pixels"),
    ],
)
def test_bad_input(args, says):
    with pytest.raises(InputError, match=says):
        corrupt(*args)


def test_lists_of_corruptions_are_checked():
    assert check_corruptions(None, (2, 4)) == ((), (2, 4)) and check_corruptions("jpeg", 3) == (("jpeg",), (3,))
    for kinds, severities, says in (
        (("jpeg", "jpeg"), 3, "once"),
        (("jpeg",), (), "severities"),
        (("jpg",), 3, "jpeg"),
        (("jpeg",), (2, 9), "severity=9"),
    ):
        with pytest.raises(InputError, match=says):
            check_corruptions(kinds, severities)
