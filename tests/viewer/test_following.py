"""A run under way is read on; a file that holds its log needs no server and no network."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect
from viewer import long_logs
from viewer.conftest import shot

from rlm_kernel.cli import main

AT_THE_END = "(one) => one.scrollHeight - one.scrollTop - one.clientHeight < 2"


def test_a_run_under_way_is_followed_to_its_end(open_page, served, logs):
    story = long_logs.Story(logs / "running.jsonl")
    long_logs.turn(story, 1, ["one", "two"])
    page = open_page(served)
    page.locator(".state-running").wait_for()
    page.locator(".run-row").click()
    page.get_by_role("heading", name="Turn 1").wait_for()
    assert page.locator(".kicker .state").inner_text() == "running"
    story.add(long_logs.events.IterationStarted, iteration=2)
    page.get_by_text("No reply yet.").wait_for()
    shot(page, "viewer-running")
    for iteration in range(2, 6):
        long_logs.turn(story, iteration, ["three", "four"])
        page.get_by_role("heading", name=f"Turn {iteration}").wait_for()
    page.locator(".scroller").evaluate_handle(
        f"async (one) => {{ while (!({AT_THE_END})(one)) await new Promise(requestAnimationFrame); }}"
    )
    cell = story.cell(6, "late = llm_query_batched(prompts)")
    prompts = tuple("abcdefgh")
    story.add(long_logs.events.SubcallStarted, kind="llm_query", cell=cell, query="q", model="small", prompts=prompts)
    page.get_by_text("0 of 8").wait_for()
    story.finish("done at last")
    page.locator(".kicker .state-answered").wait_for()
    assert page.locator(".outcome .passage").inner_text() == "done at last"
    assert page.get_by_role("button", name="Following").count() == 0


@pytest.mark.parametrize("change", ["cut", "written anew"])
def test_a_log_that_is_not_the_same_any_more_is_not_mixed_with_it(open_page, served, logs, change):
    path = logs / "running.jsonl"
    story = long_logs.Story(path)
    long_logs.turn(story, 1, ["one", "two"])
    page = open_page(f"{served}#running.jsonl")
    page.get_by_role("heading", name="Turn 1").wait_for()
    lines = path.read_bytes().splitlines(keepends=True)
    other = [lines[0].replace(b'"', b' "', 1), *lines[1:], *lines[1:]]
    path.write_bytes(b"".join(lines[:1] if change == "cut" else other))
    page.get_by_text("it was cut or written anew. Reload the page to see it.").wait_for()
    assert page.get_by_role("heading", name="Turn 1").count() == 1


def test_what_is_unfolded_stays_so_while_the_log_grows(open_page, served, logs):
    story = long_logs.Story(logs / "running.jsonl")
    story.ask(1, "Go.")
    cell = story.cell(1, "llm_query_batched(prompts)")
    fields = {"cell": cell, "query": "q", "model": "small"}
    story.add(long_logs.events.SubcallStarted, kind="llm_query", prompts=("first", "second"), **fields)
    page = open_page(f"{served}#running.jsonl")
    page.locator(".calls > summary").click()
    page.locator(".call > summary").nth(1).click()
    page.locator(".call > summary").nth(1).focus()
    usage = long_logs.Usage(1, 1)
    for index in (0, 1):
        story.add(
            long_logs.events.SubcallAnswered,
            index=index,
            prompt="",
            text=f"answer {index}",
            error=None,
            usage=usage,
            seconds=1,
            **fields,
        )
    page.locator(".call[open]").get_by_text("answer 1").last.wait_for()
    assert page.locator(".call[open]").count() == 1
    assert page.evaluate("document.activeElement.shadowRoot.activeElement.innerText").startswith("2")


def test_who_scrolls_away_is_not_pulled_back(open_page, served, logs):
    story = long_logs.Story(logs / "running.jsonl")
    for iteration in range(1, 8):
        long_logs.turn(story, iteration, ["one"])
    page = open_page(f"{served}#running.jsonl")
    page.get_by_role("button", name="Following").wait_for()
    page.keyboard.press("f")
    page.get_by_role("button", name="Follow", exact=True).wait_for()
    page.keyboard.press("f")
    page.get_by_role("button", name="Following").wait_for()
    page.locator("[data-go='2']").click()
    page.get_by_role("button", name="Follow", exact=True).wait_for()
    long_logs.turn(story, 8, ["one"])
    page.get_by_role("heading", name="Turn 8").wait_for()
    assert page.get_by_role("heading", name="Turn 3").evaluate("(one) => one.getBoundingClientRect().top") > 0


def test_a_line_that_is_half_written_is_read_when_it_is_whole(open_page, served, logs):
    log = long_logs.long_run(logs / "whole.jsonl", turns=3, calls=2)
    growing = logs / "growing.jsonl"
    content = log.read_bytes()
    middle = content.index(b'"iteration":2,"reply"') + 40
    growing.write_bytes(content[:middle])
    page = open_page(f"{served}#growing.jsonl")
    page.get_by_text("No reply yet.").wait_for()
    with growing.open("ab") as file:
        file.write(content[middle:])
    page.locator(".kicker .state-answered").wait_for()
    assert page.locator(".overview .note").count() == 0


def test_an_exported_page_needs_nothing_else(chromium, logs, tmp_path, capsys):
    log = long_logs.hostile_run(logs / "hostile run.jsonl", long=50_000)
    assert main(["view", "--export", str(tmp_path / "out" / "page.html"), str(log)]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/out/page.html\n"
    asked, said = [], []
    with chromium.new_page() as page:
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.context.set_offline(True)
        page.goto(f"file://{tmp_path}/out/page.html")
        page.get_by_role("heading", name="Turn 1").wait_for()
        assert page.title() == "hostile run · RLM runs"
        assert long_logs.HOSTILE[0] in page.locator(".question").inner_text()
        assert page.locator("#broken, img").count() == 0
        page.keyboard.press("/")
        page.keyboard.type("needle at the end")
        expect(page.locator(".hits li")).to_have_count(1)  # while the words are typed there may be more
        page.locator(".hits li").click()
        page.get_by_text("needle at the end").last.wait_for()
        shot(page, "viewer-export")
    assert asked == [f"file://{tmp_path}/out/page.html"]
    assert said == []
