"""The page in Chromium: large, foreign, cut and hostile logs, children, several logs, uploads."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pypdfium2
import pytest
from recorded_runs import record_file
from selection import mostly_full
from trajectory import runs
from viewer import long_logs
from viewer.conftest import shot
from viewer.long_logs import run_in
from viewer.reference_logs import reference_log

from rlm import RLM, ScriptedLM
from rlm.logger import RLMLogger
from rlm_kernel.trajectory.states import STATES
from rlm_kernel.viewer.folder import Folder
from rlm_kernel.viewer.log_source import log_source
from rlm_kernel.viewer.server import ViewerServer

PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
UNFOLD_ALL = """for (const one of document.querySelector('#rlm-viewer').shadowRoot
    .querySelectorAll('details:not([open]) > summary')) one.click()"""
NO_OVERFLOW = """document.documentElement.scrollWidth <= innerWidth &&
    [...document.querySelector('#rlm-viewer').shadowRoot.querySelectorAll('.scroller')]
        .every((one) => one.scrollWidth <= one.clientWidth)"""


@pytest.mark.parametrize("scheme", mostly_full(["light", "dark"], "dark"))
def test_a_run_of_600_sub_calls_shows_all_of_them(open_page, served, long_log, scheme):
    page = open_page(f"{served}#long.jsonl", color_scheme=scheme)
    page.get_by_role("heading", name="Turn 30").wait_for()
    print(f"first paint after {page.evaluate(PAINT):.0f} ms")
    assert page.locator(".facts").inner_text().split("\n") == [
        "Time", "1 min 15 s", "Turns", "30 of 30", "Cells", "30", "Model calls", "629", "Sub-calls", "600",
        "Tokens", "914k", "Cost", "$0.2997",
    ]  # fmt: skip
    assert "30 turns, 914,426 tokens" in page.get_by_role("img", name="Over 1 min").get_attribute("aria-label")
    shot(page, f"viewer-run-{scheme}")
    for turn in range(30):
        page.locator(f"[data-card='{turn}'] .calls > summary").click()
    assert page.locator("details.call").count() == 600
    page.locator("[data-card='4'] details.call > summary").nth(3).click()
    page.get_by_text("The provider failed: 503").last.wait_for()
    page.locator("[data-card='4']").scroll_into_view_if_needed()
    shot(page, f"viewer-calls-{scheme}")
    page.locator("[data-card='4']").get_by_label("Only failed prompts").check()
    assert page.locator("[data-card='4'] details.call").count() == 1
    page.locator("[data-go='29']").click()
    shot(page, f"viewer-outputs-{scheme}")
    width = page.get_by_role("img", name="Picture: <Figure").evaluate(
        "(one) => one.decode().then(() => one.naturalWidth)"
    )
    assert width == 500


def test_the_list_shows_what_each_run_was(open_page, served, logs, long_log):
    reference_log(logs / "reference.jsonl")
    story = long_logs.Story(logs / "failed.jsonl", question="Will it fail?")
    story.add(long_logs.events.RunFailed, error=ValueError("the model is gone"))
    page = open_page(served)
    page.locator(".run-row").nth(2).wait_for()
    rows = [row.split("\n") for row in page.locator(".run-row").all_inner_texts()]
    told = {row[2]: (row[0], row[3]) for row in rows}
    assert told["Will it fail?"] == ("failed", "ValueError: the model is gone")
    assert told[long_logs.QUESTION][0] == "answered"
    assert told["And again?"] == ("answered", "Forty-two")
    shot(page, "viewer-list")
    long_logs.long_run(logs / "new.jsonl", turns=2)
    page.locator(".run-row").nth(3).wait_for()


def test_a_log_of_the_reference_opens_with_both_runs_and_the_child(open_page, served, logs):
    reference_log(logs / "reference.jsonl")
    page = open_page(f"{served}#reference.jsonl")
    page.get_by_role("heading", name="Turn 3").wait_for()
    print(f"first paint after {page.evaluate(PAINT):.0f} ms")
    assert page.locator(".question").inner_text() == "What is the answer?"
    assert page.locator(".outcome .passage").inner_text() == "Forty-two"
    assert "does not record the usage of the root model" in page.locator(".overview").inner_text()
    assert page.locator("[data-card='0'] .badge.bad").inner_text() == "raised"
    page.locator("[data-card='0'] .calls > summary").click()
    assert page.locator("[data-card='0'] details.call").count() == 5
    shot(page, "viewer-reference")
    page.locator(".outline-child").click()
    assert page.locator(".question").inner_text() == "Count them"
    assert page.locator(".crumbs").inner_text().split("\n")[-1] == "Child of cell 3"
    page.get_by_label("Run of this log").select_option(label="Run 2 of 2: And again?")
    assert page.locator(".question").inner_text() == "And again?"


def test_a_real_run_with_a_batch_a_child_a_tool_and_an_error(open_page, served, logs):
    _, path = runs.run(logs)
    page = open_page(f"{served}#{path.rsplit('/', 1)[-1]}")
    page.get_by_role("heading", name="Turn 7").wait_for()
    assert page.locator("[data-card='2'] .passage-error .ansi-1").nth(1).inner_text() == "NameError"
    page.locator("[data-card='1'] .calls > summary").click()
    assert page.locator("[data-card='1'] details.call").count() == 100
    page.get_by_role("button", name="Show 100 more of 200").click()
    assert page.locator("[data-card='1'] details.call").count() == 200
    assert page.locator("[data-card='4'] .tool-call").inner_text() == "add(2, 3)"
    page.locator("[data-card='3'] .calls > summary").click()
    page.locator("[data-card='3'] details.call > summary").click()
    page.get_by_role("button", name="Open the child's run (2 turns)").click()
    assert page.locator(".question").inner_text() == "a child's input"
    assert page.locator(".outcome .passage").inner_text() == "ASKED BY THE CHILD (1)"
    page.get_by_role("button", name="The run").click()
    assert page.locator(".question").inner_text() == "What is there?"


def test_what_children_and_theirs_ask_is_counted_once_and_by_model(open_page, served, logs):
    root = ScriptedLM([runs.cell("x = rlm_query('a child', model='sub')"), "FINAL_VAR(x)"], model="root")
    below = [runs.cell("y = rlm_query('a grandchild')"), runs.cell("z = llm_query('a leaf')"), "a long leaf " * 90]
    sub = ScriptedLM([*below, "FINAL_VAR(z)", "FINAL_VAR(y)"], model="sub")
    logger = RLMLogger(logs)
    with RLM(root, other_backends=[sub], max_depth=3, logger=logger) as rlm:
        usage = rlm.completion("the context", "What is there?").usage_summary
    lines = record_file(logger).read_text().splitlines(keepends=True)
    (logs / "under-way.jsonl").write_text("".join(line for line in lines if '"type":"finished"' not in line[:40]))
    page = open_page(f"{served}#under-way.jsonl")
    page.get_by_text("Usage by model").click()
    rows = page.get_by_role("region", name="Usage by model").locator("tbody tr").all_inner_texts()
    models = [
        [name, f"{model.total_calls:,}", f"{model.total_input_tokens:,}", f"{model.total_output_tokens:,}"]
        for name, model in usage.model_usage_summaries.items()
    ]
    assert [row.split("\t")[:4] for row in rows] == models
    assert page.get_by_text("tokens, sub-calls").count() == 1


def test_what_the_setup_asks_is_read_and_counted(open_page, served, logs):
    setup = {"setup_code": "known = llm_query('first')"}
    root, sub = ScriptedLM([runs.cell("FINAL(known)")], model="root"), ScriptedLM("an answer", model="sub")
    with RLM(root, other_backends=[sub], environment_kwargs=setup, logger=RLMLogger(logs, "setup")) as rlm:
        rlm.completion("the context", "What is there?")
    (whole,) = logs.glob("setup*.events.jsonl")
    lines = whole.read_text().splitlines(keepends=True)
    (logs / "under-way.jsonl").write_text("".join(line for line in lines if '"type":"finished"' not in line[:40]))
    page = open_page(f"{served}#under-way.jsonl")
    page.get_by_text("Usage by model").click()
    rows = page.get_by_role("region", name="Usage by model").locator("tbody tr").all_inner_texts()
    assert sorted(row.split("\t")[0] for row in rows) == ["root", "sub"]
    assert page.get_by_text("could not be read").count() == 0


def test_the_result_of_a_completion_shows_the_same_run(open_page, served, logs):
    models = runs.Models()
    with RLM(**runs.arguments(models), max_depth=2, logger=RLMLogger()) as rlm:
        result = rlm.completion(runs.CONTEXT, "What is there?")
    (logs / "result.jsonl").write_bytes(log_source(result).content)
    page = open_page(f"{served}#result.jsonl")
    page.get_by_role("heading", name="Turn 7").wait_for()
    assert page.locator(".question").inner_text() == "What is there?"
    assert page.locator(".outcome .passage").inner_text() == result.response
    figures = dict(zip(*[iter(page.locator(".facts").inner_text().split("\n"))] * 2, strict=True))
    assert (figures["Sub-calls"], figures["Children"]) == ("205", "1")  # one is a child's
    assert figures["Model calls"] == str(result.usage_summary.total_calls)
    page.get_by_text("Usage by model").click()
    rows = page.get_by_role("region", name="Usage by model").locator("tbody tr").all_inner_texts()
    total = result.usage_summary.model_usage_summaries["root"].total_input_tokens
    assert rows[0].split("\t")[:3] == ["root", "7", f"{total:,}"]
    page.locator(".outline-child").click()
    assert page.locator(".question").inner_text() == "a child's input"


def test_hostile_texts_are_shown_as_text(open_page, served, logs):
    long_logs.hostile_run(logs / "hostile.jsonl")
    page = open_page(f"{served}#hostile.jsonl")
    page.get_by_role("heading", name="Turn 1").wait_for()
    page.locator("[data-card='0'] .calls > summary").click()
    for row in page.locator("details.call > summary").all():
        row.click()
    for fold in page.locator("details.source > summary").all():
        fold.click()
    shot(page, "viewer-hostile")
    shown = page.locator(".viewer").inner_text()
    for text in long_logs.HOSTILE[:3]:
        assert shown.count(text) > 5
    assert page.title() == "hostile.jsonl · RLM runs"
    assert page.locator(".viewer").locator("script, iframe, object, #broken, [onerror], [onclick], img").count() == 0
    assert "user\\u202egnp.exe" in shown
    assert "\u202e" not in shown
    assert "null \\x00 bell \\x07" in shown
    assert "\x1b" not in shown
    assert page.locator(".passage-stdout .ansi-bold.ansi-1").first.inner_text() == "red"


def test_10_mb_in_a_line_open_bit_by_bit_and_are_searched(open_page, served, logs):
    long_logs.hostile_run(logs / "hostile.jsonl")
    page = open_page(f"{served}#hostile.jsonl")
    page.get_by_role("button", name="Show 100,000 more characters").first.click()
    page.get_by_text("of 10,000,018").wait_for()
    assert page.locator(".passage-stdout").nth(1).evaluate("(one) => one.textContent.length") == 104_000
    page.get_by_label("Search this run").fill("needle at the end")
    page.get_by_role("option").first.click()
    assert page.locator(".passage-stdout").nth(1).inner_text().endswith("needle at the end")
    page.get_by_text("characters 9,998,001 to 10,000,018 of 10,000,018").wait_for()


def test_a_log_that_was_cut_or_damaged_opens(open_page, served, logs):
    log = long_logs.long_run(logs / "cut.jsonl", turns=4, calls=2)
    whole = log.read_bytes().splitlines(keepends=True)
    odd = [
        b"not json\n",
        b"[1]\n",
        b'{"type": "answer", "cell": 99}\n',
        b'{"type": "of the future", "x": 1}\n',
        b"\xff\xfe\n",
    ]
    log.write_bytes(b"".join([*whole[:5], *odd, *whole[5:20], whole[20][:-10]]))
    page = open_page(f"{served}#cut.jsonl")
    page.get_by_role("heading", name="Turn 2").wait_for()
    overview = page.locator(".overview").inner_text()
    assert "Line 6 could not be read and is left out" in overview
    assert "running" in overview


@pytest.mark.parametrize("rate", mostly_full([0.01, 0.05, 0.15], 0.05))
def test_odd_values_anywhere_in_a_log_break_neither_the_list_nor_the_page(open_page, served, logs, rate):
    sources = [reference_log(logs / "1.jsonl"), long_logs.long_run(logs / "2.jsonl", turns=4, calls=3)]
    sources.append(Path(runs.run(logs)[1]))
    for seed in range(12):
        chance = random.Random(seed)
        lines = map(json.loads, sources[seed % 3].read_text().splitlines())
        odd = [json.dumps(long_logs.damaged(line, chance, rate)) for line in lines]
        (logs / f"odd-{seed}.jsonl").write_text("\n".join(odd) + "\n")
    page = open_page(served)
    page.locator(".run-row").nth(14).wait_for()
    for seed in range(12):
        page.goto(f"{served}#odd-{seed}.jsonl")
        page.locator(f".tab-current [title=odd-{seed}]").wait_for()
        page.locator(".overview").wait_for()
        for _ in range(2):
            page.evaluate(UNFOLD_ALL)
        page.keyboard.press("/")
        page.keyboard.type("e")
        page.locator(".hits-count:not(:empty)").wait_for()


def test_a_file_that_is_no_log_says_so(open_page, served, logs):
    (logs / "empty.jsonl").write_bytes(b"")
    page = open_page(f"{served}#empty.jsonl")
    page.get_by_text("empty.jsonl has no run yet.").wait_for()


def test_files_are_uploaded_and_dropped(open_page, served, tmp_path):
    one, other = (long_logs.long_run(tmp_path / f"{name}.jsonl", turns=3, calls=2) for name in ("one", "other"))
    page = open_page(served)
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Open a .jsonl").click()
    chooser.value.set_files(one)
    page.get_by_role("heading", name="Turn 3").wait_for()
    drop = """async ([name, text]) => {
        const data = new DataTransfer();
        data.items.add(new File([text], name));
        const host = document.querySelector('#rlm-viewer');
        const options = { dataTransfer: data, bubbles: true, cancelable: true };
        for (const type of ['dragover', 'drop']) host.dispatchEvent(new DragEvent(type, options));
    }"""
    page.evaluate(drop, [other.name, other.read_text()])
    page.get_by_role("button", name="other", exact=True).wait_for()
    assert page.locator("[aria-current=page]").inner_text() == "other"
    page.keyboard.press("[")
    assert page.locator("[aria-current=page]").inner_text() == "one"
    page.get_by_role("button", name="Close one").click()
    assert page.locator(".tab").count() == 1


def test_an_upload_does_not_stand_for_the_log_of_the_same_name(open_page, served, logs, tmp_path):
    upload = tmp_path / "same.jsonl"
    for path in (logs / "same.jsonl", upload):
        long_logs.Story(path, question=f"Which of {path.parent.name}?")
    page = open_page(served)
    page.locator("input[type=file]").set_input_files(upload)
    page.get_by_text(f"Which of {tmp_path.name}?").wait_for()
    for _ in range(2):
        page.get_by_role("button", name="Runs").click()
        page.locator(".run-row").click()
        page.get_by_text("Which of logs?").wait_for()
    assert page.locator(".tab").count() == 2


def test_the_list_stays_where_it_was_scrolled_to_while_a_run_writes(open_page, served, logs):
    running = long_logs.Story(logs / "running.jsonl", question="Still running?")
    for number in range(30):
        long_logs.Story(logs / f"{number}.jsonl")
    page = open_page(served)
    page.locator(".run-row").nth(30).wait_for()
    page.locator(".scroller").evaluate("(one) => (one.scrollTop = 800)")
    row = page.locator("[data-name='15.jsonl']")
    seen = row.bounding_box()
    running.finish("done at last")
    page.get_by_text("done at last").wait_for()
    assert row.bounding_box()["y"] == pytest.approx(seen["y"], abs=2)


def test_an_upload_that_was_cut_says_where_it_ends(open_page, served, tmp_path):
    log = long_logs.long_run(tmp_path / "cut.jsonl", turns=3, calls=2)
    log.write_bytes(log.read_bytes()[:-300])
    page = open_page(served)
    page.locator("input[type=file]").set_input_files(log)
    page.get_by_text("The last line of the log is incomplete").wait_for()
    assert page.locator(".state").first.inner_text() == "lost"


@pytest.mark.parametrize("width", [360, 700, 1600])
def test_it_fits_screens_of_every_width(open_page, served, long_log, width):
    page = open_page(f"{served}#long.jsonl", viewport={"width": width, "height": 800})
    page.get_by_role("heading", name="Turn 30").wait_for()
    page.locator("[data-card='0'] .calls > summary").click()
    page.locator("details.call > summary").first.click()
    shot(page, f"viewer-{width}")
    assert page.evaluate(NO_OVERFLOW)


def test_the_back_button_leads_back_to_the_list(open_page, served, long_log):
    page = open_page(served)
    page.locator(".run-row").click()
    page.get_by_role("heading", name="Turn 30").wait_for()
    page.go_back()
    page.get_by_role("heading", name="Runs").wait_for()
    page.go_forward()
    page.get_by_role("heading", name="Turn 30").wait_for()


def test_a_server_that_is_gone_is_told(chromium, logs, long_log):
    with ViewerServer(Folder(logs), 0) as server, chromium.new_page() as page:
        page.goto(server.url)
        page.locator(".run-row").wait_for()
        server.close()
        page.get_by_role("alert").get_by_text("start `rlm view` again").wait_for()
        assert page.locator(".run-row").count() == 1


def test_a_state_has_one_name_in_the_list_and_on_the_page(open_page, served, logs):
    for state in STATES:
        run_in(state, logs / f"{state}.jsonl")
    page = open_page(served)
    page.locator(".run-row").nth(len(STATES) - 1).wait_for()
    rows = {row.split("\n")[2]: row.split("\n")[0] for row in page.locator(".run-row").all_inner_texts()}
    assert rows == {f"A run that is {state}?": state for state in STATES}
    for state in STATES:
        page.goto(f"{served}#{state}.jsonl")
        page.locator(f".tab-current [title={state}]").wait_for()
        assert page.locator(".state").first.inner_text() == state


def test_a_stopped_run_says_so_and_its_running_cell_is_in_the_timeline(open_page, served, logs):
    run_in("stopped", logs / "run.jsonl")
    page = open_page(f"{served}#run.jsonl")
    page.get_by_text("The run was stopped before it had an answer.").wait_for()
    assert page.locator(".outcome .label").inner_text() == "Stopped"
    assert page.get_by_text("CancelledError").count() == 0
    assert page.locator("[data-card='1'] .cell-side .badge").inner_text() == "stopped"
    shot(page, "viewer-stopped")
    bar = page.locator("rect.fill-cell.fill-open")
    assert bar.locator("title").text_content() == "Cell 2: stopped"
    assert bar.bounding_box()["width"] > 100  # four of the nine seconds


def test_a_printed_run_fits_the_paper_and_ends_with_its_answer(open_page, served, logs, tmp_path):
    story = long_logs.Story(logs / "run.jsonl")
    long_logs.turn(story, 1, ["one", "two"])
    code = f"names = [{', '.join(repr(f'contract {number}') for number in range(16))}]"
    story.ask(2, f"```repl\n{code}\n```")
    story.result(2, story.cell(2, code), code, [long_logs.stream("wide " * 40)])
    story.finish_turn(2, "The last words.")
    page = open_page(f"{served}#run.jsonl", color_scheme="dark")
    page.get_by_role("heading", name="Turn 2").wait_for()
    paper = pypdfium2.PdfDocument(page.pdf(format="A4", path=tmp_path / "run.pdf"))
    texts = [sheet.get_textpage() for sheet in paper]
    words = " ".join(text.get_text_range() for text in texts)
    assert "The last words." in words
    assert "contract 15" in " ".join(words.split())
    ends = [text.get_rect(number)[2] for text in texts for number in range(text.count_rects())]
    assert max(ends) < paper[0].get_width()
    picture = paper[len(paper) - 1].render(scale=0.1).to_pil()
    assert picture.getpixel((picture.width - 1, picture.height - 1)) == (255, 255, 255)
