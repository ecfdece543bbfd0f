"`evaluate` on every kind of task, what it refuses, its one pass, its views, and what it draws"

import json
import random
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import everything, noisy_learner, same
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat, L1LossFlat, MSELossFlat
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as skm
from torch import nn
from torch.utils.data import IterableDataset, TensorDataset

from fastai_tl.core.errors import FileError, InputError, KitError, StateError
from fastai_tl.evaluation.classification import Evaluation, evaluate
from fastai_tl.evaluation.multilabel import MultiLabelEvaluation
from fastai_tl.evaluation.regression import RegressionEvaluation
from fastai_tl.cache.callback import frozen_cache
from fastai_tl.models.transfer_learner import transfer_learner

QUIET = lambda *a: None
X = torch.randn(40, 3, generator=torch.Generator().manual_seed(1))


def learner(y, net, loss, n=40, **kw):
    ds = TensorDataset(X[:n], *(y if isinstance(y, tuple) else (y,)))
    return Learner(DataLoaders.from_dsets(ds, ds, bs=16, num_workers=0, device="cpu"), net, loss, **kw)


def judge(*args, **kw):
    return evaluate(learner(*args), on_progress=QUIET, **kw)


# ---- labels


@pytest.mark.parametrize(
    "loss", [BCEWithLogitsLossFlat(thresh=0.4), nn.BCEWithLogitsLoss(), nn.functional.binary_cross_entropy_with_logits]
)
def test_labels_as_scikit_learn_counts_them(loss):
    net, y = nn.Linear(3, 4), (torch.rand(40, 4) < 0.4).float()
    ev = judge(y, net, loss)
    probs, t = net(X).sigmoid().detach().numpy(), y.numpy().astype(bool)
    said = probs > (0.4 if hasattr(loss, "thresh") else 0.5)
    assert isinstance(ev, MultiLabelEvaluation) and np.allclose(ev.probs, probs, atol=1e-6)
    assert ev.mean_ap == pytest.approx(skm.average_precision_score(t, probs, average="macro"))
    assert ev.macro_f1 == pytest.approx(skm.f1_score(t, said, average="macro", zero_division=0))
    assert ev.micro_f1 == pytest.approx(skm.f1_score(t, said, average="micro", zero_division=0))
    assert ev.exact == pytest.approx(skm.accuracy_score(t, said))
    assert ev.losses.mean() == pytest.approx(float(nn.functional.binary_cross_entropy_with_logits(net(X), y)), abs=1e-5)
    scores = skm.precision_recall_fscore_support(t, said, average=None, zero_division=0)
    want = dict(zip(("precision", "recall", "f1", "items"), scores), said=said.sum(0))
    table = ev.per_label()
    for col, v in want.items():
        assert table[col].to_numpy() == pytest.approx(v)
    b = ev.bootstrap(draws=200)
    assert (b.low <= b.value + 1e-9).all() and (b.value <= b.high + 1e-9).all()
    assert len(ev.worst(40)) == 40 - round(ev.exact * 40) and all(o.missed or o.invented for o in ev.worst(40))


@pytest.mark.medium
def test_thresholds():
    rng = np.random.default_rng(0)
    t = rng.random((80, 3)) < 0.3
    t[:, 2] = False
    ev = MultiLabelEvaluation(["a", "b", "c"], np.clip(t * 0.3 + rng.random(t.shape) * 0.6, 0, 1), t)
    best = ev.best_thresholds()
    for k in range(2):
        f1 = lambda cut, k=k: skm.f1_score(t[:, k], ev.probs[:, k] > cut, zero_division=0)
        assert f1(best[k]) >= max(f1(c) for c in np.linspace(0, 1, 201)) - 1e-9
    assert best[2] == 0.5 and np.isnan(ev.average_precision()[2]) and ev.at(best).macro_f1 >= ev.macro_f1
    assert ev.to_dict()["per_label"]["c"]["average_precision"] is None
    for bad in (2, [0.1, 0.2], -1, float("nan")):
        with pytest.raises(InputError, match="threshold"):
            ev.at(bad)


@pytest.mark.medium
def test_one_label_alone():
    ev = judge(torch.randint(0, 2, (40,)).float(), nn.Linear(3, 1), BCEWithLogitsLossFlat())
    assert isinstance(ev, MultiLabelEvaluation) and ev.probs.shape == (40, 1)
    assert (
        ev.macro_f1 == pytest.approx(skm.f1_score(ev.targets[:, 0], ev.preds[:, 0], zero_division=0))
        and "items" in ev._repr_html_()
    )


def test_multi_category_block(tmp_path):
    "As fastai's users build it, from pictures with lists of labels"
    from fastai.vision.all import DataBlock, ImageBlock, IndexSplitter, MultiCategoryBlock, Resize
    from fastai_tl.datasets.samples import sample_path

    files = sorted(sample_path("clipart").glob("*/*.jpg"))[::40][:12]
    labels = {f: [f.parent.name] + ["big"] * (i % 2) for i, f in enumerate(files)}
    blocks = (ImageBlock, MultiCategoryBlock(vocab=sorted({o for v in labels.values() for o in v})))
    dls = DataBlock(blocks, get_y=labels.get, splitter=IndexSplitter(range(6)), item_tfms=Resize(32)).dataloaders(
        files, bs=4, num_workers=0, path=tmp_path, device="cpu"
    )
    learn = Learner(dls, nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, len(dls.vocab))))
    ev = evaluate(learn, on_progress=QUIET)
    assert isinstance(ev, MultiLabelEvaluation) and ev.vocab == list(dls.vocab) and ev.items == files[:6]
    for o in ev.worst(6):
        assert set(o.true) == set(labels[o.item])


# ---- numbers


@pytest.mark.parametrize(
    "shape, loss",
    [((40,), MSELossFlat()), ((40, 1), L1LossFlat()), ((40, 3), nn.MSELoss()), ((40, 2, 2), MSELossFlat())],
)
def test_numbers_as_scikit_learn_counts_them(shape, loss):
    k = int(np.prod(shape[1:]))
    net, y = nn.Linear(3, k), torch.randn(shape)
    ev = judge(y, net, loss)
    t, p = y.reshape(40, -1).numpy(), net(X).detach().numpy()
    assert isinstance(ev, RegressionEvaluation) and ev.targets.shape == (40, k)
    assert ev.mae == pytest.approx(skm.mean_absolute_error(t, p), rel=1e-5)
    assert ev.rmse == pytest.approx(np.mean(skm.root_mean_squared_error(t, p, multioutput="raw_values")), rel=1e-5)
    assert ev.r2 == pytest.approx(skm.r2_score(t, p), abs=1e-5)
    assert ev.per_target().r2.to_numpy() == pytest.approx(skm.r2_score(t, p, multioutput="raw_values"), abs=1e-5)
    worst = ev.worst(40)
    assert [o.error for o in worst] == sorted(np.abs(ev.residuals).mean(1), reverse=True)


@pytest.mark.medium
def test_numbers_without_variance():
    ev = RegressionEvaluation(["y"], np.array([[1.0], [3.0]]), np.array([[2.0], [2.0]]))
    assert (
        ev.mae == 1
        and np.isnan(ev.r2)
        and json.loads(json.dumps(ev.to_dict(), allow_nan=False))["r2"] is None
        and "–" in ev._repr_html_()
    )
    with pytest.raises(InputError, match="y"):
        ev.plot(target="x")


# ---- what is refused

nets = dict(
    two=nn.Linear(3, 2),
    one=nn.Linear(3, 1),
    map=nn.Sequential(nn.Linear(3, 32), nn.Unflatten(1, (2, 4, 4))),
    words=nn.Sequential(nn.Linear(3, 63), nn.Unflatten(1, (7, 9))),
)


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 2)

    def forward(self, x):
        return self.a(x), self.a(x)


@pytest.mark.parametrize(
    "y, net, loss, match",
    [
        (torch.zeros(40, 4, 4).long(), nets["map"], CrossEntropyLossFlat(axis=1), "DiceMulti"),
        (torch.zeros(40, 7).long(), nets["words"], CrossEntropyLossFlat(), "Perplexity"),
        (torch.rand(40, 2), nets["two"], nn.CrossEntropyLoss(), "share out"),
        (torch.zeros(40).long(), Two(), lambda p, y: p[0].sum(), "one output against one target"),
        (
            (torch.zeros(40).long(), torch.zeros(40).long()),
            nets["two"],
            lambda p, *y: p.sum(),
            "one output against one target",
        ),
        (torch.zeros(40).long(), nets["one"], CrossEntropyLossFlat(), "single output"),
        (torch.randn(40, 2), nets["one"], lambda p, y: p.sum(), "do not fit"),
        (torch.rand(40, 2), nets["two"], BCEWithLogitsLossFlat(), "0 or 1"),
        (torch.full((40,), float("nan")), nets["one"], MSELossFlat(), "leave these items out"),
        (torch.zeros(40).long(), nets["two"], CrossEntropyLossFlat(), "of one class"),
        (torch.full((40,), 5), nets["two"], CrossEntropyLossFlat(), "other classes"),
    ],
)
def test_refusals_say_what_to_do(y, net, loss, match):
    learn = learner(y, net, loss)
    learn.dls.n_inp = 1
    before = everything(learn)
    with pytest.raises(KitError, match=match) as e:
        evaluate(learn, on_progress=QUIET)
    assert "Watch" not in str(e.value) and len(e.value.args) == 1
    after = everything(learn)
    before.pop("attrs")
    after.pop("attrs")
    same(before, after)


def test_refused_at_the_first_batch():
    seen = []
    learn = learner(torch.zeros(40, 4, 4).long(), nets["map"], CrossEntropyLossFlat(axis=1))
    h = learn.model.register_forward_hook(lambda *a: seen.append(1))
    with pytest.raises(InputError):
        evaluate(learn, on_progress=QUIET)
    h.remove()
    assert len(seen) == 1


@pytest.mark.medium
def test_one_class_is_judged_if_it_is_asked_for():
    learn = learner(torch.zeros(40).long(), nets["two"], CrossEntropyLossFlat())
    ev = evaluate(learn, learn.dls.valid, on_progress=QUIET)
    assert ev.accuracy == ev.per_class().recall.iloc[0] and "All items are of one class" in ev._repr_html_()


def test_loaders_that_cannot_be_read(small_dls):
    from fastai.data.load import DataLoader

    learn = transfer_learner(small_dls, "resnet_mini")
    with pytest.raises(InputError, match="with_labels=True"):
        evaluate(learn, learn.dls.test_dl(learn.dls.valid.items[:4]), on_progress=QUIET)
    with pytest.raises(InputError, match="not a DataLoader of fastai"):
        evaluate(learn, learn.dls.valid.items, on_progress=QUIET)
    with pytest.raises(InputError, match="not a DataLoader of fastai"):
        evaluate(learn, torch.utils.data.DataLoader(learn.dls.valid_ds), on_progress=QUIET)
    with pytest.raises(StateError, match="no items"):
        evaluate(learn, DataLoader([], bs=4), on_progress=QUIET)

    class Stream(IterableDataset):
        def __iter__(self):
            yield torch.zeros(3, 48, 48), torch.tensor(0)

    with pytest.raises(InputError, match="how many items"):
        evaluate(learn, DataLoader(Stream(), bs=4), on_progress=QUIET)
    learn.dls = DataLoaders(learn.dls.train)
    with pytest.raises(StateError, match="no validation set"):
        evaluate(learn, on_progress=QUIET)


def test_items_left_over_by_training_loaders_are_counted(small_dls):
    "A training loader shuffles and drops the last batch; here all items come, in order"
    learn = transfer_learner(small_dls, "resnet_mini")
    dl = learn.dls.train.new(bs=5)
    ev = evaluate(learn, dl, on_progress=QUIET)
    assert (
        ev.n == 32
        and ev.items == list(dl.items)
        and [ev.vocab[t] for t in ev.targets] == [f.parent.name for f in ev.items]
    )


def test_text_vocabularies_do_not_pass_for_classes():
    learn = learner(torch.randint(0, 2, (40,)), nets["two"], CrossEntropyLossFlat())
    learn.dls.vocab = [["xxunk", "the", "film"], ["bad", "good"]]
    assert evaluate(learn, on_progress=QUIET).vocab == ["bad", "good"]
    learn.dls.vocab = ["a", "b", "c"]
    assert evaluate(learn, on_progress=QUIET).vocab == ["0", "1"]


# ---- one pass, and views


@pytest.mark.medium
def test_one_pass_feeds_everything(small_dls, tmp_path):
    learn = transfer_learner(small_dls, "resnet_mini")
    batches = []
    h = learn.model.register_forward_hook(lambda m, x, y: batches.append(len(y)))
    ev = evaluate(learn, on_progress=QUIET)
    ev.bootstrap()
    ev.interval()
    ev.confusion()
    ev.per_class()
    ev.recall_intervals()
    ev.most_confused()
    ev.worst()
    ev.uncertain()
    ev.cell(0, 0)
    ev.calibration()
    ev.ece()
    ev.ece_by_chance()
    ev.temperature().plot()
    ev.to_dict()
    ev._repr_html_()
    ev.to_html(tmp_path / "a.html")
    for f in (ev.plot, ev.plot_confusion, ev.plot_calibration, ev.plot_classes, ev.plot_worst, ev.plot_uncertain):
        f()
    h.remove()
    assert batches == [8, 8] and len(learn.dls.valid) == 2


@pytest.fixture
def augmented():
    from fastai.vision.augment import aug_transforms
    from fastai_tl.datasets.picture_folder import ClassOf, picture_dls
    from fastai_tl.datasets.samples import sample_path, split_sample

    train, valid = split_sample(sample_path("clipart"), 4)
    dls = picture_dls(
        train,
        valid[::8],
        ClassOf(sample_path("clipart")),
        size=48,
        bs=8,
        path=".",
        batch_tfms=aug_transforms(max_rotate=30),
    )
    return transfer_learner(dls, "resnet_mini")


@pytest.mark.medium
def test_views(augmented):
    learn, batches = augmented, []
    h = learn.model.register_forward_hook(lambda m, x, y: batches.append(x[0].detach().clone()))
    before, told = everything(learn), []
    ev = evaluate(learn, tta=2, on_progress=lambda *a: told.append(a))
    h.remove()
    after = everything(learn)
    before.pop("attrs")
    after.pop("attrs")
    same(before, after)
    assert (
        len(batches) == 6
        and [t[:2] for t in told] == [(i, 6) for i in range(1, 7)]
        and told[-1][2] == "evaluate, view 3 of 3"
    )
    assert learn.dls.valid_ds.split_idx == 1 and ev.views == 3
    plain = evaluate(learn, on_progress=QUIET)
    assert not torch.equal(batches[0], batches[2]) and not torch.equal(batches[2], batches[4]) and plain.views == 1
    with torch.no_grad():
        probs = [learn.model.eval()(torch.cat(batches[i : i + 2])).softmax(1).numpy() for i in (0, 2, 4)]
    # the mean of the three
    assert np.allclose(plain.probs, probs[0], atol=1e-5) and np.allclose(ev.probs, np.mean(probs, 0), atol=1e-5)
    random.seed(99)
    torch.manual_seed(99)
    assert np.array_equal(ev.probs, evaluate(learn, tta=2, on_progress=QUIET).probs)  # whatever the random state
    assert "Mean of 3 views" in ev._repr_html_() and ev.to_dict()["views"] == 3


def test_views_that_cannot_be_had(small_dls, augmented):
    with pytest.raises(InputError, match="aug_transforms"):
        evaluate(noisy_learner(), tta=2, on_progress=QUIET)
    with pytest.raises(InputError, match="aug_transforms"):
        evaluate(transfer_learner(small_dls, "resnet_mini"), tta=2, on_progress=QUIET)
    for bad in (-1, 1.5, True, "4"):
        with pytest.raises(InputError, match="tta"):
            evaluate(augmented, tta=bad, on_progress=QUIET)


def test_an_interrupt_among_the_views_leaves_everything_as_it_was(augmented):
    learn, before = augmented, everything(augmented)

    def stop(done, total, note):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(learn, tta=2, on_progress=stop)
    after = everything(learn)
    before.pop("attrs")
    after.pop("attrs")
    same(before, after)
    assert learn.dls.valid_ds.split_idx == 1


@pytest.mark.medium
@pytest.mark.parametrize("tta", [0, 2])
def test_never_from_cached_features(augmented, tta):
    "Inside frozen_cache, pictures go through the whole network, and views are views"
    learn = augmented
    plain, whole = evaluate(learn, tta=tta, on_progress=QUIET), []
    with frozen_cache(learn, views=2, on_progress=QUIET):
        with learn.no_bar(), learn.no_logging():
            learn.fit(1, 0.0)
        moved = evaluate(learn, tta=tta, on_progress=QUIET)
        first = next(m for m in learn.model.modules() if isinstance(m, nn.Conv2d))
        h = first.register_forward_hook(lambda *a: whole.append(1))
        cached = evaluate(learn, tta=tta, on_progress=QUIET)
        h.remove()
    assert len(whole) == 2 * (tta + 1) and np.array_equal(moved.probs, cached.probs)
    assert (
        np.array_equal(cached.probs, evaluate(learn, tta=tta, on_progress=QUIET).probs)
        and cached.probs.shape == plain.probs.shape
    )


# ---- pictures and pages


def three():
    rng = np.random.default_rng(0)
    t, y, x = rng.integers(0, 3, 30), rng.random((30, 3)) < 0.4, rng.normal(size=(30, 2))
    names = ["<script>alert(1)</script>", "a & b", "$x_{$ 'q'"]
    probs = torch.tensor(rng.normal(size=(30, 3)) + 2 * np.eye(3)[t]).softmax(1).numpy()
    items = ["</div><img src=x onerror=alert(1)>"] * 30
    return [
        Evaluation(names, probs, t, items),
        MultiLabelEvaluation(names, rng.random((30, 3)), y, items=items),
        RegressionEvaluation(names[:2], x + rng.normal(size=x.shape), x, items),
    ]


@pytest.mark.medium
@pytest.mark.parametrize("ev", three(), ids=["classes", "labels", "numbers"])
def test_pages_hold_everything_and_run_nothing(ev, tmp_path):
    text = ev.to_html(tmp_path / "a.html", title="<b>Mine</b>").read_text(encoding="utf-8")
    for html in (text, ev._repr_html_()):
        assert "<script" not in html and "onerror=alert(1)>" not in html and "&lt;script&gt;" in html
        links = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)|url\(([^)]*)\)""", html)
        assert all((a or b).startswith(("data:", "#")) for a, b in links), links
        assert not re.findall(r"@import|<link|<iframe", html)
    assert (
        text.startswith("<!doctype html>")
        and "prefers-color-scheme:dark" in text
        and "<title>&lt;b&gt;Mine" in text
        and "seed 0" in text
    )
    ev.to_html(tmp_path / "a.html")  # a file of before is replaced
    assert [f.name for f in tmp_path.iterdir()] == ["a.html"]
    with pytest.raises(FileError, match="is a folder"):
        ev.to_html(tmp_path)
    with pytest.raises(FileError, match="no such folder"):
        ev.to_html(tmp_path / "no" / "a.html")


@pytest.mark.medium
@pytest.mark.parametrize("ev", three(), ids=["classes", "labels", "numbers"])
def test_data_is_json_and_pictures_touch_no_pyplot(ev):
    from matplotlib import pyplot as plt
    from matplotlib.figure import Figure

    d = json.loads(json.dumps(ev.to_dict(), allow_nan=False))
    assert d["n"] == 30 and d["task"] in ("classes", "labels", "numbers") and "seed 0" in d["bootstrap"]["method"]
    open_ = plt.get_fignums()
    plots = [getattr(ev, n) for n in dir(ev) if n.startswith("plot")]
    assert len(plots) >= 3
    for f in plots:
        got = f()
        fig = got if isinstance(got, Figure) else got.figure
        fig.canvas.draw()
        assert np.asarray(fig.canvas.buffer_rgba())[..., :3].std() > 5  # something is drawn
    assert plt.get_fignums() == open_
    own = Figure().subplots()
    assert ev.plot(own) is own


@pytest.mark.medium
def test_many_classes_are_drawn():
    rng, k = np.random.default_rng(0), 120
    t = np.repeat(np.arange(k), 5)
    ev = Evaluation(
        [f"class number {i} of many" for i in range(k)],
        torch.tensor(rng.normal(size=(5 * k, k)) + 3 * np.eye(k)[t]).softmax(1).numpy(),
        t,
    )
    ev.plot().figure.canvas.draw()
    html = ev._repr_html_()
    assert "The 20 of 120 classes" in html and len(html) < 200_000


@pytest.mark.medium
def test_no_display_is_needed():
    code = (
        "import os, numpy as np; os.environ.pop('DISPLAY', None); os.environ.pop('MPLBACKEND', None)\n"
        "from fastai_tl.evaluation.classification import Evaluation\n"
        "ev = Evaluation(['a', 'b'], np.array([[.6, .4], [.3, .7], [.8, .2]]), np.array([0, 1, 1]))\n"
        "ev.plot().figure.savefig('a.png'); ev.plot_worst().savefig('b.png')"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


@pytest.mark.medium
@settings(max_examples=8, deadline=None)
@given(st.integers(2, 30), st.integers(2, 5), st.integers(0, 99))
def test_any_evaluation_can_be_shown(n, k, seed):
    rng = np.random.default_rng(seed)
    ev = Evaluation(
        [f"c{i}" for i in range(k)], torch.tensor(rng.normal(size=(n, k))).softmax(1).numpy(), rng.integers(0, k, n)
    )
    assert f"{100 * ev.accuracy:.1f} %" in ev._repr_html_()
    json.dumps(ev.to_dict(), allow_nan=False)
    y = rng.random((n, k)) < 0.3
    ml = MultiLabelEvaluation(ev.vocab, rng.random((n, k)), y)
    json.dumps(ml.to_dict(), allow_nan=False)
    assert "Mean average precision" in ml._repr_html_()
