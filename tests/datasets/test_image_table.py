"Tables of images: columns, files, splits by group, and what they come to"

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from helpers import QUIET
from PIL import Image

from fastai_tl.all import (
    KitError,
    KitWarning,
    evaluate,
    export,
    load_predictor,
    read_table,
    table_dls,
    transfer_learner,
)
from fastai_tl.core.dataloader_code import code_of
from fastai_tl.core.errors import InputError
from fastai_tl.datasets.image_table import TableError, _split_groups


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    "40 images below a folder, as Kaggle's sets have them"
    root = tmp_path_factory.mktemp("table")
    (root / "images" / "a").mkdir(parents=True)
    for i in range(40):
        Image.new("RGB", (24, 24), (i * 6, 250 - i * 6, 90)).save(root / "images" / "a" / f"{i:04d}.png")
    return root


def frame(n=40, **columns):
    df = pd.DataFrame(
        dict(image_id=[f"{i:04d}" for i in range(n)], label=[("cat", "dog")[i // 2 % 2] for i in range(n)])
    )
    return df.assign(**{k: [f(i) for i in range(n)] for k, f in columns.items()})


def sides(t, of=lambda p: int(p.stem)):
    return {of(p) for p in t.train}, {of(p) for p in t.valid}


def test_names_of_files_as_people_write_them(root):
    df = frame()
    df.to_csv(root / "t.csv", index=False)
    df.to_csv(root / "t2.csv", index=False, sep=";", encoding="utf-8-sig")
    for table in (root / "t.csv", root / "t2.csv"):
        t = read_table(table)
        assert len(t.train) == 32 and len(t.valid) == 8 and t.names == ["cat", "dog"] and not t.left_out
    for change in (
        lambda i: f"images/a/{i:04d}.png",
        lambda i: f"{i:04d}.png",
        lambda i: str(root / "images" / "a" / f"{i:04d}.png"),
    ):
        assert len(read_table(df.assign(image_id=[change(i) for i in range(40)]), folder=root).train) == 32


def test_rows_that_cannot_be_used_are_named(root):
    df = frame(label=lambda i: None if i == 3 else "cat" if i % 2 else "dog")
    df.loc[5, "image_id"] = "gone"
    (root / "broken.png").write_bytes(b"no image")
    df.loc[7, "image_id"] = "broken.png"
    with pytest.warns(
        KitWarning, match=r"3 rows left out: row 3 \(0003\): its label is missing; row 5 \(gone\).*; row 7 \(broken"
    ):
        dls = table_dls(df, folder=root, size=16)
    assert len(dls.train_ds) + len(dls.valid_ds) == 37
    with pytest.raises(TableError, match=r"row 0 \(x0\).*folder="):
        read_table(df.assign(image_id=[f"x{i}" for i in range(40)]), folder=root)


@pytest.mark.parametrize("task", ["classes", "labels", "numbers"])
def test_groups_stay_on_one_side(root, task):
    label = dict(classes=lambda i: "ab"[i // 3 % 2], labels=lambda i: "x|y" if i % 3 else "y", numbers=lambda i: i / 7)[
        task
    ]
    df = frame(label=label, patient=lambda i: i // 3)
    for seed in range(4):
        t = read_table(df, group="patient", folder=root, seed=seed)
        a, b = sides(t, lambda p: int(p.stem) // 3)
        assert t.task == task and not a & b and 4 <= len(t.valid) <= 14
    with pytest.raises(TableError, match="on both sides"):
        read_table(
            df.assign(split=["valid" if i % 5 == 0 else "train" for i in range(40)]), group="patient", folder=root
        )
    with pytest.raises(TableError, match="one group"):
        read_table(df.assign(patient=1), group="patient", folder=root)


@pytest.mark.medium
@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 7)), min_size=6, max_size=40), st.sampled_from([0.1, 0.2, 0.5])
)
def test_any_groups_stay_whole(rows, share):
    strata, groups = [str(c) for c, _ in rows], [str(g) for _, g in rows]
    if len(set(groups)) < 2:
        return
    valid = _split_groups(strata, groups, share, 0, "t")
    assert valid and len(valid) < len(rows)
    assert not {groups[i] for i in valid} & {g for i, g in enumerate(groups) if i not in valid}


def test_the_split_of_the_table(root):
    words = frame(split=lambda i: ("Training", "validation", "TEST")[0 if i < 30 else 1 if i < 36 else 2])
    t = read_table(words, folder=root)
    assert [len(o) for o in (t.train, t.valid, t.test)] == [30, 6, 4]
    dls = table_dls(t, size=16)
    assert [dl.n for dl in dls.loaders] == [30, 6, 4] and dls.loaders[2].one_batch()[1].shape == (4,)
    two = read_table(words.assign(split=["train"] * 30 + ["test"] * 10), folder=root)
    assert len(two.valid) == 10 and not two.test
    flags = read_table(frame(is_valid=lambda i: i >= 30), folder=root)
    assert sides(flags)[1] == set(range(30, 40))
    with pytest.raises(TableError, match="says 'fold 3'"):
        read_table(words.assign(split="fold 3"), folder=root)
    with pytest.raises(TableError, match="no image to train on has the class dog"):
        read_table(frame(label=lambda i: "dog" if i > 30 else "cb"[i % 2], is_valid=lambda i: i > 30), folder=root)


def test_labels_in_several_forms(root):
    wide = read_table(frame(red=lambda i: i % 2, big=lambda i: int(i > 20)), ["red", "big"], folder=root)
    text = read_table(
        frame(label=lambda i: " ".join(["red"] * (i % 2) + ["big"] * (i > 20))),
        task="labels",
        label_delim=" ",
        folder=root,
    )
    many = [dict(image_id=f"{i:04d}", label=o) for i in range(40) for o in ["red"] * (i % 2) + ["big"] * (i > 20)]
    long = read_table(pd.DataFrame(many), task="labels", folder=root)
    assert wide.task == text.task == long.task == "labels"
    for i in (1, 21, 24):
        p = str(root / "images" / "a" / f"{i:04d}.png")
        assert set(wide.targets[p]) == set(text.targets[p]) == set(long.targets[p])
    assert sorted(wide.names) == text.names == long.names == ["big", "red"]
    with pytest.raises(TableError, match="task='labels'"):
        read_table(pd.DataFrame(many), folder=root)


def test_numbers_are_told_from_codes_of_classes(root):
    assert read_table(frame(label=lambda i: i % 4), folder=root).task == "classes"
    assert read_table(frame(label=lambda i: 20 + i), folder=root).task == "numbers"
    t = read_table(frame(w=lambda i: i / 3, h=lambda i: i * 2.5), ["w", "h"], folder=root, units=("kg", ""))
    dls = table_dls(t, size=16, bs=4)
    assert (t.task, dls.y_names, dls.units) == ("numbers", ["w", "h"], ["kg", ""]) and dls.one_batch()[1].shape == (
        4,
        2,
    )


def test_what_is_asked_for_must_be_there(root):
    for kw, text in [
        (dict(label="lable"), "Did you mean 'label'"),
        (dict(group="patient"), "no column 'patient'"),
        (dict(task="masks"), "task="),
        (dict(valid_pct=20), "share between 0 and 1"),
        (dict(file="label"), "row 0"),
    ]:
        with pytest.raises((TableError, InputError), match=text):
            read_table(frame(), folder=root, **kw)
    with pytest.raises(TableError, match="which column holds the labels"):
        read_table(frame().rename(columns=dict(label="what")).assign(more=1), folder=root)
    with pytest.raises(TableError, match="at least 2 images"):
        read_table(frame(label=lambda i: "lone" if i == 9 else "cat" if i % 2 else "dog"), folder=root)
    with pytest.raises(TableError, match="no such file"):
        read_table(root / "none.csv")
    (root / "latin.csv").write_bytes("file,label\nä.png,b\n".encode("latin-1"))
    with pytest.raises(TableError, match="UTF-8"):
        read_table(root / "latin.csv")


@pytest.mark.medium
def test_a_table_goes_all_the_way(root, tmp_path):
    "From a CSV file to the answers of the exported model, and the code that makes the DataLoaders again"
    frame(weight=lambda i: 10 + i / 3, patient=lambda i: i // 4).to_csv(root / "w.csv", index=False)
    dls = table_dls(root / "w.csv", "weight", group="patient", units="kg", size=32, bs=8)
    learn = transfer_learner(dls, "resnet_mini", y_range=(5, 30))
    ev = evaluate(learn, on_progress=QUIET)
    assert ev.names == ["weight"] and all(p.is_file() for p in ev.items) and "data:image/jpeg" in ev._repr_html_()
    model = load_predictor(export(learn, tmp_path / "m", onnx=False, evaluation=ev))
    said = model.predict(ev.items)
    np.testing.assert_allclose([p.value for p in said], ev.preds[:, 0], rtol=1e-4)
    assert said[0].text.endswith(" kg") and model.manifest["units"] == ["kg"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", KitWarning)
        again = eval(code_of(dls), dict(table_dls=table_dls))
    assert list(again.valid_ds.items) == list(dls.valid_ds.items)
    with pytest.raises(KitError):
        table_dls(root / "w.csv", "weight", group="label", size=4)
