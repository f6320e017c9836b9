"""Chunks are the model's own words while it writes them; a chat can be left, and an error has what was sent."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from agent_parts import cell, said

from rlm import AnswerCutError, LMError, Reply, ScriptedLM
from rlm_kernel._async import engine_loop
from rlm_kernel.clients.base import BaseLM
from rlm_kernel.trajectory import events

pytestmark = pytest.mark.slow


class Speaker(BaseLM):
    """A model that speaks when the test says so.

    Args:
        replies: each a list of pieces; an exception ends the reply with it.
    """

    backend = "speaker"
    model = "speaker"

    def __init__(self, *replies, finish_reason="stop"):
        self.replies = iter(replies)
        self.gate = asyncio.Semaphore(0)
        self.finish_reason = finish_reason

    async def complete(self, messages, *, max_tokens=None, on_text=None, schema=None):
        said = []
        for piece in next(self.replies):
            if isinstance(piece, Exception):
                raise piece
            await self.gate.acquire()
            on_text(piece)
            said.append(piece)
        return Reply("".join(said), self.model, finish_reason=self.finish_reason)

    def speak(self, pieces=1):
        """Let it say the next pieces. Called in any thread."""
        for _ in range(pieces):
            engine_loop().call_soon_threadsafe(self.gate.release)


async def hear(agent, message, sent):
    async for chunk in agent.chat(message):
        sent.append(chunk)


async def test_the_words_come_while_the_model_writes_them(agent):
    lm = Speaker(["FINAL(Hello", " to you", ", Alex", ")"])
    async with aclosing(agent(lm).chat("Hello.")) as chat:
        lm.speak(2)
        assert await anext(chat) == "Hello to you"
        lm.speak()
        assert await anext(chat) == ", Alex"  # the reply has not ended
        lm.speak()
        assert [rest async for rest in chat] == []


async def test_words_that_can_be_rejected_are_held_back(agent):
    lm = ScriptedLM(
        [
            "FINAL(A guess\nof mine)",
            "Look:\n" + cell("print(context)") + "\nFINAL(Another guess)",
            "FINAL(It is a\ntext.)",
        ]
    )
    chunks = [chunk async for chunk in agent(lm).chat("Read.", context="a text")]
    assert "".join(chunks) == "It is a\ntext."
    assert len(chunks) > 1


async def test_the_value_of_a_variable_comes_at_once(agent):
    one = agent([cell("found = 'one\\ntwo'"), "FINAL_VAR(found)"])
    assert [chunk async for chunk in one.chat("Find.")] == ["one\ntwo"]


async def test_the_last_reply_may_be_prose(agent):
    one = agent([cell("x = 1"), "It is one,\nas I said."], max_iterations=1)
    assert await said(one, "What is x?") == "It is one,\nas I said."


async def test_a_cut_answer_raises_with_the_words_that_were_sent(agent):
    lm = Speaker(["FINAL(It goes on", " and on"], finish_reason="length")
    lm.speak(2)
    one, sent = agent(lm), []
    with pytest.raises(AnswerCutError) as raised:
        await hear(one, "Go on.", sent)
    assert raised.value.partial_answer == "".join(sent) == "It goes on and on"


async def test_a_lost_connection_raises_with_the_words_that_were_sent(agent):
    lost = LMError("the connection broke", backend="speaker", model="speaker")
    lm = Speaker(["FINAL(It goes on", " and on", lost], ["FINAL(I am back again)"])
    lm.speak(3)
    one, sent = agent(lm), []
    with pytest.raises(LMError, match="the connection broke") as raised:
        await hear(one, "Go on.", sent)
    assert raised.value.partial_answer == "".join(sent) == "It goes on and on"
    assert await said(one, "And?") == "I am back again"


async def test_leaving_a_chat_stops_its_run_and_the_next_message_finds_the_variables(agent):
    one = agent([cell("x = 1"), "FINAL(It is done.)", cell("while True: pass"), cell("FINAL(x)")])
    await said(one, "Begin.")
    async with aclosing(one.events("Loop.")) as stream:
        async for event in stream:
            if isinstance(event, events.CellStarted) and "while" in event.code:
                break
    assert await said(one, "And x?") == "1"


async def test_the_events_of_a_message_are_a_typed_stream(agent):
    one = agent([cell("llm_query('one')"), "FINAL(It is done.)"], other_backends=[ScriptedLM(["1"], model="sub")])
    kinds = [type(event) async for event in one.events("Go.")]
    for kind in (events.IterationStarted, events.CellFinished, events.SubcallAnswered, events.ModelText):
        assert kind in kinds
    assert kinds[-1] is events.RunFinished
    assert one._record.usage.total_calls == 3
