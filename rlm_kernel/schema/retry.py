"""Get an answer by schema: a reply that does not fit is sent back with its problems, at most twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from rlm_kernel.errors import AnswerSchemaError
from rlm_kernel.schema.answer_schema import Schema, request_for_repair, text_of
from rlm_kernel.schema.validation import MisfitError
from rlm_kernel.types import Message, Reply

MAX_REPAIRS = 2

OnMisfit = Callable[[Reply, MisfitError], None]
"""Called with each reply that does not fit, and with its problems."""


@dataclass(slots=True)
class Repairs:
    """The repairs of one answer. Ask the model with `added` until `read` returns the answer.

    Attributes:
        schema: what the answer has to fit; None: any text is an answer.
        on_misfit: see `OnMisfit`.
        added: messages for the end of the conversation: earlier replies, and what is wrong with them.
    """

    schema: Schema | None
    on_misfit: OnMisfit = lambda *_: None
    added: list[Message] = field(default_factory=list)

    async def read(self, reply: Reply) -> str | None:
        """The answer in a reply, as JSON where there is a schema. None: it does not fit, ask again.

        Raises:
            AnswerSchemaError: it does not fit, and `MAX_REPAIRS` repairs were asked for already.
        """
        if self.schema is None:
            return reply.text
        try:
            # In a thread: importing the validator takes a while, and so may a schema.
            value = await asyncio.to_thread(self.schema.read, reply.text, whole=reply.finish_reason != "length")
        except MisfitError as misfit:
            self.on_misfit(reply, misfit)
            if len(self.added) == 2 * MAX_REPAIRS:
                raise AnswerSchemaError(model=reply.model, problems=misfit.problems, reply=reply.text) from None
            self.added.append({"role": "assistant", "content": reply.text or "(empty)"})
            self.added.append({"role": "user", "content": request_for_repair(misfit)})
            return None
        return text_of(value)
