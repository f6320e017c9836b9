"""`budget()` in the REPL: what is left of the limits."""

from __future__ import annotations

import re

import pytest

from rlm import RLM, AgentRLM, ScriptedLM
from rlm.logger import RLMLogger
from rlm_kernel.engine.budget import Limits
from rlm_kernel.replay.replayer import replay
from rlm_kernel.types import Reply, Usage

LIMITS = Limits(max_budget=2.0, max_timeout=600, max_tokens=10_000, max_errors=3, max_calls=5)


def cell(code):
    return f"```repl\n{code}\n```"


def costs(text):
    return Reply(text, "scripted", Usage(300, 20, cost=0.25), "stop")


def is_told(lm, words):
    return words in lm.calls[-1].prompt


@pytest.mark.everywhere
async def test_it_tells_what_is_left_of_every_limit(run):
    lm = ScriptedLM(
        [costs(cell("llm_query('a'); 1 / 0")), costs("an answer"), costs(cell("b = budget(); print(b)")), "FINAL(x)"]
    )
    await run(lm, limits=LIMITS, max_iterations=10, max_depth=2)
    found = re.search(r"Budget\(seconds=(\S+), (.*)\)", lm.calls[-1].prompt)
    assert 0 < float(found[1]) < 600
    assert found[2] == "tokens=9040, cost=1.25, calls=4, errors=2, iterations=8, depth=1"


async def test_without_limits_it_says_so(run):
    lm = ScriptedLM([cell("print(budget()); print(budget().seconds)"), "FINAL(x)"])
    await run(lm)
    unlimited = "seconds=no limit, tokens=no limit, cost=no limit, calls=no limit, errors=no limit"
    assert is_told(lm, f"Budget({unlimited}, iterations=29, depth=0)\nNone")


async def test_a_child_has_its_own_turns_and_the_calls_of_the_tree(run):
    child = ScriptedLM([cell("FINAL((budget().iterations, budget().depth, budget().calls))")], model="child")
    root = ScriptedLM([cell("print(rlm_query('x', model='child'))"), "FINAL(x)"])
    await run(root, others=[child], max_depth=3, max_iterations=7, limits=Limits(max_calls=9))
    assert is_told(root, "(6, 1, 8)")


@pytest.mark.anywhere
async def test_a_cell_may_take_the_name_and_nothing_is_put_back(run, events):
    lm = ScriptedLM([cell("budget = {'a': 1}"), cell("print(budget, SHOW_VARS())"), "FINAL(x)"])
    await run(lm)
    assert is_told(lm, "{'a': 1} {'budget': 'dict'}")
    assert not is_told(lm, "put back")


async def test_a_tool_may_take_the_name():
    lm = ScriptedLM([cell("print(budget('mine'))"), "FINAL(x)"])
    await RLM(lm, custom_tools={"budget": str.upper}).acompletion("x", "q")
    assert is_told(lm, "MINE")


async def test_on_tool_is_not_asked_about_it():
    lm = ScriptedLM([cell("print(budget().iterations)"), "FINAL(x)"])
    asked = []
    await RLM(lm, on_tool=lambda request: asked.append(request) or True).acompletion("x", "q")
    assert is_told(lm, "29")
    assert asked == []


async def test_an_agent_has_it_with_what_is_left_of_the_conversation():
    lm = ScriptedLM([cell("print(budget().tokens)"), "FINAL(done)"], model="scripted")
    async with AgentRLM(lm, max_total_tokens=5_000_000) as agent:
        await agent.acompletion("How much is left?")
    assert re.search(r"\b4999\d{3}\b", lm.calls[-1].prompt)


def test_a_replay_gives_the_recorded_value(tmp_path):
    code = "left = budget()\nprint(left)\nprint(budget().seconds)"
    lm, logger = ScriptedLM([cell(code), "FINAL(done)"]), RLMLogger(tmp_path)
    RLM(lm, logger=logger, max_timeout=600).completion("x", "q")
    report = replay(logger.notebook_path)
    assert report.equal, str(report)


def test_a_rebuilt_kernel_gets_the_recorded_value(tmp_path):
    lm = ScriptedLM(
        [cell("left = budget().seconds\nprint(left)"), cell("import os; os._exit(1)"), cell("print(left)"), "FINAL(x)"]
    )
    RLM(lm, max_timeout=600).completion("x", "q")
    first, second = (re.search(r"^\d+\.\d+$", lm.calls[index].prompt, re.MULTILINE)[0] for index in (1, 3))
    assert first == second
