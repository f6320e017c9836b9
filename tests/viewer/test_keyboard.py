"""The whole way through a run without a mouse, and what a screen reader gets of it."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from viewer import long_logs
from viewer.conftest import shot
from viewer.reference_logs import reference_log

BELOW = "\N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK}"
FOCUS = """() => {
    let active = document.activeElement;
    while (active.shadowRoot) active = active.shadowRoot.activeElement;
    return active ? active.innerText.split('\\n').join(' ').trim() : null;
}"""


def press(page, *keys):
    for key in keys:
        page.keyboard.press(key)
    return page.evaluate(FOCUS)


def test_a_person_without_a_mouse_reads_a_whole_run(open_page, served, logs, long_log):
    page = open_page(served)
    page.locator(".run-row").wait_for()
    assert "Open a .jsonl" in press(page, "ArrowDown")
    assert "Which of the 600 contracts" in press(page, "j")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Turn 30").wait_for()
    assert press(page, "j") == "Turn 1"
    assert press(page, "j", "j") == "Turn 3"
    assert press(page, "k") == "Turn 2"
    assert press(page, "ArrowDown").startswith("Messages to the model")
    assert press(page, "ArrowDown").startswith("20 sub-calls")
    press(page, "ArrowRight")
    assert press(page, "ArrowDown", "ArrowDown").startswith("2 Contract 41")
    press(page, "Enter")
    assert page.locator("[data-card='1'] .call[open] .label").all_inner_texts() == ["Prompt", "Answer"]
    press(page, "ArrowLeft")
    assert page.locator("[data-card='1'] .call[open]").count() == 0
    assert press(page, "ArrowUp", "ArrowUp").startswith("20 sub-calls")
    page.keyboard.press("/")
    page.keyboard.type("contract 217")
    page.get_by_text("3 places").wait_for()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert press(page).startswith("18 Contract 217")
    assert page.locator(".call[open]").count() == 1
    assert page.evaluate("[...CSS.highlights.get('rlm-found')].map(String)") == ["Contract 217"]
    press(page, "?")
    assert page.get_by_role("dialog").is_visible()
    press(page, "Escape")
    assert not page.get_by_role("dialog").is_visible()
    press(page, "Escape")
    page.get_by_role("heading", name="Runs").wait_for()


def test_escape_leaves_a_child_before_it_leaves_the_run(open_page, served, logs):
    reference_log(logs / "reference.jsonl")
    page = open_page(f"{served}#reference.jsonl")
    page.get_by_role("button", name="↳ Count them").focus()
    page.keyboard.press("Enter")
    assert page.locator(".question").inner_text() == "Count them"
    page.keyboard.press("Escape")
    assert page.locator(".question").inner_text() == "What is the answer?"
    page.keyboard.press("Escape")
    page.get_by_role("heading", name="Runs").wait_for()


def test_the_search_reads_everything_and_escape_leaves_it(open_page, served, logs):
    reference_log(logs / "reference.jsonl")
    page = open_page(f"{served}#reference.jsonl")
    page.get_by_role("heading", name="Turn 3").wait_for()
    page.keyboard.press("/")
    page.keyboard.type("len(CONTEXT)")
    page.get_by_text("2 places").wait_for()
    assert [row.split("\n")[0] for row in page.locator(".hits li").all_inner_texts()] == [
        f"Child of cell 3 {BELOW} Turn 1 · model",
        f"Child of cell 3 {BELOW} Cell 1 · code",
    ]
    page.keyboard.press("Enter")
    assert page.locator(".question").inner_text() == "Count them"
    page.keyboard.press("/")
    page.keyboard.type("nowhere to be found")
    page.get_by_text("No matches").wait_for()
    page.keyboard.press("Escape")
    assert not page.get_by_text("No matches").is_visible()
    page.keyboard.press("Escape")
    assert page.get_by_label("Search this run").input_value() == ""


def test_the_theme_is_turned_and_kept(open_page, served, long_log):
    page = open_page(served, color_scheme="light")
    page.locator(".run-row").wait_for()
    paper = (
        "getComputedStyle(document.querySelector('#rlm-viewer').shadowRoot.querySelector('.viewer')).backgroundColor"
    )
    light = page.evaluate(paper)
    page.keyboard.press("t")
    dark = page.evaluate(paper)
    assert light == "rgb(252, 251, 249)"
    assert dark == "rgb(23, 25, 29)"
    page.reload()
    page.locator(".run-row").wait_for()
    assert page.evaluate(paper) == dark


def violations(page):
    found = Axe().run(page).response["violations"]
    return [(rule["id"], [node["html"][:200] for node in rule["nodes"]]) for rule in found]


@pytest.mark.parametrize(
    ("scheme", "width"),
    [
        pytest.param("light", 1280, marks=pytest.mark.full),
        ("dark", 1280),
        pytest.param("light", 400, marks=pytest.mark.full),
    ],
)
def test_axe_finds_nothing_wrong(open_page, served, logs, long_log, scheme, width):
    long_logs.hostile_run(logs / "hostile.jsonl", long=10_000)
    reference_log(logs / "reference.jsonl")
    page = open_page(served, color_scheme=scheme, viewport={"width": width, "height": 900})
    page.locator(".run-row").nth(2).wait_for()
    assert violations(page) == []
    for name in ("reference", "hostile", "long"):
        page.goto(f"{served}#{name}.jsonl")
        page.locator(f".tab-current [title={name}]").wait_for()
        page.locator(".turn").nth(0).wait_for()
        for fold in page.locator("details:not(.call) > summary").all()[:12]:
            fold.click()
        for row in page.locator("details.call > summary").all()[:4]:
            row.click()
        assert violations(page) == []
    page.keyboard.press("/")
    page.keyboard.type("Notice")
    page.get_by_role("option").first.wait_for()
    assert violations(page) == []
    shot(page, f"viewer-search-{scheme}-{width}")
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    assert violations(page) == []
    shot(page, f"viewer-keys-{scheme}-{width}")
