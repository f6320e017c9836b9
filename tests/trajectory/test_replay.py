from __future__ import annotations

import os
import time
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from recorded_runs import code, model, record

from rlm import RLM
from rlm.logger import RLMLogger
from rlm_kernel.clients.scripted import ScriptedLM
from rlm_kernel.errors import ConfigError, RecordingError
from rlm_kernel.replay.replayer import areplay, replay
from rlm_kernel.trajectory.log.file_names import RECORD, file_beside

ASKING = [
    "I look first.\n" + code("print(len(context))", "print(undefined)"),
    code("answers = llm_query_batched([context[:4], context[4:]])", "one = llm_query('one')", "print(answers, one)"),
    code("FINAL(' '.join(answers))"),
]


@pytest.fixture
def asking(tmp_path):
    return record(tmp_path, ASKING)


@pytest.mark.parametrize("source", ["log", "notebook"])
def test_a_run_comes_out_as_it_was_without_a_model(asking, source):
    asked = len(asking.lm.calls)
    report = replay(getattr(asking, source))
    assert report.equal, str(report)
    assert (list(report.results), report.recalled) == ([1, 2, 3], 3)
    assert report.answer == "echo: some echo:  context"
    assert len(asking.lm.calls) == asked
    assert str(report) == "3 cells ran in local, 3 answers came from the record: equal to the recorded run."


async def test_a_replay_can_be_awaited(tmp_path):
    lm, logger = model([code("FINAL(llm_query('a'))")]), RLMLogger(str(tmp_path))
    await RLM(lm, logger=logger).acompletion("context")
    assert (await areplay(logger.notebook_path)).equal


def test_chance_and_hashes_are_those_of_the_run(tmp_path):
    run = record(tmp_path, [code("import random", "print(random.random(), hash('x'), {'a', 'b', 'c'})", "FINAL('x')")])
    assert replay(run.log).equal


def test_an_edited_cell_is_named_with_what_it_shows_now(asking):
    report = replay(asking.edit("print(len(context))", "print(len(context) + 1)"), trust=True)
    edited, output = report.divergences
    assert (edited.kind, edited.cell, output.kind, output.cell) == ("edited", 1, "output", 1)
    assert "-stdout: 12\n+stdout: 13" in output.diff
    assert "Cell 1 was edited since it was recorded." in str(report)


def test_another_question_is_named_with_the_nearest_on_record(asking):
    report = replay(asking.edit("llm_query('one')", "llm_query('once')"), trust=True)
    assert not report.equal
    call = next(d for d in report.divergences if d.kind == "call")
    assert call.cell == 2
    assert "llm_query('once'); the nearest on record is llm_query('one')" in call.what
    assert "rlm replay --live" in report.results[2].error.traceback


def test_live_mode_asks_a_model_for_what_is_not_on_record_and_for_nothing_else(asking):
    lm = ScriptedLM(["live"], model="another")
    path = asking.edit("llm_query('one')", "llm_query('once')")
    report = replay(path, mode="live", backend=lm, trust=True)
    assert [call.prompt for call in lm.calls] == ["once"]
    assert "live" in report.results[2].stdout
    assert report.recalled == 2
    assert report.usage.total_calls == 1
    assert report.answer == "echo: some echo:  context"


def test_of_a_batch_only_the_new_prompts_are_asked(asking):
    lm = ScriptedLM(lambda messages: f"live {messages[-1]['content']}")
    path = asking.edit("context[4:]])", "'new', context[4:]])")
    report = replay(path, mode="live", backend=lm, trust=True)
    assert [call.prompt for call in lm.calls] == ["new"]
    assert "['echo: some', 'live new', 'echo:  context']" in report.results[2].stdout


def test_the_recorded_backend_is_asked_unless_another_is_given(asking):
    with pytest.raises(RecordingError, match="backend held objects, which a log cannot store: give them again"):
        replay(asking.log, mode="live")


def test_an_added_cell_runs_and_a_removed_one_is_named(asking):
    notebook = nbformat.read(asking.notebook, as_version=4)
    at = next(i for i, cell in enumerate(notebook.cells) if cell.metadata["rlm"].get("cell") == 1)
    notebook.cells[at] = nbformat.v4.new_code_cell("seen = 'by an added cell'")
    last = next(cell for cell in notebook.cells if cell.metadata.get("rlm", {}).get("cell") == 3)
    last.source = "FINAL(seen)"
    nbformat.write(notebook, asking.notebook)
    report = replay(asking.notebook, trust=True)
    assert report.answer == "by an added cell"
    assert "Cell 1 is in the record and not in the notebook." in str(report)
    assert "-stdout: echo: some echo:  context\n+stdout: by an added cell" in str(report)


def test_tools_are_not_called_again(tmp_path):
    called = []

    def price(name: str) -> int:
        """What it costs."""
        called.append(name)
        if name == "none":
            raise KeyError(name)
        return 7

    tools = {"price": price, "RATE": 2, "double": "def double(x): return RATE * x"}
    cell = code("print(double(price('a')), help(price))", "FINAL(price('b'))", "price('none')")
    run = record(tmp_path, [cell, "FINAL(7)"], custom_tools=tools)
    assert called == ["a", "b", "none"]
    report = replay(run.notebook)
    assert report.equal, str(report)
    assert report.results[1].error.name == "KeyError"
    assert len(called) == 3


def test_a_call_of_a_tool_that_is_not_on_record_fails_and_is_named(tmp_path):
    run = record(tmp_path, [code("print(tool('a'))"), "FINAL(1)"], custom_tools={"tool": str.upper})
    report = replay(run.edit("'a'", "'b'"), trust=True)
    call = next(d for d in report.divergences if d.kind == "call")
    assert 'tool("b", {}); the nearest on record is tool("a", {})' in call.what


def test_a_stored_context_that_is_missing_or_altered_is_named(tmp_path):
    text = "long " * 10_000
    run = record(tmp_path, [code("FINAL(len(context))")], context=text)
    (stored,) = tmp_path.glob("contexts/*.txt")
    stored.write_text("short")
    with pytest.raises(RecordingError, match="was altered"):
        replay(run.log)
    stored.unlink()
    with pytest.raises(RecordingError, match="is missing"):
        replay(run.log)
    assert replay(run.log, context=text).equal
    assert replay(run.log, context="other").answer == "5"


class Identity:
    def __reduce__(self):
        return os.getpid, ()


def test_a_pickled_context_is_opened_in_the_kernel_only(tmp_path):
    first = code("import os", "FINAL((context[0] == os.getpid(), context[1]))")
    run = record(tmp_path, [first], context=[Identity(), (1, 2)])
    assert list(tmp_path.glob("contexts/*.pickle"))
    report = replay(run.log)
    assert report.equal, str(report)
    assert report.answer == "(True, (1, 2))"


@pytest.mark.parametrize("context", ["lone \ud800 surrogate", {"a": [1, 2.5, None, "ü"]}, ["x", {"y": 1}], "", {}])
def test_every_kind_of_context_comes_back(tmp_path, context):
    run = record(tmp_path, [code("print(repr(context).encode('utf-8', 'backslashreplace'))", "FINAL('x')")], context)
    assert replay(run.notebook).equal


def test_cells_that_ended_the_kernel_or_took_too_long_are_not_run_again(tmp_path):
    replies = [
        code("kept = 'kept'"),
        code("import os", "os._exit(1)"),
        code("import time", "time.sleep(60)"),
        code("FINAL(kept)"),
    ]
    run = record(tmp_path, replies, environment_kwargs={"cell_timeout": 1.0})
    started = time.monotonic()
    report = replay(run.notebook)
    assert time.monotonic() - started < 30
    assert report.equal, str(report)
    assert report.skipped == (2, 3)
    assert report.answer == "kept"


def test_an_edited_cell_that_ends_the_kernel_now_ends_the_replay(asking):
    report = replay(asking.edit("print(answers, one)", "import os; os._exit(1)"), trust=True)
    assert [d.kind for d in report.divergences if d.cell == 2] == ["edited", "output", "kernel"]
    assert list(report.results) == [1, 2]


def test_a_variable_named_as_the_answer_is_read(tmp_path):
    run = record(tmp_path, [code("total = len(context)"), "FINAL_VAR(total)"], context="abc")
    assert replay(run.log).answer == "3"
    report = replay(run.edit("len(context)", "len(context) + 1"), trust=True)
    assert report.answer == "4"
    assert report.divergences[-1].kind == "answer"


def test_an_empty_answer_is_one(tmp_path):
    report = replay(record(tmp_path, [code("x = 1"), code("FINAL('')"), code("FINAL('')")]).log)
    assert report.equal, str(report)
    assert report.answer == ""


def test_an_answer_by_a_schema_is_compared_as_a_value(tmp_path):
    lm, logger = model([code("found = {'b': [1, 2], 'a': None}"), "FINAL_VAR(found)"]), RLMLogger(str(tmp_path))
    with RLM(lm, logger=logger) as rlm:
        rlm.completion("context", root_prompt="a question", response_schema={"type": "object"})
    report = replay(logger.log_file_path)
    assert report.equal, str(report)


def test_a_log_that_was_cut_off_replays_as_far_as_it_goes(asking):
    text = asking.log.read_bytes()
    asking.log.write_bytes(text[: text.index(b'"answer"', text.index(b'"subcall"')) + 40])
    report = replay(asking.log)
    assert (list(report.results), report.skipped) == ([1], (2,))
    assert report.equal


def test_a_child_run_is_replayed_by_its_own_notebook(tmp_path):
    def script(messages):
        root = "What is in it?" in messages[1]["content"] if len(messages) > 1 else False
        return code("FINAL(rlm_query('who are you?'))") if root else code("print(context)", "FINAL(context.upper())")

    logger = RLMLogger(str(tmp_path))
    RLM(ScriptedLM(script), logger=logger, max_depth=2).completion("the root", root_prompt="What is in it?")
    child = Path(logger.log_file_path).with_suffix("") / "1-1-1_who-are-you.ipynb"
    report = replay(child)
    assert report.equal, str(report)
    assert report.answer == "WHO ARE YOU?"
    assert replay(logger.notebook_path).answer == "WHO ARE YOU?"


@pytest.mark.parametrize("beside", [False, True], ids=["in its folder", "beside the log, as earlier versions wrote it"])
def test_the_notebook_of_a_child_finds_its_log_where_the_folder_was_moved(tmp_path, beside):
    replies = [code("FINAL(rlm_query('who are you?'))"), code("print(context.upper())", "FINAL('me')")]
    logger = RLMLogger(str(tmp_path / "logs"))
    RLM(ScriptedLM(replies), logger=logger, max_depth=2).completion("the root", root_prompt="What is in it?")
    (tmp_path / "logs").rename(tmp_path / "moved")
    (child,) = tmp_path.glob("moved/*/1-1-1_who-are-you.ipynb")
    if beside:
        child = child.rename(tmp_path / "moved" / f"{child.parent.name}-child-1-1-1.ipynb")
    assert replay(child).answer == "me"
    notebook = nbformat.read(child, 4)
    for cell in notebook.cells:
        cell.update({"outputs": []} if cell.cell_type == "code" else {})
    NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": child.parent}}).execute()
    assert "WHO ARE YOU?\n" in [output.get("text") for cell in notebook.cells for output in cell.get("outputs", ())]


def test_the_second_run_of_a_persistent_kernel_finds_what_the_first_left(tmp_path):
    logs = []
    replies = [code("first = llm_query('first')", "FINAL(first)")]
    lm, logger = model(replies), RLMLogger(str(tmp_path))
    with RLM(lm, logger=logger, persistent=True) as rlm:
        rlm.completion("one", root_prompt="a question")
        logs.append(logger.log_file_path)
        replies[:] = [code("print(context_0, context_1, len(history_0))", "FINAL(first + context)")]
        rlm.completion("two", root_prompt="a question")
        logs.append(logger.log_file_path)
    assert replay(logs[0]).equal
    report = replay(logs[1])
    assert report.equal, str(report)
    assert report.answer == "echo: firsttwo"
    file_beside(Path(logs[0]), RECORD).unlink()
    with pytest.raises(RecordingError, match="there is no record"):
        replay(logs[1])


def test_progress_is_told_before_each_cell(asking):
    told = []
    replay(asking.log, on_step=lambda step, place, count: told.append((step.number, place, count)))
    assert told == [(1, 1, 3), (2, 2, 3), (3, 3, 3)]


def test_setup_code_runs_again_and_a_secret_in_the_options_is_named(tmp_path):
    options = {"setup_code": "import math\nready = math.pi", "env": {"MY_TOKEN": "abcdefghijkl", "PLAIN": "yes"}}
    cell = code("import os", "print(ready, os.environ['PLAIN'], len(os.environ.get('MY_TOKEN', '')))", "FINAL('x')")
    run = record(tmp_path, [cell], environment_kwargs=options)
    report = replay(run.log)
    scene, output = report.divergences
    assert "environment_kwargs['env']['MY_TOKEN'] was redacted from the record" in str(scene)
    assert "-stdout: 3.141592653589793 yes 12\n+stdout: 3.141592653589793 yes 0" in output.diff
    assert replay(run.log, environment="local", environment_kwargs=options).results[1].stdout.endswith("12\n")


def test_wrong_arguments_are_named_before_anything_starts(asking):
    with pytest.raises(ConfigError, match="mode must be 'replay' or 'live'"):
        replay(asking.log, mode="dry")
    with pytest.raises(ConfigError, match="backend: models are asked in mode='live' only"):
        replay(asking.log, backend="openai")
    with pytest.raises(ConfigError, match="Unknown environment"):
        replay(asking.log, environment="nowhere")
    with pytest.raises(RecordingError, match="There is no log"):
        replay("nothing.jsonl")
    asking.notebook.write_text("{}")
    with pytest.raises(RecordingError):
        replay(asking.notebook)
