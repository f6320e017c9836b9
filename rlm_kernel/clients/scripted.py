r"""A model with scripted replies: the public test double.

    lm = ScriptedLM(["```repl\nprint(len(context))\n```", "FINAL(42)"])
    RLM(lm).completion("some text")

Replies are taken in order from a list, or made by a function of the conversation. An exception in the list, or from the
function, is raised. `calls` lists the requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rlm_kernel.clients.base import OnText
from rlm_kernel.errors import LMError
from rlm_kernel.types import Image, Message, Reply, Usage

Script = Callable[[Sequence[Message]], "str | Reply | BaseException"]

_BURST = 100
"""Lines that are told before others in the loop get their turn, as between the pieces of a real stream."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call that the double received."""

    messages: tuple[Message, ...]
    max_tokens: int | None
    schema: dict[str, Any] | None = None

    @property
    def prompt(self) -> str:
        """The last message's text."""
        return self.messages[-1]["content"]

    @property
    def images(self) -> tuple[Image, ...]:
        """The last message's pictures."""
        return self.messages[-1].get("images", ())


class ScriptedLM:
    """An `LM` with a script instead of a model.

    Args:
        replies: the replies in order, a text that is the only one, or a function from the conversation to a reply.
        model: the name it goes by.
        delay: seconds before each reply.
        context_window: tokens, or None.
    """

    backend = "scripted"
    takes_schema = True
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
        self.context_window = context_window
        self.calls: list[Call] = []
        self.in_flight = 0
        self.max_in_flight = 0
        self._delay = delay
        self._script = replies if callable(replies) else _from_list(replies, model)

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int | None = None,
        on_text: OnText | None = None,
        schema: dict[str, Any] | None = None,
    ) -> Reply:
        """The next reply of the script. Tokens are counted as words.

        Raises:
            LMError: the script has no reply left.
        """
        self.calls.append(Call(tuple(messages), max_tokens, schema))
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            if self._delay:
                await asyncio.sleep(self._delay)
            said = self._script(messages)
        finally:
            self.in_flight -= 1
        if isinstance(said, BaseException):
            raise said
        if isinstance(said, str):
            said = Reply(said, self.model, _words(messages, said))
        if on_text is not None:
            for number, piece in enumerate(said.text.splitlines(keepends=True), 1):
                on_text(piece)
                if number % _BURST == 0:
                    await asyncio.sleep(0)
        return said

    async def close(self) -> None:
        """Nothing to give up."""


def _from_list(replies: Iterable[str | Reply | BaseException], model: str) -> Script:
    rest = iter([replies] if isinstance(replies, str) else replies)  # a text would be a reply for each letter

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


def _words(messages: Sequence[Message], reply: str) -> Usage:
    return Usage(sum(len(m["content"].split()) for m in messages), len(reply.split()))
