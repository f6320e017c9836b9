"""Addresses of a turn, a cell, a sub-call and a child; Back that goes back; the outline on a narrow page."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from viewer import long_logs
from viewer.conftest import shot
from viewer.reference_logs import reference_log

from rlm_kernel.cli import main

FOCUS = "document.querySelector('#rlm-viewer').shadowRoot.activeElement.innerText.split('\\n')[0]"
IN_VIEW = """(one) => {
    const [box, view] = [one.getBoundingClientRect(), one.closest('.scroller').getBoundingClientRect()];
    return box.top >= view.top - 1 && box.top < view.bottom;
}"""

ROOT = "document.querySelector('#rlm-viewer').shadowRoot"


def until(page, condition):
    page.evaluate(f"(async () => {{ while (!({condition})) await new Promise(requestAnimationFrame); }})()")


@pytest.mark.parametrize(
    ("query", "selector", "focused"),
    [
        ("turn=12", "[data-turn='11']", "Turn 12"),
        ("turn=12&cell=12", "[data-cell='turn 11/cell 12']", "20 sub-calls"),
        ("cell=12&call=19", "[data-card='11'] .call[open]", "19"),
    ],
)
def test_an_address_shows_a_turn_a_cell_or_a_sub_call(open_page, served, long_log, query, selector, focused):
    page = open_page(f"{served}#long.jsonl?{query}")
    page.locator(selector).wait_for()
    until(page, f"{FOCUS} === '{focused}'")
    assert page.locator(selector).evaluate(IN_VIEW)


def test_links_name_what_they_stand_at(open_page, served, long_log):
    page = open_page(f"{served}#long.jsonl")
    page.get_by_role("link", name="Link to turn 3", exact=True).click()
    assert page.url.endswith("#long.jsonl?turn=3")
    page.get_by_role("link", name="Link to cell 5", exact=True).click()
    assert page.url.endswith("#long.jsonl?turn=5&cell=5")
    page.locator("[data-card='4'] .calls > summary").click()
    page.locator("[data-card='4'] .call > summary").nth(7).click()
    page.get_by_role("link", name="Link to sub-call 8").click()
    assert page.url.endswith("#long.jsonl?turn=5&cell=5&call=8")
    page.locator("[data-card='4'] .call[open]").wait_for()


def test_back_goes_back_to_where_the_page_was(open_page, served, long_log):
    page = open_page(f"{served}#long.jsonl")
    page.get_by_role("heading", name="Turn 30").wait_for()
    scrolled = f"{ROOT}.querySelector('.scroller').scrollTop"
    page.locator(".scroller").evaluate("(one) => { one.scrollTop = 2500; }")
    until(page, "history.state?.spot.turn >= 0")
    before = page.evaluate("history.state.spot.turn")
    page.locator("[data-go='20']").click()
    page.get_by_role("heading", name="Turn 21").wait_for()
    assert page.url.endswith("?turn=21")
    page.go_back()
    until(page, f"{scrolled} === 2500 && history.state.spot.turn === {before}")
    page.go_forward()
    until(page, f"({IN_VIEW})({ROOT}.querySelector('[data-turn=\"20\"]'))")


def test_a_child_has_an_address_and_both_ways_back_lead_to_where_its_parent_was(open_page, served, logs):
    reference_log(logs / "reference.jsonl")
    page = open_page(f"{served}#reference.jsonl?child=3.1", viewport={"width": 1280, "height": 400})
    page.get_by_text("Count them").first.wait_for()
    assert page.locator(".crumbs").inner_text().split("\n")[-1] == "Child of cell 3"
    page.keyboard.press("Escape")
    assert page.locator(".question").inner_text() == "What is the answer?"
    page.locator(".scroller").evaluate("(one) => { one.scrollTop = 500; }")
    until(page, "history.state?.spot")
    for way in (page.go_back, lambda: page.keyboard.press("Escape")):
        page.locator(".outline-child").click()
        page.get_by_text("Child of cell 3").wait_for()
        assert page.url.endswith("#reference.jsonl?child=3.1")
        way()
        until(page, f"{ROOT}.querySelector('.question').innerText === 'What is the answer?'")
        until(page, f"{ROOT}.querySelector('.scroller').scrollTop === 500")


def test_a_place_that_is_written_later_is_waited_for_and_one_that_never_comes_is_said(open_page, served, logs):
    story = long_logs.Story(logs / "running.jsonl")
    long_logs.turn(story, 1, ["one"])
    page = open_page(f"{served}#running.jsonl?turn=2&cell=2")
    page.get_by_role("heading", name="Turn 1").wait_for()
    long_logs.turn(story, 2, ["two"])
    until(page, f"{FOCUS} === '1 sub-call'")
    story.finish()
    page.goto(f"{served}#running.jsonl?turn=9")
    page.get_by_role("alert").get_by_text("no such place").wait_for()
    page.goto(f"{served}#running.jsonl?child=%00.x&call=999999999999&cell=</script>")
    page.get_by_role("alert").wait_for()


def test_an_exported_page_has_addresses_too(open_page, long_log, tmp_path, capsys):
    assert main(["view", "--export", str(tmp_path / "page.html"), str(long_log)]) == 0
    page = open_page(f"file://{tmp_path}/page.html#long.jsonl?turn=12")
    until(page, f"{FOCUS} === 'Turn 12'")
    page.locator("[data-go='3']").click()
    page.go_back()
    until(page, "location.hash.endsWith('turn=12')")


def test_an_upload_is_gone_back_to(open_page, served, tmp_path):
    log = long_logs.long_run(tmp_path / "one.jsonl", turns=3, calls=2)
    page = open_page(served)
    page.locator("input[type=file]").set_input_files(log)
    page.locator("[data-go='2']").click()
    assert page.url.endswith("#?upload=1&turn=3")
    page.go_back()
    page.go_back()
    page.get_by_role("heading", name="Runs").wait_for()
    page.go_forward()
    page.get_by_role("heading", name="Turn 3").wait_for()


@pytest.mark.parametrize(("width", "height"), [(420, 800), (320, 256)])  # 1280 by 1024, magnified to 400 %
def test_the_tree_of_children_is_there_on_a_narrow_or_zoomed_page(open_page, served, logs, width, height):
    reference_log(logs / "reference.jsonl")
    page = open_page(f"{served}#reference.jsonl", viewport={"width": width, "height": height})
    page.locator("[data-go='2']").wait_for()
    assert not page.locator(".outline-child").is_visible()
    page.get_by_role("button", name="Outline").press("Enter")
    shot(page, f"viewer-outline-{width}")
    assert Axe().run(page).response["violations"] == []
    page.locator(".outline-child").press("Enter")
    page.get_by_text("Child of cell 3").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_all_children_of_a_turn_can_be_listed(open_page, served, logs):
    story = long_logs.Story(logs / "many.jsonl")
    story.ask(1, "Go.")
    cell = story.cell(1, "rlm_query_batched(prompts)")
    fields = {"cell": cell, "query": "q"}
    prompts = tuple(f"child {n}" for n in range(25))
    story.add(long_logs.events.SubcallStarted, kind="rlm_query", model="m", prompts=prompts, **fields)
    for index in range(25):
        inner = long_logs.events.RunStarted(
            time=0, model="m", sub_model="m", question=f"child {index}", environment="local", context_type="str",
            context_length=1, max_iterations=3,
        )  # fmt: skip
        story.add(long_logs.events.ChildEvent, index=index, event=inner, **fields)
    page = open_page(f"{served}#many.jsonl")
    page.get_by_role("button", name="and 5 more").click()
    assert page.locator(".outline-child").count() == 25
    assert page.evaluate(FOCUS) == "↳ child 20"
    page.goto(f"{served}#many.jsonl?child=1.25")
    page.get_by_text("Child of cell 1, prompt 25").wait_for()


def test_a_batch_of_sub_calls_says_how_long_it_will_take(open_page, served, logs):
    story = long_logs.Story(logs / "running.jsonl")
    story.ask(1, "Go.")
    cell = story.cell(1, "llm_query_batched(prompts)")
    fields = {"cell": cell, "query": "q", "model": "small"}
    story.add(long_logs.events.SubcallStarted, kind="llm_query", prompts=tuple("abcdefgh"), **fields)
    page = open_page(f"{served}#running.jsonl")
    page.get_by_text("0 of 8", exact=True).wait_for()
    for index in range(2):
        usage = long_logs.Usage(1, 1)
        answer = {"prompt": "", "text": "x", "error": None, "usage": usage, "seconds": 5}
        story.add(long_logs.events.SubcallAnswered, 5.0, index=index, **fields, **answer)
    page.get_by_text("2 of 8, about 30 s left").wait_for()
