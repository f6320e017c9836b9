"""The boundary to a language model: one noun, one verb."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from rlm_kernel.records import Message, Reply

OnText = Callable[[str], None]
"""Called with each piece of a streamed reply, in order, in the engine's event loop. Must not block."""


class LM(Protocol):
    """A model that answers a conversation.

    One instance serves all completions of an `RLM`, many calls at a time, in one event loop. It holds no state of a
    call: the usage travels on the reply.

    Attributes:
        backend: the name users know it by, e.g. ``"openai"``; used in errors.
        model: the name of the model; the label of its usage.
        context_window: tokens of prompt and reply together, or None when unknown; a client may learn it with its first
            call.
    """

    @property
    def backend(self) -> str: ...  # noqa: D102 (said above)
    @property
    def model(self) -> str: ...  # noqa: D102
    @property
    def context_window(self) -> int | None: ...  # noqa: D102

    async def complete(
        self, messages: Sequence[Message], *, max_tokens: int | None = None, on_text: OnText | None = None
    ) -> Reply:
        """Answer the conversation.

        Args:
            messages: the conversation, a user message last.
            max_tokens: the longest reply, in tokens; None leaves it to the provider.
            on_text: given to stream the reply's text as it is written.

        Raises:
            LMError: the provider failed; retries of the SDK are over by then.
        """
        ...

    async def close(self) -> None:
        """Give up connections. Called once, in the event loop of the calls, when the `RLM` is closed."""
        ...
