"""Limits hold: in parallel, inside of a cell, to within one call."""

from __future__ import annotations

import asyncio
import time

import pytest

from rlm_kernel.clients.scripted import ScriptedLM
from rlm_kernel.engine.budget import Limits
from rlm_kernel.errors import (
    BudgetExceededError,
    ErrorThresholdExceededError,
    TimeoutExceededError,
    TokenLimitExceededError,
)
from rlm_kernel.trajectory.events import Notice
from rlm_kernel.types import Reply, Usage

FOREVER = "while True: pass"
BLOCKED = "import ctypes; ctypes.PyDLL(None).sleep(600)"  # holds the GIL: no signal is looked at
WAITING = (
    "from concurrent.futures import ThreadPoolExecutor\n"
    "with ThreadPoolExecutor(32) as pool: list(pool.map(llm_query, map(str, range(32))))"
)


def priced(cost, tokens=10):
    return ScriptedLM(lambda _: Reply("ok", "sub", Usage(tokens, 0, cost=cost)), model="sub", delay=0.002)


@pytest.mark.parametrize("code", [FOREVER, BLOCKED, WAITING])
async def test_the_timeout_holds_inside_a_cell(run, code):
    lm = ScriptedLM(["```repl\nanswer['content'] = 'so far'\n```", f"```repl\n{code}\n```"])
    started = time.monotonic()
    with pytest.raises(TimeoutExceededError) as raised:
        await run(lm, others=(ScriptedLM(lambda _: "late", model="sub", delay=600),), limits=Limits(max_timeout=1.5))
    assert time.monotonic() - started < 10
    assert (raised.value.partial_answer, raised.value.timeout) == ("so far", 1.5)
    models = raised.value.usage.model_usage_summaries
    assert models["scripted"].total_calls == 2
    if code == WAITING:  # calls under way are counted by an estimate
        assert (
            models["sub"].estimated_tokens == models["sub"].total_input_tokens + models["sub"].total_output_tokens > 0
        )
    assert set(models) == {"scripted"} | ({"sub"} if code == WAITING else set())


async def test_the_timeout_holds_while_the_model_thinks(run):
    with pytest.raises(TimeoutExceededError, match="max_timeout"):
        await run(ScriptedLM(["late"], delay=600), limits=Limits(max_timeout=0.5))


@pytest.mark.parametrize("concurrent", [1, 16])
async def test_a_budget_is_overshot_by_at_most_one_call(run, concurrent):
    root = ScriptedLM([Reply("```repl\nllm_query_batched(['p'] * 200)\n```", "root", Usage(cost=0.0))], model="root")
    sub = priced(0.07)
    with pytest.raises(BudgetExceededError) as raised:
        await run(root, others=(sub,), limits=Limits(max_budget=1.0), max_concurrent_queries=concurrent)
    assert 1.0 <= raised.value.spent < 1.0 + 0.07
    assert raised.value.usage.model_usage_summaries["sub"].total_cost == pytest.approx(raised.value.spent)
    assert len(sub.calls) == 15
    assert raised.value.budget == 1.0


@pytest.mark.anywhere
async def test_tokens_are_counted_over_root_and_sub_calls(run):
    root = ScriptedLM([Reply("```repl\nllm_query_batched(['p'] * 200)\n```", "root", Usage(500, 100))], model="root")
    sub = priced(None, tokens=30)
    with pytest.raises(TokenLimitExceededError) as raised:
        await run(root, others=(sub,), limits=Limits(max_tokens=1000))
    assert 1000 <= raised.value.tokens_used < 1000 + 600
    assert raised.value.token_limit == 1000


async def test_errors_in_a_row_end_the_run_and_others_do_not(run):
    bad, good = "```repl\n1/0\n```", "```repl\nimport warnings; warnings.warn('only a warning')\n```"
    lm = ScriptedLM([bad, good, bad, bad, good])
    with pytest.raises(ErrorThresholdExceededError, match="(?s)2 cells in a row.*ZeroDivisionError") as raised:
        await run(lm, limits=Limits(max_errors=2))
    assert (raised.value.error_count, raised.value.threshold, len(lm.calls)) == (2, 2, 4)


@pytest.mark.parametrize(
    "code",
    [
        "try: 1/0\nexcept ZeroDivisionError: get_ipython().showtraceback()",
        "import time; time.sleep(600)",
    ],
    ids=["a traceback that it shows itself", "interrupted by its time limit"],
)
async def test_a_cell_that_did_not_raise_by_itself_is_no_error(run, code):
    lm = ScriptedLM([f"```repl\n{code}\n```", "FINAL(x)"])
    environment_kwargs = {"cell_timeout": 0.5}
    completion = await run(lm, limits=Limits(max_errors=1), environment_kwargs=environment_kwargs)
    assert completion.response == "x"


@pytest.mark.everywhere
async def test_a_limit_ends_a_cell_that_would_go_on(run):
    code = "import time\nfor i in range(1000):\n    try: llm_query('p')\n    except Exception: pass\nprint('done')"
    root = ScriptedLM([Reply(f"```repl\n{code}\n```", "root", Usage(cost=0.0))], model="root")
    sub = priced(0.3)
    with pytest.raises(BudgetExceededError):
        await run(root, others=(sub,), limits=Limits(max_budget=1.0))
    assert len(sub.calls) == 4


@pytest.mark.parametrize("kind", ["execute_reply", "status"])
async def test_a_limit_ends_a_cell_whose_kernel_never_says_how_it_ended(run, kind):
    code = (
        "session = get_ipython().kernel.session\n"
        "send = session.send\n"
        f"session.send = lambda to, what, *args, **options: {kind!r} == what or send(to, what, *args, **options)\n"
        "llm_query('p'), llm_query('q')"
    )
    root = ScriptedLM([Reply(f"```repl\n{code}\n```", "root", Usage(cost=0.0))], model="root")
    with pytest.raises(BudgetExceededError):
        await asyncio.wait_for(run(root, others=(priced(2.0),), limits=Limits(max_budget=1.0)), 20)


async def test_a_budget_for_a_model_without_a_price_says_so_once(run, events):
    lm = ScriptedLM(["```repl\n1\n```", "```repl\n2\n```", "FINAL(x)"])
    await run(lm, limits=Limits(max_budget=1.0))
    (notice,) = [event.message for event in events if isinstance(event, Notice)]
    assert "The cost of scripted is unknown" in notice


@pytest.mark.parametrize(("reply", "depth"), [("```repl\nFINAL(1)\n```", 1), ("1", 0)])
async def test_it_says_so_too_when_the_first_reply_is_the_answer(run, events, reply, depth):
    assert (await run(ScriptedLM([reply]), limits=Limits(max_budget=1.0), max_depth=depth)).response == "1"
    assert "The cost of scripted is unknown" in next(event.message for event in events if isinstance(event, Notice))


async def test_without_limits_nothing_is_held_back(run):
    sub = priced(5.0)
    lm = ScriptedLM(["```repl\nFINAL(len(llm_query_batched(['p'] * 40)))\n```"])
    assert (await run(lm, others=(sub,))).response == "40"
    assert sub.max_in_flight == 16


@pytest.mark.parametrize(
    ("replies", "words"),
    [
        (["I think it is 7.\n```repl\n1/0\n```"], "I think it is 7."),
        (["First.\n```repl\n1\n```", "It is 7.\n```repl\n1\n```", "", "```repl\n1/0\n```"], "It is 7."),
        (["```repl\n1/0\n```"], "```repl\n1/0\n```"),
    ],
)
async def test_without_a_draft_the_last_words_are_the_partial_answer(run, replies, words):
    with pytest.raises(ErrorThresholdExceededError) as raised:
        await run(ScriptedLM(replies), limits=Limits(max_errors=1))
    assert raised.value.partial_answer == words
