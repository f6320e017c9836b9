"""Our side of the overhead benchmark. Started by `overhead.py`; see `sides.py`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from sides import (
    BATCH_CELL,
    CONTEXT,
    EMPTY_CELL,
    FIRST_CELL,
    LENGTH_CELL,
    MOCK_ANSWER,
    QUERIES_CELL,
    QUESTION,
    Round,
    Samples,
    serve,
)

from rlm import RLM, Reply, Usage
from rlm_kernel.clients.base import OnText, as_base_lm
from rlm_kernel.engine.billing import ModelCalls
from rlm_kernel.engine.budget import NO_LIMITS, Ledger
from rlm_kernel.engine.config import Models
from rlm_kernel.engine.journal import Journal
from rlm_kernel.engine.subcalls import SubCalls
from rlm_kernel.kernel import pool
from rlm_kernel.kernel.session import Session
from rlm_kernel.provisioners.kernelspecs import environment
from rlm_kernel.trajectory.emitter import Emitter
from rlm_kernel.types import Answer, Message, Query, ToolCall, UsageMeter


class InstantLM:
    """A model that answers at once."""

    backend = "instant"
    model = "instant"
    context_window = None

    async def complete(
        self,
        messages: Sequence[Message],  # noqa: ARG002
        *,
        max_tokens: int | None = None,  # noqa: ARG002
        on_text: OnText | None = None,  # noqa: ARG002
    ) -> Reply:
        """The same answer to everything."""
        return Reply(MOCK_ANSWER, self.model, Usage(1, 1))

    async def close(self) -> None:
        """Nothing to give up."""


ENVIRONMENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "local": ("local", {}),
    "docker": ("docker", {}),
    "docker, relay": ("docker", {"transport": "relay"}),
    "docker, pool": ("docker", {"pool": 2}),
}


def measure(asked: Round) -> Samples:
    """One round: the parts of the engine, and then the whole through the public API."""
    return {**asyncio.run(_start_and_close(asked)), **asyncio.run(_live(asked)), **_completions(asked)}


class Recorded:
    """Sub-calls as the REPL of a run has them answered: each with its place on record."""

    def __init__(self, subcalls: SubCalls) -> None:
        self._subcalls = subcalls
        self._journal = Journal()

    async def answer(self, question: Query | ToolCall) -> Sequence[Answer]:
        """Ask, and keep the answers."""
        question = replace(question, slots=self._journal.slots(1, question))
        answers = await self._subcalls.answer(question)
        self._journal.record(question.slots, answers)
        return answers


def _open(asked: Round) -> Any:
    """A session whose sub-calls take the engine's own path: events, usage, limits, record."""
    subcalls = SubCalls(
        models=Models(as_base_lm(InstantLM())),
        calls=ModelCalls(Ledger(NO_LIMITS), UsageMeter()),
        emit=Emitter(lambda _: None),
        reply_tokens=100,
        max_children=4,
        start_child=None,
        child_turn=contextlib.nullcontext,
        on_limit=lambda: None,
        tools={},
    )
    return Session.open(environment(*ENVIRONMENTS[asked.environment]), Recorded(subcalls))


async def _start_and_close(asked: Round) -> Samples:
    await pool.fill(environment(*ENVIRONMENTS[asked.environment]), None)
    try:
        began = time.perf_counter()
        session = await _open(asked)
        await session.run(FIRST_CELL)
        ready = time.perf_counter()
        await session.close()
        return {"ready": [ready - began], "close": [time.perf_counter() - ready]}
    finally:
        await pool.close()


async def _live(asked: Round) -> Samples:
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(pool.close)
        session = await stack.enter_async_context(await _open(asked))
        samples = {
            "cell": [await _seconds(session, EMPTY_CELL) for _ in range(asked.cells)],
            "query": await _printed(session, QUERIES_CELL.format(times=asked.queries)),
            "batch": await _printed(session, BATCH_CELL.format(times=asked.batches, prompts=asked.prompts)),
        }
        for name, text in asked.contexts():
            began = time.perf_counter()
            await session.set("context", text)
            assert await _printed(session, LENGTH_CELL) == len(text)
            samples[name] = [time.perf_counter() - began]
        return samples


async def _seconds(session: Session, code: str) -> float:
    began = time.perf_counter()
    await session.run(code)
    return time.perf_counter() - began


async def _printed(session: Session, code: str) -> Any:
    cell = await session.run(code)
    assert cell.status == "ok", cell.error
    return json.loads(cell.outputs[0]["text"])


def _completions(asked: Round) -> Samples:
    """The first completion builds the model's client; the others find it."""
    began = time.perf_counter()
    with RLM("openai", asked.backend_kwargs, *ENVIRONMENTS[asked.environment]) as rlm:
        times = [began]
        for _ in range(1 + asked.completions):
            assert rlm.completion(CONTEXT, QUESTION).response == str(len(CONTEXT))
            times.append(time.perf_counter())
    first, *others = (after - before for before, after in pairwise(times))
    return {"first completion": [first], "completion": others}


if __name__ == "__main__":
    serve(measure, ["rlm-kernel", "ipykernel", "jupyter_client", "pyzmq", "openai"])
