"""The page of an exported model in a browser: pictures that are chosen and dropped, what is wrong with others, and
`fastai-tl serve`.
"""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from browser.conftest import NARROW, VOILA, WIDE
from browser.harness import free_port, until
from fastai_tl.deploy.web_app import make_app
from fastai_tl.deploy.export import export
from fastai_tl.deploy.torch_predictor import load_predictor
from fastai_tl.datasets.samples import sample_dls, sample_path
from fastai_tl.deploy.predictor import Prediction
from fastai_tl.models.transfer_learner import transfer_learner

PICTURE = sample_path("clipart") / "bird" / "eagle_01.jpg"
DROP = """(zone, files) => { const d = new DataTransfer();
  for (const [name, bytes] of files) d.items.add(new File([new Uint8Array(bytes)], name));
  for (const e of ['dragenter', 'dragover', 'drop']) zone.dispatchEvent(new DragEvent(e, {dataTransfer: d,
    bubbles: true, cancelable: true})) }"""


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    import torch

    torch.manual_seed(0)
    learn = transfer_learner(sample_dls("clipart", size=48, n_per_class=2), "resnet_mini")
    return export(learn, tmp_path_factory.mktemp("models") / "clip <art> & é")


@pytest.fixture
def opened(model, voila_server, page, request):
    "The page that `make_app` wrote, in Voila"
    page.allowed += VOILA
    file = make_app(model, voila_server.root / "app")
    page.goto(f"{voila_server.url}/voila/render/{file.relative_to(voila_server.root)}", timeout=120000)
    page.locator(".ftl-page").wait_for(timeout=120000)
    yield page.locator(".ftl-page")
    page.goto("about:blank")


def answered(p, name):
    "Wait for the answer to a file; `Looking at NAME` is there before"
    p.locator("figcaption", has_text=name).wait_for()


def bars(p):
    return list(zip(p.locator(".ftl-name").all_inner_texts(), p.locator(".ftl-share").all_inner_texts()))


def expected(p: Prediction, k=5):
    return [(c, "under 0.1%" if v < 0.001 else f"{v:.1%}") for c, v in p.top(k)]


def give(p, *files):
    p.locator(".ftl-file").set_input_files(files)


def test_a_picture_gets_the_models_answer(opened, model, page, shot):
    want = load_predictor(model).predict(PICTURE)
    give(opened, PICTURE)
    opened.get_by_role("heading", name=want.label, exact=True).wait_for()
    assert bars(opened) == expected(want)
    widths = [float(b.evaluate("e => e.style.width.slice(0, -1)")) for b in opened.locator(".ftl-bar").all()]
    assert widths == sorted(widths, reverse=True) and abs(widths[0] - 100 * want.probability) < 0.01
    assert opened.get_by_role("list", name="Most probable classes").get_by_role("listitem").count() == 5
    until(
        lambda: (
            opened.get_by_role("status")
            .first.inner_text()
            .startswith(f"Most probable: {want.label}, {want.probability:.1%}")
        )
    )
    assert (
        opened.locator("figure img").evaluate("i => i.naturalWidth") > 50
        and "eagle_01.jpg" in opened.locator("figcaption").inner_text()
    )
    assert opened.locator(".ftl-answer").count() == 1 and not opened.locator(".ftl-transport").is_visible()
    shot("app_wide")
    page.set_viewport_size(dict(width=NARROW, height=1000))
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW, "nothing sticks out on a phone"
    shot("app_narrow")
    page.emulate_media(color_scheme="dark")
    dark = page.locator("body").evaluate("e => getComputedStyle(e).backgroundColor")
    shot("app_narrow_dark")
    page.set_viewport_size(dict(width=WIDE, height=1000))
    shot("app_wide_dark")
    assert sum(map(int, dark[4:-1].split(","))) < 120, dark


def test_the_example_and_the_same_picture_twice(opened, model):
    want = load_predictor(model).predict(model / "sample.png")
    opened.get_by_role("button", name="Try the example picture").click()
    opened.get_by_role("heading", name=want.label, exact=True).wait_for()
    assert bars(opened) == expected(want)
    for _ in range(2):
        give(opened, model / "sample.png")
        answered(opened, "sample.png")
        assert bars(opened) == expected(want)
    opened.get_by_text("About this model").click()
    for text in ("It tells 8 classes apart", "was not noted", "no proof"):
        assert text in opened.inner_text()


def test_dropping(opened, model):
    zone, want = opened.locator(".ftl-drop"), load_predictor(model).predict(PICTURE)
    zone.evaluate(DROP, [["dropped.jpg", list(PICTURE.read_bytes())]])
    answered(opened, "dropped.jpg")
    assert bars(opened) == expected(want)
    alert = opened.locator("label + .ftl-alert")
    for files, text in [
        ([["a.jpg", [1]], ["b.jpg", [2]]], "These are 2 files"),
        ([], "not a file"),
        ([["none.jpg", []]], "is empty"),
    ]:
        zone.evaluate(DROP, files)
        alert.get_by_text(text).wait_for()
    zone.evaluate(DROP, [["again.jpg", list(PICTURE.read_bytes())]])
    answered(opened, "again.jpg")
    assert alert.is_hidden(), "what was wrong before is gone"


def test_what_cannot_be_shown_says_so(opened, tmp_path, page, shot):
    (tmp_path / "torn <b>.jpg").write_bytes(PICTURE.read_bytes()[:900])
    (tmp_path / "words.png").write_text("words")
    Image.new("1", (14_000, 14_000)).save(tmp_path / "huge.png")
    for name, text in [
        ("torn <b>.jpg", "cannot be read as a picture"),
        ("words.png", "it is none"),
        ("huge.png", "more than 178,956,970 pixels"),
    ]:
        give(opened, tmp_path / name)
        alert = opened.get_by_role("alert").filter(has_text=name)
        alert.filter(has_text=text).wait_for()
        assert not bars(opened)
    (tmp_path / "large.bmp").write_bytes(b"BM" + bytes(9_100_000))
    give(opened, tmp_path / "large.bmp")
    opened.get_by_text("large.bmp has 9.1 MB, and at most 9 MB can be sent").wait_for()
    shot("app_error")
    give(opened, PICTURE)  # and all is well again
    answered(opened, "eagle_01.jpg")
    assert len(bars(opened)) == 5


def test_keyboard_alone(opened, page):
    page.bring_to_front()
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.className").startswith("ftl-file"):
            break
    assert page.evaluate("document.activeElement.className").startswith("ftl-file")
    chosen = []
    page.on("filechooser", lambda c: chosen.append(c))

    def pressed():  # a browser that is busy drops a key now and then
        page.keyboard.press("Enter")
        page.wait_for_timeout(1000)
        return chosen

    until(pressed, 60, "the dialog for files")
    chosen[0].set_files(PICTURE)
    answered(opened, "eagle_01.jpg")


def test_if_the_buttons_field_cannot_be_caught_the_button_is_shown(opened, page):
    "As with a version of ipywidgets that presses it in another way"
    page.locator(".ftl-transport").evaluate("b => { const c = b.cloneNode(true); c.onclick = null; b.replaceWith(c) }")
    give(opened, PICTURE)
    page.locator(".ftl-transport").wait_for(state="visible")


def children(pid):
    "Processes below one, by Linux' own list"
    kids = [int(k) for t in Path(f"/proc/{pid}/task").glob("*/children") for k in t.read_text().split()]
    return kids + [k for c in kids for k in children(c)]


@pytest.mark.parametrize("how", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.browser_long)])
def test_serve(model, page, tmp_path, how):
    port = free_port()
    args = [str(Path(sys.executable).parent / "fastai-tl"), "serve", str(model), "--port", str(port), "--no-browser"]
    p = subprocess.Popen(
        args,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "COLUMNS": "200", "PYTHONUNBUFFERED": "1", "TMPDIR": str(tmp_path)},
    )
    try:
        line = next(s for s in p.stdout if "http://" in s)
        assert f"http://127.0.0.1:{port}" in line
        # which refuses Voila's icons from elsewhere: they are not even asked for
        page.allowed += [r"Content Security Policy", r"RUNTIME-012"]
        page.goto(f"http://127.0.0.1:{port}/", timeout=120000)
        served = page.locator(".ftl-page")
        served.wait_for(timeout=120000)
        assert "bird" in page.title()
        if how == signal.SIGINT:
            rng, file = np.random.default_rng(0), tmp_path / "noise.bmp"
            Image.fromarray(rng.integers(0, 255, (2000, 2500, 3), dtype=np.uint8)).save(file)
            assert file.stat().st_size > 11 * 2**20, "more than Voila takes by itself"
            want = load_predictor(model).predict(file)
            give(served, file)
            answered(served, "noise.bmp")
            assert bars(served) == expected(want)
            taken = subprocess.run(args, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})
            assert taken.returncode == 2 and f"Port {port} is taken" in taken.stderr and "--port" in taken.stderr
        page.goto("about:blank")
        kids = children(p.pid)
        assert len(kids) >= 1
        p.send_signal(how)
        rest = p.stdout.read()
        assert p.wait(20) == (0 if how == signal.SIGINT else 143) and "Traceback" not in rest, rest
        assert not [
            k for k in kids if Path(f"/proc/{k}/cmdline").exists() and Path(f"/proc/{k}/cmdline").read_bytes()
        ], "nothing is left running"
        assert not list(tmp_path.glob("fastai-tl-*")), "nor lying about"
        with socket.socket() as s:
            assert s.connect_ex(("127.0.0.1", port))
    finally:
        if p.poll() is None:
            p.kill()
        p.stdout.close()


def test_in_lab(lab, open_nb, page, model, shot):
    page = open_nb(
        lab.notebook("page.ipynb", f"from fastai_tl.deploy.web_page import ModelPage\nModelPage({str(model)!r})")
    )
    p, want = page.locator(".ftl-page"), load_predictor(model).predict(PICTURE)
    give(p, PICTURE)
    answered(p, "eagle_01.jpg")
    assert bars(p) == expected(want)
    shot.all("app_lab", ".ftl-page")
