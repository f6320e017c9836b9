"""The host's end of the wire, alone: when an interrupted cell's questions are answered."""

from __future__ import annotations

import asyncio

import pytest

from rlm_kernel.kernel.comm import INTERRUPT_SECONDS, HostComm
from rlm_kernel.kernel.protocol import WIRE, pack

QUESTION = pack({"kind": "llm_query", "prompts": ["a"], "model": None, "batch": False, "schema": None})


class Never:
    """Has no answer, and counts who stopped waiting for one."""

    def __init__(self):
        self.stopped = 0

    async def answer(self, query):
        try:
            await asyncio.Event().wait()
        finally:
            self.stopped += 1


@pytest.fixture
def never():
    return Never()


@pytest.fixture
def sent():
    return []


@pytest.fixture
async def bridge(never, sent):
    """In a cell that waits for the answer of `q1`."""
    comm = HostComm(lambda op, call, payload: sent.append((op, call)), never)
    comm.cell_starts()
    ask(comm, "q1")
    await asyncio.sleep(0)
    yield comm
    await comm.close()


def ask(bridge, call):
    data = {"wire": WIRE, "op": "ask", "id": call}
    bridge.take_question({"content": {"data": data}, "buffers": [QUESTION], "unread": 0})


async def test_the_questions_of_an_interrupted_cell_are_answered_when_the_interrupt_has_arrived(bridge, never, sent):
    bridge.interrupt()
    ask(bridge, "q2")
    await asyncio.sleep(0)
    assert (never.stopped, sent) == (1, [])
    bridge.interrupted()
    assert sent == []
    await asyncio.sleep(2 * INTERRUPT_SECONDS)
    assert sent == [("answer", "q1"), ("answer", "q2")]


async def test_the_answers_of_one_cell_do_not_wait_into_the_next(bridge, sent):
    bridge.interrupt()
    bridge.interrupted()
    bridge.cell_ended()
    bridge.cell_starts()
    ask(bridge, "q2")
    bridge.interrupt()
    await asyncio.sleep(2 * INTERRUPT_SECONDS)
    assert sent == [("answer", "q1")]


async def test_a_second_interrupt_forgets_nobody_and_answers_nobody_twice(bridge, sent):
    bridge.interrupt()
    ask(bridge, "q2")
    bridge.interrupt()
    bridge.answer_interrupted()
    assert sorted(sent) == [("answer", "q1"), ("answer", "q2")]


async def test_the_end_of_the_cell_answers_those_whom_no_interrupt_reached(bridge, sent):
    bridge.interrupt()
    bridge.cell_ended()
    assert sent == [("answer", "q1")]


async def test_an_interrupt_between_cells_does_not_hold_the_questions_of_the_next(bridge, never, sent):
    bridge.cell_ended()
    bridge.interrupt()
    bridge.cell_starts()
    ask(bridge, "q2")
    await asyncio.sleep(0)
    assert (sent, never.stopped) == ([("answer", "q1")], 1)


async def test_after_the_interrupt_whoever_asks_is_refused_at_once(bridge, sent):
    bridge.interrupt()
    bridge.answer_interrupted()
    ask(bridge, "q2")
    assert sent[-1] == ("answer", "q2")
