"""After a run: a question about it, another way from a turn, and its cells in the notebook."""

from __future__ import annotations

import pytest

from rlm_kernel.trajectory.log.reader import read_log

FIRST = """
first = leader(
    cell("n = len(context)\\nwaste = 1"), cell("said = llm_query('count')\\nprint(said, n)"), cell("FINAL(n)")
)
"""


@pytest.fixture(autouse=True)
def _a_run(notebook):
    notebook.run(f"text = 'words ' * 9{FIRST}")
    assert notebook.run("%%rlm -b first --sub-backend reader -c text -o out\nHow long?").error is None


def _next_cell(ran_of, notebook):
    """What a command put into the cell below."""
    request = notebook.client.execute(ran_of)
    (payload,) = notebook._reply_to(request)["payload"]
    assert (payload["source"], payload["replace"]) == ("set_next_input", False)
    return payload["text"]


def test_follow_asks_in_the_kernel_of_the_latest_run_about_its_input(notebook):
    before = notebook.run("print(out.trajectory, end='')").printed
    notebook.run("first.calls.clear()\nnext_one = leader(*[cell('FINAL(f\"{n} {said} {context[:5]}\")')] * 3)")
    ran = notebook.run("%%rlm --follow -b next_one -o more\nAnd what was said?")
    assert ran.error is None
    assert notebook.value("more.answer") == "'54 COUNT words'"
    assert any("is built again" in html for html in ran.views)
    assert any("And what was said?" in html for html in ran.views)
    assert notebook.value("first.calls, more.usage.total_calls") == "([], 1)"
    recording = read_log(notebook.run("print(more.trajectory, end='')").printed)
    assert recording.metadata["continues"] == read_log(before).stem
    assert "equal to the recorded run" in notebook.run("%rlm replay").printed


def test_a_second_follow_finds_the_kernel_running(notebook):
    notebook.run("next_one = leader(*[cell('import os\\npid = os.getpid()\\nFINAL(pid)')] * 3)")
    assert notebook.run("%%rlm --follow -b next_one -o one\nAnd?").error is None
    ran = notebook.run("%%rlm --follow -o two\nAnd once more?")
    assert ran.error is None
    assert not any("is built again" in html for html in ran.views)
    assert notebook.value("two.answer == one.answer") == "True"
    notebook.run("get_ipython().magics_manager.registry['RLMMagics'].close()")


def test_follow_goes_on_from_a_run_that_was_resumed(notebook):
    notebook.run("again = leader('', '', cell('FINAL(n + 1)'))\nnext_one = leader(*[cell('FINAL(n)')] * 3)")
    assert notebook.run("%rlm fork 2 -b again --sub-backend reader -o other").error is None
    assert notebook.value("other.answer") == "'55'"
    assert notebook.run("%%rlm --follow -b next_one -o more\nHow long?").error is None
    assert notebook.value("more.answer, len(more.prompt)") == "('54', 54)"


def test_fork_takes_another_question_and_keeps_the_turns_before(notebook):
    notebook.run("again = leader('', cell('FINAL(n * 2)'))")
    ran = notebook.run("%rlm fork 1 -b again --question 'Twice as long?' -o other")
    assert ran.error is None  # reader, an object that no log holds, is found again
    assert notebook.value("other.answer") == "'108'"
    assert read_log(notebook.run("print(other.trajectory, end='')").printed).metadata["forked_from"]["at"] == 1
    assert any("Twice as long?" in html for html in ran.views)
    assert "context = text\n" in _next_cell("%rlm cells", notebook)


@pytest.mark.parametrize(
    ("magic", "says"),
    [
        ("%%rlm --follow -c text\nWhat?", "leave out -c and --file, or --follow"),
        ("%rlm fork", "the following arguments are required: TURN"),
        ("%rlm fork 99", "at=99 is not a finished iteration of rlm_"),
    ],
)
def test_a_mistake_names_the_fix(notebook, magic, says):
    assert says in notebook.run(magic).error


def test_without_a_run_there_is_nothing_to_follow(started):
    fresh = started()
    fresh.run("%load_ext rlm_magics")
    assert "There was no run in this session yet" in fresh.run("%%rlm --follow\nWhat?").error


def test_the_cells_that_the_answer_needs_come_into_the_cell_below_and_run_there(notebook):
    source = _next_cell("%rlm cells", notebook)
    assert "context = text\n" in source
    assert "# Cell 1\nn = len(context)\n" in source
    assert "llm_query" not in source
    ran = notebook.run(source)
    assert ran.status == "ok", ran.error
    assert notebook.value("n") == "54"
    assert notebook.value("answer['content']") == "54"


def test_what_a_cell_needs_of_the_repl_and_of_its_input_is_defined(notebook):
    notebook.run("sums = leader(cell('total = sum(context[\"b\"])'), cell('FINAL_VAR(\"total\")'))")
    assert notebook.run("%%rlm -b sums -c a=text -c b=[1, 2]\nSum?").error is None
    source = _next_cell("%rlm cells", notebook)
    assert "context = {'a': text, 'b': [1, 2]}\n" in source
    assert notebook.run(source).result["text/plain"] == "3"


def test_the_cells_of_a_follow_up_come_with_those_that_it_goes_on_from(notebook):
    notebook.run("next_one = leader(*[cell('FINAL(f\"{n} {said}\")')] * 3)")
    assert notebook.run("%%rlm --follow -b next_one --sub-backend reader\nAnd what was said?").error is None
    source = _next_cell("%rlm cells", notebook)
    assert source.index("context = text\n") < source.index("# Cell 1\nn = len(context)") < source.index("# Cell 4\n")
    notebook.run("%rlm model whatever --backend reader")
    assert notebook.run(source).result["text/plain"] == "'54 COUNT'"
    notebook.run("%rlm model --backend openai")


def test_fork_of_a_run_over_a_table_uses_the_table_of_the_notebook(notebook):
    """Its log holds the table as a pickle, which the host does not open."""
    notebook.run(
        "import pandas as pd\ntable = pd.DataFrame({'n': [1, 2]})\n"
        "asked = leader(cell('n = len(context)'), cell('FINAL(n)'))"
    )
    assert notebook.run("%%rlm -b asked -c table -o rows\nHow many?").error is None
    for more in (1, 2):
        notebook.run(f"again = leader('', cell('FINAL(n + len(context) + {more})'))")
        ran = notebook.run("%rlm fork 1 -b again -o total")
        assert ran.error is None, ran.error
        assert notebook.value("int(total.answer) - 2 * int(rows.answer)") == str(more)
