"""A loader with other classes than the Learner: translated by name, or refused with both lists"""

import shutil

import pytest
import torch
from fastai.data.block import DataBlock, MultiCategoryBlock
from fastai.data.transforms import ColReader, RandomSplitter
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.vision.augment import Resize
from fastai.vision.data import ImageBlock

from fastai_tl.core.errors import InputError, KitWarning
from fastai_tl.datasets.picture_folder import folder_dls
from fastai_tl.datasets.samples import sample_path
from fastai_tl.evaluation.classification import evaluate
from fastai_tl.models.transfer_learner import transfer_learner

pytestmark = pytest.mark.medium


def few(dest, classes, n=6, skip=0):
    for c in classes:
        name = c.removeprefix("new ")
        (dest / c).mkdir(parents=True)
        for p in sorted((sample_path() / name).glob("*.jpg"))[skip : skip + n]:
            shutil.copy(p, dest / c)
    return dest


@pytest.fixture(scope="module")
def learn(tmp_path_factory):
    folder = few(tmp_path_factory.mktemp("a"), ("bird", "flower", "mammal"))
    torch.manual_seed(0)
    return transfer_learner(folder_dls(folder, size=32, valid_pct=0.5), "resnet_mini")


def by_name(learn, files):
    "Share of the files that the Learner, asked one by one, gives the name of their folder"
    with learn.no_bar():
        return sum(learn.predict(f)[0] == f.parent.name for f in files) / len(files)


def test_classes_are_counted_by_name(learn, tmp_path):
    other = folder_dls(few(tmp_path / "b", ("flower", "mammal"), 6, 12), size=32, valid_pct=0.5)
    ev = evaluate(learn, other.valid)
    assert ev.vocab == ["bird", "flower", "mammal"] and set(ev.targets) == {1, 2}
    assert [ev.vocab[t] for t in ev.targets] == [f.parent.name for f in ev.items]
    assert ev.accuracy == by_name(learn, ev.items)


def test_a_class_that_the_learner_does_not_have_is_refused_with_both_lists(learn, tmp_path):
    other = folder_dls(few(tmp_path / "b", ("flower", "new bird")), size=32, valid_pct=0.5)
    with pytest.raises(InputError, match="only the data has 'new bird'; only the Learner has 'bird', 'mammal'"):
        evaluate(learn, other.valid)


def test_fastais_own_calls_refuse_what_they_would_count_by_position(learn, tmp_path):
    other = folder_dls(few(tmp_path / "b", ("flower", "mammal"), 6, 12), size=32, valid_pct=0.5)
    for use in (learn.validate, learn.get_preds):
        with pytest.raises(InputError, match="evaluate.learn, dl. translates classes by name"):
            use(dl=other.valid)
    files = list(other.valid_ds.items)
    probs = learn.get_preds(dl=other.test_dl(files))[0]  # without labels there is nothing to count
    torch.testing.assert_close(probs.numpy(), evaluate(learn, other.valid).probs)


def test_a_learner_of_fastais_own_is_judged_by_name_too(tmp_path):
    three = folder_dls(few(tmp_path / "a", ("bird", "flower", "mammal"), 4), size=32, valid_pct=0.5)
    two = folder_dls(few(tmp_path / "b", ("flower", "mammal"), 4), size=32, valid_pct=0.5)
    net = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(12, 3))
    ev = evaluate(Learner(three, net, CrossEntropyLossFlat()), two.valid)
    assert [ev.vocab[t] for t in ev.targets] == [f.parent.name for f in ev.items]


def labels_dls(vocab, rows):
    import pandas as pd

    df = pd.DataFrame(rows, columns=["file", "labels"])
    block = DataBlock(
        (ImageBlock, MultiCategoryBlock(vocab=vocab)),
        get_x=ColReader("file"),
        get_y=ColReader("labels", label_delim=" "),
        splitter=RandomSplitter(0.5, seed=0),
        item_tfms=Resize(32),
    )
    return block.dataloaders(df, bs=4, num_workers=0)


def test_several_labels_in_another_order_are_put_into_the_learners():
    files = sorted((sample_path() / "bird").glob("*.jpg"))[:8]
    rows = [(f, "red" if i % 2 else "red small") for i, f in enumerate(files)]
    with pytest.warns(KitWarning, match="'blue'"):  # of which there are no items
        learn = transfer_learner(labels_dls(["blue", "red", "small"], rows), "resnet_mini")
    want, ev = evaluate(learn), evaluate(learn, labels_dls(["small", "red", "blue"], rows).valid)
    assert (ev.targets == want.targets).all() and ev.targets[:, 1].all() and not ev.targets[:, 0].any()
    with pytest.raises(InputError, match="'red', 'small'; the Learner has 'blue', 'red', 'small'; only the Learner"):
        evaluate(learn, labels_dls(["red", "small"], rows).valid)  # blue may be there, unlabelled
