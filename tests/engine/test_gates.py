"""`on_cell` and `on_tool`: what the models do is let through, replaced or refused; it is on record, and asked once."""

from __future__ import annotations

import asyncio
import json

import nbformat
import pytest
from nbclient import NotebookClient
from recorded_runs import notebook_beside

from rlm import RLM, CellRequest, ConfigError, Refuse, Replace, RLMError, ScriptedLM, ToolRequest
from rlm.logger import RLMLogger
from rlm_kernel.replay.replayer import replay

pytestmark = pytest.mark.slow


def cell(code):
    return f"```repl\n{code}\n```"


def answered(replies, folder=None, **arguments):
    lm = ScriptedLM(replies)
    with RLM(lm, logger=RLMLogger(folder) if folder else None, **arguments) as rlm:
        return rlm.completion("Go."), lm


def test_a_refused_cell_does_not_run_and_the_model_reads_why():
    asked = []

    def on_cell(request):
        asked.append(request)
        return Refuse("nothing is deleted here") if "delete" in request.code else True

    completion, lm = answered([cell("delete = 1"), cell("FINAL(dir().count('del' + 'ete'))")], on_cell=on_cell)
    assert "refused this cell, so it did not run: nothing is deleted here" in lm.calls[1].prompt
    assert completion.response == "0"
    assert asked[0] == CellRequest("delete = 1", 1)


async def test_a_cell_may_be_replaced_also_by_an_async_function():
    async def on_cell(request):
        await asyncio.sleep(0)
        return Replace(request.code.replace("1", "2"))

    lm = ScriptedLM([cell("x = 1"), cell("FINAL(x)")])
    with RLM(lm, on_cell=on_cell) as rlm:
        assert (await rlm.acompletion("Go.")).response == "2"
    assert "This is what ran:\n```repl\nx = 2" in lm.calls[1].prompt


def test_a_tool_and_a_sub_call_may_be_refused():
    code = """
found = []
for call in (lambda: double(1), lambda: llm_query("one"), lambda: llm_query_batched(["a", "b"])):
    try:
        call()
    except (PermissionError, ValueError) as error:
        found.append(str(error))
FINAL(set(found))
"""
    called = []
    tools = {"double": called.append}
    completion, lm = answered([cell(code)], custom_tools=tools, on_tool=lambda _: Refuse("it is so"))
    assert completion.response == "{'the user refused this call: it is so'}"
    assert (called, len(lm.calls)) == ([], 1)


def test_a_result_may_be_given_instead():
    asked = []

    def on_tool(request):
        asked.append(request)
        return Replace({"double": [7], "llm_query": ["A", "B"]}[request.name])

    code = "FINAL([double(1, x=2), llm_query_batched(['a', 'b'], model='scripted')])"
    completion, _ = answered([cell(code)], custom_tools={"double": lambda _: 0}, on_tool=on_tool)
    assert completion.response == "[[7], ['A', 'B']]"
    assert asked[0] == ToolRequest("double", (1,), {"x": 2})
    assert asked[1] == ToolRequest("llm_query", ("a", "b"), {"model": "scripted"})


def test_the_cells_of_children_are_asked_about_too():
    asked = []

    def reply(messages):
        return cell("FINAL(rlm_query('inner'))") if "Go." in str(messages) else cell("FINAL(6 * 7)")

    completion, _ = answered(reply, max_depth=2, on_cell=lambda request: asked.append(request.depth) or True)
    assert (completion.response, asked) == ("42", [0, 1])


@pytest.mark.parametrize("argument", ["on_cell", "on_tool"])
def test_a_function_that_does_not_decide_is_an_error(argument):
    with pytest.raises(ConfigError, match=f"{argument} returned None"):
        answered([cell("FINAL(llm_query('one'))"), "one"], **{argument: lambda _: None})


def test_an_error_of_the_function_ends_the_run():
    def on_cell(_):
        raise RLMError("the person has left")

    with pytest.raises(RLMError, match="the person has left"):
        answered([cell("x = 1")], on_cell=on_cell)


@pytest.fixture
def recorded(tmp_path):
    """The log of a run with a refused cell, a replaced one and a refused call."""

    def on_cell(request):
        return Refuse("no") if "bad =" in request.code else Replace("x = 2") if "x = 1" in request.code else True

    replies = [
        cell("bad = 1"),
        cell("x = 1"),
        cell("try:\n    double(1)\nexcept PermissionError as error:\n    print(error)"),
        cell("FINAL((x, 'bad' in dir()))"),
    ]
    arguments = {"custom_tools": {"double": lambda n: n}, "on_cell": on_cell, "on_tool": lambda _: Refuse("nor that")}
    completion, _ = answered(replies, tmp_path, **arguments)
    assert completion.response == "(2, False)"
    (log,) = tmp_path.glob("*.events.jsonl")
    return log


def test_what_was_decided_is_on_record_and_in_the_notebook(recorded):
    lines = [json.loads(line) for line in recorded.read_text().splitlines()]
    cells = [(line["code"], line.get("replaced")) for line in lines if line["type"] == "cell"]
    assert cells[:2] == [("bad = 1", None), ("x = 2", "x = 1")]
    assert next(line for line in lines if line["type"] == "cell_result")["result"]["status"] == "refused"
    shown = notebook_beside(recorded).read_text()
    for words in ("The cell did not run: no", "was changed before it ran", "A call of double was refused: nor that"):
        assert words in shown


def test_a_replay_and_a_resumed_run_ask_nobody(recorded, tmp_path):
    assert replay(recorded).equal
    assert replay(notebook_beside(recorded)).equal
    notebook = nbformat.read(notebook_beside(recorded), 4)
    NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    asked = []
    again = RLM.resume(
        recorded, 3, backend=ScriptedLM([cell("FINAL((x, 'bad' in dir(), 'new'))")]), custom_tools={"double": abs},
        on_cell=lambda request: asked.append(request.code) or True, on_tool=asked.append,
    )  # fmt: skip
    assert again.response == "(2, False, 'new')"
    assert asked == ["FINAL((x, 'bad' in dir(), 'new'))"]
