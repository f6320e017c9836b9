from __future__ import annotations

import asyncio

import pytest

from rlm_kernel.together import to_its_end, together


async def test_results_come_in_order():
    assert await together(asyncio.sleep(0.01, "a"), asyncio.sleep(0, "b")) == ("a", "b")


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
        await together(tidy(), fail())
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

    caller = asyncio.create_task(together(tidy(), tidy()))
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

    task = asyncio.create_task(to_its_end(tidy()))
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

    assert await to_its_end(asyncio.sleep(0, "result")) == "result"
    with pytest.raises(KeyError, match="as it is"):
        await to_its_end(fail())
