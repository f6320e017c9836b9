"""What a person meets in JupyterLab on a long day, one picture each. RLM_SCREENSHOTS names a folder for them.

The numbers are those of the list "The notebook home, second pass". The other points have their pictures elsewhere:
2 and 14 in `tests/stock_clients`, 4 in `tests/trajectory`, 8 and 19 in `tests/magics`.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import jupytext
import nbformat
import pytest
from laboratory import IN_CHROMIUM, Tab, browser, lab, write
from trajectory.stories import cell, told

pytest.importorskip("jupyterlab")
pytestmark = [
    *IN_CHROMIUM,
    pytest.mark.full,
]

TASK = Path(__file__).resolve().parents[2] / "notebooks" / "rlm_task.ipynb"
MODELS = """\
%load_ext rlm_magics
from rlm import ScriptedLM
said = lambda messages: sum(m["role"] == "assistant" for m in messages)
def leader(*replies):
    return ScriptedLM(lambda messages: replies[said(messages)], model="leader")
def cell(code):
    return f"Some thoughts.\\n```repl\\n{code}\\n```"
reader = ScriptedLM(lambda messages: messages[-1]["content"].upper(), model="reader")
counts = leader(cell("print(llm_query('one'))"), "FINAL(It costs $5 to $10.\\n\\n### A heading\\n\\n$$x^2 + y^2$$)")
fails = leader(cell("print(1)"))"""
ASK = "%%rlm -b counts --sub-backend reader"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("day")
    story = told(folder / "run", [cell("print(llm_query('one'))\nlen(context)"), cell("FINAL('a word')")])
    shutil.copy(story.path, folder / "alone.ipynb")
    text = jupytext.writes(nbformat.read(story.path, 4), fmt="py:percent")
    nbformat.write(jupytext.reads(text, fmt="py:percent"), story.path.with_name("through-jupytext.ipynb"))
    shutil.copy(TASK, folder)
    return folder


@pytest.fixture(scope="module")
def opened(folder):
    with lab(folder) as address, browser() as chromium:

        def open_(name, cells=None):
            if cells is not None:
                write(folder / name, cells)
            tab = Tab(chromium, address, name)
            tab.ready()
            return tab

        yield open_


def test_a_notebook_without_its_log_shows_one_message(opened, folder):
    tab = opened("alone.ipynb")
    tab.write(0, lambda source: re.sub("rlm_dir = .*", "rlm_dir = '/nowhere'", source))
    tab.run_all()
    tab.says(1, "is not beside its log")
    tab.shot("point-1-without-its-log")
    assert "def " not in tab.text(1)
    assert len(tab.text(1)) < 1500
    tab.page.close()


def test_questions_answers_and_results_are_shown_as_they_are(opened):
    cells = [
        MODELS,
        f"{ASK} -o out\nWhat does it cost, $5 or $10?",
        "%rlm usage",
        "from rlm import view\nview(out)",
    ]
    tab = opened("shown.ipynb", [*cells, "view(out.trajectory)"])
    tab.run(0)
    tab.run(1)
    tab.says(1, "Answered")
    tab.says(1, "What does it cost, $5 or $10?")
    tab.says(1, "It costs $5 to $10.")
    assert tab.output(1).locator("mjx-container").count() >= 1
    tab.shot("point-3-7-money-formulas-and-a-question-without-an-input")
    tab.run(2)
    tab.says(2, "Total")
    tab.shot("point-13-one-way-of-counting")
    for number in (3, 4):
        tab.run(number)
        tab.cells.nth(number).locator(".rlm-viewer").get_by_role("heading", name="Turn 2").wait_for()
    tab.shot("point-5-one-picture")
    tab.page.close()


def test_mistakes_are_found_before_the_bill(opened):
    names = ("3x", "def", "a.b")
    tab = opened("mistakes.ipynb", [MODELS, *(f"{ASK} -o {name}\nWhat?" for name in names)])
    tab.run(0)
    for number in (1, 2, 3):
        tab.run(number)
        tab.says(number, "UsageError")
        assert len(tab.text(number)) < 300
    tab.shot("point-9-before-the-bill")
    tab.page.close()


def test_a_run_that_failed_says_so_in_a_word(opened):
    tab = opened("failed.ipynb", [MODELS, "%%rlm -b fails --max-iterations 2\nWhat?"])
    tab.run(0)
    tab.run(1)
    tab.says(1, re.compile("Failed|IndexError"))
    tab.shot("point-6-one-name-for-a-state")
    tab.page.close()


def test_a_task_without_a_model_says_what_to_give(opened):
    tab = opened("rlm_task.ipynb")
    tab.run_all()
    tab.page.locator(".jp-OutputArea").get_by_text("ConfigError: No model is named").first.wait_for()
    tab.shot("point-12-a-task-without-a-model")
    tab.page.close()


def test_a_notebook_that_went_through_jupytext_runs(opened, folder):
    name = "run/through-jupytext.ipynb"
    tab = opened(name)
    tab.run_all()
    tab.page.get_by_text("1 recorded answers").wait_for()
    tab.ready()
    tab.says(2, "ONE")
    tab.shot("point-15-through-jupytext")
    tab.page.close()
