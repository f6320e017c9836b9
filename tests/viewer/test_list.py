"""The list of runs in Chromium: search, filters, order, columns, notes, the plot, and many runs."""

from __future__ import annotations

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect
from viewer import long_logs, many_logs
from viewer.conftest import shot
from viewer.long_logs import run_in

from rlm_kernel.trajectory.runs.notes import Notes, annotate, read_notes
from rlm_kernel.trajectory.states import STATES

NO_OVERFLOW = """[...document.querySelector('#rlm-viewer').shadowRoot.querySelectorAll('.scroller')]
    .every((one) => one.scrollWidth <= one.clientWidth)"""


@pytest.fixture
def page(open_page, served, logs):
    for state in STATES:
        run_in(state, logs / f"{state}.jsonl")
    return shown(open_page(served), len(STATES))


def shown(page, count):
    """The page, when its list has this many rows."""
    expect(page.locator(".run-row")).to_have_count(count, timeout=20_000)
    return page


def questions(page):
    return [re.search(r"is (\w+)", text)[1] for text in page.locator(".run-question").all_inner_texts()]


def test_the_list_is_searched_filtered_and_cleared(page):
    page.keyboard.press("/")
    page.keyboard.type("run stopped")
    assert questions(shown(page, 1)) == ["stopped"]
    page.get_by_role("button", name="Clear").click()
    shown(page, 6)
    page.get_by_label("Any state").select_option("limit")
    assert questions(shown(page, 1)) == ["limit"]
    assert page.locator(".totals").inner_text().startswith("1 run · 1 limit")
    page.get_by_label("Any model").select_option("large-model")
    page.get_by_text("Dates, cost, columns").click()
    page.get_by_label("Cost from").fill("100")
    page.get_by_text("No run is like that.").wait_for()


def test_the_list_is_sorted_by_its_heads(page):
    page.get_by_role("button", name="State").click()
    expect(page.locator(".run-question").first).to_contain_text("running", timeout=20_000)
    assert questions(page) == list(STATES)
    page.get_by_role("button", name="State, ascending").press("Enter")
    expect(page.locator(".run-question").first).to_contain_text("lost", timeout=20_000)
    assert questions(page) == list(reversed(STATES))


def test_columns_are_chosen_and_remembered(page):
    page.get_by_text("Dates, cost, columns").click()
    page.get_by_role("checkbox", name="Turns").check()
    page.get_by_role("checkbox", name="Model").uncheck()
    page.locator(".figure-turns").nth(5).wait_for()
    assert page.locator(".figure-model").count() == 0
    page.reload()
    page.locator(".figure-turns").nth(5).wait_for()
    assert page.locator(".head").all_inner_texts()[3:] == ["Time", "Turns", "Tokens", "Cost"]


def test_tags_a_note_and_a_thumb_are_kept_and_found(page, logs):
    row = page.locator(".run-item", has_text="is failed")
    row.get_by_role("button", name="Thumb up").click()
    row.locator(".thumb-up[aria-pressed=true]").wait_for()
    row.get_by_role("button", name="Tags and note").click()
    row.get_by_label("Tags, separated by commas").fill("odd, <b>bold</b>")
    row.get_by_label("Note").fill("Look <i>again</i>.")
    row.get_by_role("button", name="Save").click()
    row.get_by_text("Look <i>again</i>.").wait_for()
    assert read_notes(logs)["failed"] == Notes(("odd", "<b>bold</b>"), "Look <i>again</i>.", "up")
    row.get_by_role("button", name="odd", exact=True).click()
    assert questions(shown(page, 1)) == ["failed"]
    shot(page, "viewer-list-notes")


def test_a_tag_that_cannot_be_says_so_and_keeps_what_was_written(page):
    row = page.locator(".run-item").first
    row.get_by_role("button", name="Tags and note").click()
    row.get_by_label("Tags, separated by commas").fill("x" * 61)
    row.get_by_role("button", name="Save").click()
    row.get_by_text("A tag has at most 60 characters").wait_for()
    assert row.get_by_label("Tags, separated by commas").input_value() == "x" * 61


def test_what_is_being_written_stays_while_runs_come_in(page, logs):
    row = page.locator(".run-item").first
    row.get_by_role("button", name="Tags and note").click()
    row.get_by_label("Note").fill("half a sent")
    long_logs.Story(logs / "new.jsonl")
    shown(page, 7)
    note = page.get_by_label("Note")
    assert note.input_value() == "half a sent"
    assert note.evaluate("(one) => one.getRootNode().activeElement === one")


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 400)])
def test_many_runs_are_shown_in_parts_with_a_plot_and_axe_finds_nothing(open_page, served, logs, scheme, width):
    many_logs.make_folder(logs, 250)
    newest = max(logs.glob("*.jsonl"))
    annotate(newest, add_tags=["best"], note="A note.", thumb="down")
    page = shown(open_page(served, color_scheme=scheme, viewport={"width": width, "height": 900}), 100)
    page.get_by_text("Outcome, cost and time").click()
    page.locator(".runs-plot path.dots-answered").nth(2).wait_for(state="attached")
    page.get_by_text("Dates, cost, columns").click()
    page.get_by_role("button", name="Tags and note").first.click()
    assert page.locator(".runs-plot tbody tr").last.inner_text().startswith("all\t250")
    found = Axe().run(page).response["violations"]
    assert [(rule["id"], [node["html"][:200] for node in rule["nodes"]]) for rule in found] == []
    assert page.evaluate(NO_OVERFLOW)
    shot(page, f"viewer-list-{scheme}-{width}")
    page.get_by_role("button", name="Show 100 more of 250").click()
    shown(page, 200)
