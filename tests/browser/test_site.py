"""The documentation site, built from the outputs that are stored, opened from disk: on a phone and on a desk, in
light and dark.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fastai_tl.freezing.freeze import freeze_to, train_only, unfreeze
from fastai_tl.datasets.samples import sample_dls
from fastai_tl.models.transfer_learner import transfer_learner

pytestmark = pytest.mark.site
ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    "index",
    "start/quickstart",
    "tutorial/freeze",
    "tutorial/train_head",
    "howto/resume",
    "explain/frozen",
    "lessons/head_and_frozen",
    "api/freezing/freeze",
    "benchmarks",
    "changelog",
]


@pytest.fixture(scope="session")
def site():
    env = dict(os.environ, OMP_NUM_THREADS="1")
    r = subprocess.run(
        [sys.executable, ROOT / "tools" / "build_docs.py", "--stored"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=env,
    )
    assert r.returncode == 0, r.stdout[-3000:] + r.stderr[-3000:]
    return ROOT / "_site"


@pytest.fixture
def show(site, chrome):
    "Open a page from disk; nothing may be asked of a network, and no error may be in the console"
    wrong, contexts = [], []

    def f(name, width=1280, scheme="light"):
        context = chrome.new_context(viewport=dict(width=width, height=900), color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda r: wrong.append(r.url) if not r.url.startswith(("file:", "data:", "blob:")) else None)
        page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: wrong.append(str(e)))
        page.goto((site / f"{name}.html").as_uri())
        if shots := os.environ.get("FTL_SHOTS"):
            page.screenshot(path=Path(shots) / f"site_{name.replace('/', '_')}_{scheme}_{width}.png", full_page=False)
        return page

    yield f
    for c in contexts:
        c.close()
    assert not wrong


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_pages_open_from_disk_and_fit_the_window(show, width, scheme):
    for name in PAGES:
        page = show(name, width, scheme)
        assert page.locator("h1").first.is_visible(), name
        assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 1, (
            f"{name} is wider than the window"
        )
        dark = page.evaluate(
            "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0) < "
            "200"
        )
        assert dark == (scheme == "dark"), name


@pytest.mark.parametrize("width", [390, 1280])
def test_the_freeze_map_responds(show, width):
    page = show("index", width)
    box = page.locator("#freeze-map")
    code, says, group = box.locator(".fm-code"), box.locator(".fm-says"), lambda n: box.locator(".fm-group", has_text=n)
    assert code.inner_text() == 'freeze_to(learn, "head")' and group("stage7").get_attribute("aria-pressed") == "true"
    first = says.inner_text()
    group("stage7").click()
    assert (
        code.inner_text() == 'freeze_to(learn, "stage7")'
        and group("stage7").get_attribute("aria-pressed") == "false"
        and says.inner_text() != first
    )
    group("stage1").focus()
    page.keyboard.press("Enter")
    assert code.inner_text() == 'train_only(learn, ["stage1", "stage7", "head"])'
    box.get_by_role("button", name="All", exact=True).click()
    assert code.inner_text() == "unfreeze(learn)" and "100 %" in says.inner_text()


def test_what_the_freeze_map_says_is_what_the_code_does(site):
    "Each line that the map shows, run on a Learner, trains as many parameters as the map says"
    learn = transfer_learner(sample_dls("clipart", n_per_class=4, num_workers=0), "tf_efficientnet_lite0")
    text = (site / "index.html").read_text(encoding="utf-8")
    net = json.loads(re.search(r'<script type="application/json">(.*?)</script>', text, re.S)[1])
    size = {g["name"]: g["parameters"] for g in net["groups"]}
    count = lambda: sum(p.numel() for p in learn.model.parameters() if p.requires_grad)
    for line, names in (
        ('freeze_to(learn, "head")', ["head"]),
        ('freeze_to(learn, "stage7")', ["stage7", "head"]),
        ('train_only(learn, ["stage1", "stage7", "head"])', ["stage1", "stage7", "head"]),
        ("unfreeze(learn)", list(size)),
    ):
        eval(line, dict(learn=learn, freeze_to=freeze_to, train_only=train_only, unfreeze=unfreeze))
        assert count() == sum(size[n] for n in names), line


@pytest.mark.parametrize("width, scheme", [(390, "dark"), (1280, "light")])
def test_the_live_panel_is_drawn_and_works(show, width, scheme):
    "The map without a kernel, by its own script; what it says is what the three calls do, and a click works"
    page = show("tutorial/freeze", width, scheme)
    box, panels = page.locator(".panel-live"), page.locator(".panel-live .ftl-FreezePanel")
    panels.first.wait_for(timeout=20000)
    for code, trains in (
        ("unfreeze(learn)", "3.38 M"),
        ('freeze_to(learn, "stage7")', "1.03 M"),
        ('freeze_to(learn, "head")', "10.2 k"),
    ):
        box.get_by_role("button", name=code, exact=True).click()
        page.wait_for_function(
            "says => document.querySelector('.panel-live').innerText.includes(says)", arg=f"{trains} of 3.38 M"
        )
        assert panels.locator(".ftl-fm-block").count() == 9
    panels.locator(".ftl-fm-block").first.click()
    assert panels.locator(".ftl-fm-block").first.get_attribute("aria-checked") == "true"
    assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 1


@pytest.mark.parametrize(
    "words, page_name",
    [("FreezePanel", "api/panels/freeze"), ("batch norm", "howto/batchnorm"), ("resume", "howto/resume")],
)
def test_search_finds(show, words, page_name):
    page = show("search")
    page.goto(page.url + f"?q={words.replace(' ', '+')}")
    page.wait_for_selector("#search-results li", timeout=20000)
    links = page.locator("#search-results li a").evaluate_all("l => l.map(a => a.href)")
    assert any(f"{page_name}.html" in h for h in links), links[:10]


def test_every_page_is_listed_for_programs_and_links_elsewhere_are_listed(site):
    text = (site / "llms.txt").read_text(encoding="utf-8")
    for name in PAGES[1:-2]:
        assert f"({name}.html)" in text
    assert (site / "external-links.txt").read_text(encoding="utf-8").startswith("http")
