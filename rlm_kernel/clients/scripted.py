r"""A model with scripted replies: the public test double.

    lm = ScriptedLM(["```repl\nprint(len(context))\n```", "FINAL(42)"])
    RLM(lm).completion("some text")

Replies come from a list, in order, or from a function of the conversation. An exception in the list, or from the
function, is raised. `calls` lists the requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rlm_kernel.clients.base import BaseLM, OnText
from rlm_kernel.errors import LMError
from rlm_kernel.types import Image, Message, Reply, Usage

Script = Callable[[Sequence[Message]], "str | Reply | BaseException"]

_BURST = 100
"""Lines that are streamed before other tasks run, as between the pieces of a real stream."""


@dataclass(frozen=True, slots=True)
class Request:
    """The arguments of one call of `ScriptedLM.complete`."""

    messages: tuple[Message, ...]
    max_tokens: int | None = None
    on_text: OnText | None = None
    schema: dict[str, Any] | None = None

    @property
    def prompt(self) -> str:
        """The text of the last message."""
        return self.messages[-1]["content"]

    @property
    def images(self) -> tuple[Image, ...]:
        """The images of the last message."""
        return self.messages[-1].get("images", ())


class ScriptedLM(BaseLM):
    """An `LM` with a script instead of a model.

    Args:
        replies: the replies in order, a single text, or a function from the conversation to a reply.
        model: its name.
        delay: seconds before each reply.
        context_window: tokens, or None.
    """

    backend = "scripted"
    takes_images = True

    def __init__(
        self,
        replies: Iterable[str | Reply | BaseException] | Script,
        *,
        model: str = "scripted",
        delay: float = 0.0,
        context_window: int | None = None,
    ) -> None:
        self.model = model
        self._context_window = context_window
        self.calls: list[Request] = []
        self.in_flight = 0
        self.max_in_flight = 0
        self._delay = delay
        self._script = replies if callable(replies) else _make_script(replies, model)

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int | None = None,
        on_text: OnText | None = None,
        schema: dict[str, Any] | None = None,
    ) -> Reply:
        """The next reply of the script. Its usage counts words as tokens.

        Raises:
            LMError: the script has no reply left.
        """
        self.calls.append(Request(tuple(messages), max_tokens, on_text, schema))
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            if self._delay:
                await asyncio.sleep(self._delay)
            reply = self._script(tuple(messages))
        finally:
            self.in_flight -= 1
        if isinstance(reply, BaseException):
            raise reply
        if isinstance(reply, str):
            reply = Reply(reply, self.model, _count_words(messages, reply))
        if on_text is not None:
            for number, piece in enumerate(reply.text.splitlines(keepends=True), 1):
                on_text(piece)
                if number % _BURST == 0:
                    await asyncio.sleep(0)
        return reply


def _make_script(replies: Iterable[str | Reply | BaseException], model: str) -> Script:
    rest = iter([replies] if isinstance(replies, str) else replies)  # iterating over a text gives single letters

    def script(_: Sequence[Message]) -> str | Reply | BaseException:
        try:
            return next(rest)
        except StopIteration:
            return LMError(
                "The script has no reply left: give ScriptedLM more replies.",
                backend="scripted",
                model=model,
                requests=0,
            )

    return script


def _count_words(messages: Sequence[Message], reply: str) -> Usage:
    return Usage(sum(len(m["content"].split()) for m in messages), len(reply.split()))
