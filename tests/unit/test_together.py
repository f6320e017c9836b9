from __future__ import annotations

import asyncio

import pytest

from rlm_kernel.together import together


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
