"Orientation, transparency and depth: training, prediction, ONNX serving and the page of a model open images alike"

import pickle
import warnings

import numpy as np
import pytest
from fastai.data.block import CategoryBlock, DataBlock
from fastai.data.transforms import RandomSplitter, get_image_files, parent_label
from fastai.vision.all import ImageDataLoaders, MaskBlock, PointBlock, Resize
from fastai.vision.data import ImageBlock
from PIL import Image, ImageOps

from fastai_tl.all import diagnose, evaluate, export, folder_dls, load_predictor, set_opening, transfer_learner
from fastai_tl.core.errors import InputError
from fastai_tl.core.images import FASTAI, OpenRule, PictureError, is_turned, open_bytes, open_picture
from fastai_tl.core.opening import opening_of
from fastai_tl.deploy.export import preprocessing
from fastai_tl.deploy.web_page import ModelPage
from helpers import AVIF

# What has to be done to the scene so that a viewer who follows the note sees it again
LAID_DOWN = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
ENDINGS = ("jpg", "png", "webp", "tiff", *(("avif",) if AVIF else ()))


def scene(seed=0):
    "No two of its eight orientations are alike"
    a = np.zeros((64, 96, 3), dtype=np.uint8)
    a[:24, :32] = (250, 30, 20)
    a[40:, 64:] = (20, 40, 240)
    a[:, 90:] = 200
    return Image.fromarray(a | np.uint8(32 * seed))


def save(folder, orientation, ending="png", seed=0):
    exif = Image.Exif()
    exif[0x112] = orientation
    im, how = scene(seed), LAID_DOWN[orientation]
    file = folder / f"{orientation}_{seed}.{ending}"
    (im if how is None else im.transpose(how)).save(
        file, exif=exif, **(dict(quality=100) if ending in ("jpg", "avif", "webp") else {})
    )
    return file


@pytest.fixture(scope="module")
def phone(tmp_path_factory):
    "Two classes of photographs in all eight orientations"
    root = tmp_path_factory.mktemp("phone")
    for k, c in enumerate("ab"):
        (root / c).mkdir()
        for o in LAID_DOWN:
            save(root / c, o, seed=k)
    return root


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("orientation", LAID_DOWN)
def test_every_orientation_is_turned_once(tmp_path, orientation, ending):
    file = save(tmp_path, orientation, ending)
    im = open_picture(file)
    d = np.abs(np.asarray(im, dtype=float) - np.asarray(scene(), dtype=float))
    assert im.size == (96, 64) and d.mean() < 3, "upright"
    again = open_picture(im)
    assert again.size == (96, 64) and again.tobytes() == im.tobytes(), "once more changes nothing"
    assert open_bytes(file.read_bytes()).tobytes() == im.tobytes()
    if ending != "tiff":  # Pillow turns these by itself
        assert open_picture(file, rule=FASTAI).size == ((96, 64) if orientation < 5 else (64, 96))


@pytest.mark.parametrize("value", [0, 9, 77])
def test_a_note_that_means_nothing_is_ignored(tmp_path, value):
    exif = Image.Exif()
    exif[0x112] = value
    scene().save(tmp_path / "a.jpg", exif=exif)
    assert open_picture(tmp_path / "a.jpg").size == (96, 64)
    raw = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "b.jpg").write_bytes(raw.replace(b"Exif\0\0", b"Exif\0\0MM\xff\xff", 1))
    with Image.open(tmp_path / "b.jpg") as image:
        assert open_picture(tmp_path / "b.jpg").size == (96, 64) and not is_turned(image)


@pytest.fixture(scope="module")
def phone_model(phone, tmp_path_factory):
    dls = ImageDataLoaders.from_folder(
        phone, valid_pct=0.5, seed=0, item_tfms=Resize((32, 48)), bs=4, num_workers=0, device="cpu"
    )
    learn = transfer_learner(dls, "resnet_mini", pretrained=False)
    return learn, export(learn, tmp_path_factory.mktemp("model") / "m")


@pytest.mark.medium
def test_four_ways_of_opening_give_the_same(phone, phone_model):
    learn, folder = phone_model
    files = sorted(phone.glob("a/*"))
    with learn.no_bar(), learn.no_logging():
        want = learn.get_preds(dl=learn.dls.test_dl(files, num_workers=0))[0].numpy()
        np.testing.assert_allclose(learn.predict(files[5])[2].numpy(), want[5], atol=1e-5)
    assert np.abs(want - want[0]).max() < 1e-5, "eight photographs of one scene"
    for backend in ("torch", "onnx"):
        got = np.stack([p.probabilities for p in load_predictor(folder, backend).predict(files)])
        np.testing.assert_allclose(got, want, atol=1e-4)
    page = ModelPage(folder)
    for f, w in zip(files, want):
        np.testing.assert_allclose(page.classify(f.read_bytes(), f.name).probabilities, w, atol=1e-4)
        assert "note to turn" not in page.answer.value
    ev = evaluate(learn, on_progress=lambda *a: None)
    got = np.stack([p.probabilities for p in load_predictor(folder).predict(list(learn.dls.valid_ds.items))])
    np.testing.assert_allclose(ev.probs, got, atol=1e-4)


@pytest.mark.medium
def test_the_manifest_says_so_and_an_old_one_goes_on(phone, phone_model):
    learn, folder = phone_model
    pred = load_predictor(folder)
    spec = pred.manifest["preprocessing"]
    assert (spec["exif"], spec["transparency"], spec["values"]) == ("turned", "white", "8bit")
    assert "turned upright" in (folder / "README.md").read_text()
    for k in ("exif", "transparency", "values"):
        del spec[k]
    assert OpenRule.of_spec(spec) == FASTAI
    file = sorted(phone.glob("a/6_*"))[0]
    assert pred.predict(file).probabilities.tolist() != pred.predict(file.with_name("1_0.png")).probabilities.tolist()


def test_targets_that_are_places_keep_the_opening(phone):
    "A mask, a point or a box belongs to the image as it lies in the file"
    for block, y in ((MaskBlock, lambda p: p), (PointBlock, lambda p: [[1, 1]])):
        dls = DataBlock((ImageBlock, block), get_items=get_image_files, get_y=y, item_tfms=Resize(32)).dataloaders(
            phone, bs=2, num_workers=0
        )
        assert opening_of(dls) is None
        with pytest.raises(InputError, match="places in the image"):
            set_opening(dls)


# More than 8 bits


def deep_set(root, dtype, high, ending="tiff", n=4):
    rng = np.random.default_rng(0)
    for c in "ab":
        (root / c).mkdir(parents=True)
        for i in range(n):
            ramp = np.linspace(0, 1, 40 * 40).reshape(40, 40) ** (1 if c == "a" else 2)
            a = (ramp * high * (1 - 0.1 * rng.random())).astype(dtype)
            a[-1, -1] = high
            Image.fromarray(a).save(root / c / f"{i}.{ending}")
    return root


@pytest.mark.parametrize(
    "dtype, high, ending, values",
    [
        (np.uint16, 65535, "png", (0, 65535)),
        (np.uint16, 4095, "tiff", (0, 4095)),
        (np.int32, 60000, "tiff", (0, 65535)),
        (np.float32, 1, "tiff", (0, 1)),
        (np.float32, 200, "tiff", (0, 255)),
    ],
)
def test_the_training_images_tell_the_scale(tmp_path, dtype, high, ending, values):
    dls = folder_dls(deep_set(tmp_path / "d", dtype, high, ending), size=32)
    x = dls.one_batch()[0]
    assert 0.1 < x.mean() < 0.7 and x.std() > 0.1, "neither black nor white"
    assert opening_of(dls) == OpenRule(values=values)
    finding = {f.code: f for f in diagnose(dls).findings}["deep_images"]
    assert f"0 is black and {values[1]} white" in finding.what and finding.severity == "info"


def test_numbers_that_say_too_little_are_refused_with_the_rule_to_choose(tmp_path):
    root = deep_set(tmp_path / "d", np.float32, 9000)
    with pytest.raises(InputError, match=r"numbers from 0 to 9000.*values=\(0, 9000\).*values='each'"):
        folder_dls(root, size=32)
    for values in ((0, 9000), "each"):
        dls = folder_dls(root, size=32, values=values)
        assert 0.1 < dls.one_batch()[0].mean() < 0.7 and opening_of(dls).values == values
    own = ImageDataLoaders.from_folder(root, valid_pct=0.5, item_tfms=Resize(32), bs=2, num_workers=0)
    with pytest.raises(InputError, match="set_opening"):
        transfer_learner(own, "resnet_mini", pretrained=False)
    learn = transfer_learner(set_opening(own, values=(0, 9000)), "resnet_mini", pretrained=False)
    assert preprocessing(learn.dls)["values"] == [0, 9000]


@pytest.mark.medium
def test_a_model_of_12_bits_is_served_as_it_was_trained(tmp_path):
    root = deep_set(tmp_path / "d", np.uint16, 4095)
    dls = ImageDataLoaders.from_folder(root, valid_pct=0.5, seed=0, item_tfms=Resize(32), bs=2, num_workers=0)
    learn = transfer_learner(dls, "resnet_mini", pretrained=False)
    pred = load_predictor(export(learn, tmp_path / "m", onnx=False))
    assert pred.manifest["preprocessing"]["values"] == [0, 4095]
    with learn.no_bar():
        want = learn.predict(root / "b" / "1.tiff")[2].numpy()
    np.testing.assert_allclose(pred.predict(root / "b" / "1.tiff").probabilities, want, atol=1e-4)
    Image.fromarray(np.full((40, 40), 60000, dtype=np.uint16)).save(tmp_path / "bright.tiff")
    with pytest.raises(PictureError, match="bright.tiff: it has numbers from 60000 to 60000, and 100% of them lie out"):
        pred.predict(tmp_path / "bright.tiff")


@pytest.mark.medium
def test_a_model_of_8_bits_refuses_more(phone_model, tmp_path):
    Image.fromarray(np.full((40, 40), 4000, dtype=np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(PictureError, match="deep.png: it has numbers from 4000 to 4000.*Save it with 8 bits"):
        load_predictor(phone_model[1]).predict(tmp_path / "deep.png")


def test_no_data_and_transparency_in_deep_images(tmp_path):
    a = np.full((10, 10), 0.5, dtype=np.float32)
    a[0, 0] = np.nan
    Image.fromarray(a).save(tmp_path / "a.tiff")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        im = np.asarray(open_picture(tmp_path / "a.tiff", "L", OpenRule(values=(0, 1))))
    assert im[0, 0] == 0 and im[5, 5] == 128
    b = np.full((10, 10), 20000, dtype=np.uint16)
    b[:5] = 7
    Image.fromarray(b).save(tmp_path / "b.png", transparency=7)
    im = np.asarray(open_picture(tmp_path / "b.png", "L", OpenRule(values=(0, 65535))))
    assert (im[:5] == 255).all() and (im[5:] == 78).all()


def test_a_rule_that_cannot_be_says_what_can():
    for kw in (dict(exif="yes"), dict(transparency="black"), dict(values=(5, 5)), dict(values="auto"), dict(values=3)):
        with pytest.raises(InputError, match="give"):
            OpenRule(**kw)
    assert OpenRule.of_spec(OpenRule(values=(0, 4095)).to_spec()) == OpenRule(values=(0, 4095))


def test_turned_images_are_turned_for_any_splitter(phone):
    dls = DataBlock(
        (ImageBlock, CategoryBlock),
        get_items=get_image_files,
        get_y=parent_label,
        splitter=RandomSplitter(0.5, seed=1),
        item_tfms=Resize((64, 96)),
    ).dataloaders(phone, bs=4, num_workers=0)
    held = dls.train_ds
    assert {im.size for im, _ in held} == {(96, 64), (64, 96)}
    set_opening(dls)
    assert {im.size for im, _ in held} == {im.size for im, _ in dls.valid_ds} == {(96, 64)}
    assert all(ImageOps.exif_transpose(im).size == (96, 64) for im, _ in held)


def test_the_rule_goes_to_worker_processes(tmp_path):
    "Where processes are not forked, a dataset is pickled"
    dls = folder_dls(deep_set(tmp_path / "d", np.uint16, 4095), size=32)
    there = pickle.loads(pickle.dumps(dls.valid_ds))
    assert there[0][0].tobytes() == dls.valid_ds[0][0].tobytes() and len(set(there[0][0].tobytes())) > 100
