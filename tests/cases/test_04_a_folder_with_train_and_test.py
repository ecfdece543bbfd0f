"The folders of a split were taken for classes"

import unicodedata

import pytest
from PIL import Image

from fastai_tl.all import evaluate, folder_dls, read_folder, transfer_learner
from fastai_tl.core.errors import InputError
from fastai_tl.datasets.folder_layout import FolderError

COUNT = iter(range(10**9))


def put(folder, n=2):
    "Images that all differ"
    folder.mkdir(parents=True, exist_ok=True)
    for _ in range(n):
        i = next(COUNT)
        im = Image.radial_gradient("L").resize((16, 16))
        Image.merge("RGB", (im, im, im.point(lambda v, i=i: (v + i) % 256))).save(folder / f"{i}.png")


def part(folder, *classes, n=2):
    for c in classes:
        put(folder / c, n)


def test_train_and_test(tmp_path, capsys):
    part(tmp_path / "train", "bird", "flower", n=8)
    part(tmp_path / "test", "bird", "flower", n=4)
    dls = folder_dls(tmp_path, size=32)
    assert (dls.vocab, len(dls.train_ds), len(dls.valid_ds)) == (["bird", "flower"], 16, 8)
    assert {p.parent.parent.name for p in dls.valid_ds.items} == {"test"}
    assert "Note: test/ is the part to judge by, as there is no validation part." in capsys.readouterr().out


@pytest.mark.parametrize(
    "train, valid",
    [
        ("Training", "Testing"),
        ("TRAIN", "VAL"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("training_set", "test_set"),
        ("data/data/Train", "data/data/Validation"),
        ("images/train2017", "images/val2017"),
        ("TrainImages", "TestImages"),
    ],
)
def test_parts_in_the_spellings_of_published_sets(tmp_path, train, valid):
    part(tmp_path / train, "cat", "dog", n=3)
    part(tmp_path / valid, "cat", "dog", n=1)
    (tmp_path / "__MACOSX" / "train" / "cat").mkdir(parents=True)
    found = read_folder(tmp_path)
    assert found.classes == ["cat", "dog"] and [len(v) for v in found.valid.values()] == [1, 1]


def test_a_wrapper_around_all(tmp_path):
    part(tmp_path / "data" / "data", "cat", "dog")
    assert folder_dls(tmp_path, size=32).vocab == ["cat", "dog"]


@pytest.mark.medium
def test_three_parts_keep_the_test_part_out(tmp_path, capsys):
    part(tmp_path / "train", "cat", "dog", n=4)
    part(tmp_path / "val", "cat", "dog", n=2)
    part(tmp_path / "test", "cat", "dog", n=3)
    found = read_folder(tmp_path)
    dls = folder_dls(found, size=32)
    assert len(dls.train_ds) == 8 and len(dls.valid_ds) == 4 and len(found.test_images) == 6
    assert "test/ takes no part in training" in capsys.readouterr().out
    learn = transfer_learner(dls, "resnet_mini", pretrained=False)
    ev = evaluate(learn, learn.dls.test_dl(found.test_images, with_labels=True), on_progress=lambda *a: None)
    assert ev.n == 6 and ev.targets.tolist() == [0, 0, 0, 1, 1, 1]


def test_a_test_part_without_classes_is_named_and_left_out(tmp_path, capsys):
    part(tmp_path / "train", "cat", "dog", n=5)
    put(tmp_path / "test1", 3)
    dls = folder_dls(tmp_path, size=32)
    assert dls.vocab == ["cat", "dog"] and len(dls.valid_ds) == 2
    assert "test1/ has no folders of the classes that train/ has, and is left out" in capsys.readouterr().out


def test_a_class_called_train_among_vehicles(tmp_path, capsys):
    part(tmp_path, "train", "car", "bus")
    assert folder_dls(tmp_path, size=32).vocab == ["bus", "car", "train"] and not capsys.readouterr().out


def test_vehicles_with_kinds_inside_and_a_test_track(tmp_path, capsys):
    part(tmp_path / "train", "steam", "diesel")
    part(tmp_path / "car", "old", "new")
    part(tmp_path / "test", "track")
    assert folder_dls(tmp_path, size=32).vocab == ["car", "test", "train"]
    assert "test/ is read as a class" in capsys.readouterr().out


def test_parts_without_class_folders_are_refused_with_what_was_meant(tmp_path):
    part(tmp_path, "train", "test")
    with pytest.raises(FolderError, match="names of a split, not of classes.*Did you mean .*train/cat/1.jpg"):
        folder_dls(tmp_path, size=32)


def test_parts_that_cannot_be_are_named(tmp_path):
    part(tmp_path / "a" / "train", "cat", "dog")
    part(tmp_path / "a" / "val", "cat", "cow")
    with pytest.raises(FolderError, match="cow are not in the training part, whose classes are cat, dog"):
        read_folder(tmp_path / "a")
    part(tmp_path / "b" / "Train", "cat", "dog")
    part(tmp_path / "b" / "training", "cat", "dog")
    part(tmp_path / "b" / "test", "cat", "dog")
    with pytest.raises(FolderError, match="Train/, training/ are both names of the train part"):
        read_folder(tmp_path / "b")


def test_two_spellings_of_one_name_are_one_class(tmp_path, capsys):
    "macOS writes é in two characters, Linux in one"
    nfc, nfd = (unicodedata.normalize(k, "caf\u00e9") for k in ("NFC", "NFD"))
    part(tmp_path / "train", nfc, "bar", n=3)
    part(tmp_path / "val", nfd, "bar", n=2)
    dls = folder_dls(tmp_path, size=32)
    assert dls.vocab == ["bar", nfc] and [int(y) for _, y in dls.valid_ds] == [0, 0, 1, 1]
    part(tmp_path / "one", nfc, nfd, "bar", n=2)
    assert {c: len(ps) for c, ps in read_folder(tmp_path / "one").train.items()} == {nfc: 4, "bar": 2}


def test_an_image_outside_of_the_folders_has_no_class(tmp_path):
    part(tmp_path / "d", "cat", "dog", n=3)
    put(tmp_path / "elsewhere" / "cat", 1)
    dls = folder_dls(tmp_path / "d", size=32)
    with pytest.raises(InputError, match="lies in none of"):
        dls.test_dl(list((tmp_path / "elsewhere").rglob("*.png")), with_labels=True).one_batch()
