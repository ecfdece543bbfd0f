"Questions and checks of the lessons in a browser, by keyboard"

from browser.harness import until

CELLS = [
    "from fastai_tl.course.lessons import ask, check\nquestion = frozen_question = ask('frozen-question')\nquestion",
    "worth = setup_worth = ask('setup-worth')\nworth",
    "def gain(before, after): return after.accuracy-before.accuracy\ncheck('why-gain')",
]


def test_questions_by_keyboard(lab, open_nb, kernel, page, shot):
    lab.notebook("questions.ipynb", *CELLS)
    page = open_nb("questions.ipynb")
    k = kernel("questions.ipynb")
    box = page.locator(".ftl-ask").first
    radios = box.locator("input[type=radio]")
    until(lambda: radios.count() == 4)
    order = k.ev("[o for _, o in question.entry.options]")
    radios.first.focus()
    seen = {}
    for key in order:
        page.keyboard.press("Space")
        until(lambda key=key: k.ev("question.value") == key)
        why = k.ev("next(c.why for c in question.q.choices if c.key == question.value)")
        box.get_by_role("status").filter(has_text=why[:40]).wait_for()
        seen[key] = box.get_by_role("status").inner_text()
        page.keyboard.press("Tab")
    assert "Right." in seen["statistics"] and all("Not quite." in v for c, v in seen.items() if c != "statistics")
    assert "frozen_question.value = 'statistics'" in seen["statistics"]
    slider = page.locator(".ftl-ask").nth(1)
    slider.locator(".widget-readout").click()
    page.keyboard.press("Control+A")
    page.keyboard.type("4")
    page.keyboard.press("Enter")
    until(lambda: k.ev("worth.entry.value") == 4)
    slider.get_by_role("button", name="Answer").focus()
    page.keyboard.press("Space")
    slider.get_by_role("status").wait_for()
    assert k.ev("worth.value") == 4
    page.locator(".jp-OutputArea-output div[role=status]", has_text="percentage points").wait_for()
    shot.all("questions", ".jp-Notebook")
