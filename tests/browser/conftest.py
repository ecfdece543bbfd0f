"""JupyterLab, Notebook 7 and Voila in Chromium.

A test opens a notebook with `open_nb`, clicks with Playwright's `page`, and reads what Python then holds with
`kernel(name).ev(…)`. At the end of each test nothing may have been asked of the internet, and no error may be in the
browser's console. FTL_SHOTS=folder keeps the pictures of `shot`.
"""

import os
import re
from pathlib import Path

import pytest

from browser.harness import NO_CHROMIUM, TOKEN, Forks, Lab, VoilaServer, chromium

HERE = Path(__file__).parent
ARGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
WIDE, NARROW = 1200, 380
# What the programs themselves do, with any notebook.
NOTEBOOK_7 = [r"reading 'schema'", r"Command 'filebrowser:open-path' not registered", r"static/notebook/\w+\.woff2"]
VOILA = [
    r"cdn\.jsdelivr\.net/npm/@fortawesome/",
    r"net::ERR_FAILED",  # its page asks for icons there, and has its own if they do not come
    r"RUNTIME-012",
]  # extensions that only Lab has
APPS = dict(lab="lab/tree", doc="doc/tree", notebook="notebooks")  # Lab, Lab with one document, Notebook 7
IDLE = """() => { const w = window.jupyterapp?.shell.currentWidget; const k = w?.sessionContext?.session?.kernel;
  return k?.status === 'idle' && k.connectionStatus === 'connected' }"""
CELLS = """() => { const c = window.jupyterapp.shell.currentWidget.content.widgets.filter(c => c.model.type === 'code');
  return c.every(c => c.model.executionState === 'idle' || c.model.executionState === undefined)
    && c.every(c => c.model.executionCount !== null) }"""


def pytest_collection_modifyitems(items):
    for it in items:
        if HERE in it.path.parents:
            it.add_marker(pytest.mark.browser)
            # on a machine with much else to do, a browser may be too late once; what is wrong is late twice
            it.add_marker(pytest.mark.flaky(reruns=1, only_rerun=["TimeoutError", "was not met in"]))


@pytest.fixture(scope="session")
def chromium_path():
    if path := chromium():
        return path
    if os.environ.get("CI"):
        pytest.fail(NO_CHROMIUM)
    pytest.skip(NO_CHROMIUM)


@pytest.fixture(scope="session")
def forks(tmp_path_factory):
    "Kernels of all servers are forked from one process"
    f = Forks(tmp_path_factory.mktemp("kernels"))
    yield f
    f.close()


@pytest.fixture(scope="session")
def lab(chromium_path, forks, tmp_path_factory):
    "A server with JupyterLab and Notebook 7 for all tests"
    server = Lab(tmp_path_factory.mktemp("lab"), forks)
    yield server
    server.shutdown()
    server.close()


@pytest.fixture(scope="session")
def chrome(chromium_path):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium_path, headless=True, args=list(ARGS))
        yield browser
        browser.close()


@pytest.fixture
def page(chrome):
    """A page in a context of its own.

    `page.external`: addresses off this machine that were asked for, and refused; `page.errors`: what went wrong in the
    browser. Both must be empty at the end, but for what matches a regular expression in `page.allowed`
    """
    ctx = chrome.new_context(viewport=dict(width=WIDE, height=1000), permissions=["clipboard-read", "clipboard-write"])
    pg = ctx.new_page()
    pg.set_default_timeout(90000)  # a busy machine is slow, not wrong
    pg.external, pg.errors, pg.allowed = [], [], []

    def route(r):
        if re.match(r"(http://127\.0\.0\.1[:/]|data:|blob:)", r.request.url):
            r.continue_()
        else:
            pg.external.append(r.request.url)
            r.abort()

    def console(m):
        if m.type == "error":
            pg.errors.append(f"{m.text} ({m.location.get('url', '')})")

    ctx.route("**/*", route)
    pg.on("pageerror", lambda e: pg.errors.append(str(e)))
    pg.on("console", console)
    yield pg
    external, errors = (
        [e for e in what if not any(re.search(a, e) for a in pg.allowed)] for what in (pg.external, pg.errors)
    )
    ctx.close()
    assert not external, f"asked of the internet: {external}"
    assert not errors, "errors in the browser:\n" + "\n".join(errors)


@pytest.fixture
def kernel(lab):
    "`kernel(name)`: the kernel of the notebook `name`, with `ev`, `run` and `interrupt`"
    open_now = []

    def f(name):
        open_now.append(lab.kernel(name))
        return open_now[-1]

    yield f
    for k in open_now:
        k.close()


@pytest.fixture
def open_nb(page, lab, theme):
    """`open_nb(name, app="doc", run=True, wait=True, check=True)`: show a notebook in 'lab', 'doc' (Lab with this
    document alone) or 'notebook' (Notebook 7), run its cells, wait until they have run, and check that none wrote an
    error or a warning. Its kernel ends with the test
    """

    def f(name, app="doc", run=True, wait=True, check=True, width=None, dark=False):
        if app == "notebook":
            page.allowed += NOTEBOOK_7
        if width:
            page.set_viewport_size(dict(width=width, height=1000))
        page.goto(f"{lab.url}/{APPS[app]}/{name}?token={TOKEN}&reset")
        page.wait_for_selector(".jp-Notebook", timeout=120000)
        page.wait_for_function(IDLE, timeout=120000)
        theme(dark)
        if run:
            page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells') }")
            if wait:
                page.wait_for_function(CELLS, timeout=240000)
                wrong = page.locator(
                    '.jp-RenderedText[data-mime-type*="stderr"], .jp-RenderedText[data-mime-type*="error"]'
                )
                assert not (check and wrong.count()), "\n".join(wrong.all_inner_texts())
        return page

    yield f
    page.goto("about:blank")
    lab.shutdown()


@pytest.fixture
def theme(page):
    "`theme(dark)`: Lab's dark or light theme for the open page"

    def f(dark):
        name = f"JupyterLab {'Dark' if dark else 'Light'}"
        now = "() => document.body.dataset.jpThemeName"
        page.wait_for_function(now)
        if page.evaluate(now) != name:
            page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", name)
            page.wait_for_function(f"() => document.body.dataset.jpThemeName === '{name}'")

    return f


@pytest.fixture
def shot(page, theme, tmp_path):
    """`shot(name, selector=None)`: a picture of the page, or of one part of it, as a file.

    `shot.all(name, selector)`: light and dark, wide and narrow. Into the folder FTL_SHOTS; without it nothing is drawn,
    but for `shot.all(…, always=True)`, since pictures take most of a test's time
    """
    wanted, folder = os.environ.get("FTL_SHOTS"), Path(os.environ.get("FTL_SHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)

    def f(name, selector=None):
        return draw(name, selector) if wanted else None

    def draw(name, selector):
        where, size = page if selector is None else page.locator(selector).first, page.viewport_size
        if selector is not None:  # all of it, not what happens to be in view
            page.wait_for_timeout(300)
            page.set_viewport_size(
                dict(width=size["width"], height=max(size["height"], int(where.bounding_box()["height"]) + 300))
            )
        page.wait_for_timeout(500)  # animations
        where.screenshot(path=folder / f"{name}.png")
        page.set_viewport_size(size)
        return folder / f"{name}.png"

    def everything(name, selector=".ftl-panel", always=False):
        files = []
        if not (wanted or always):
            return files
        for dark in (False, True):
            theme(dark)
            for width in (WIDE, NARROW):
                page.set_viewport_size(dict(width=width, height=1000))
                files.append(draw(f"{name}_{'dark' if dark else 'light'}_{width}", selector))
        theme(False)
        page.set_viewport_size(dict(width=WIDE, height=1000))
        return files

    def side(name, width=520):
        "The right sidebar, light and dark, at this width"
        files = []
        if not wanted:
            return files
        for dark in (False, True):
            theme(dark)
            page.set_viewport_size(dict(width=WIDE, height=900))
            files.append(draw(f"{name}_{'dark' if dark else 'light'}", None))
        theme(False)
        page.set_viewport_size(dict(width=WIDE, height=1000))
        return files

    f.all, f.side = everything, side
    return f


@pytest.fixture(scope="session")
def voila_server(chromium_path, forks, tmp_path_factory):
    server = VoilaServer(tmp_path_factory.mktemp("voila"), forks)
    yield server
    server.close()


@pytest.fixture
def voila(page, voila_server):
    "`voila(name, *cells)`: the page that Voila makes of a notebook with these cells; returns its kernel"
    open_now = []

    def f(name, *cells, selector=".ftl-panel", dark=False):
        page.allowed += VOILA
        voila_server.notebook(name, *cells)
        page.goto(f"{voila_server.url}/voila/render/{name}?voila-theme={'dark' if dark else 'light'}", timeout=120000)
        page.wait_for_selector(selector, timeout=120000)
        open_now.append(voila_server.kernel())
        return open_now[-1]

    yield f
    page.goto("about:blank")
    for k in open_now:
        k.close()
