"""The client of an SDK while it is opened and closed: whoever goes away meanwhile, none is left open."""

from __future__ import annotations

import asyncio

import openai
import pytest

from rlm_kernel.clients.connection import Connection


@pytest.fixture
def opened():
    """The clients that were opened, in order."""
    return []


@pytest.fixture
def connection(opened):
    def make(errand=lambda _: asyncio.sleep(0)):
        def open_client():
            opened.append(openai.AsyncOpenAI(api_key="key", base_url="http://127.0.0.1:9/v1"))
            return opened[-1]

        return Connection(open_client, errand)

    return make


async def begun(coroutine):
    """A task that has run until it waits."""
    task = asyncio.create_task(coroutine)
    await asyncio.sleep(0)
    return task


def left_open(opened):
    return [client for client in opened if not client.is_closed()]


async def test_closing_while_the_client_is_opened_closes_it(connection, opened):
    shared = connection()
    opening = await begun(shared.client())
    await shared.close()
    assert await opening is opened[0]
    assert left_open(opened) == []


async def test_a_call_that_is_cancelled_while_it_opens_the_client_leaves_it_to_the_next(connection, opened):
    shared = connection()
    opening = await begun(shared.client())
    opening.cancel()
    await asyncio.wait({opening})
    assert await shared.client() is opened[0]
    await shared.close()
    assert (len(opened), left_open(opened)) == (1, [])


async def test_a_closing_that_is_cancelled_is_finished_by_the_next(connection, opened):
    at_work, let_go = asyncio.Event(), asyncio.Event()

    async def slow_to_end(_):
        try:
            at_work.set()
            await asyncio.Event().wait()
        finally:
            await let_go.wait()

    shared = connection(slow_to_end)
    await shared.client()
    await at_work.wait()
    closing = await begun(shared.close())
    closing.cancel()
    await asyncio.wait({closing})
    let_go.set()
    await shared.close()
    assert left_open(opened) == []


async def test_what_opening_raises_is_raised_and_the_next_call_opens_again():
    outcomes = iter([ImportError("no such module"), None])

    def open_client():
        if error := next(outcomes):
            raise error
        return openai.AsyncOpenAI(api_key="key")

    shared = Connection(open_client, lambda _: asyncio.sleep(0))
    with pytest.raises(ImportError):
        await shared.client()
    assert not (await shared.client()).is_closed()
    await shared.close()
