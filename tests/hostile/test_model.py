"""What a model may write into its cells to get round limits."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import psutil
import pytest

from rlm import RLM, BudgetExceededError, ScriptedLM, TimeoutExceededError, TokenLimitExceededError
from rlm_kernel.records import Reply, Usage

CANCELS = """
import signal
def give_up(*_): raise InterruptedError
signal.signal(signal.SIGALRM, give_up)
for _ in range(200):
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try: llm_query('p' * 1_000)
    except InterruptedError: pass
    finally: signal.setitimer(signal.ITIMER_REAL, 0)
FINAL('free of charge')
"""
CHEAP_THEN_DEAR = "llm_query('hi')\nFINAL(len(llm_query_batched(['x' * 50_000] * 16)))"


class PricedLM(ScriptedLM):
    """A model whose prices are known."""

    def reply_limit(self, max_tokens):
        return max_tokens

    def price(self, read, wrote):
        return 1e-6 * read + 1e-6 * wrote


def leads(code):
    return ScriptedLM([Reply(f"```repl\n{code}\n```", "root", Usage(10, 5, cost=0.0))], model="root")


def kernels():
    """Kernels that we have started and that are alive; a launcher and the kernel itself name the same file."""
    files = set()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            command = process.cmdline()
            if "rlm_kernel.provisioners.launcher" in command:
                files.add(command[-1])
    return len(files)


class Counts:
    """Counts the kernels while it is entered."""

    def __enter__(self):
        self.most, self._over = 0, threading.Event()
        self._thread = threading.Thread(target=self._count)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def _count(self):
        while not self._over.wait(0.02):
            self.most = max(self.most, kernels())


async def test_calls_that_a_cell_gives_up_before_their_answer_are_not_free():
    sub = PricedLM(lambda _: "late", model="sub", delay=600)
    with pytest.raises(BudgetExceededError, match="are an estimate") as raised:
        await RLM(leads(CANCELS), other_backends=[sub], max_budget=0.05).acompletion("x")
    dearest = sub.price(1_544, 4_096)
    assert 0.05 <= raised.value.spent <= 0.05 + dearest
    spent = raised.value.usage.model_usage_summaries["sub"]
    assert spent.total_calls == len(sub.calls) < 20
    assert spent.estimated_cost == pytest.approx(raised.value.estimated) == pytest.approx(raised.value.spent)


async def test_one_cheap_call_opens_no_door_for_dear_ones_at_once():
    def script(messages):
        return Reply("ok", "sub", Usage(len(messages[-1]["content"]), 1))

    sub = ScriptedLM(script, model="sub", delay=0.01)
    with pytest.raises(TokenLimitExceededError) as raised:
        await RLM(leads(CHEAP_THEN_DEAR), other_backends=[sub], max_tokens=1_000).acompletion("x")
    assert raised.value.tokens_used <= 1_000 + 50_001
    assert sub.most_in_flight == 1


async def test_a_wide_and_deep_tree_has_no_more_kernels_than_its_bound():
    code = "n = int(context)\nFINAL(1 + sum(map(int, rlm_query_batched([str(n - 1)] * 2))) if n else 1)"
    lm = ScriptedLM(lambda _: f"```repl\n{code}\n```")
    with Counts() as counted:
        done = await RLM(lm, max_depth=4, max_kernels=4, max_concurrent_subcalls=16).acompletion("3")
    assert done.response == "15"
    assert 2 <= counted.most <= 4


async def test_children_that_wait_for_a_kernel_end_with_the_time():
    code = "FINAL(rlm_query_batched(['sleep'] * 8)) if context == 'go' else __import__('time').sleep(600)"
    rlm = RLM(
        ScriptedLM(lambda _: f"```repl\n{code}\n```"),
        max_depth=2,
        max_kernels=2,
        max_concurrent_subcalls=8,
        max_timeout=8,
    )
    with pytest.raises(TimeoutExceededError):
        await asyncio.wait_for(rlm.acompletion("go"), 60)
    assert kernels() == 0


async def test_children_that_wait_for_a_kernel_end_when_the_run_is_cancelled():
    started = asyncio.Event()

    def script(messages):
        if len(lm.calls) > 1:
            loop.call_soon_threadsafe(started.set)
        return f"```repl\n{code}\n```"

    code = "FINAL(rlm_query_batched(['sleep'] * 8)) if context == 'go' else __import__('time').sleep(600)"
    loop, lm = asyncio.get_running_loop(), ScriptedLM(script)
    rlm = RLM(lm, max_depth=2, max_kernels=2, max_concurrent_subcalls=8)
    task = asyncio.create_task(rlm.acompletion("go"))
    await asyncio.wait_for(started.wait(), 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 60)
    assert len(lm.calls) == 2
    assert kernels() == 0
