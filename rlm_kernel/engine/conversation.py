"""Keep a long conversation inside the root model's window: a summary replaces its older turns.

The whole conversation stays in the variable `history`, so the model loses nothing that it has read.
"""

from __future__ import annotations

from collections.abc import Sequence

from rlm_kernel.text import clip
from rlm_kernel.types import Message, Reply

OLD_MESSAGE_CHARACTERS = 2_000
"""What a message of an earlier turn keeps in the request for a summary."""

SHORT_MESSAGE_CHARACTERS = 300
"""The same, after the provider has refused the conversation as too long."""

_NEWEST = 2


class Conversation:
    """What the root model reads next, and everything it has read.

    Args:
        opening: the messages before its first turn; they always stay.
    """

    def __init__(self, opening: Sequence[Message]) -> None:
        self._opening = list(opening)
        self._turns: list[Message] = []
        self._whole: list[Message] = []

    @property
    def messages(self) -> list[Message]:
        """What it reads next."""
        return [*self._opening, *self._turns]

    @property
    def whole(self) -> list[Message]:
        """Everything since the opening, what was summarised included."""
        return [*self._opening, *self._whole]

    @property
    def can_shrink(self) -> bool:
        """Whether there are turns that a summary could replace."""
        return len(self._turns) > _NEWEST

    def add(self, reply: Reply, message: str) -> None:
        """A turn: the reply of the model and the message after it. Providers refuse an empty message."""
        turn: list[Message] = [
            {"role": "assistant", "content": reply.text or "(empty)"},
            {"role": "user", "content": message},
        ]
        self._turns += turn
        self._whole += turn

    def to_summarise(self, request: str, limit: int) -> list[Message]:
        """The conversation, its earlier turns cut to `limit` characters a message, and the request for a summary."""
        old, newest = self._turns[:-_NEWEST], self._turns[-_NEWEST:]
        short: list[Message] = [{"role": m["role"], "content": clip(m["content"], limit)} for m in old]
        last = newest[-1]["content"] if newest else ""
        last_message: Message = {"role": "user", "content": f"{clip(last, limit)}\n\n{request}"}
        return [*self._opening, *short, *newest[:-1], last_message] if newest else [*self._opening, last_message]

    def shrink(self, summary: str, message: str) -> None:
        """Replace all turns by a summary and the message after it."""
        self._turns = [{"role": "assistant", "content": summary}, {"role": "user", "content": message}]


def is_due(reply: Reply, window: int | None, share: float) -> bool:
    """Whether the conversation with this reply fills that share of the window. False while the window is unknown.

    An estimate of tokens is an upper bound, several times too high: it says nothing of the window.
    """
    usage = reply.usage
    return window is not None and usage.input_tokens + usage.output_tokens - usage.estimated_tokens >= share * window
