from __future__ import annotations

import nbformat
import pytest
from nbclient import NotebookClient
from recorded_runs import code, record

from rlm_kernel.errors import RecordingError
from rlm_kernel.replay.minimise import clean, convert
from rlm_kernel.replay.replayer import replay

DETOURS = [
    "I look around.\n" + code("import random", "print(len(context), random.random())"),
    code("print(undefined)"),
    code("parts = [context[:4], context[5:]]", "print(parts)"),
    code("wrong = llm_query('a detour')"),
    code("answers = llm_query_batched(parts)", "unused = 1"),
]


def saved(notebook, folder):
    path = folder / "clean.ipynb"
    nbformat.write(notebook, path)
    return path


def sources(notebook):
    return [cell.source for cell in notebook.cells if cell.metadata["rlm"]["role"] == "code"]


@pytest.mark.parametrize(
    ("last", "kept"),
    [
        (code("FINAL(' '.join(answers))"), (3, 5, 6)),
        pytest.param(
            code("answer['content'] = ' '.join(answers)", "answer['ready'] = True"), (3, 5, 6), marks=pytest.mark.full
        ),
        pytest.param(code("FINAL('known without looking')"), (6,), marks=pytest.mark.full),
        ("FINAL_VAR(answers)", (3, 5)),
        pytest.param("FINAL(It is about some context.)", (3,), marks=pytest.mark.full),
    ],
    ids=["FINAL", "answer", "needs nothing", "FINAL_VAR", "words"],
)
def test_what_is_left_still_leads_to_the_answer(tmp_path, last, kept):
    run = record(tmp_path, [*DETOURS, last])
    asked = len(run.lm.calls)
    cleaning = clean(run.log)
    assert cleaning.kept == kept
    path = saved(cleaning.notebook, tmp_path)
    nbformat.validate(cleaning.notebook)
    assert len(sources(cleaning.notebook)) == len(kept)
    report = replay(path)
    assert report.equal, str(report)
    assert report.answer == replay(run.log).answer
    assert len(run.lm.calls) == asked


def test_what_differs_by_itself_keeps_no_other_cell(tmp_path):
    cells = [code("import time", "print(time.time_ns())"), code("noise = 1"), code("FINAL('x' + str(len(context)))")]
    assert clean(record(tmp_path, cells).log).kept == (3,)


def test_what_differs_by_itself_keeps_no_other_cell_of_a_run_with_one_that_was_cut_off(tmp_path):
    cells = [
        code("import time", "n = len(context)", "print(time.time_ns())"),
        code("while True: pass"),
        code("FINAL(n)"),
    ]
    assert clean(record(tmp_path, cells, environment_kwargs={"cell_timeout": 1.0}).log).kept == (1, 3)


@pytest.mark.parametrize("last", [code("never_run"), ""])
def test_the_cell_whose_draft_was_taken_is_kept(tmp_path, last):
    cells = [code("answer['content'] = f'a draft of {len(context)}'"), code("unused = 1"), last]
    run = record(tmp_path, cells, max_iterations=2)
    cleaning = clean(run.log)
    assert cleaning.kept == (1,)
    assert replay(run.log).equal
    assert replay(saved(cleaning.notebook, tmp_path)).answer == "a draft of 12"
    report = replay(run.edit("a draft", "another draft"), trust=True)
    assert "+stdout: another draft of 12" in str(report)


def test_a_clean_notebook_says_what_was_left_out_and_runs_in_a_stock_client(tmp_path):
    run = record(tmp_path, [*DETOURS, code("print(answers)", "FINAL(' '.join(answers))")])
    told = []
    cleaning = clean(run.notebook, on_trial=lambda step, place, count: told.append((step.number, place, count)))
    assert told == [(6, 1, 6), (5, 2, 6), (4, 3, 6), (3, 4, 6), (2, 5, 6), (1, 6, 6)]
    assert "Without the cells that the answer does not need (1, 2, 4)." in cleaning.notebook.cells[0].source
    assert "I look around." not in nbformat.writes(cleaning.notebook)
    done = NotebookClient(cleaning.notebook, resources={"metadata": {"path": str(tmp_path)}}, timeout=60).execute()
    last = [cell for cell in done.cells if cell.metadata["rlm"]["role"] == "code"][-1]
    assert last.outputs[0].text == "['echo: some', 'echo: context']\n"


def test_a_run_whose_replay_leads_elsewhere_is_not_cleaned(tmp_path):
    run = record(tmp_path, [code("import time", "FINAL(time.time_ns())")])
    with pytest.raises(RecordingError, match="do not lead to the recorded answer"):
        clean(run.log)


def test_a_run_without_an_answer_is_not_cleaned(tmp_path):
    run = record(tmp_path, [code("1 / 0"), code("1 / 0")], max_errors=2)
    with pytest.raises(RecordingError, match="has no answer"):
        clean(run.log)


@pytest.mark.parametrize(("kind", "told"), [("html", "<pre>"), ("md", "```python"), ("py", "run_script(__file__)")])
def test_a_notebook_becomes_a_page_a_text_or_a_script(tmp_path, kind, told):
    picture = (
        "from IPython.display import Image",
        "Image(__import__('base64').b64decode('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kg=='))",
    )
    run = record(tmp_path / "logs", [code(*picture), "FINAL(a dot)"])
    path = tmp_path / f"out.{kind}"
    convert(nbformat.read(run.notebook, as_version=4), kind, path)
    text = path.read_text("utf-8")
    assert told in text
    assert "What is in it?" in text
    assert "def rlm_setup" not in text
    assert bool(list(tmp_path.glob("out_files/*.png"))) == (kind == "md")
