"""A run as a whole: sub-calls, usage, failures, a kernel that dies, events."""

from __future__ import annotations

import asyncio

import pytest

from rlm_kernel.clients.scripted import ScriptedLM
from rlm_kernel.errors import ConfigError, LMError
from rlm_kernel.trajectory import events as said
from rlm_kernel.types import Reply, Usage


def names(events):
    return [type(event).__name__ for event in events]


async def test_the_events_of_a_run_in_their_order(run, events):
    lm = ScriptedLM(["```repl\nprint(llm_query('a'))\n```", "b", "FINAL(x)"])
    await run(lm)
    happened = [name for name in names(events) if name not in ("KernelReady", "CellOutput")]
    assert happened == [
        "RunStarted", "IterationStarted", "ModelReplied",
        "CellStarted", "SubcallStarted", "SubcallAnswered", "SubcallFinished", "CellFinished", "IterationFinished",
        "IterationStarted", "ModelReplied", "IterationFinished", "RunFinished",
    ]  # fmt: skip
    assert [e.time for e in events] == sorted(e.time for e in events)


async def test_usage_is_summed_over_root_and_sub_calls_by_model(run):
    root = ScriptedLM([Reply("```repl\nllm_query_batched(['p'] * 50)\n```", "root", Usage(100, 10)),
                       Reply("FINAL(x)", "root", Usage(200, 5))], model="root")  # fmt: skip
    sub = ScriptedLM(lambda _: Reply("ok", "sub", Usage(3, 2, cost=0.5)), model="sub", delay=0.001)
    usage = (await run(root, others=(sub,))).usage_summary
    assert usage.to_dict() == {
        "model_usage_summaries": {
            "root": {"total_calls": 2, "total_input_tokens": 300, "total_output_tokens": 15, "total_cached_tokens": 0},
            "sub": {"total_calls": 50, "total_input_tokens": 150, "total_output_tokens": 100, "total_cached_tokens": 0,
                    "total_cost": 25.0},
        },
        "total_cost": 25.0,
        "unpriced_models": ["root"],
    }  # fmt: skip


async def test_at_most_so_many_sub_calls_are_in_flight(run):
    sub = ScriptedLM(lambda _: "ok", model="sub", delay=0.01)
    code = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(4) as pool:\n"
        "    batches = list(pool.map(lambda i: llm_query_batched([f'{i}.{n}' for n in range(10)]), range(4)))\n"
        "FINAL(sum(map(len, batches)))"
    )
    completion = await run(ScriptedLM([f"```repl\n{code}\n```"]), others=(sub,), max_concurrent_queries=3)
    assert completion.response == "40"
    assert sub.max_in_flight == 3


async def test_sub_calls_go_to_the_first_other_model_or_to_the_one_named(run):
    root = ScriptedLM(
        ["```repl\nFINAL([llm_query('x'), llm_query('x', model='two'), rlm_query('x')])\n```"], model="root"
    )
    one, two = (ScriptedLM(lambda _, n=n: f"from {n}", model=n) for n in ("one", "two"))
    assert (await run(root, others=(one, two))).response == "['from one', 'from two', 'from one']"


async def test_an_unknown_model_is_an_error_that_lists_the_known(run):
    root = ScriptedLM(["```repl\nllm_query('x', model='gpt-9')\n```", "FINAL(x)"], model="root")
    await run(root, others=(ScriptedLM([], model="one"),))
    assert "no model 'gpt-9'. Known: 'root', 'one'." in root.calls[1].prompt


async def test_a_prompt_beyond_the_window_is_refused_before_it_is_sent(run):
    sub = ScriptedLM([], model="sub", context_window=1000)
    root = ScriptedLM(["```repl\nllm_query('x' * 10_000)\n```", "FINAL(x)"])
    await run(root, others=(sub,))
    assert "10,000 characters, at least 2,000 tokens" in root.calls[1].prompt
    assert "1,000 tokens" in root.calls[1].prompt
    assert sub.calls == []


@pytest.mark.anywhere
async def test_a_failed_sub_call_is_a_traceback_and_a_failed_slot_a_value(run):
    failure = LMError("the provider said no", backend="b", model="sub", status=500)
    sub = ScriptedLM(lambda messages: failure if "bad" in messages[-1]["content"] else "fine", model="sub")
    root = ScriptedLM(["```repl\nprint(llm_query_batched(['good', 'bad']))\nllm_query('bad')\n```", "FINAL(x)"])
    await run(root, others=(sub,))
    assert "['fine', 'Error: the provider said no']" in root.calls[1].prompt
    assert "QueryError: llm_query has no answer: the provider said no" in root.calls[1].prompt


class Unsteady(ScriptedLM):
    """A model of a user's own, which raises whatever comes up from below."""

    async def complete(self, messages, **options):
        reply = await super().complete(messages, **options)
        if reply.text == "break":
            raise ConnectionError("reset by peer")
        return reply


async def test_an_error_of_a_model_of_ones_own_takes_one_prompt_and_is_on_record(run, events):
    root = ScriptedLM(["```repl\nllm_query_batched(['a', 'break', 'c'])\n```", "FINAL(x)"])
    sub = Unsteady(lambda messages: messages[-1]["content"], model="sub", delay=0.01)
    await run(root, others=(sub,))
    assert "['a', 'Error: ConnectionError: reset by peer', 'c']" in root.calls[1].prompt
    answered = {e.index: e.error for e in events if isinstance(e, said.SubcallAnswered)}
    assert answered == {0: None, 1: "ConnectionError: reset by peer", 2: None}


async def test_a_failing_root_model_ends_the_run_with_its_error(run, events):
    failure = LMError("no credit", backend="b", model="m", status=402)
    with pytest.raises(LMError, match="no credit"):
        await run(ScriptedLM([failure]))
    assert names(events)[-1] == "RunFailed"
    assert events[-1].error is failure


@pytest.mark.anywhere
async def test_a_kernel_that_cannot_be_set_up_ends_the_run_while_the_model_still_thinks(run):
    with pytest.raises(ConfigError, match="setup_code"):
        await run(ScriptedLM(["never"], delay=3600), environment_kwargs={"setup_code": "1/0"})


@pytest.mark.anywhere
@pytest.mark.parametrize(
    ("code", "kwargs", "reason"),
    [
        ("import os; os._exit(1)", {}, "it died"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", {}, "it died"),
        (
            "import time\nwhile True:\n    try: time.sleep(60)\n    except KeyboardInterrupt: pass",
            {"cell_timeout": 0.3},
            "did not end in time",
        ),
    ],
)
async def test_a_lost_kernel_is_replaced_and_the_model_is_told(run, events, code, kwargs, reason):
    lm = ScriptedLM(["```repl\nkept = 1\n```", f"```repl\n{code}\n```", "```repl\nFINAL(len(context))\n```"])
    assert (await run(lm, "x" * 9, environment_kwargs=kwargs)).response == "9"
    assert reason in lm.calls[2].prompt
    assert "Still there: `kept`" in lm.calls[2].prompt
    assert any(isinstance(event, said.Notice) and "started again" in event.message for event in events)


@pytest.mark.everywhere
async def test_a_cell_timeout_is_told_and_the_variables_stay(run):
    lm = ScriptedLM(["```repl\nkept = 5\nwhile True: pass\n```", "```repl\nFINAL(kept)\n```"])
    assert (await run(lm, environment_kwargs={"cell_timeout": 0.5})).response == "5"
    assert "took too long" in lm.calls[1].prompt


@pytest.mark.everywhere
async def test_cancelling_a_run_closes_its_kernel(run, events):
    lm = ScriptedLM(["```repl\nprint('running', flush=True)\nwhile True: pass\n```"])
    task = asyncio.create_task(run(lm))
    async with asyncio.timeout(30):
        while "CellOutput" not in names(events):
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert names(events)[-1] == "RunFailed"


async def test_the_first_reply_is_asked_for_while_the_kernel_starts(run, events):
    await run(ScriptedLM(["```repl\nFINAL(1)\n```"]))
    assert names(events).index("ModelReplied") < names(events).index("KernelReady")
