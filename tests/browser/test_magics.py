"""`%tl` as a person types it in Lab."""

from browser.harness import learner_cell


def test_load_ext_strip_and_panel(lab, open_nb, kernel, page, shot):
    name = lab.notebook(
        "magics.ipynb", "%load_ext fastai_tl", learner_cell("net"), "net", "panel = %tl net\npanel", "%tl"
    )
    open_nb(name)
    page.locator(".ftl-strip").first.wait_for()
    page.locator(".ftl-FreezePanel").wait_for()
    page.get_by_text("%tl doctor [NAME]").wait_for()
    assert kernel(name).ev("[panel.name, panel.learn is net, 'learn' in dir()]") == ["net", True, False]
    shot("magics")


def test_an_unknown_word_is_one_sentence(lab, open_nb, page):
    name = lab.notebook("wrong.ipynb", "%load_ext fastai_tl", "%tl docter")
    open_nb(name, check=False)
    page.get_by_text("Did you mean 'doctor'?").wait_for()
    assert not page.get_by_text("Traceback").count()
