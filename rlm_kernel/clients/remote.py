"""The base of clients that call a provider through its SDK: a call becomes a `Reply` or an `LMError`.

One client of the SDK serves all calls (`connection`). Retries and timeouts are the SDK's own; its errors are converted
in `provider_errors`. A context window that the user does not give is taken from the price table or from the server's
list of models, once, in parallel with the first call; a run neither waits for it nor fails by it.
"""

from __future__ import annotations

import json
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from rlm_kernel.clients.connection import Connection
from rlm_kernel.clients.endpoint import Endpoint, check_key, is_loopback, without_password
from rlm_kernel.clients.pricing import Prices, Tariff, Tokens
from rlm_kernel.clients.provider_errors import lm_error, lm_errors, opening_errors, refuses_schema
from rlm_kernel.clients.reply_size import is_too_long
from rlm_kernel.errors import ConfigError, LMError
from rlm_kernel.schema.answer_schema import add_instructions
from rlm_kernel.types import Message, Reply, Usage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from rlm_kernel.clients.base import OnText
    from rlm_kernel.clients.reply import Draft

WINDOW_FIELDS = (
    "max_model_len",  # vLLM
    "n_ctx",  # llama.cpp, under "meta"
    "context_length",  # OpenRouter, Together
    "context_window",  # Groq
    "max_context_length",  # Mistral, LM Studio
    "max_input_tokens",  # Anthropic
)

CONNECT_SECONDS = 10.0
"""How long to wait for a connection; `timeout` is for the answer."""

LOOKUP_SECONDS = 10.0
"""How long to wait for the server's list of models."""

_log = logging.getLogger(__name__)


def sendable(message: Message) -> Message:
    """The message with pairs of surrogates joined and lone ones replaced."""
    return {**message, "content": _join_surrogates(message["content"])}


def sendable_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with pairs of surrogates joined and lone ones replaced, in its names too."""
    text = json.dumps(schema, ensure_ascii=False)
    cleaned = _join_surrogates(text)
    return schema if cleaned is text else dict(json.loads(cleaned))


def _join_surrogates(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def window_in_listing(listing: Any, model: str) -> int | None:
    """The tokens of prompt and reply together that the list gives for a model, or None.

    Args:
        listing: the decoded answer; its shape is not trusted.
        model: the name of the model. A list of one model is about that one, whatever it is called there.
    """
    entries = listing.get("data") if isinstance(listing, Mapping) else None
    found = [entry for entry in entries if isinstance(entry, Mapping)] if isinstance(entries, list) else []
    named = [entry for entry in found if entry.get("id") == model]
    return next(map(_window_of, named or (found if len(found) == 1 else [])), None)


def _window_of(entry: Mapping[str, Any]) -> int | None:
    meta = entry.get("meta")
    fields = {**(meta if isinstance(meta, Mapping) else {}), **entry}
    values = (fields.get(name) for name in WINDOW_FIELDS)
    return next((value for value in values if isinstance(value, int) and value > 0), None)


@dataclass(eq=False, repr=False)
class RemoteLM(ABC):
    """An `LM` behind an SDK. A subclass says how the SDK is opened and asked.

    Args:
        model_name: the model, as the provider names it.
        api_key: the key; a server that wants none takes any word.
        base_url: the endpoint; None is the provider itself. No environment is read here.
        backend: the name of the backend, for errors.
        key_variable: the environment variable that errors about the key name, or None.
        timeout: seconds without a sign of the provider after which a call is given up.
        max_retries: how often the SDK asks again after 408, 409, 429, 5xx, a timeout or a lost connection.
        max_tokens: the longest reply in tokens; what is said here stands above what a call asks for.
        sampling_args: fields of the request such as ``temperature``, merged into its body.
        context_window: tokens of prompt and reply together; None: learned with the first call, if anybody knows.
        extra_body: further fields of the body; `sampling_args` win over them.
        headers: further headers of each request. Of the environment's, OpenAI's organisation and project are sent, to
            OpenAI itself.
        prices: US dollars per million tokens, see `Prices`; they stand above what the provider reports.
        own_server: whether the server is the user's own: on this machine it sends no bill.

    Raises:
        ConfigError: the key cannot be sent, `prices` are none, or `sampling_args` set a reserved field.
    """

    model_name: str
    api_key: str
    base_url: str | None = None
    _: KW_ONLY
    backend: str = "openai"
    key_variable: str | None = "OPENAI_API_KEY"
    timeout: float = 300.0
    max_retries: int = 2
    max_tokens: int | None = None
    sampling_args: Mapping[str, Any] | None = None
    context_window: int | None = None
    extra_body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] | None = None
    prices: Mapping[str, float] | None = None
    own_server: bool = False
    _connection: Connection[Any] = field(init=False)
    _tariff: Tariff = field(init=False)
    _window_known: bool = field(init=False)
    _refused: deque[str] = field(init=False, default_factory=lambda: deque(maxlen=100))

    takes_schema: ClassVar[bool] = True
    takes_images: ClassVar[bool] = True
    default_url: ClassVar[str]
    api: ClassVar[str] = "OpenAI"
    url_form: ClassVar[str] = "it usually ends in /v1"
    models_path: ClassVar[str] = "/models"
    reserved: ClassVar[frozenset[str]]

    def __post_init__(self) -> None:
        self._check_key()
        self._check_sampling()
        self._window_known = self.context_window is not None
        self._connection = Connection(self._opened, self._ask_for_window)
        self._tariff = Tariff(
            None if self.prices is None else Prices.of(self.prices),
            self.own_server and is_loopback(self._url),
            self._in_price_table(),
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model_name!r}, base_url={self._endpoint.url!r})"

    @property
    def model(self) -> str:
        """The name of the model."""
        return self.model_name

    def price_known(self) -> bool:
        """Whether a cost is known before the first call. Looks into the price table, whose import takes 0.1 s."""
        return self._tariff.known(self._names(self.model_name))

    def reply_limit(self, max_tokens: int | None) -> int | None:
        """The longest reply in tokens when a call asks for `max_tokens`; None: only the window is a limit."""
        return max_tokens if self.max_tokens is None else self.max_tokens

    def price(self, input_tokens: int, output_tokens: int) -> float | None:
        """US dollars of so many tokens at most; None when nobody knows before the provider says."""
        return self._tariff.at_most(Tokens(input_tokens, output_tokens), self._names(self.model_name))

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int | None = None,
        on_text: OnText | None = None,
        schema: dict[str, Any] | None = None,
    ) -> Reply:
        """Answer the conversation; with `on_text` the reply is streamed.

        Args:
            messages: the conversation. Lone surrogates, which JSON in UTF-8 cannot hold, are sent as U+FFFD.
            max_tokens: the longest reply in tokens, unless the constructor was given a limit.
            on_text: called with each piece of the text.
            schema: a JSON Schema, for the mode that the provider has for it. Where it refuses, the model is told in
                words; the reply is not validated.

        Raises:
            LMError: the provider failed, or what it sent is no reply.
            ConfigError: the SDK cannot be opened with the arguments, or in this environment.
        """
        if schema is None:
            return await self._ask(messages, max_tokens, on_text)
        schema = sendable_schema(schema)
        told, key = add_instructions(messages, schema), json.dumps(schema, sort_keys=True)
        await self._connected()
        if key not in self._refused and self._has_mode_for(schema):
            try:
                return await self._ask(messages if self._shows_schema() else told, max_tokens, on_text, schema)
            except LMError as error:
                if not refuses_schema(error):
                    raise
            self._refused.append(key)
        return await self._ask(told, max_tokens, on_text)

    async def _ask(
        self,
        messages: Sequence[Message],
        max_tokens: int | None,
        on_text: OnText | None,
        schema: dict[str, Any] | None = None,
    ) -> Reply:
        client = await self._connected()
        limit = self.reply_limit(max_tokens)
        request = self._request([sendable(m) for m in messages], limit, schema)
        if on_text is not None:
            return await self._streamed(client, request, on_text, limit)
        draft = self._draft()
        with lm_errors(self._endpoint):
            draft.add(await self._create(client, request))
        return self._reply(draft)

    async def close(self) -> None:
        """Close the connections. A later call opens new ones."""
        await self._connection.close()

    # -- what a subclass says

    @abstractmethod
    def _open(self) -> Any:
        """Build the SDK's client. Called in a thread."""

    @abstractmethod
    def _request(
        self, messages: list[Message], max_tokens: int | None, schema: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """The arguments of the SDK's call."""

    @abstractmethod
    async def _create(self, client: Any, request: dict[str, Any]) -> Any:
        """Ask: a response comes back, or a stream of them when the request has `stream`."""

    @abstractmethod
    def _draft(self) -> Draft:
        """What reads the responses."""

    def _has_mode_for(self, _: dict[str, Any]) -> bool:
        """Whether the provider's mode can hold this schema. The SDK is imported by then."""
        return True

    def _shows_schema(self) -> bool:
        """Whether the model reads the schema in that mode; else its words are only held to it, and it is told too."""
        return False

    def _in_price_table(self) -> Mapping[str, str] | None:
        """How the price table knows the provider."""
        return None if is_loopback(self._url) else {"provider_api_url": self._url}

    def _names(self, answered_by: str) -> tuple[str, ...]:
        """What the price table may know the model as, the best first: a name that was asked for can be an alias."""
        return (answered_by, self.model_name)

    def _secrets(self) -> tuple[str, ...]:
        """What may be in no message."""
        return (self.api_key,)

    # -- a call

    @property
    def _url(self) -> str:
        return self.base_url or self.default_url

    @cached_property
    def _endpoint(self) -> Endpoint:
        url = without_password(self._url)
        about = (self.backend, self.model_name, url, self.key_variable, self.timeout, self._secrets())
        return Endpoint(*about, self.api, self.url_form)

    async def _connected(self) -> Any:
        with opening_errors(self._endpoint):
            return await self._connection.client()

    async def _streamed(self, client: Any, request: dict[str, Any], on_text: OnText, limit: int | None) -> Reply:
        draft, characters, events = self._draft(), 0, 0
        # A generator of its own keeps what `on_text` raises out of the conversion of the SDK's errors.
        async with aclosing(self._chunks(client, request)) as chunks:
            async for chunk in chunks:
                if text := draft.add(chunk):
                    on_text(text)
                    characters += len(text)
                events += 1
                if is_too_long(characters, events, limit):
                    what = f"the reply goes on after {events:,} events, and its limit is {limit:,} tokens"
                    raise lm_error(self._endpoint, what, "unreadable")
        if draft.begun and draft.finish_reason is None:
            raise lm_error(self._endpoint, "the stream ended before the reply did", "broken off")
        return self._reply(draft)

    async def _chunks(self, client: Any, request: dict[str, Any]) -> AsyncGenerator[Any]:
        with lm_errors(self._endpoint):
            async with await self._create(client, {**request, "stream": True}) as stream:
                async for chunk in stream:
                    yield chunk

    def _reply(self, draft: Draft) -> Reply:
        usage = self._usage(draft)
        if not draft.begun:
            raise lm_error(self._endpoint, draft.complaint, "not an API", usage=usage)
        # A model that spent its whole limit on thinking has no text: a reply cut short, not a failure.
        if not draft.pieces and draft.finish_reason != "length":
            what = f"the reply holds no text (finish_reason {draft.finish_reason!r})"
            raise lm_error(self._endpoint, what, "no text", usage=usage)
        return Reply("".join(draft.pieces), draft.model, usage or Usage(), draft.finish_reason)

    def _usage(self, draft: Draft) -> Usage | None:
        """What the provider says; None when it says nothing."""
        if draft.tokens is None and draft.cost is None:
            return None
        cost = self._tariff.cost(draft.tokens, draft.cost, self._names(draft.model))
        used = draft.tokens or Tokens()
        return Usage(used.input, used.output, used.cached, cost)

    # -- the context window

    def _opened(self) -> Any:
        client = self._open()
        if not self._window_known:
            self.context_window = self._tariff.window(self._names(self.model_name))
        return client

    async def _ask_for_window(self, client: Any) -> None:
        if self._window_known:
            return
        try:
            # Not by `with_options`: the copy of a client reads the environment again.
            hurried = {"timeout": LOOKUP_SECONDS, "max_retries": 0}
            with lm_errors(self._endpoint):
                listing = await client.get(self.models_path, cast_to=object, options=hurried)
            if (window := window_in_listing(listing, self.model_name)) is not None:
                self.context_window, self._window_known = window, True
        except Exception as error:  # noqa: BLE001 (nothing depends on it)
            _log.debug("%s does not tell context windows: %s", self._endpoint.url, self._endpoint.hidden(str(error)))

    def _check_key(self) -> None:
        check_key(self.api_key, self.key_variable)

    def _check_sampling(self) -> None:
        if wrong := sorted(self.reserved & (self.sampling_args or {}).keys()):
            raise ConfigError(
                f"sampling_args may not hold {', '.join(wrong)}: it is for fields such as temperature, top_p or "
                "seed. The length of a reply is the argument max_tokens."
            )
