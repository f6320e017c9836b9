"""Kernels that are started ahead: ready at once, used once, and gone with those who wanted them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest

from rlm_kernel.errors import KernelError
from rlm_kernel.kernel import pool
from rlm_kernel.kernel.session import Session
from rlm_kernel.provisioners.kernelspecs import environment

WHO = "import os, socket; (os.getpid(), os.stat('/proc/self').st_ctime_ns, socket.gethostname())"


@pytest.fixture
async def open_pooled(open_session):
    yield lambda **options: open_session({"pool": 2, **options})
    await pool.close()


def pooled():
    return [kernel for found in pool._pools.values() for kernel in found._starting]


async def full():
    async with asyncio.timeout(60):
        while len(pooled()) < 2:
            await asyncio.sleep(0.01)
        await asyncio.wait(pooled())


async def test_a_kernel_is_taken_once_and_replaced(open_pooled):
    seen = set()
    for _ in range(3):
        async with await open_pooled() as session:
            seen.add((await session.run(WHO)).value)
            assert (await session.run("'x' in globals()")).value == "False"
            await session.run("x = 1")
    assert len(seen) == 3
    await full()
    assert len(pooled()) == 2


async def test_a_kernel_of_the_pool_is_like_any_other(open_pooled):
    async with await open_pooled() as first:
        await first.run("1")
        await full()
        async with await open_pooled() as session:
            await session.set("context", "abc")
            cell = await session.run("print(llm_query(context)); context")
            assert (cell.stdout, cell.value, cell.execution_count) == ("ABC\n", "'abc'", 1)


async def test_one_that_died_while_it_waited_is_passed_over(open_pooled):
    async with await open_pooled() as first:
        await full()
        waiting = pooled()[0].result()
        waiting.channels.send("control", "shutdown_request", {"restart": False})
        await asyncio.wait({waiting.died}, timeout=30)
        assert waiting.died.done()
        async with await open_pooled() as session:
            assert (await session.run("1 + 1")).value == "2"
        assert (await first.run("1 + 1")).value == "2"


async def test_other_options_are_another_pool(open_pooled):
    async with await open_pooled(env={"GREETING": "hello"}) as one, await open_pooled() as other:
        code = "import os; os.environ.get('GREETING')"
        assert [(await one.run(code)).value, (await other.run(code)).value] == ["'hello'", None]
    assert len(pool._pools) == 2


async def test_more_at_once_than_the_pool_has_get_one_each(open_pooled):
    sessions = await asyncio.gather(*(open_pooled() for _ in range(5)))
    seen = {(await session.run(WHO)).value for session in sessions}
    for session in sessions:
        await session.close()
    assert len(seen) == 5
    await full()
    assert len(pooled()) == 2


async def test_who_waits_when_the_pool_is_closed_is_told(open_pooled):
    opening = [asyncio.create_task(open_pooled()) for _ in range(3)]
    await asyncio.sleep(0)
    await pool.close()
    failed = await asyncio.gather(*opening, return_exceptions=True)
    assert [str(error) for error in failed] == ["The pool was closed while a kernel of it was waited for."] * 3


async def test_closing_the_pool_ends_what_waits(open_pooled):
    async with await open_pooled():
        await full()
        waiting = [task.result() for task in pooled()]
    await pool.close()
    assert pooled() == []
    assert all(kernel.died.done() for kernel in waiting)


async def test_a_pool_that_cannot_be_filled_says_why_each_time(echo):
    broken = environment("local", {"pool": 1, "env": {"PYTHONHOME": "/nonexistent"}})
    for _ in range(2):
        with pytest.raises(KernelError, match="ended while it started"):
            await Session.open(broken, echo)
    await pool.close()


async def test_a_refill_that_failed_is_forgotten_when_somebody_asks(open_pooled, monkeypatch):
    async def refused(*_):
        raise KernelError("The place is being updated.")

    async with await open_pooled() as first:
        await full()
        with monkeypatch.context() as patch:
            patch.setattr(pool.Kernel, "start", refused)
            sessions = [await open_pooled() for _ in range(2)]
            await full()
        sessions.append(await open_pooled())
        assert [(await session.run("1 + 1")).value for session in (first, *sessions)] == ["2"] * 4
        for session in sessions:
            await session.close()


async def test_a_kernel_that_nobody_waits_for_any_more_is_ended(open_pooled):
    async with await open_pooled():
        opening = [asyncio.create_task(open_pooled()) for _ in range(5)]
        await asyncio.sleep(0)
        started = pooled()
        for task in opening:
            task.cancel()
        await asyncio.gather(*opening, return_exceptions=True)
        assert len(kept := pooled()) == 2
        await next(iter(pool._pools.values())).wait_until_filled()
        assert all(task.done() for task in kept)
        await pool.close()
        assert all(task.done() and (task.cancelled() or task.result().died.done()) for task in {*started, *kept})


async def test_the_guest_is_in_a_kernel_before_it_is_taken(open_pooled):
    async with await open_pooled():
        await full()
        sent, channels = [], pooled()[0].result().channels
        send = channels.send
        channels.send = lambda *content, **more: sent.append(content) or send(*content, **more)
        async with await open_pooled() as session:
            assert session._kernel.channels is channels
            assert sent == []
            assert (await session.run("print(llm_query('abc'))")).stdout == "ABC\n"


async def test_while_a_cell_runs_only_those_who_wait_get_a_kernel_started(open_pooled):
    async with await open_pooled() as first:
        running = asyncio.create_task(first.run("import time\nwhile not globals().get('over'): time.sleep(0.01)"))
        await asyncio.sleep(2 * pool.REFILL_SECONDS)
        async with await open_pooled() as other:
            assert (await other.run("1 + 1")).value == "2"
            await asyncio.sleep(2 * pool.REFILL_SECONDS)
            assert pooled() == []
        await first.set("over", value=True)
        assert (await running).status == "ok"
        await full()


TWO_PLACES = """
from rlm import RLM, ScriptedLM
for options in ({"pool": 2, "fork": False}, {}):
    RLM(ScriptedLM(["```repl\\n1\\n```", "FINAL(1)"]), environment_kwargs=options).completion("q")
"""


def test_a_process_with_a_pool_ends_in_silence_and_leaves_nothing(tmp_path):
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", TWO_PLACES], capture_output=True, text=True, env=environ, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [path.name for path in tmp_path.iterdir()] == []
