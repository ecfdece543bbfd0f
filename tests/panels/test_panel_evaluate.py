"""EvaluatePanel without a browser: its widgets are set as a person does, and the result, the pictures and the
Learner looked at
"""

import gc
import threading
import weakref

import numpy as np
import pytest
import torch
from helpers import everything, noisy_learner, same, widgets_made

from fastai_tl.core.errors import InputError
from fastai_tl.evaluation.classification import Evaluation, PredictedItem, evaluate
from fastai_tl.core.learner_lock import Busy, owned
from fastai_tl.panels.evaluate import EvaluatePanel
from fastai_tl.panels.image_grid import Gallery, item_html
from fastai_tl.models.transfer_learner import transfer_learner

QUIET = lambda *a: None


@pytest.fixture
def learn(small_dls):
    return transfer_learner(small_dls, "resnet_mini")


def evaluated(learn, *args, **kw):
    panel = EvaluatePanel(learn, *args, **kw)
    panel.go.click()
    assert panel.wait(60) and not panel.busy
    return panel


def many(k, n=600, seed=0):
    "An evaluation of k classes whose truth is known"
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, k, n)
    logits = torch.tensor(rng.normal(size=(n, k)) + 3 * np.eye(k)[targets], dtype=torch.float32)
    return Evaluation(
        [f"class number {i}" for i in range(k)], logits.softmax(1).numpy(), targets, [f"text {i}" for i in range(n)]
    )


@pytest.mark.medium
def test_one_click_gives_what_evaluate_gives(learn):
    before = everything(learn)
    panel = EvaluatePanel(learn)
    assert panel.result is None and panel.tabs.layout.display == "none"
    same(before, everything(learn))  # a constructor does nothing to it
    passes, threads = [], set()
    hook = learn.model.register_forward_hook(lambda *a: passes.append(1) or threads.add(threading.current_thread()))
    panel.go.click()
    assert panel.wait(60)
    for k in range(4):
        panel.tabs.selected_index = k
    panel.parts[1].which.index = 1
    hook.remove()
    assert len(passes) == len(learn.dls.valid) and threads == {panel.job.thread}  # all tabs come from the one pass
    after = everything(learn)
    before.pop("attrs")
    after.pop("attrs")  # fastai keeps the last batch
    same(before, after)
    ev = evaluate(learn, on_progress=QUIET)
    assert np.array_equal(panel.result.probs, ev.probs) and panel.result.items == ev.items
    assert all(
        t in panel.summary.value for t in (f"{100 * ev.accuracy:.1f} %", f"macro-F1 {ev.macro_f1:.2f}", f"{ev.n} items")
    )
    assert panel.say_box.value == ""


def test_cells_show_the_pictures_behind_them(learn):
    panel = evaluated(learn)
    matrix, ev = panel.parts[0], panel.result
    assert [(v, n) for v, n in zip([v for _, v in matrix.pairs.options], [n for *_, n in ev.most_confused()])] == [
        ((ev.vocab.index(a), ev.vocab.index(b)), n) for a, b, n in ev.most_confused()
    ]
    cm = ev.confusion()
    for i, j in np.ndindex(cm.shape):
        matrix._clicked(None, dict(data=dict(rowNum=int(i), columnNum=int(j))))
        assert (matrix.true.value, matrix.predicted.value) == (i, j)
        assert len(matrix.gallery.all) == cm[i, j] and matrix.gallery.shots.value.count("<img ") == min(cm[i, j], 12)
        for p in ev.cell(int(i), int(j))[:12]:
            assert (
                p.item.name in matrix.gallery.shots.value and f"{100 * p.probability:.0f}" in matrix.gallery.shots.value
            )
    a, b, n = ev.most_confused()[-1]
    matrix.true.value, matrix.predicted.value = ev.vocab.index(a), ev.vocab.index(b)  # from the keyboard
    assert len(matrix.gallery.all) == n and matrix.pairs.value == (ev.vocab.index(a), ev.vocab.index(b))
    assert f"ev.cell({a!r}, {b!r})" in panel.code
    matrix.pairs.value = matrix.pairs.options[0][1]
    assert [p.index for p in matrix.gallery.all] == [p.index for p in ev.cell(*ev.most_confused()[0][:2])]
    assert matrix.heat.selected.tolist()[0] == list(matrix.pairs.value)


@pytest.mark.medium
@pytest.mark.parametrize("tab", range(4))
def test_code_reproduces_what_is_shown(small_dls, tab):
    torch.manual_seed(1)
    learn = transfer_learner(small_dls, "resnet_mini")
    panel = evaluated(learn)
    panel.tabs.selected_index = tab
    ns = {"evaluate": evaluate, "learn": learn}
    lines = panel.code.splitlines()
    exec("\n".join(lines[:-1]), ns)
    last = eval(lines[-1], ns)
    assert np.array_equal(ns["ev"].probs, panel.result.probs)
    part = panel.parts[tab]
    if tab == 0:
        assert last == part.gallery.all
    if tab == 1:
        assert last == part.gallery.all[:12]
    if tab == 2:
        assert [r.split("</th>")[0] for r in part.table.value.split('<th scope="row">')[1:]] == list(last.index)
    if tab == 3:
        assert f"ECE {last[0]:.3f}" in part.words.value


def test_mistakes_and_the_least_certain_are_paged():
    ev = many(5)
    learn = noisy_learner()
    panel = EvaluatePanel(learn, result=ev)
    panel.tabs.selected_index = 1
    part = panel.parts[1]
    worst, seen = ev.worst(ev.n), []
    while True:
        page = part.gallery
        shown = page.all[page.page * 12 : page.page * 12 + 12]
        assert (
            page.shots.value.count("<figure") == len(shown) and "✖" in page.shots.value and "✔" not in page.shots.value
        )
        assert all(f">text {p.index}<" in page.shots.value for p in shown)
        seen += shown
        if page.next.disabled:
            break
        page.next.click()
    assert seen == worst and len(seen) > 24
    page.back.click()
    assert not page.next.disabled
    part.which.value = "Least certain"
    assert [p.index for p in part.gallery.all[:12]] == [p.index for p in ev.uncertain(12)] and part.gallery.page == 0
    assert panel.code.endswith("ev.uncertain(12)") and panel.code_view.text == panel.code


def test_table_sorts_by_every_column():
    ev = many(7)
    panel = EvaluatePanel(noisy_learner(), result=ev)
    panel.tabs.selected_index = 2
    part, frame = panel.parts[2], ev.per_class()
    names = lambda: [r.split("</th>")[0] for r in part.table.value.split('<th scope="row">')[1:]]
    for _, key in part.by.options:
        for way in part.down.options:
            part.by.value, part.down.value = key, way
            vals = list(names()) if key == "class" else [frame.loc[n, key] for n in names()]
            assert vals == sorted(vals, reverse=way == "highest first") and part.table.value.count("aria-sort") == 1
    lo, hi = ev.recall_intervals().loc["class number 3"]
    assert f"({100 * lo:.0f}–{100 * hi:.0f})" in part.table.value


@pytest.mark.medium
def test_calibration_in_words_and_bars():
    ev = many(4, n=60)
    panel = EvaluatePanel(noisy_learner(), result=ev)
    panel.tabs.selected_index = 3
    part = panel.parts[3]
    for bins in part.bins.options:
        part.bins.value = bins
        table = ev.calibration(bins)
        assert part.bars.y == pytest.approx(table.accuracy.fillna(0)) and part.dots.x == pytest.approx(
            table.confidence.dropna()
        )
        assert f"ECE {ev.ece(bins):.3f}" in part.words.value and "60 items" in part.words.value
        assert ("A bin holds" in part.words.value) == (60 / (table["items"] > 0).sum() < 10)
    exact = Evaluation(["a", "b"], np.array([[1.0, 0.0]] * 50), np.zeros(50, int))
    panel = EvaluatePanel(noisy_learner(), result=exact)
    panel.tabs.selected_index = 3
    assert "says nothing against it" in panel.parts[3].words.value


@pytest.mark.medium
def test_stale_result_is_named(learn):
    panel = evaluated(learn)
    assert "changed since" not in panel.summary.value
    with torch.no_grad():
        next(learn.model.parameters()).add_(0.01)
    panel.refresh()
    assert "changed since" in panel.summary.value and panel.result is not None
    heat = panel.parts[0].heat
    panel.go.click()
    panel.wait(60)
    assert "changed since" not in panel.summary.value and heat.comm is None  # drawings do not pile up
    other = EvaluatePanel(learn, result=many(3))  # of an unknown model: nothing is claimed
    assert "changed since" not in other.summary.value


def test_stop_keeps_learner_and_result(learn):
    panel = evaluated(learn)
    first, before = panel.result, everything(learn)
    go_on, reached = threading.Event(), threading.Event()
    hook = learn.model.register_forward_hook(lambda *a: (reached.set(), go_on.wait(20)) and None)
    panel.go.click()
    assert reached.wait(30) and panel.go.disabled and panel.halt.layout.display is None
    with pytest.raises(Busy):
        learn.fit(1)
    panel.halt.click()
    go_on.set()
    assert panel.wait(30)
    hook.remove()
    same(before, everything(learn))
    assert (
        panel.result is first
        and "Stopped" in panel.say_box.value
        and not panel.go.disabled
        and panel.halt.layout.display == "none"
    )


def test_busy_learner_refuses_and_the_result_can_still_be_looked_at(learn):
    panel = evaluated(learn)
    first, hold, held = panel.result, threading.Event(), threading.Event()

    def train():
        with owned(learn, "TrainPanel"):
            held.set()
            hold.wait(20)

    t = threading.Thread(target=train)
    t.start()
    held.wait(10)
    try:
        panel.go.click()
        assert "TrainPanel is using" in panel.say_box.value and not panel.busy and panel.result is first
        panel.tabs.selected_index = 1
        assert panel.parts[1].ev is first
    finally:
        hold.set()
        t.join()


def made_up(y, net, loss):
    "A Learner on 8 random items with targets `y`"
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from torch.utils.data import TensorDataset

    ds = TensorDataset(torch.randn(8, 3), y)
    return Learner(DataLoaders.from_dsets(ds, ds, bs=4, num_workers=0, device="cpu"), net, loss)


def test_learners_that_it_does_not_fit():
    from fastai.losses import CrossEntropyLossFlat

    net = torch.nn.Sequential(torch.nn.Linear(3, 32), torch.nn.Unflatten(1, (2, 4, 4)))
    learn = made_up(torch.zeros(8, 4, 4).long(), net, CrossEntropyLossFlat(axis=1))
    panel = evaluated(learn)
    assert panel.result is None and "masks" in panel.say_box.value and 'role="alert"' in panel.say_box.value
    assert panel.tabs.layout.display == "none" and not panel.go.disabled
    with pytest.raises(InputError, match="evaluate"):
        EvaluatePanel(learn, result=0.9)


@pytest.mark.medium
def test_labels_and_numbers_have_one_tab():
    from fastai.losses import BCEWithLogitsLossFlat, MSELossFlat

    panel = evaluated(made_up(torch.rand(8, 2).round(), torch.nn.Linear(3, 2), BCEWithLogitsLossFlat()))
    assert (
        panel.tabs.titles == ("Figures",)
        and "Mean average precision" in panel.parts[0].page.value
        and "8 items, 2 labels" in panel.summary.value
    )
    assert panel.code == "ev = evaluate(learn)\nev"
    numbers = made_up(torch.randn(8, 1), torch.nn.Linear(3, 1), MSELossFlat())
    panel = evaluated(numbers)
    assert "RMSE" in panel.parts[0].page.value and f"MAE {panel.result.mae:.4g}" in panel.summary.value
    panel.result = many(3)  # the same panel shows the other kind
    panel.refresh()
    assert len(panel.parts) == 4 and panel.tabs.titles[0] == "Matrix"


def test_one_dataloader_only():
    from fastai.data.core import DataLoaders

    learn = noisy_learner()
    learn.dls = DataLoaders(learn.dls.train)
    panel = EvaluatePanel(learn)
    assert "no validation set" in panel.summary.value
    panel.go.click()
    panel.wait(30)
    assert "no validation set" in panel.say_box.value and panel.result is None


def test_data_that_was_replaced_is_named_and_the_pictures_stay_those_of_the_figures():
    learn = noisy_learner()
    panel = evaluated(learn)
    was = panel._read(3).clone()
    old, learn.dls = learn.dls, noisy_learner(n=64).dls
    panel.refresh()
    assert "The data has changed since" in panel.summary.value and torch.equal(panel._read(3), was)
    with torch.no_grad():
        next(learn.model.parameters()).add_(0.01)
    panel.refresh()
    assert "The weights and data have changed since" in panel.summary.value
    panel.go.click()
    assert panel.wait(30) and "changed since" not in panel.summary.value and panel.result.n == 32
    learn.dls = old
    panel.refresh()
    assert "The data has changed since" in panel.summary.value


def test_terms_are_explained():
    panel = EvaluatePanel(noisy_learner(), result=many(4))
    for k in range(4):
        panel.tabs.selected_index = k
    for where, word in (
        (panel.summary, "macro-F1"),
        (panel.summary, "95 % interval"),
        (panel.parts[2].table, "recall"),
        (panel.parts[3].words, "ECE"),
    ):
        assert any(part.partition(">")[2].startswith(word) for part in where.value.split("<abbr title=")[1:]), word


@pytest.mark.medium
def test_other_data(learn):
    panel = evaluated(learn, learn.dls.train)
    assert panel.result.n == len(learn.dls.train_ds) and panel.code.startswith("ev = evaluate(learn, learn.dls[0])\n")
    ns = {"learn": learn, "evaluate": evaluate}
    exec(panel.code.splitlines()[0], ns)
    assert np.array_equal(ns["ev"].probs, panel.result.probs)
    test = learn.dls.test_dl(learn.dls.valid.items[:5], with_labels=True)
    assert evaluated(learn, test, dl_name="test").code.startswith("ev = evaluate(learn, test)")


def test_tensors_are_read_from_the_data_and_disturb_no_random_state():
    learn = noisy_learner()
    panel = evaluated(learn)
    before = everything(learn)
    panel.tabs.selected_index = 1
    panel.parts[1].which.index = 1
    assert panel.parts[1].gallery.shots.value.count("<img ") == 12  # 3 x 8 x 8 tensors, drawn
    same(before, everything(learn))


@pytest.mark.parametrize(
    "item, part",
    [
        (torch.rand(3, 9, 9), "<img "),
        (torch.rand(9, 9), "<img "),
        (np.zeros((9, 9, 3), np.uint8), "<img "),
        (torch.full((1, 9, 9), float("nan")), "<img "),
        (torch.zeros(4), "Tensor of shape (4,)"),
        (torch.zeros(5, 9, 9), "shape (5, 9, 9)"),
        (dict(age=3, job="<x>"), "age: 3; job: &lt;x&gt;"),
        ("<script>alert(1)</script>", "&lt;script&gt;"),
        ("word " * 500, "word word"),
        (None, "cannot be shown"),
        (12.5, "12.5"),
        ("", "ftl-text"),
        ("a\0b", "ftl-text"),
    ],
)
def test_items_that_are_no_picture_files(item, part):
    html = item_html(item, 'a "quote"')
    assert part in html and len(html) < 9000 and "<script" not in html and 'a "quote"' not in html


def test_files_that_are_text_or_gone(tmp_path):
    (tmp_path / "a.txt").write_text("It was <b>a</b> film")
    assert "It was &lt;b&gt;a" in item_html(tmp_path / "a.txt", "")
    assert "not there" in item_html(tmp_path / "b.png", "")
    gallery = Gallery(QUIET)
    gallery.show([PredictedItem(tmp_path / "<i>.png", "a<b", "c", 0.5, 1.0, 0)], "A <title>")
    assert (
        "&lt;i&gt;.png" in gallery.shots.value
        and "<i>" not in gallery.shots.value
        and "<title>" not in gallery.head.value
    )


@pytest.mark.parametrize("k", [2, 40, 120])
def test_many_classes_are_one_drawing(k):
    ev = many(k, n=1500)
    panel, n = widgets_made(lambda: EvaluatePanel(noisy_learner(), result=ev))
    matrix = panel.parts[0]
    from fastai_tl.panels.panel import descendants

    assert n < 220 and sum(1 for _ in descendants(panel)) < 220
    assert matrix.heat.color.shape == (min(k, 40),) * 2 and len(matrix.true.options) == k
    assert len(set(matrix.heat.row)) == min(k, 40)  # names that were cut are still different
    assert ("120 classes" in matrix.note.value) == (k == 120)
    cm, rows = ev.confusion(), matrix.rows
    at = {(str(x), str(y)): int(t) for x, y, t in zip(matrix.counts.x, matrix.counts.y, matrix.counts.text)}
    names = [str(n) for n in matrix.heat.row]
    small = cm[np.ix_(rows, rows)]
    assert at == {(names[j], names[i]): int(small[i, j]) for i, j in np.argwhere(small)}
    matrix._clicked(None, dict(data=dict(rowNum=1, columnNum=0)))
    assert [p.index for p in matrix.gallery.all] == [p.index for p in ev.cell(rows[1], rows[0])]
    if k == 120:
        hidden = next(i for i in range(k) if i not in rows)
        matrix.true.value = hidden
        assert matrix.heat.selected is None and len(matrix.gallery.all) == cm[hidden, matrix.predicted.value]


@pytest.mark.medium
def test_constructor_is_quick_and_close_frees(learn):
    import torchvision
    from fastai.learner import Learner

    big = Learner(learn.dls, torchvision.models.resnet50(num_classes=8), torch.nn.CrossEntropyLoss())
    EvaluatePanel(big).close()
    panel, n = widgets_made(lambda: EvaluatePanel(big))
    panel.close()
    assert n < 60
    panel = evaluated(learn)
    for k in range(4):
        panel.tabs.selected_index = k
    matrix, ref = panel.parts[0].heat, weakref.ref(panel)
    panel.close()
    assert matrix.comm is None
    del panel, matrix
    gc.collect()
    assert ref() is None
    assert evaluate(learn, on_progress=QUIET).n == 16


def test_every_control_has_a_name(learn):
    import ipywidgets as w

    from fastai_tl.panels.panel import descendants

    panel = evaluated(learn)
    for k in range(4):
        panel.tabs.selected_index = k
    for c in descendants(panel):
        if isinstance(c, (w.Button, w.Dropdown, w.Select)):
            assert c.description, c
    assert all(
        f'alt="{p.true}, predicted as' in panel.parts[1].gallery.shots.value for p in panel.parts[1].gallery.all[:12]
    )
