"""The interface of a model client: `LM` for users, and `BaseLM`, which the engine works with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

from rlm_kernel.clients.model_size import Size
from rlm_kernel.clients.rate_limits import RateSeen
from rlm_kernel.schema.answer_schema import add_instructions
from rlm_kernel.types import Message, Reply

OnText = Callable[[str], None]
"""Called with each piece of a streamed reply, in order, in the engine's event loop. Must not block."""


class LM(Protocol):
    """A model that answers a conversation.

    One instance serves all completions of an `RLM`: many calls at a time, in one event loop. It keeps no state of a
    call; the usage is part of the reply.

    Attributes:
        backend: the name of the backend, e.g. ``"openai"``; used in errors.
        model: the name of the model; its usage is listed under this name.
        context_window: tokens of prompt and reply together, or None if unknown. It may become known with the first
            call.

    Five more members are optional: `takes_images` (true if messages may have `images`), `takes_schema` (true if
    `complete` accepts a JSON Schema as the keyword argument `schema`), and `reply_limit`, `price` and `for_model`, see
    `BaseLM`.
    """

    @property
    def backend(self) -> str: ...  # noqa: D102 (documented above)
    @property
    def model(self) -> str: ...  # noqa: D102
    @property
    def context_window(self) -> int | None: ...  # noqa: D102

    async def complete(
        self, messages: Sequence[Message], *, max_tokens: int | None = None, on_text: OnText | None = None
    ) -> Reply:
        """Answer the conversation.

        Args:
            messages: the conversation; the last message is the user's.
            max_tokens: the longest reply, in tokens; None leaves it to the provider.
            on_text: if given, the reply is streamed, and this is called with each piece of its text.

        Raises:
            LMError: the provider failed, after all retries of the SDK.
        """
        ...

    async def close(self) -> None:
        """Close the connections. Called once, in the event loop of the calls, when the `RLM` is closed."""
        ...


class BaseLM:
    """A model client with all that the engine uses. A subclass implements `complete`.

    Attributes:
        backend: the name of the backend; used in errors.
        model: the name of the model.
        takes_images: whether messages may have `images`.
        api_key: the key that it sends, or None; no log contains it.
        env: variables in which it finds keys itself; no log contains the secrets among them.
        rate_seen: what the latest response said of the provider's rate limits, or None.
    """

    backend: str
    model: str
    takes_images: bool = False
    api_key: str | None = None
    env: Mapping[str, str] = MappingProxyType({})
    rate_seen: RateSeen | None = None
    _context_window: int | None = None

    @property
    def context_window(self) -> int | None:
        """Tokens of prompt and reply together, or None if unknown."""
        return self._context_window

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int | None = None,
        on_text: OnText | None = None,
        schema: dict[str, Any] | None = None,
    ) -> Reply:
        """Answer the conversation.

        Args:
            messages: the conversation; the last message is the user's.
            max_tokens: the longest reply, in tokens; None leaves it to the provider.
            on_text: if given, the reply is streamed, and this is called with each piece of its text.
            schema: a JSON Schema for the reply. The provider may ignore it, so the caller validates the reply.

        Raises:
            LMError: the provider failed.
            ConfigError: the SDK cannot be opened with these settings, or in this environment.
        """
        raise NotImplementedError

    async def close(self) -> None:
        """Close the connections."""

    def reply_limit(self, max_tokens: int | None) -> int | None:
        """The longest reply in tokens, thinking included, if a call asks for `max_tokens`; None if unlimited."""
        return max_tokens

    def for_model(self, name: str) -> LM | None:  # noqa: ARG002
        """The same provider with another model, for `rlm_query(..., model=name)`; None: it has no other models.

        It is closed with this one.

        Raises:
            ConfigError: there are too many.
        """
        return None

    def price(self, input_tokens: int, output_tokens: int) -> float | None:  # noqa: ARG002
        """US dollars that a call costs at most; None if unknown before the call."""
        return None

    def warmer(self, temperature: float) -> BaseLM | None:  # noqa: ARG002
        """This client with that temperature, over the same connections; None if it was not given a lower one.

        A client that was given none uses the provider's default, and its model may refuse any other.
        """
        return None

    async def size(self) -> Size:
        """Whether the model is small, as far as its name or its server says."""
        return "large"

    def price_known(self) -> bool:
        """Whether the cost of a call can be computed. False causes a warning if a budget is set."""
        return True


class WrappedLM(BaseLM):
    """A user's `LM` with the members of `BaseLM`. If it takes no schema, it gets the schema as text.

    Args:
        lm: the user's object; its optional members are looked up here, once.
    """

    def __init__(self, lm: LM) -> None:
        self.backend, self.model = lm.backend, lm.model
        self.takes_images = getattr(lm, "takes_images", False) is True
        self._lm = lm
        self._takes_schema = getattr(lm, "takes_schema", False) is True
        for name in ("api_key", "env", "reply_limit", "price", "price_known", "for_model"):
            if hasattr(lm, name):
                setattr(self, name, getattr(lm, name))

    @property
    def context_window(self) -> int | None:
        """Tokens of prompt and reply together, or None if unknown."""
        return self._lm.context_window

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int | None = None,
        on_text: OnText | None = None,
        schema: dict[str, Any] | None = None,
    ) -> Reply:
        """Call the user's `complete`, with the schema if it takes one."""
        extra = {"schema": schema} if schema is not None and self._takes_schema else {}
        if schema is not None and not self._takes_schema:
            messages = add_instructions(messages, schema)
        return await self._lm.complete(messages, max_tokens=max_tokens, on_text=on_text, **extra)

    async def close(self) -> None:
        """Close the user's object."""
        await self._lm.close()


def as_base_lm(lm: LM | BaseLM) -> BaseLM:
    """The client itself, or the user's object wrapped as one."""
    return lm if isinstance(lm, BaseLM) else WrappedLM(lm)
