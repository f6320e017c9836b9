"""The interface of a language model client: `LM`, with the one method `complete`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeGuard, runtime_checkable

from rlm_kernel.schema.answer_schema import Schema, add_instructions
from rlm_kernel.types import Message, Reply

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

    Two more attributes are optional, and False where they are missing: `takes_images`, when messages may have `images`,
    and `takes_schema`, see `StructuredLM`. Calls of a model that is `Bounded` wait less for limits that are near.
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


class StructuredLM(LM, Protocol):
    """A model that can be asked for JSON by a schema. It says so: its `takes_schema` is true."""

    @property
    def takes_schema(self) -> bool: ...  # noqa: D102 (said above)

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int | None = None,
        on_text: OnText | None = None,
        schema: dict[str, Any] | None = None,
    ) -> Reply:
        """Answer the conversation; with a JSON Schema in the provider's own mode, where it has one.

        The caller reads and validates the reply: a server may ignore the schema.
        """
        ...


@runtime_checkable
class Bounded(Protocol):
    """A model of which is known before a call how long its reply can be, and what it costs at most."""

    def reply_limit(self, max_tokens: int | None) -> int | None:
        """The longest reply in tokens, thinking included, when a call asks for `max_tokens`. None: unknown."""
        ...

    def price(self, input_tokens: int, output_tokens: int) -> float | None:
        """US dollars of so many tokens, at most; None when nobody knows before the provider says."""
        ...


def takes_schema(lm: LM) -> TypeGuard[StructuredLM]:
    """Whether `complete` of this model takes `schema`."""
    return getattr(lm, "takes_schema", False) is True


def takes_images(lm: LM) -> bool:
    """Whether this model takes messages with `images`."""
    return getattr(lm, "takes_images", False) is True


async def complete_by_schema(
    lm: LM,
    messages: Sequence[Message],
    schema: Schema | None,
    *,
    max_tokens: int | None = None,
    on_text: OnText | None = None,
) -> Reply:
    """Ask a model for an answer that fits a schema: in its own way if it has one, else in words. None: for any text.

    Raises:
        LMError: the provider failed.
    """
    if schema is None:
        return await lm.complete(messages, max_tokens=max_tokens, on_text=on_text)
    if takes_schema(lm):
        return await lm.complete(messages, max_tokens=max_tokens, on_text=on_text, schema=schema.document)
    return await lm.complete(add_instructions(messages, schema.document), max_tokens=max_tokens, on_text=on_text)
