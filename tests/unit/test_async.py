from __future__ import annotations

import asyncio
import signal
import threading
from concurrent import futures

import pytest

from rlm_kernel._async import Job, gather_or_cancel, run_in_thread, shielded, without_stops


async def test_results_come_in_order():
    assert await gather_or_cancel(asyncio.sleep(0.01, "a"), asyncio.sleep(0, "b")) == ("a", "b")


async def test_a_failure_is_raised_as_it_is_after_the_others_cleaned_up():
    cleaned = []

    async def tidy():
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            cleaned.append(True)

    async def fail():
        await asyncio.sleep(0)
        raise KeyError("as it is")

    with pytest.raises(KeyError, match="as it is"):
        await gather_or_cancel(tidy(), fail())
    assert cleaned == [True]


async def test_cancelling_the_caller_lets_the_jobs_clean_up():
    cleaned, started = [], asyncio.Event()

    async def tidy():
        try:
            started.set()
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            cleaned.append(True)

    caller = asyncio.create_task(gather_or_cancel(tidy(), tidy()))
    await started.wait()
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert cleaned == [True, True]


async def test_what_must_not_be_cut_short_ends_before_any_number_of_cancellations_is_raised():
    steps, started = [], asyncio.Event()

    async def tidy():
        started.set()
        for step in range(3):
            await asyncio.sleep(0.01)
            steps.append(step)

    task = asyncio.create_task(shielded(tidy()))
    await started.wait()
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert steps == [0, 1, 2]


async def test_what_must_not_be_cut_short_gives_its_result_and_its_failure():
    async def fail():
        raise KeyError("as it is")

    assert await shielded(asyncio.sleep(0, "result")) == "result"
    with pytest.raises(KeyError, match="as it is"):
        await shielded(fail())


async def test_work_that_waits_for_other_work_has_a_thread_of_its_own():
    all_here = threading.Barrier(64)
    async with asyncio.timeout(30):
        assert sorted(await gather_or_cancel(*(run_in_thread(all_here.wait) for _ in range(64)))) == list(range(64))


@pytest.mark.parametrize(
    "error",
    [
        ValueError("wrong"),
        SystemExit("enough"),
        StopIteration("at its end"),
        GeneratorExit("closed"),
        asyncio.CancelledError("not by us"),
        futures.CancelledError("not by us"),
    ],
)
async def test_what_is_raised_in_a_thread_is_raised_where_it_is_awaited(error):
    def fail():
        raise error

    with pytest.raises((type(error), RuntimeError), match=str(error)):
        await run_in_thread(fail)


async def test_a_stop_of_a_users_code_is_an_error_and_one_of_ours_is_none():
    async def fail(error):
        await asyncio.sleep(0)
        raise error

    for error in (GeneratorExit("by itself"), asyncio.CancelledError("by itself")):
        with pytest.raises(RuntimeError, match=f"raised {type(error).__name__}: by itself"):
            await without_stops(fail(error))
    waiting = asyncio.create_task(without_stops(asyncio.sleep(60)))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled()


async def test_a_thread_that_nobody_waits_for_any_more_ends_in_silence():
    go_on, ended = threading.Event(), threading.Event()

    def work():
        go_on.wait()
        ended.set()

    waiting = asyncio.create_task(run_in_thread(work))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    go_on.set()
    assert await asyncio.to_thread(ended.wait, 10)


def test_ctrl_c_ends_a_wait_also_when_the_system_gives_it_to_another_thread():
    """It looks the same when it comes while the main thread begins to wait: Python notes it, and goes to sleep."""
    ended = []

    async def work():
        try:
            threading.Thread(target=lambda: signal.pthread_kill(threading.get_ident(), signal.SIGINT)).start()
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            ended.append("stopped")
            raise
        ended.append("ran to its end")

    with pytest.raises(KeyboardInterrupt):
        Job(work()).wait()

    assert ended == ["stopped"]
