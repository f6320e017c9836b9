"""`%%rlm` in a real JupyterLab: the view moves, Stop stops, and a notebook that is opened again shows the same.

RLM_SCREENSHOTS names a folder for what that looks like.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path

import nbformat
import pytest
from laboratory import IN_CHROMIUM, Tab, browser, lab, write

from rlm_kernel.clients.llamacpp.weights import QWEN_CODER, cache_folder, is_verified

pytest.importorskip("jupyterlab")
pytest.importorskip("ipywidgets")
pytestmark = [
    *IN_CHROMIUM,
]

MODELS = "%load_ext rlm_magics\nfrom scripted_models import endless, quick, reader, reports, slow"
ASK = "%%rlm -c reports -b {} --sub-backend reader -o best\nWhich month had the best sales?"


@pytest.fixture(scope="module")
def notebooks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebooks")
    shutil.copy(Path(__file__).with_name("scripted_models.py"), folder)
    write(folder / "best.ipynb", [MODELS, ASK.format("quick"), "print(best.partial, best.answer)"])
    write(folder / "stop.ipynb", [MODELS, ASK.format("endless"), "print(best.partial, best.answer, best.notebook)"])
    return folder


@pytest.fixture(scope="module")
def address(notebooks):
    with lab(notebooks) as address:
        yield address


@pytest.fixture(scope="module")
def chromium():
    with browser() as chromium:
        yield chromium


def test_the_view_moves_and_stays_when_the_notebook_is_opened_again(notebooks, address, chromium):
    tab = Tab(chromium, address, "best.ipynb")
    tab.ready()
    tab.run(0)
    tab.run(1)
    tab.says(1, re.compile(r"1/30 · the model"))
    tab.shot("1-the-model-reads")
    tab.says(1, re.compile(r"[1-9]\d*/40"))
    tab.shot("2-sub-calls")
    tab.says(1, "Answered")
    tab.says(1, "has the best sales")
    tab.shot("3-answered")
    assert tab.output(1).locator("table").count() == 2  # in the last turn, and in the answer
    assert tab.output(1).locator("b", has_text="No HTML").count() == 0
    tab.run(2)
    tab.says(2, "False")
    tab.save(notebooks / "best.ipynb", lambda saved: saved.cells[2].outputs)
    tab.page.close()
    again = Tab(chromium, address, "best.ipynb", color_scheme="dark")
    again.says(1, "Answered")
    again.output(1).locator("summary").first.click()
    again.output(1).locator("summary").nth(1).click()
    again.shot("4-opened-again")
    assert "model not found" not in again.page.content()
    again.page.close()


def test_stop_stops_within_two_seconds_and_keeps_what_there_is(notebooks, address, chromium):
    tab = Tab(chromium, address, "stop.ipynb", color_scheme="dark")
    tab.ready()
    tab.run(0)
    tab.run(1)
    tab.says(1, "time.sleep(60)")
    tab.output(1).locator("summary").nth(1).click()
    tab.says(1, re.compile("said = llm_query"))
    time.sleep(2)  # several updates
    tab.says(1, re.compile("said = llm_query"))
    tab.shot("5-unfolded")
    started = time.perf_counter()
    tab.page.locator(".jupyter-button", has_text="Stop").click()
    tab.says(1, re.compile("CancellationError"))
    tab.says(1, re.compile("said = llm_query"))
    print(f"stopped in {time.perf_counter() - started:.1f} s")
    tab.shot("6-stopped")
    tab.run(2)
    tab.says(2, "True So far the best is 2026-40.txt.")
    tab.save(notebooks / "stop.ipynb", lambda saved: saved.cells[2].outputs)
    tab.page.close()
    assert "model not found" not in (notebooks / "stop.ipynb").read_text()


def test_a_notebook_from_elsewhere_looks_the_same(notebooks, address, chromium):
    """JupyterLab takes styles and elements out of what it does not trust."""
    notebook = nbformat.read(notebooks / "best.ipynb", 4)
    notebook.cells[2].source += "  # edited elsewhere, so no longer signed"
    nbformat.write(notebook, notebooks / "elsewhere.ipynb")
    tab = Tab(chromium, address, "elsewhere.ipynb")
    tab.says(1, "Answered")
    tab.output(1).locator("summary").first.click()
    tab.output(1).locator("summary").nth(1).click()
    tab.says(1, "('2026-40.txt', 1480)")
    tab.shot("7-not-trusted")
    tab.page.close()


@pytest.mark.full
def test_a_person_goes_on_after_a_run(notebooks, address, chromium):
    again = 'again = leader(*["```repl\\nFINAL(max(sales, key=sales.get))\\n```"] * 3)'
    follow = "%%rlm --follow -b again --sub-backend reader\nWhich one was it?"
    cells = [f"{MODELS}, leader\n{again}", ASK.format("quick"), follow, "%rlm usage", "%rlm cells", "'the last'"]
    write(notebooks / "on.ipynb", cells)
    tab = Tab(chromium, address, "on.ipynb")
    tab.ready()
    for number, words in enumerate(["has the best sales", "2026-40.txt", "Total", "The cell below has 1 of"], 1):
        tab.run(number - 1 if number == 1 else number)
        if number == 1:
            tab.run(1)
        tab.says(number, words)
    tab.cells.nth(5).get_by_text("context = reports").wait_for()
    tab.shot("8-going-on")
    assert "'the last'" in tab.cells.nth(6).inner_text()
    tab.page.close()


@pytest.mark.full
def test_the_button_below_a_run_inserts_its_cells_one_by_one_and_they_run(notebooks, address, chromium):
    made = (
        'made = leader("```repl\\nn = len(context)\\n```", "```repl\\nprint(3)\\n```", "```repl\\nFINAL(n * 2)\\n```")'
    )
    write(notebooks / "insert.ipynb", [f"{MODELS}, leader\n{made}", "%%rlm -c reports -b made\nHow many, twice?", "1"])
    tab = Tab(chromium, address, "insert.ipynb")
    tab.ready()
    tab.run(0)
    tab.run(1)
    tab.says(1, "Answered")
    tab.page.get_by_role("button", name="Insert as cells").click()
    tab.says(1, "3 cells inserted")
    tab.shot("19-inserted-as-cells")
    sources = [text.strip() for text in tab.page.locator(".jp-Notebook .jp-CodeCell .cm-content").all_inner_texts()]
    assert [source.splitlines()[-1] for source in sources[2:]] == [
        sources[2].splitlines()[-1], "n = len(context)", "FINAL(n * 2)", "1"
    ]  # fmt: skip
    for number in (2, 3, 4):
        tab.run(number)
    tab.says(4, "80")
    tab.save(notebooks / "insert.ipynb", lambda saved: len(saved.cells) == 6 and saved.cells[4].outputs)
    tab.page.close()
    again = Tab(chromium, address, "insert.ipynb")
    again.page.get_by_role("button", name="Insert as cells").wait_for()
    again.page.close()


@pytest.mark.full
def test_what_a_person_opened_and_selected_stays_and_a_reload_says_where_the_run_is(notebooks, address, chromium):
    write(notebooks / "slow.ipynb", [MODELS, ASK.format("slow"), "%rlm last", "%rlm trace"])
    tab = Tab(chromium, address, "slow.ipynb")
    tab.ready()
    tab.run(0)
    tab.run(1)
    tab.says(1, "looked 1")
    tab.output(1).locator("summary").nth(1).click()
    words = tab.output(1).get_by_text("I ask for the numbers, all at once.")
    words.select_text()
    tab.says(1, "looked 3")
    assert words.is_visible()
    assert "I ask for the numbers" in tab.page.evaluate("getSelection().toString()")
    tab.shot("8-folds-and-selection-stay")
    tab.save(notebooks / "slow.ipynb", lambda saved: "looked" in str(saved.cells[1].outputs))
    tab.page.reload()
    tab.says(1, "After a reload of the page this view stands still")
    assert tab.output(1).get_by_role("link", name="notebook of the run").is_visible()
    tab.shot("8-reloaded")
    tab.ready()
    for number in (2, 3):
        tab.run(number)
        tab.says(number, "Answered")
        tab.says(number, "I draw the sales.")
        assert tab.output(number).locator("img").count() == 1
        assert "<Figure" not in tab.text(number)
    tab.shot("8-last-and-trace")
    tab.page.close()


@pytest.mark.full
@pytest.mark.local_lm
@pytest.mark.skipif(
    not is_verified(cache_folder() / QWEN_CODER.file, QWEN_CODER) and "CI" not in os.environ,
    reason="there is no local model: `rlm demo` fetches it",
)
def test_a_real_model_answers_and_is_stopped(notebooks, address, chromium):
    made = "line {n}: ' + ('ERROR disk full' if n in (137, 911) else 'ok') for n in range(2000)"
    ask = "%%rlm -b llamacpp -c text -o {} --max-timeout 240\nHow many lines contain ERROR?"
    cells = ["%load_ext rlm_magics", f"text = '\\n'.join(f'{made})", ask.format("count"), ask.format("part")]
    write(notebooks / "real.ipynb", [*cells, "print(count.answer, part.partial, part.usage.total_calls)"])
    tab = Tab(chromium, address, "real.ipynb")
    tab.ready()
    tab.page.set_default_timeout(280_000)
    for number in range(3):
        tab.run(number)
    tab.says(2, re.compile("1/30 · the model writes"))
    tab.shot("8-a-real-model-writes")
    tab.says(2, "Answered")
    tab.shot("9-a-real-model-answered")
    tab.run(3)
    tab.says(3, re.compile("1/30 · the model writes"))
    tab.page.locator(".jupyter-button", has_text="Stop").click()
    tab.says(3, re.compile("CancellationError"))
    tab.run(4)
    tab.says(4, "2 True 1")  # a call that was cancelled counts, by an estimate
    tab.save(notebooks / "real.ipynb", lambda saved: saved.cells[4].outputs)
    tab.page.close()
    again = Tab(chromium, address, "real.ipynb")
    again.says(2, "Answered")
    again.says(3, "Stopped")
    again.shot("10-opened-again")
    assert "model not found" not in again.page.content()
    again.page.close()
