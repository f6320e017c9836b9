"""A lost kernel comes back with its variables, at no cost; a persistent one keeps them over completions."""

from __future__ import annotations

import asyncio

import pytest

from rlm import RLM, RLMError, ScriptedLM
from rlm_kernel.limits import Limits
from rlm_kernel.tools import tools_of

DIE = "```repl\nimport os; os._exit(1)\n```"


def cell(code):
    return f"```repl\n{code}\n```"


@pytest.mark.everywhere
async def test_variables_come_back_and_no_model_is_asked_again(run):
    sub = ScriptedLM(lambda messages: messages[-1]["content"].upper(), model="sub")
    root = ScriptedLM([
        cell("a = llm_query('one')\nb = llm_query_batched(['two', 'two'])\nc = llm_query('one')"),
        cell("left_before_the_error = 1\n1/0"),
        DIE,
        cell("FINAL([a, b, c, left_before_the_error])"),
    ])  # fmt: skip
    completion = await run(root, others=(sub,))
    assert completion.response == "['ONE', ['TWO', 'TWO'], 'ONE', 1]"
    assert len(sub.calls) == 4
    assert completion.usage_summary.model_usage_summaries["sub"].total_calls == 4
    assert "Still there: `a`, `b`, `c`, `left_before_the_error`" in root.calls[3].prompt


async def test_the_same_question_gets_its_answers_in_order(run):
    answers = iter("abc")
    sub = ScriptedLM(lambda _: next(answers), model="sub")
    root = ScriptedLM([cell("x = [llm_query('q') for _ in range(3)]"), DIE, cell("FINAL(x)")])
    assert (await run(root, others=(sub,))).response == "['a', 'b', 'c']"


@pytest.mark.everywhere
async def test_a_tool_is_not_called_again(run):
    calls = []
    tools = tools_of({"tool": lambda x: calls.append(x) or len(calls)})
    root = ScriptedLM([cell("x = tool(5)"), DIE, cell("FINAL(x)")])
    assert (await run(root, tools=tools)).response == "1"
    assert calls == [5]


@pytest.mark.everywhere
async def test_chance_falls_the_same_way_again(run):
    code = "import random\nx = (random.random(), hash('text'), list({'a', 'b', 'c', 'd', 'e'}))\nprint(x)"
    root = ScriptedLM([cell(code), DIE, cell("print(x)"), "FINAL(x)"])
    await run(root, seed=7)
    first = root.calls[1].prompt.split("Output:\n")[1].split("\n")[0]
    assert first in root.calls[3].prompt


async def test_a_question_that_was_never_asked_fails_in_a_rebuild(run):
    # Each run of this cell asks something else: the rebuilt one has no answer on record.
    code = "import time\ntry: x = llm_query(str(time.time_ns()))\nexcept Exception as error: y = str(error)"
    sub = ScriptedLM(lambda _: "answer", model="sub")
    root = ScriptedLM([cell(code), DIE, cell("FINAL(y)")])
    assert "not asked before" in (await run(root, others=(sub,))).response
    assert len(sub.calls) == 1
    assert "Lost: `x`" in root.calls[2].prompt


@pytest.mark.everywhere
async def test_it_comes_back_more_than_once(run):
    root = ScriptedLM([cell("x = [1]"), DIE, cell("x.append(2)"), DIE, cell("FINAL(x)")])
    assert (await run(root)).response == "[1, 2]"


async def test_five_hundred_children_and_a_flood_leave_the_state_whole(run):
    root = ScriptedLM([
        cell("import subprocess\nprocesses = [subprocess.Popen(['sleep', '600']) for _ in range(500)]\nn = 1"),
        cell("for i in range(1_000_000): print(i)\nm = 2"),
        cell("FINAL(n + m)"),
    ])  # fmt: skip
    assert (await run(root, limits=Limits(max_timeout=100))).response == "3"


def test_a_persistent_rlm_keeps_variables_contexts_and_conversations():
    lm = ScriptedLM([
        cell("kept = len(context)"),
        "FINAL(first)",
        cell("FINAL([kept, context, context_0, context_1, len(history_0), history_0[0]['role']])"),
    ])  # fmt: skip
    with RLM(lm, persistent=True) as rlm:
        assert rlm.completion("one").response == "first"
        assert rlm.completion("two").response == "[3, 'two', 'one', 'two', 5, 'system']"
    assert "`context_0`" in lm.calls[2].prompt
    assert "`kept`" in lm.calls[2].prompt


def test_a_persistent_kernel_that_died_comes_back():
    lm = ScriptedLM([cell("kept = context"), "FINAL(first)", DIE, cell("FINAL([kept, context, context_0])")])
    with RLM(lm, persistent=True) as rlm:
        rlm.completion("one")
        assert rlm.completion("two").response == "['one', 'two', 'one']"


def test_a_persistent_rlm_is_whole_after_a_completion_that_failed():
    lm = ScriptedLM([cell("kept = context"), "FINAL(first)", ValueError("a bug"), cell("FINAL([kept, context])")])
    with RLM(lm, persistent=True) as rlm:
        rlm.completion("one")
        with pytest.raises(ValueError, match="a bug"):
            rlm.completion("two")
        assert rlm.completion("three").response == "['one', 'three']"


async def test_using_a_persistent_rlm_twice_at_once_is_an_error():
    async with RLM(ScriptedLM(lambda _: cell("FINAL(1)"), delay=0.2), persistent=True) as rlm:
        first, second = await asyncio.gather(rlm.acompletion("one"), rlm.acompletion("two"), return_exceptions=True)
        assert {type(first), type(second)} >= {RLMError}
        assert (await rlm.acompletion("three")).response == "1"


def test_a_persistent_rlm_at_the_greatest_depth_is_a_plain_completion():
    with RLM(ScriptedLM(["plain"]), persistent=True, max_depth=0) as rlm:
        assert rlm.completion("x").response == "plain"
