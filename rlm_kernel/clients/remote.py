"""`RemoteLM`: a model behind a provider's SDK. A call becomes a `Reply` or an `LMError`.

One client of the SDK serves all calls (`connection`). Retries and timeouts are the SDK's own; `provider_errors`
converts its errors. If the user gives no context window, it is taken from the price table or from the server's list of
models. The list is requested once, in parallel with the first call; no call waits for it or fails because of it.
`size` waits for it a moment, if the server belongs to the user.
"""

from __future__ import annotations

import asyncio
import copy
import json
import logging
from collections import deque
from collections.abc import Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from rlm_kernel.clients.base import BaseLM
from rlm_kernel.clients.chat_format import decoded
from rlm_kernel.clients.connection import Connection
from rlm_kernel.clients.encoding import join_surrogates
from rlm_kernel.clients.model_size import Size, parameters_in_entry, parameters_in_name, size_of
from rlm_kernel.clients.pricing import Prices, Pricing, Tokens
from rlm_kernel.clients.provider_errors import (
    MAX_QUOTE,
    lm_error,
    lm_errors,
    opening_errors,
    refuses_schema,
    words_of,
)
from rlm_kernel.clients.rate_limits import read_headers
from rlm_kernel.clients.refused_parts import (
    LIMIT,
    SCHEMA_FIELDS,
    STREAM,
    allowed_limit,
    forms_of,
    refused_part,
    without_forms,
)
from rlm_kernel.clients.requests_sent import requests_sent
from rlm_kernel.clients.transient import TransientError, error_in, forget_request, transient_errors, wait_seconds
from rlm_kernel.clients.transport import is_loopback, is_too_long
from rlm_kernel.errors import ConfigError, LMError
from rlm_kernel.schema.answer_schema import add_instructions
from rlm_kernel.text import clip_end, plain
from rlm_kernel.types import Message, Reply, Usage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Sequence

    from rlm_kernel.clients.base import OnText
    from rlm_kernel.clients.provider import ProviderAdapter, ReplyBuilder

WINDOW_FIELDS = (
    "max_model_len",  # vLLM
    "n_ctx",  # llama.cpp, under "meta"
    "context_length",  # OpenRouter, Together
    "context_window",  # Groq
    "max_context_length",  # Mistral, LM Studio
    "max_input_tokens",  # Anthropic
)

LOOKUP_SECONDS = 10.0
"""Timeout of the request for the server's list of models."""

SIZE_SECONDS = 1.0
"""How long a run waits for that list before its first call, to know the size of the model."""

MAX_OTHERS = 16
"""Models that the cells of an RLM may name besides those that it was given: each has connections of its own."""

MAX_REFUSED_SCHEMAS = 100
"""How many refused schemas are remembered."""

_log = logging.getLogger(__name__)


class RemoteLM(BaseLM):
    """An `LM` behind an SDK.

    Args:
        adapter: the settings, and how the provider is called.
        adapter_of: makes the adapter for another model of the provider; None: there is no other.
        family: the models of the provider by name, if another client started it and closes it.

    Raises:
        ConfigError: `prices` in the settings are invalid.
    """

    takes_images = True

    def __init__(
        self,
        adapter: ProviderAdapter,
        adapter_of: Callable[[str], ProviderAdapter] | None = None,
        family: dict[str, RemoteLM] | None = None,
    ) -> None:
        self.adapter = adapter
        self._adapter_of = adapter_of
        self._closes_family = family is None
        self._family: dict[str, RemoteLM] = {adapter.model_name: self} if family is None else family
        self.backend, self.model = adapter.backend, adapter.model_name
        self.api_key, self.env = adapter.api_key, {**adapter.env, **(adapter.default_headers or {})}
        self.pricing = Pricing(
            None if adapter.prices is None else Prices.of(adapter.prices),
            adapter.own_server and is_loopback(adapter.url),
            adapter.price_source,
        )
        self._parameters = parameters_in_name(adapter.model_name)
        self._is_own = adapter.own_server or is_loopback(adapter.url)
        self._window_known = adapter.context_window is not None
        self._connection = Connection(self._open, self._look_up_window)
        self._refused: deque[str] = deque(maxlen=MAX_REFUSED_SCHEMAS)
        adapter.on_headers = self._see_rate

    def __repr__(self) -> str:
        return f"RemoteLM({self.model!r}, backend={self.backend!r}, base_url={self.adapter.shown_url!r})"

    @property
    def context_window(self) -> int | None:
        """Tokens of prompt and reply together, or None if unknown."""
        return self.adapter.context_window

    def reply_limit(self, max_tokens: int | None) -> int | None:
        """The longest reply in tokens if a call asks for `max_tokens`; None: limited by the context window only."""
        adapter = self.adapter
        limit = max_tokens or adapter.default_max_tokens
        if adapter.max_tokens or limit is None:
            return adapter.max_tokens
        return None if LIMIT in adapter.left_out else min(limit, adapter.allowed_tokens or limit)

    def price(self, input_tokens: int, output_tokens: int) -> float | None:
        """US dollars that a call costs at most; None if unknown before the call."""
        return self.pricing.max_cost(Tokens(input_tokens, output_tokens), self.adapter.price_names(self.model))

    def price_known(self) -> bool:
        """Whether the cost of a call can be computed. Imports the price table, which takes 0.1 s."""
        return self.pricing.known(self.adapter.price_names(self.model))

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int | None = None,
        on_text: OnText | None = None,
        schema: dict[str, Any] | None = None,
    ) -> Reply:
        """Answer the conversation. Lone surrogates, which JSON in UTF-8 cannot contain, are sent as U+FFFD.

        Raises:
            LMError: the provider failed, or its response is not a reply.
            ConfigError: the SDK cannot be opened with these settings, or in this environment.
        """
        if self.adapter.counts_requests and (so_far := requests_sent.get()) is not None:
            so_far.counted = True  # none, also if the call is stopped while the client is opened
        with opening_errors(self.adapter):
            client = await self._connection.client()
        for sent_messages, sent_schema in self._forms(messages, schema):
            try:
                return await self._ask(client, sent_messages, max_tokens, on_text, sent_schema)
            except LMError as error:
                if sent_schema is None or not refuses_schema(error):
                    raise
        raise AssertionError("the last form has no schema: it returns or raises")

    def for_model(self, name: str) -> RemoteLM | None:
        """The same provider with another model; None: it has no other models.

        Raises:
            ConfigError: there are too many.
        """
        if self._adapter_of is None:
            return None
        if name not in self._family:
            if len(self._family) > MAX_OTHERS:
                raise ConfigError(f"{MAX_OTHERS} models were named besides those of the RLM: use one of these.")
            self._family[name] = RemoteLM(self._adapter_of(name), self._adapter_of, self._family)
        return self._family[name]

    def warmer(self, temperature: float) -> RemoteLM | None:
        """See `BaseLM`."""
        sampling = self.adapter.sampling_args or {}
        given = sampling.get("temperature")
        if not isinstance(given, int | float) or given >= temperature:
            return None
        other = copy.copy(self)
        other.adapter = copy.copy(self.adapter)
        other.adapter.sampling_args = {**sampling, "temperature": temperature}
        return other

    async def close(self) -> None:
        """Close the connections. A later call opens new ones."""
        await self._connection.close()
        for other in list(self._family.values()) if self._closes_family else ():
            if other is not self:
                await other.close()

    async def size(self) -> Size:
        """Of the model. The list of models is waited for if the server belongs to the user.

        "unknown": neither the name nor such a server says it. Models of providers that do not say it are large.
        """
        if self._parameters is None and self._is_own:
            try:
                await self._connection.wait_for_errand(SIZE_SECONDS)
            except Exception as error:  # noqa: BLE001 (the first call raises it)
                _log.debug("%s cannot be opened: %s", self.adapter.shown_url, self.adapter.redact(str(error)))
        if self._parameters is not None:
            return size_of(self._parameters)
        return "unknown" if self._is_own else "large"

    def _forms(
        self, messages: Sequence[Message], schema: dict[str, Any] | None
    ) -> Iterator[tuple[Sequence[Message], dict[str, Any] | None]]:
        """What to send: the schema in the provider's mode for schemas and, if that is refused, in the last message."""
        if schema is None:
            yield messages, None
            return
        schema = _sendable_schema(schema)
        with_instructions, key = add_instructions(messages, schema), json.dumps(schema, sort_keys=True)
        has_mode = not SCHEMA_FIELDS & self.adapter.left_out
        if has_mode and key not in self._refused and self.adapter.accepts_schema(schema):
            yield (messages if self.adapter.shows_schema else with_instructions), schema
            self._refused.append(key)  # the caller only takes the next form after a refusal
        yield with_instructions, None

    async def _send(
        self,
        client: Any,
        messages: Sequence[Message],
        max_tokens: int | None,
        schema: dict[str, Any] | None,
        *,
        stream: bool,
    ) -> tuple[Any, ReplyBuilder, Sequence[Message]]:
        """The response, its reader, and the messages as sent. What the server refuses is left out from then on."""
        adapter = self.adapter
        while True:
            left_out, limit = adapter.left_out, self.reply_limit(max_tokens)
            streams = stream and STREAM not in left_out
            sent = without_forms(messages, left_out)
            built = adapter.build_request(sent, limit, schema)
            request = {name: value for name, value in built.items() if name not in left_out}
            try:
                response, builder = await adapter.send(client, request, stream=streams), adapter.builder(request)
            except Exception as error:
                words, status = words_of(error).replace(self.model, ""), getattr(error, "status_code", None)
                if self._lower_limit(allowed_limit(status, words, limit)):
                    continue
                ours = {STREAM} if streams else set()
                forms = forms_of(sent, adapter.forms, left_out) | ours
                part = refused_part(status, words, (*request, *adapter.extras, *ours), forms, left_out)
                if part is None:
                    raise
                adapter.left_out |= {part}
                level = logging.WARNING if part in (adapter.sampling_args or {}) else logging.INFO
                _log.log(level, "%s, model %r: refused, and left out from now on: %s", self.backend, self.model, part)
                if part in SCHEMA_FIELDS and schema is not None:
                    raise  # the caller sends the schema as text
                continue
            builder.streams = streams
            return response, builder, sent

    async def _ask(
        self,
        client: Any,
        messages: Sequence[Message],
        max_tokens: int | None,
        on_text: OnText | None,
        schema: dict[str, Any] | None,
    ) -> Reply:
        """The reply. A transient error in a response of status 200 is retried, as long as no text was passed on."""
        adapter = self.adapter
        for retry in range(adapter.max_retries + 1):
            with lm_errors(adapter):
                response, builder, sent = await self._send(
                    client, messages, max_tokens, schema, stream=on_text is not None
                )
            try:
                return await self._read(response, builder, sent, on_text, self.reply_limit(max_tokens))
            except TransientError as error:
                forget_request(error)
                text = "".join(builder.pieces)
                if text or retry == adapter.max_retries:
                    what = clip_end(adapter.redact(plain(error.words)), MAX_QUOTE)
                    raised = lm_error(adapter, what, error.kind, retries=retry, usage=self._usage(builder))
                    raised.partial_answer = text or None
                    raise raised from None
            await asyncio.sleep(wait_seconds(retry))
        raise AssertionError("the last try returns or raises")

    def _lower_limit(self, allowed: int | None) -> bool:
        """Use the limit that the server allows from now on, or none. False: the limit must stay as it is.

        A limit that the user has set is not changed.
        """
        adapter = self.adapter
        must_stay = adapter.max_tokens is not None or (allowed == 0 and adapter.default_max_tokens is not None)
        if allowed is None or must_stay:
            return False
        if allowed:
            adapter.allowed_tokens = min(allowed, adapter.allowed_tokens or allowed)
        else:
            adapter.left_out |= {LIMIT}
        what = f"{allowed:,} tokens" if allowed else "none"
        _log.info("%s, model %r: limit of a reply refused; from now on: %s", self.backend, self.model, what)
        return True

    async def _read(
        self,
        response: Any,
        builder: ReplyBuilder,
        messages: Sequence[Message],
        on_text: OnText | None,
        limit: int | None,
    ) -> Reply:
        try:
            if builder.streams and on_text is not None:
                await self._read_stream(response, builder, on_text, limit)
            else:
                with lm_errors(self.adapter):
                    text = builder.add(decoded(response))
                if text and on_text is not None:
                    on_text(text)
            if not (builder.pieces and builder.finish_reason) and (error := error_in(builder.error)) is not None:
                raise error
            if builder.begun and builder.finish_reason is None:
                if builder.streams and not builder.ended:
                    raise lm_error(self.adapter, "the stream ended before the reply did", "broken off")
                builder.finish_reason = _reason_of(builder, limit)
            builder.end()
            usage, text = self._usage(builder), "".join(builder.pieces)
            if not builder.begun or (builder.failed and not text):
                kind = "APIError" if builder.failed else "not an API"
                raise lm_error(self.adapter, builder.complaint, kind, usage=usage)
        except LMError as error:
            error.partial_answer = "".join(builder.pieces) or None
            raise
        self.adapter.keep(messages, text, builder)
        return Reply(text, builder.model, usage or Usage(), builder.finish_reason)

    async def _read_stream(self, response: Any, builder: ReplyBuilder, on_text: OnText, limit: int | None) -> None:
        characters = events = 0
        # The errors of the SDK are converted in a separate generator, so that errors from `on_text` are not.
        async with aclosing(self._chunks(response)) as chunks:
            async for chunk in chunks:
                if text := builder.add(chunk):
                    on_text(text)
                    characters += len(text)
                events += 1
                if is_too_long(characters, events, limit):
                    what = f"the reply continues after {events:,} events, although its limit is {limit:,} tokens"
                    raise lm_error(self.adapter, what, "unreadable")

    async def _chunks(self, response: Any) -> AsyncGenerator[Any]:
        with lm_errors(self.adapter), transient_errors():
            async with response as stream:
                async for chunk in stream:
                    yield chunk

    def _usage(self, builder: ReplyBuilder) -> Usage | None:
        """The reported usage with its cost; None if the provider reports nothing."""
        if builder.tokens is None and builder.cost is None:
            return None
        cost = self.pricing.cost(builder.tokens, builder.cost, self.adapter.price_names(builder.model))
        used = builder.tokens or Tokens()
        return Usage(used.input, used.output, used.cached, cost)

    def _see_rate(self, status: int, headers: Mapping[str, str]) -> None:
        self.rate_seen = read_headers(status, headers) or self.rate_seen

    def _open(self) -> Any:
        client = self.adapter.open()
        if self.context_window is None:
            self.adapter.context_window = self.pricing.window(self.adapter.price_names(self.model))
        return client

    async def _look_up_window(self, client: Any) -> None:
        if self._window_known or self.adapter.models_path is None:
            return
        requests_sent.set(None)  # this request is no part of the first call
        try:
            # Not with `with_options`: the copy of a client reads the environment again.
            options = {"timeout": LOOKUP_SECONDS, "max_retries": 0}
            with lm_errors(self.adapter):
                listing = await client.get(self.adapter.models_path, cast_to=object, options=options)
            self._parameters = self._parameters or parameters_in_entry(entry_in_listing(listing, self.model))
            if (window := window_in_listing(listing, self.model)) is not None:
                self.adapter.context_window, self._window_known = window, True
        except Exception as error:  # noqa: BLE001 (the call does not depend on it)
            _log.debug("%s does not list context windows: %s", self.adapter.shown_url, self.adapter.redact(str(error)))


def _reason_of(builder: ReplyBuilder, limit: int | None) -> str:
    """Why a whole reply ended for which the provider gives no reason."""
    is_full = limit is not None and builder.tokens is not None and builder.tokens.output >= limit
    return "length" if is_full else "stop"


def window_in_listing(listing: Any, model: str) -> int | None:
    """The context window, in tokens, that a server's list gives for a model, or None."""
    return _window_in_entry(entry_in_listing(listing, model))


def entry_in_listing(listing: Any, model: str) -> Mapping[str, Any]:
    """What a server's list says about a model, or nothing.

    Args:
        listing: the decoded list; its shape is not trusted.
        model: the name of the model. A list with a single model is taken to be about it, whatever its name there.
    """
    entries = listing.get("data") if isinstance(listing, Mapping) else None
    found = [entry for entry in entries if isinstance(entry, Mapping)] if isinstance(entries, list) else []
    named = [entry for entry in found if entry.get("id") == model]
    return next(iter(named or (found if len(found) == 1 else [])), {})


def _window_in_entry(entry: Mapping[str, Any]) -> int | None:
    meta = entry.get("meta")
    fields = {**(meta if isinstance(meta, Mapping) else {}), **entry}
    values = (fields.get(name) for name in WINDOW_FIELDS)
    return next((value for value in values if isinstance(value, int) and value > 0), None)


def _sendable_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema; its names and texts may contain surrogates, too."""
    sendable: dict[str, Any] = json.loads(join_surrogates(json.dumps(schema, ensure_ascii=False)))
    return sendable
