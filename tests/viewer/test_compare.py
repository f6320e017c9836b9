"""Two runs side by side: from the list, from `rlm diff --web`, in the widget."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys

import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect
from viewer import long_logs
from viewer.conftest import printed, shot
from viewer.reference_logs import reference_log

import rlm
from rlm_kernel.cli import main
from rlm_kernel.viewer.folder import Pair

COUNT = "import re\npages = context.split('\\f')\nshort = [p for p in pages if {}]\nprint(len(short))"
CHECK = "print(short[:2])"


def cell(story, iteration, code, output):
    story.ask(iteration, f"A cell.\n\n```repl\n{code}\n```")
    number = story.cell(iteration, code)
    story.result(iteration, number, code, [long_logs.stream(output)])
    story.finish_turn(iteration)


def first(path):
    story = long_logs.Story(path)
    long_logs.turn(story, 1, ["one", "two"])
    cell(story, 2, COUNT.format("'30 days' in p"), "41\n")
    long_logs.turn(story, 3, ["Contract 1?", "Contract 2?"])
    long_logs.last_turn(story, 4, 3)
    story.finish("**41** contracts.\nThe dearest is 217.")
    return path


def second(path):
    """The same with another line in turn 2, a turn more after it, and another answer to a sub-call."""
    story = long_logs.Story(path)
    long_logs.turn(story, 1, ["one", "two"])
    cell(story, 2, COUNT.format("re.search('30 +days', p)"), "43\n")
    cell(story, 3, CHECK, "['a', 'b']\n")
    code = "pages = context.split('\\f')[60:80]\nfound = llm_query_batched([ask(p) for p in pages])\n"
    code += "print(len(found), sum('30' in f for f in found))  # how many are short"
    story.ask(4, f"I read the next twenty contracts, from 60.\n\n```repl\n{code}\n```")
    number = story.cell(4, code)
    prompts = ["Contract 1?", "Contract 2?"]
    story.batch(number, prompts, answer=lambda p: "Never." if "2" in p else f"Notice period: 30 days. ({p[:20]})")
    story.result(4, number, code, [long_logs.stream("2 3\n")])
    story.finish_turn(4)
    long_logs.last_turn(story, 5, 3)
    story.finish("**43** contracts.\nThe dearest is 217.")
    return path


@pytest.fixture
def both(logs):
    return first(logs / "one.jsonl"), second(logs / "other.jsonl")


def rows(page):
    page.locator(".row-pair").nth(4).wait_for()
    heads = page.locator(".row-pair > .turn-head")
    return [re.sub(r"\s+", " ", head.replace("\n", " ")).strip() for head in heads.all_inner_texts()]


def test_turns_are_aligned_and_what_differs_is_named(open_page, served, both):
    page = open_page(f"{served}#one.jsonl?with=other.jsonl")
    assert rows(page) == [
        "Turn 1 the same",
        "Turn 2 code output",
        "Turn 3, only in B",
        "Turn 3 of A, turn 4 of B calls cost",
        "Turn 4 of A, turn 5 of B cost",
    ]
    shot(page, "compare")
    turn = page.locator(".row-pair").nth(1)
    assert turn.locator(".part-0").all_inner_texts() == ["short = [p for p in pages if '30 days' in p]", "41"]
    assert turn.locator(".part-1").all_inner_texts() == ["short = [p for p in pages if re.search('30 +days', p)]", "43"]
    assert "print(len(short))" in turn.locator(".part-both").all_inner_texts()
    calls = page.locator(".row-pair").nth(3).locator(".calls > summary")
    assert calls.inner_text().split("\n") == ["2 sub-calls", "1 differ"]
    calls.click()
    assert page.locator(".call .part-1").inner_text() == "Never."
    figures = dict(row.split("\t", 1) for row in page.locator("tbody tr").all_inner_texts())
    assert figures["Turns"] == "4\t5\t+1, +25 %"
    assert figures["Cost"].startswith("$0.0")
    answer = page.locator(".titled").filter(has_text="Answer").first
    assert answer.locator(".part-both").inner_text() == "The dearest is 217."


def test_two_runs_of_the_list_are_chosen_by_mouse_or_by_key(open_page, served, both):
    page = open_page(served)
    page.get_by_label("Compare other.jsonl").check()
    assert page.get_by_role("button", name="choose one more").is_disabled()
    page.get_by_label("Compare one.jsonl").check()
    page.get_by_role("button", name="Compare the two").click()
    assert rows(page)[0] == "Turn 1 the same"
    assert page.locator(".side-name").all_inner_texts() == ["one", "other"]  # the older one first
    page.go_back()
    page.get_by_role("heading", name="Runs").wait_for()
    page.get_by_label("Compare one.jsonl").uncheck()
    page.locator("[data-name='one.jsonl']").focus()
    page.keyboard.press("x")
    page.keyboard.press("c")
    assert rows(page)[0] == "Turn 1 the same"
    assert page.locator(".tab").count() == 1
    page.get_by_role("button", name="other", exact=True).click()
    page.get_by_role("heading", name="Turn 5").wait_for()


def test_the_comparison_is_read_without_a_mouse(open_page, served, both):
    page = open_page(f"{served}#one.jsonl?with=other.jsonl")
    rows(page)
    focus = "document.querySelector('#rlm-viewer').shadowRoot.activeElement.innerText.split('\\n')[0]"
    page.keyboard.press("j")
    assert page.evaluate(focus) == "Turn 1"
    page.keyboard.press("ArrowDown")
    assert page.evaluate(focus) == "Show what both did"
    page.keyboard.press("ArrowRight")
    assert page.locator(".row-pair").first.locator(".passage-code").count() == 1
    page.keyboard.press("Escape")
    page.get_by_role("heading", name="Runs").wait_for()


@pytest.mark.parametrize("kind", ["compare", "run"])
def test_it_is_printed_whole_on_a4(open_page, served, both, kind):
    address = "#one.jsonl?with=other.jsonl" if kind == "compare" else "#other.jsonl"
    page = open_page(f"{served}{address}", color_scheme="dark")
    page.get_by_role("heading", name="turn 5").wait_for()
    texts = [sheet.get_textpage() for sheet in printed(page, f"viewer-{kind}")]
    words = " ".join(text.get_text_range() for text in texts)
    assert "table.groupby" in words or "Turn 4 of A, turn 5 of B" in words
    assert max(text.get_rect(place)[2] for text in texts for place in range(text.count_rects())) < 595  # points


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 400)])
def test_axe_finds_nothing_wrong_in_a_comparison(open_page, served, logs, both, scheme, width):
    long_logs.hostile_run(logs / "hostile.jsonl", long=1000)
    page = open_page(
        f"{served}#one.jsonl?with=other.jsonl", color_scheme=scheme, viewport={"width": width, "height": 900}
    )
    rows(page)
    for summary in page.locator("details > summary").all():
        summary.click()
    assert Axe().run(page).response["violations"] == []
    shot(page, f"compare-{scheme}-{width}")
    page.goto(f"{served}#one.jsonl?with=hostile.jsonl")
    page.locator(".row-pair").nth(3).wait_for()
    assert Axe().run(page).response["violations"] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_hostile_runs_are_compared_as_text(open_page, served, logs, both):
    long_logs.hostile_run(logs / "hostile.jsonl", long=1_000_000)
    reference_log(logs / "reference.jsonl")
    page = open_page(f"{served}#hostile.jsonl?with=reference.jsonl")
    page.locator(".row-pair").nth(2).wait_for()
    for summary in page.locator("details > summary").all():
        summary.click()
    assert page.locator(".viewer").locator("script, iframe, object, #broken, [onerror], [onclick], img").count() == 0
    assert "\u202e" not in page.locator(".viewer").inner_text()


def test_equal_runs_do_the_same(open_page, served, logs):
    first(logs / "one.jsonl")
    first(logs / "again.jsonl")
    page = open_page(f"{served}#one.jsonl?with=again.jsonl")
    page.get_by_text("All 4 turns do the same.").wait_for()
    assert page.locator(".part-0, .part-1").count() == 0


def test_a_run_in_progress_is_compared_as_far_as_it_is(open_page, served, logs, both):
    story = long_logs.Story(logs / "running.jsonl")
    page = open_page(f"{served}#one.jsonl?with=running.jsonl")
    page.get_by_text("Turn 1, only in A").wait_for()
    long_logs.turn(story, 1, ["one", "two"])
    page.get_by_text("1 of 4 turns do the same").wait_for()


def test_a_log_that_is_not_there_is_named(open_page, served, both):
    page = open_page("about:blank")
    page.route("**/logs/missing.jsonl*", lambda route: route.fulfill(status=200, body=""))
    page.goto(f"{served}#one.jsonl?with=missing.jsonl")
    page.get_by_text("missing.jsonl has no run yet.").wait_for()


def test_diff_web_shows_logs_of_two_folders_side_by_side(open_page, tmp_path):
    paths = [tmp_path / name / "run.jsonl" for name in ("a", "b")]
    for path, write in zip(paths, (first, second), strict=True):
        path.parent.mkdir()
        write(path)
    command = [sys.executable, "-m", "rlm_kernel.cli", "diff", "--web", "--no-browser", *map(str, paths)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            page = open_page(server.stdout.readline().strip())
            assert rows(page)[1] == "Turn 2 code output"
            assert page.locator(".side-name").all_inner_texts() == ["a/run", "b/run"]
            page.get_by_role("button", name="Runs").click()
            page.locator(".run-row").nth(1).wait_for()
        finally:
            server.send_signal(signal.SIGINT)
        assert server.wait(20) == 0


def test_two_children_are_chosen_in_the_tree_and_compared(open_page, served, logs):
    long_logs.run_with_children(logs / "family.jsonl")
    page = open_page(f"{served}#family.jsonl")
    page.get_by_label("Compare Child of cell 1, prompt 1").check()
    assert page.get_by_role("button", name="choose one more").is_disabled()
    page.get_by_role("button", name="↳ A plan for research").focus()
    page.keyboard.press("x")
    shot(page, "viewer-children-chosen")
    page.keyboard.press("c")
    page.locator(".row-pair").nth(1).wait_for()
    assert page.url.endswith("#family.jsonl?child=1.1&with=family.jsonl&with-child=1.2")
    assert page.locator(".side-name").all_inner_texts() == ["family · child 1.1", "family · child 1.2"]
    expect(page.locator(".part-1").first).to_have_text(re.compile(r"^Plan 1"))
    assert page.locator(".part-both").first.inner_text() == "buy paper"
    shot(page, "viewer-children-compared")
    page.get_by_role("button", name="family · child 1.2", exact=True).click()
    expect(page.locator(".crumbs [aria-current]")).to_have_text("Child of cell 1, prompt 2")
    assert page.url.endswith("#family.jsonl?child=1.2")
    page.go_back()
    page.locator(".row-pair").nth(1).wait_for()
    page.reload()
    page.locator(".row-pair").nth(1).wait_for()
    assert page.locator(".side-name").all_inner_texts() == ["family · child 1.1", "family · child 1.2"]


def test_a_child_is_compared_with_a_run_of_another_log(open_page, served, logs, both):
    long_logs.run_with_children(logs / "family.jsonl")
    page = open_page(f"{served}#family.jsonl?child=1.2", viewport={"width": 400, "height": 900})
    page.get_by_role("button", name="Outline").click()
    page.get_by_label("Compare this run").check()
    assert Axe().run(page).response["violations"] == []
    shot(page, "viewer-children-400")
    page.get_by_role("button", name="Runs").click()
    page.get_by_label("Compare one.jsonl").check()
    page.get_by_role("button", name="Compare the two").click()
    page.locator(".row-pair").nth(3).wait_for()
    assert page.url.endswith("#family.jsonl?child=1.2&with=one.jsonl")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_an_address_of_a_child_that_is_not_there_says_so(open_page, served, both):
    page = open_page(f"{served}#one.jsonl?child=9.9&with=other.jsonl")
    page.get_by_text("There is no one.jsonl · child 9.9.").wait_for()


def test_diff_web_and_the_widget_take_a_child(logs, monkeypatch, capsys):
    log = long_logs.run_with_children(logs / "family.jsonl")
    monkeypatch.setattr("rlm_kernel.cli.view.threading.Event.wait", interrupt)
    assert main(["diff", "--web", "--no-browser", f"{log}?child=1.1", f"{log}?child=1.2"]) == 0
    assert Pair(log, log, (["1.1"], ["1.2"])).fragment == "#family.jsonl?child=1.1&with=family.jsonl&with-child=1.2"
    assert main(["diff", "--web", f"{log}?child=first", str(log)]) == 2
    assert "LOG?child=3.1" in capsys.readouterr().err
    widget = rlm.view(f"{log}?child=1.1", log)
    assert (widget.names, widget.children) == (["family.jsonl", "family.jsonl"], [["1.1"], []])


def test_only_the_two_logs_are_served(both, logs):
    (logs / "secret.jsonl").write_text("")
    pair = Pair(*both)
    assert [log.name for log in pair.logs()] == ["one.jsonl", "other.jsonl"]
    assert pair.log("secret.jsonl") is None
    assert pair.fragment == "#one.jsonl?with=other.jsonl"
    assert Pair(both[0], both[0]).fragment == "#one.jsonl?with=one.jsonl"


def test_diff_web_needs_no_extra_and_names_what_is_missing(both, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "nbdime", None)
    monkeypatch.setattr("rlm_kernel.cli.view.threading.Event.wait", interrupt)
    assert main(["diff", "--web", "--no-browser", *map(str, both)]) == 0
    assert "?with=" not in capsys.readouterr().err
    assert main(["diff", "--web", str(both[0]), "missing.jsonl"]) == 2
    assert "no log 'missing.jsonl'" in capsys.readouterr().err


def interrupt(*_):
    raise KeyboardInterrupt


def test_the_widget_reads_both_logs(both, monkeypatch):
    widget = rlm.view(*both)
    sent = []
    monkeypatch.setattr(widget, "send", lambda content, buffers: sent.append((content, buffers[0])))
    for place in (0, 1, 2, -1):
        widget._answer(widget, {"from": 0, "log": place}, [])
    assert [content["log"] for content, _ in sent] == [0, 1]
    assert [piece for _, piece in sent] == [path.read_bytes() for path in both]
    data, _ = widget._repr_mimebundle_()
    assert data["text/html"].count("contracts can be ended") == 2
    assert data["text/plain"] == "The run one.jsonl and the run other.jsonl"
    assert nbformat.from_dict(json.loads(json.dumps(data)))
