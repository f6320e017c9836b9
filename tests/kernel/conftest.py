from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import pytest

from rlm_kernel.kernel.session import Session
from rlm_kernel.provisioners.kernelspecs import environment
from rlm_kernel.types import Answer, Query


class Echo:
    """Answers every prompt with itself in capitals, counts what it was asked, and can be made to wait."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.queries: list[Query] = []
        self.cancelled = 0
        self.waiting = 0
        self.everybody_waits = asyncio.Event()
        self.expected = 0
        self.gate: asyncio.Event | None = None

    async def answer(self, query: Query) -> Sequence[Answer]:
        self.queries.append(query)
        self.asked.update(query.prompts)
        if self.gate is not None:
            await self._wait()
        return [Answer(error="no luck") if p == "fail" else Answer(p.upper()) for p in query.prompts]

    async def _wait(self) -> None:
        assert self.gate is not None
        self.waiting += 1
        if self.waiting == self.expected:
            self.everybody_waits.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


@pytest.fixture
async def echo():
    return Echo()


@pytest.fixture
def open_session(kernel_place, echo):
    """Opens a session wherever the test runs, with more options if it likes."""
    name, fixed = kernel_place

    def opened(options=None, on_output=None):
        return Session.open(environment(name, {**fixed, **(options or {})}), echo, on_output)

    return opened


@pytest.fixture
async def session(open_session):
    async with await open_session() as live:
        yield live


@pytest.fixture
async def local_session(echo):
    async with await Session.open(environment("local", None), echo) as live:
        yield live
