"""`%%rlm` in a real kernel."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pytest

from rlm_kernel.trajectory.log.file_names import record_beside
from rlm_kernel.trajectory.log.reader import read_log
from rlm_kernel.trajectory.runs.summary import summary_of


def seen(notebook, options, question="What is it?", setup=""):
    """The repr of `context` in the model's kernel, and what ran."""
    code = "import json; seen = repr(context)"
    notebook.run(f"{setup}\nlooks = leader(cell({code!r}), 'FINAL_VAR(seen)')")
    ran = notebook.run(f"%%rlm -b looks {options} -o out\n{question}")
    assert ran.error is None
    return notebook.run("print(out.answer, end='')").printed, ran


def test_the_answer_is_shown_as_markdown_with_what_it_cost_and_where_it_is_kept(notebook):
    notebook.run("says = leader(cell('print(len(context))'), 'FINAL(**42** <b>for</b> $5)')\ntext = 'words ' * 100")
    ran = notebook.run("%%rlm -c text -b says -o out\nHow long?")
    assert ran.status == "ok"
    shown = ran.result["text/markdown"]
    assert shown.startswith("**42** <\N{WORD JOINER}b>for")
    assert "leader · " in shown
    assert "2 model calls" in shown
    assert "[notebook](rlm_logs/rlm_" in shown
    assert ran.result["text/plain"].startswith("**42** <b>for</b> $5\n\nleader · ")
    assert notebook.value("out.answer == str(out) == out.response") == "True"
    assert notebook.value("out.usage.total_calls, out.partial, out.error") == "(2, False, None)"


def test_the_result_says_where_the_run_is_kept(notebook, folder):
    notebook.run("says = leader('FINAL(42)', 'FINAL(42)')")
    notebook.run("%%rlm -c text -b says -o out\nHow long?")
    log, kept = notebook.run("print(out.trajectory); print(out.notebook)").printed.splitlines()
    assert Path(log).parent == folder / "rlm_logs"
    assert read_log(log).trajectory.completion.response == "42"
    assert nbformat.read(kept, 4).metadata.rlm


def test_the_question_is_asked_word_by_word(notebook):
    question = "Is {context} $HOME a {0} of {{braces}}?\n  {unbalanced\n\n%time 'quoted\" \\n"
    notebook.run("heard = leader('FINAL(1)', 'FINAL(1)')")
    assert notebook.run(f"%%rlm -c text -b heard\n{question}").status == "ok"
    assert notebook.value(f"{question.strip(chr(10))!r} in heard.calls[0].messages[-1]['content']") == "True"


def test_without_an_input_the_question_is_the_input(notebook):
    said, _ = seen(notebook, "", "Count to three.")
    assert said == "'Count to three.'"


def test_a_question_without_an_input_stands_in_the_view_the_notebook_and_the_list(notebook):
    _, ran = seen(notebook, "", "Count to four.")
    _asked(notebook, ran, "Count to four.", "# Count to four.")


def test_a_follow_up_in_a_persistent_kernel_stands_there_too(notebook):
    notebook.run("goes_on = leader(*['FINAL(1)'] * 9)\ntext = 'words ' * 100")
    notebook.run("%%rlm -c text -b goes_on --persistent\nHow long?")
    ran = notebook.run("%%rlm -b goes_on --persistent -o out\nAnd how wide?")
    _asked(notebook, ran, "And how wide?", "# And how wide?")
    notebook.run("get_ipython().magics_manager.registry['RLMMagics'].close()")


def _asked(notebook, ran, question, title):
    """Check that a question stands in the view, in the notebook and in the viewer's list of runs."""
    assert ran.error is None
    assert any(question in html for html in ran.views)
    log, kept = map(Path, notebook.run("print(out.trajectory); print(out.notebook)").printed.splitlines())
    assert nbformat.read(kept, 4).cells[0].source.startswith(title)
    assert summary_of(record_beside(log)).question == question
    assert read_log(log).trajectory.started.question is None  # the prompts are as they were


@pytest.mark.parametrize(
    ("made", "arrives"),
    [
        ("'some {text}'", "'some {text}'"),
        ("['a', 1, None]", "['a', 1, None]"),
        ("{'a': 1}", "{'a': 1}"),
        ("'Grüße'.encode()", "'Grüße'"),
        ("b'\\xff\\x00'", "{'given': b'\\xff\\x00'}"),
        ("('a', 'b')", "['a', 'b']"),
        ("__import__('pathlib').Path('here.txt')", "'in a file'"),
    ],
)
def test_a_variable_is_the_input(notebook, folder, made, arrives):
    (folder / "here.txt").write_text("in a file")
    said, _ = seen(notebook, "-c given", setup=f"given = {made}")
    assert said == arrives


def test_several_inputs_are_a_dict_by_name(notebook, folder):
    (folder / "one.txt").write_text("1")
    said, _ = seen(notebook, "-c a --context b --file one.txt", setup="a, b = 'A', [2]")
    assert said == "{'a': 'A', 'b': [2], 'one.txt': '1'}"


def test_a_folder_is_a_dict_by_path(notebook, folder):
    (folder / "texts" / "more").mkdir(parents=True)
    (folder / "texts" / "a.txt").write_text("A")
    (folder / "texts" / "more" / "b.txt").write_text("B")
    said, ran = seen(notebook, "--file texts")
    assert said == "{'a.txt': 'A', 'more/b.txt': 'B'}"
    assert "2 files" in ran.printed


@pytest.mark.parametrize(("options", "setup"), [("--file long.txt", ""), ("-c given", "given = Path('long.txt')")])
def test_a_long_file_is_read_by_the_kernel(notebook, folder, options, setup):
    (folder / "long.txt").write_text("a line\n" * 200_000)
    code = "seen = f'{type(context).__name__} {len(context)}'"
    notebook.run(f"from pathlib import Path\n{setup}\nlooks = leader(cell({code!r}), 'FINAL_VAR(seen)')")
    assert notebook.run(f"%%rlm -b looks {options} -o out\nHow long?").error is None
    assert notebook.run("print(out.answer, end='')").printed == "str 1400000"
    assert notebook.value("out.prompt") == repr(str(folder / "long.txt"))  # the host has not the text


def test_a_table_arrives_as_a_table_and_the_person_is_told_where(notebook):
    notebook.run("import pandas\nsales = pandas.DataFrame({'month': ['May', 'June'], 'sold': [3, 4]})")
    code = (
        "table = context['sales']; total = int(table.sold.sum()); kind = type(table).__name__; said = f'{kind} {total}'"
    )
    notebook.run(f"counts = leader(cell({code!r}), 'FINAL_VAR(said)')")
    ran = notebook.run("%%rlm -b counts -c sales -o out\nHow many?")
    assert notebook.value("out.answer") == "'DataFrame 7'"
    assert "the model finds it as context[&#x27;sales&#x27;]" in ran.html


def test_a_hundred_megabytes_are_an_input(notebook):
    notebook.run("big = 'x' * 100_000_000\nlooks = leader(cell('n = len(context)'), 'FINAL_VAR(n)')")
    ran = notebook.run("%%rlm -c big -b looks -o out\nHow long?")
    assert ran.error is None
    assert notebook.value("out.answer") == "'100000000'"
    assert sum(len(json.dumps(content)) for _, content in ran.messages) < 100_000
    notebook.run("del big, out")


def test_an_object_is_the_answer_where_a_schema_says_so(notebook):
    notebook.run("shape = {'type': 'object', 'properties': {'n': {'type': 'integer'}}, 'required': ['n']}")
    notebook.run("says = leader(cell('FINAL({\"n\": 3})'))")
    assert notebook.run("%%rlm -b says -c text --schema shape -o out\nHow many?").error is None
    assert notebook.value("out.parsed") == "{'n': 3}"


@pytest.mark.parametrize(
    ("magic", "says"),
    [
        (
            "%%rlm -c txet -b says\nWhat?",
            "ConfigError: --context txet: there is no variable 'txet'; did you mean 'text'?",
        ),
        ("%%rlm -c nowhere_at_all -b says\nWhat?", "there is no variable 'nowhere_at_all'. Assign it in a cell above"),
        ("%%rlm -c report.txt -b says\nWhat?", "To give a file, use --file."),
        ("%%rlm --file no.txt -b says\nWhat?", "ConfigError: --file no.txt cannot be read: No such file or directory."),
        ("%%rlm --file '' -b says\nWhat?", "ConfigError: --file is empty"),
        ("%%rlm --modle gpt -c text\nWhat?", "UsageError: unknown option '--modle'; did you mean '--model'?"),
        ("%%rlm who is it\nWhat?", "UsageError: unknown word 'who': write the question in the cell, below this line"),
        ("%%rlm -c\nWhat?", "UsageError: argument -c/--context: expected one argument"),
        ("%%rlm --max-iterations many\nWhat?", "invalid int value: 'many'"),
        ("%%rlm -c 'text\nWhat?", "UsageError: No closing quotation"),
        ("%%rlm -c text -b says\n\n", "UsageError: The cell has no question: write it below %%rlm."),
        ("%%rlm -c text\nWhat?", "ConfigError: No model is named for the backend 'openai': give --model, for example"),
        (
            "%%rlm -m gpt-5-mini -c text\nWhat?",
            "ConfigError: No API key for 'openai': set OPENAI_API_KEY in the environment",
        ),
        ("%%rlm -b opnai -m m -c text\nWhat?", "ConfigError: Unknown backend 'opnai'; did you mean 'openai'?"),
        ("%%rlm -b says -c text -e nowhere\nWhat?", "ConfigError: Unknown environment 'nowhere'."),
        ("%%rlm -b says -c text --max-budget -1\nWhat?", "max_budget must be a number above 0"),
        ("%%rlm -c text -m m --backend-kwarg api_key=sk-123456789\nWhat?", "ConfigError: An API key does not belong"),
        ("%%rlm -c leader -b says\nWhat?", "is of type function: give what it returns, as in -c 'leader(…)'."),
        ("%%rlm -c text.uper -b says\nWhat?", "'str' object has no attribute 'uper'; did you mean 'upper'?"),
        ("%%rlm -c text[ -b says\nWhat?", "ConfigError: --context text[ is no expression: '[' was never closed."),
        ("%%rlm -c text[9_999] -b says\nWhat?", "--context text[9_999] raises IndexError: string index out of range"),
        ("%%rlm -c len(text) -b says\nWhat?", "is of type int: give str(value), or [value] to keep its type."),
        (
            "%%rlm -c text -b unasked -o 3x\nWhat?",
            "UsageError: argument -o/--output: '3x' is not the name of a variable",
        ),
        ("%%rlm -c text -b unasked -o def\nWhat?", "'def' is not the name of a variable: give one such as answer"),
        ("%%rlm -c text -b unasked -o a.b\nWhat?", "'a.b' is not the name of a variable: give one such as answer"),
        ("%%rlm -c text -b unasked -o get_ipython\nWhat?", "get_ipython has a meaning in a notebook"),
        ("%rlm resume -o a.b", "'a.b' is not the name of a variable: give one such as answer"),
        ("%rlm lats", "UsageError: %rlm has no command 'lats'; did you mean 'last'?"),
        ("%rlm config nothing 1", "ConfigError: There is no setting 'nothing'. There are attachable, backend,"),
        ("%rlm config max_iterations many", "ConfigError: max_iterations: "),
        ("%rlm replay nowhere.jsonl", "RecordingError: There is no log 'nowhere.jsonl'"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_fix(notebook, magic, says):
    notebook.run("says = leader('FINAL(42)', 'FINAL(42)')")
    ran = notebook.run(magic)
    assert ran.status == "error"
    assert says in ran.error
    assert len(ran.error.splitlines()) == 1
    assert "Traceback" not in ran.printed + str(ran.of("error"))
    assert "sk-123456789" not in ran.error


def test_a_model_that_fails_is_one_line_too(notebook):
    notebook.run("fails = leader(LMError('The server is on fire.', backend='openai', model='m'))")
    ran = notebook.run("%%rlm -b fails -c text -o out\nWhat?")
    assert ran.error == "LMError: The server is on fire."
    assert ran.of("error")[0]["ename"] == "LMError"
    assert notebook.value("out.partial, out.answer, type(out.error).__name__") == "(True, '', 'LMError')"


def test_a_limit_leaves_the_best_answer_so_far(notebook):
    notebook.run("drafts = leader(cell('answer[\"content\"] = \"nearly\"'), *[cell('1')] * 9)")
    ran = notebook.run("%%rlm -b drafts -c text --max-tokens 10 -o out\nWhat?")
    assert ran.error.startswith("TokenLimitExceededError: The run used ")
    assert "raise max_tokens" in ran.error
    assert notebook.value("out.answer") in ("'nearly'", "''")
    assert notebook.value("out.usage.total_calls >= 1") == "True"


def test_a_persistent_kernel_is_kept_for_the_next_cell(notebook):
    notebook.run("keeps = ScriptedLM([cell('mine = 7'), 'FINAL(1)', cell('FINAL(mine)')], model='leader')")
    assert notebook.run("%%rlm -b keeps -c text --persistent\nFirst?").error is None
    assert notebook.run("%%rlm -b keeps -c text --persistent -o out\nSecond?").error is None
    assert notebook.value("out.answer") == "'7'"
    notebook.run("get_ipython().magics_manager.registry['RLMMagics'].close()")


def test_a_person_confirms_in_the_cell(notebook):
    notebook.run(
        "import threading\nasked, said = [], iter(['not this', 'y'])\n"
        "def answer(question=''):\n"
        "    asked.append((question, threading.current_thread() is threading.main_thread()))\n"
        "    return next(said)\n"
        "typed, get_ipython().kernel.raw_input = get_ipython().kernel.raw_input, answer\n"
        "careful = leader(cell('first = 1'), cell('FINAL(2)'))"
    )
    ran = notebook.run("%%rlm -b careful -o out --confirm\nCount.")
    notebook.run("get_ipython().kernel.raw_input = typed")
    assert ran.error is None
    assert notebook.value("out.answer") == "'2'"
    assert notebook.value("[main for _, main in asked]") == "[True, True]"
    assert notebook.value("'first = 1' in asked[0][0], 'not this' in str(careful.calls[1].messages)") == "(True, True)"
