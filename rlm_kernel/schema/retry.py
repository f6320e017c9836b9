"""Ask a model for an answer by schema: a reply that does not fit is sent back with its problems, twice at most."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from rlm_kernel.errors import AnswerSchemaError
from rlm_kernel.schema.answer_schema import Schema, request_for_repair, text_of
from rlm_kernel.schema.validation import MisfitError
from rlm_kernel.types import Message, Reply

MAX_REPAIRS = 2

Ask = Callable[[Sequence[Message]], Awaitable[Reply]]
"""Asks the model; it is given what the conversation has grown by: earlier replies and what is wrong with them."""

OnMisfit = Callable[[Reply, MisfitError], None]


@dataclass(frozen=True, slots=True)
class FittingAnswer:
    """An answer that fits.

    Attributes:
        text: the value as JSON.
        reply: the model's own words.
    """

    text: str
    reply: Reply


async def ask_with_repairs(ask: Ask, schema: Schema, on_misfit: OnMisfit = lambda *_: None) -> FittingAnswer:
    """Ask until a reply fits.

    Args:
        ask: asks the model.
        schema: what the answer has to fit.
        on_misfit: told of each reply that does not fit, before the model is.

    Raises:
        AnswerSchemaError: none of them did.
    """
    added: list[Message] = []
    for _ in range(MAX_REPAIRS):
        reply = await ask(added)
        try:
            return await _read(reply, schema)
        except MisfitError as misfit:
            on_misfit(reply, misfit)
            added += _repair(reply, misfit)
    reply = await ask(added)
    try:
        return await _read(reply, schema)
    except MisfitError as misfit:
        on_misfit(reply, misfit)
        raise AnswerSchemaError(model=reply.model, problems=misfit.problems, reply=reply.text) from None


async def _read(reply: Reply, schema: Schema) -> FittingAnswer:
    # In a thread: importing the validator takes a while, and so may a schema.
    value = await asyncio.to_thread(schema.read, reply.text, whole=reply.finish_reason != "length")
    return FittingAnswer(text_of(value), reply)


def _repair(reply: Reply, misfit: MisfitError) -> list[Message]:
    return [
        {"role": "assistant", "content": reply.text or "(empty)"},
        {"role": "user", "content": request_for_repair(misfit)},
    ]
