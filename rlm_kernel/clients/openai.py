"""The `openai` backend: any server that speaks OpenAI's chat completions, through the official SDK (2 and 3).

One `AsyncOpenAI` serves all calls. It is built at the first call, in a thread, because importing the SDK
takes half a second. Retries and timeouts are the SDK's own; what it raises becomes an `LMError` in
`openai_errors`.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rlm_kernel.clients.openai_errors import Endpoint, lm_errors
from rlm_kernel.clients.openai_replies import Draft
from rlm_kernel.errors import ConfigError
from rlm_kernel.records import Message, Reply

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from openai import AsyncOpenAI

    from rlm_kernel.clients.lm import OnText

DEFAULT_URL = "https://api.openai.com/v1"
CONNECT_SECONDS = 10.0
"""How long to wait for a connection; `timeout` is for the answer."""

RESERVED = frozenset(
    {
        "extra_body",
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "model",
        "n",
        "stream",
        "stream_options",
    }
)
"""Fields of a request that `sampling_args` may not set, because they have a place of their own."""


@dataclass(eq=False, repr=False)
class OpenAILM:
    """An `LM` behind an OpenAI-compatible endpoint.

    Args:
        model_name: the model, as the provider names it.
        api_key: the key; a server that wants none takes any word.
        base_url: the endpoint, usually ending in ``/v1``; None is OpenAI itself. No environment is read here.
        backend: the name of the backend, for errors.
        key_variable: the environment variable that errors about the key name.
        timeout: seconds without a sign of the provider after which a call is given up.
        max_retries: how often the SDK asks again after 408, 409, 429, 5xx, a timeout or a lost connection.
        max_tokens: the longest reply in tokens; what is said here stands above what a call asks for.
        sampling_args: fields of the request such as ``temperature``, merged into its body.
        context_window: tokens of prompt and reply together, or None when unknown.
        extra_body: further fields of the body; `sampling_args` win over them.

    Raises:
        ConfigError: the key cannot be sent, or `sampling_args` set a reserved field.
    """

    model_name: str
    api_key: str
    base_url: str | None = None
    _: KW_ONLY
    backend: str = "openai"
    key_variable: str = "OPENAI_API_KEY"
    timeout: float = 300.0
    max_retries: int = 2
    max_tokens: int | None = None
    sampling_args: Mapping[str, Any] | None = None
    context_window: int | None = None
    extra_body: Mapping[str, Any] | None = None
    _client: AsyncOpenAI | None = field(default=None, init=False)
    _loop: asyncio.AbstractEventLoop | None = field(default=None, init=False)
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    def __post_init__(self) -> None:
        _check_key(self.api_key, self.key_variable)
        _check_sampling(self.sampling_args or {})

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model_name!r}, base_url={self._endpoint.url!r})"

    @property
    def model(self) -> str:
        """The name of the model."""
        return self.model_name

    async def complete(
        self, messages: Sequence[Message], *, max_tokens: int | None = None, on_text: OnText | None = None
    ) -> Reply:
        """Answer the conversation; with `on_text` the reply is streamed.

        Args:
            messages: the conversation. Lone surrogates, which JSON in UTF-8 cannot hold, are sent as U+FFFD.
            max_tokens: the longest reply in tokens, unless the constructor was given a limit.
            on_text: called with each piece of the text.

        Raises:
            LMError: the provider failed, or what it sent is no chat completion.
        """
        client = await self._connected()
        request = self._request(messages, max_tokens)
        if on_text is not None:
            return await self._streamed(client, request, on_text)
        draft = Draft(self.model_name)
        with lm_errors(self._endpoint):
            draft.add(await client.chat.completions.create(**request))
        return self._reply(draft)

    async def close(self) -> None:
        """Close the connections. A later call opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    @property
    def _url(self) -> str:
        return self.base_url or DEFAULT_URL

    @cached_property
    def _endpoint(self) -> Endpoint:
        url = _without_password(self._url)
        return Endpoint(self.backend, self.model_name, url, self.key_variable, self.timeout, self.api_key)

    async def _connected(self) -> AsyncOpenAI:
        # Connections belong to a loop; a forked child has another one than its parent.
        if self._loop is not asyncio.get_running_loop():
            self._loop, self._opening, self._client = asyncio.get_running_loop(), asyncio.Lock(), None
        async with self._opening:
            if self._client is None:
                self._client = await asyncio.to_thread(self._connect)
            return self._client

    def _connect(self) -> AsyncOpenAI:
        import openai

        client = openai.AsyncOpenAI(
            api_key=self.api_key,
            base_url=self._url,
            timeout=openai.Timeout(self.timeout, connect=min(self.timeout, CONNECT_SECONDS)),
            max_retries=self.max_retries,
            # A proxy named in the environment cannot reach a server on this machine's loopback.
            http_client=openai.DefaultAsyncHttpxClient(trust_env=False) if _is_loopback(self._url) else None,
        )
        _ = client.chat.completions  # the SDK imports this part at first use: here, in the thread
        return client

    def _request(self, messages: Sequence[Message], max_tokens: int | None) -> dict[str, Any]:
        return {
            "model": self.model_name,
            "messages": [{"role": m["role"], "content": _sendable(m["content"])} for m in messages],
            # As extra_body, because the SDK refuses arguments that it does not know, such as top_k.
            "extra_body": {**(self.extra_body or {}), **(self.sampling_args or {})},
            **self._limit(max_tokens),
        }

    def _limit(self, max_tokens: int | None) -> dict[str, int]:
        limit = max_tokens if self.max_tokens is None else self.max_tokens
        # OpenAI's reasoning models refuse the old name; many other servers know only that.
        name = "max_completion_tokens" if _is_openai(self._url) else "max_tokens"
        return {} if limit is None else {name: limit}

    async def _streamed(self, client: AsyncOpenAI, request: dict[str, Any], on_text: OnText) -> Reply:
        draft = Draft(self.model_name)
        # A generator of its own keeps what `on_text` raises out of the conversion of the SDK's errors.
        async with aclosing(self._chunks(client, request)) as chunks:
            async for chunk in chunks:
                if text := draft.add(chunk):
                    on_text(text)
        if draft.begun and draft.finish_reason is None:
            raise self._endpoint.failure("the stream ended before the reply did", "broken off")
        return self._reply(draft)

    async def _chunks(self, client: AsyncOpenAI, request: dict[str, Any]) -> AsyncGenerator[Any]:
        request = {**request, "stream": True, "stream_options": {"include_usage": True}}
        with lm_errors(self._endpoint):
            async with await client.chat.completions.create(**request) as stream:
                async for chunk in stream:
                    yield chunk

    def _reply(self, draft: Draft) -> Reply:
        if not draft.begun:
            raise self._endpoint.failure(draft.complaint, "not an API")
        # A model that spent its whole limit on thinking has no text: a reply cut short, not a failure.
        if not draft.pieces and draft.finish_reason != "length":
            what = f"the reply holds no text (finish_reason {draft.finish_reason!r})"
            raise self._endpoint.failure(what, "no text")
        return Reply("".join(draft.pieces), draft.model, draft.usage, draft.finish_reason)


def _sendable(text: str) -> str:
    """The text with pairs of surrogates joined and lone ones replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _check_key(key: str, variable: str) -> None:
    if not (key and key.isascii() and key.isprintable() and " " not in key):
        raise ConfigError(
            f"api_key (or {variable}) is empty or holds a space, a line break or a letter outside ASCII, so "
            "it cannot be sent: copy it again. A server that wants no key takes any word, such as 'EMPTY'."
        )


def _check_sampling(sampling_args: Mapping[str, Any]) -> None:
    if wrong := sorted(RESERVED & sampling_args.keys()):
        raise ConfigError(
            f"sampling_args may not hold {', '.join(wrong)}: it is for fields such as temperature, top_p or "
            "seed. The length of a reply is the argument max_tokens."
        )


def _is_openai(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host == "api.openai.com" or host.endswith(".api.openai.com")


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
