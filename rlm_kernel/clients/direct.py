"""Ask a model directly, in the reference's way: `get_client(...)`, and `BaseLM` for clients of users."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from rlm_kernel._async import Job, run_in_thread
from rlm_kernel.clients import registry
from rlm_kernel.clients.base import LM, OnText, as_base_lm
from rlm_kernel.clients.estimates import believed, bound
from rlm_kernel.clients.non_answers import non_answer, why_none
from rlm_kernel.errors import ConfigError
from rlm_kernel.types import Message, ModelUsageSummary, Reply, Usage, UsageMeter, UsageSummary

DEFAULT_TIMEOUT = 300.0
"""Seconds."""

Asked = str | Sequence[Mapping[str, Any]] | Mapping[str, Any]
"""A text, a conversation, or one message."""


class BaseLM(ABC):
    """A model client of a user: it answers a text or a conversation, and counts its usage.

    An object of a subclass is also an `LM`: `RLM(backend=MyClient("my-model"))`. Each call of a run is a `completion`
    in a thread of its own.

    Args:
        model_name: the name of the model.
        timeout: seconds of a call.
        sampling_args: fields of each request.
        kwargs: further settings.
    """

    backend: str = "custom"
    context_window: int | None = None

    def __init__(
        self,
        model_name: str,
        timeout: float = DEFAULT_TIMEOUT,
        sampling_args: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.model_name = model_name
        self.timeout = timeout
        self.sampling_args = dict(sampling_args or {})
        self.kwargs = kwargs

    @abstractmethod
    def completion(self, prompt: Any) -> str:
        """Answer a text or a conversation."""

    @abstractmethod
    async def acompletion(self, prompt: Any) -> str:
        """`completion` for asynchronous callers."""

    @abstractmethod
    def get_usage_summary(self) -> UsageSummary:
        """The usage of all calls."""

    @abstractmethod
    def get_last_usage(self) -> ModelUsageSummary:
        """The usage of the latest call."""

    @property
    def model(self) -> str:
        """The name of the model."""
        return self.model_name

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int | None = None,  # noqa: ARG002 (the client has its own limit)
        on_text: OnText | None = None,
    ) -> Reply:
        """Answer the conversation of a run."""
        text = str(await run_in_thread(lambda: self.completion([dict(message) for message in messages])))
        used = self.get_last_usage()
        if on_text is not None:
            on_text(text)
        usage = Usage(used.total_input_tokens, used.total_output_tokens, cost=used.total_cost)
        return Reply(text, self.model_name, usage)

    async def close(self) -> None:  # noqa: B027 (most have nothing to close)
        """Close the connections."""


class ProviderClient(BaseLM):
    """A model of the table of backends. The arguments are those of `backend_kwargs`.

    Raises:
        ConfigError: an argument is missing, unknown or wrong.
    """

    def __init__(self, **backend_kwargs: Any) -> None:
        self._lm = registry.build(self.backend, backend_kwargs, registry.environment_variables())
        super().__init__(
            self._lm.model,
            timeout=backend_kwargs.get("timeout", DEFAULT_TIMEOUT),
            sampling_args=backend_kwargs.get("sampling_args"),
        )
        self._meter = UsageMeter()
        self._last = ModelUsageSummary()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(model_name={self.model_name!r})"

    def completion(self, prompt: Asked, model: str | None = None) -> str:
        """Answer a text or a conversation.

        Args:
            prompt: the text, or the conversation.
            model: another model of the same provider; None: the client's.

        Raises:
            LMError: the provider failed.
            ConfigError: the provider has no other models.
        """
        return Job(self._ask(prompt, model)).wait()

    async def acompletion(self, prompt: Asked, model: str | None = None) -> str:
        """`completion` for asynchronous callers."""
        return await Job(self._ask(prompt, model)).wait_async()

    def get_usage_summary(self) -> UsageSummary:
        """The usage of all calls."""
        return self._meter.summary()

    def get_last_usage(self) -> ModelUsageSummary:
        """The usage of the call that ended last."""
        return self._last

    async def complete(
        self, messages: Sequence[Message], *, max_tokens: int | None = None, on_text: OnText | None = None
    ) -> Reply:
        """Answer the conversation of a run."""
        return await self._complete(self._lm, messages, max_tokens, on_text)

    async def close(self) -> None:
        """Close the connections."""
        await self._lm.close()

    def __getattr__(self, name: str) -> Any:
        """What an `RLM` asks of a client besides: its key, for redaction; its prices; its limit of a reply."""
        if name in {"api_key", "env", "takes_images", "reply_limit", "price", "price_known", "for_model"}:
            return getattr(self._lm, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    async def _complete(
        self, lm: LM, messages: Sequence[Message], max_tokens: int | None = None, on_text: OnText | None = None
    ) -> Reply:
        """Ask a model, and count its usage. What the provider does not report is estimated."""
        known = as_base_lm(lm)
        reply = await known.complete(messages, max_tokens=max_tokens, on_text=on_text)
        limit = known.reply_limit(max_tokens)
        used = believed(reply, bound(messages, reply_tokens=limit, window=known.context_window, price=known.price))
        self._meter.add(known.model, used)
        self._last = ModelUsageSummary.of(1, used)
        return reply

    async def _ask(self, prompt: Asked, model: str | None) -> str:
        reply = await self._complete(self._named(model), _messages(prompt))
        if not reply.text.strip():
            raise non_answer(reply, self.backend, why_none(reply, "") or "empty", "")
        return reply.text

    def _named(self, model: str | None) -> LM:
        """The client of a model of the provider."""
        if not model or model == self.model_name:
            return self._lm
        if (other := self._lm.for_model(model)) is None:
            raise ConfigError(
                f"{self.backend} has one model for a client: get_client({self.backend!r}, ...) for {model!r}."
            )
        return other


def get_client(backend: str, backend_kwargs: Mapping[str, Any] | None = None) -> BaseLM:
    """The client of a model: `get_client("openai", {"model_name": "gpt-5-mini"}).completion("Hello")`.

    Raises:
        ConfigError: the name or an argument is wrong, or the key is missing.
    """
    kind = type("ProviderClient", (ProviderClient,), {"backend": registry.find(backend).name})
    client: BaseLM = kind(**dict(backend_kwargs or {}))
    return client


def _messages(prompt: Asked) -> list[Message]:
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    given = [prompt] if isinstance(prompt, Mapping) else prompt
    return [{"role": message["role"], "content": message["content"]} for message in given]


class OpenAIClient(ProviderClient):
    """`get_client("openai", ...)`; with a `base_url`, any server with OpenAI's API."""

    backend = "openai"


class AnthropicClient(ProviderClient):
    """`get_client("anthropic", ...)`."""

    backend = "anthropic"


class PortkeyClient(ProviderClient):
    """`get_client("portkey", ...)`."""

    backend = "portkey"


class GeminiClient(ProviderClient):
    """`get_client("gemini", ...)`."""

    backend = "gemini"


class AzureOpenAIClient(ProviderClient):
    """`get_client("azure_openai", ...)`."""

    backend = "azure_openai"
