"""The `anthropic` backend: the Messages API through the official SDK.

It differs from chat completions in the form of a conversation: the system prompt is a parameter, user and assistant
take turns, no text is empty, and `max_tokens` is required. A conversation that will grow, such as the root model's,
marks its end for the provider's prompt cache: the next turn reads from the cache what this one wrote.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from rlm_kernel.clients.endpoint import http_options
from rlm_kernel.clients.pricing import Tokens
from rlm_kernel.clients.remote import CONNECT_SECONDS, RemoteLM
from rlm_kernel.clients.reply import Draft, count
from rlm_kernel.schema.answer_schema import is_closed

if TYPE_CHECKING:
    from rlm_kernel.types import Image, Message

FINISH_REASONS: Mapping[str, str] = MappingProxyType(
    {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "model_context_window_exceeded": "length"}
)
"""Anthropic's stop reasons in the words of `Reply`; all others, such as refusal, are kept."""

MAX_REPLY_TOKENS = 8192
"""Tokens, when nobody says: every model since Claude 3.5 can write as many."""

CACHED = {"cache_control": {"type": "ephemeral"}}
EMPTY = "(empty)"


@dataclass(slots=True)
class MessageDraft(Draft):
    """A message, or the events of one. Blocks that are no text, such as thinking, are passed over."""

    complaint: str = "the reply is no message"

    def add(self, response: Any) -> str:
        """Take in a message or an event; its text comes back."""
        match getattr(response, "type", None):
            case "message":
                return self._take(response)
            case "message_start":
                return self._take(response.message)
            case "content_block_start":
                return self._write(response.content_block)
            case "content_block_delta":
                return self._write(response.delta)
            case "message_delta":
                self._end(response.delta)
                self._count(getattr(response, "usage", None))
        return ""

    def _take(self, message: Any) -> str:
        self.begun = True
        self.model = getattr(message, "model", None) or self.model
        self._end(message)
        self._count(getattr(message, "usage", None))
        blocks = getattr(message, "content", None)
        return "".join(map(self._write, blocks)) if isinstance(blocks, list) else ""

    def _write(self, block: Any) -> str:
        text = getattr(block, "text", None)
        if getattr(block, "type", None) not in {"text", "text_delta"} or not isinstance(text, str):
            return ""
        self.pieces.append(text)
        return text

    def _end(self, record: Any) -> None:
        reason = getattr(record, "stop_reason", None)
        if isinstance(reason, str):
            self.finish_reason = FINISH_REASONS.get(reason, reason)

    def _count(self, usage: Any) -> None:
        """The last number counts: in a stream the output is told as it grows, and the input often only at the start."""
        plain, output = count(usage, "input_tokens"), count(usage, "output_tokens")
        if plain is None and output is None:
            return
        cached, written = count(usage, "cache_read_input_tokens") or 0, count(usage, "cache_creation_input_tokens") or 0
        read, said = (plain or 0) + cached + written, output or 0
        self.tokens = Tokens(read, said, cached, written) if read else replace(self.tokens or Tokens(), output=said)


@dataclass(eq=False, repr=False)
class AnthropicLM(RemoteLM):
    """An `LM` behind Anthropic's API; see `RemoteLM`. The SDK wants a `base_url` without /v1, so that is dropped."""

    default_url: ClassVar[str] = "https://api.anthropic.com"
    api: ClassVar[str] = "Anthropic"
    url_form: ClassVar[str] = "it is what stands before /v1/messages"
    models_path: ClassVar[str] = "/v1/models?limit=1000"
    reserved: ClassVar[frozenset[str]] = frozenset(
        {"extra_body", "max_tokens", "messages", "model", "stream", "system"}
    )
    """Fields of a request that `sampling_args` may not set, because they have a place of their own."""

    def _open(self) -> Any:
        import anthropic

        client = anthropic.AsyncAnthropic(
            api_key=self.api_key,
            base_url=self._url,
            timeout=anthropic.Timeout(self.timeout, connect=min(self.timeout, CONNECT_SECONDS)),
            max_retries=self.max_retries,
            default_headers=self.headers,
            http_client=anthropic.DefaultAsyncHttpxClient(**http_options(self._url)),
        )
        # The SDK reads tokens and headers of the environment, which are not for every server that base_url names.
        client.auth_token = None
        client._custom_headers = dict(self.headers or {})  # noqa: SLF001 (an argument only adds to them)
        _ = client.messages  # the SDK imports this part at first use: here, in the thread
        return client

    @property
    def _url(self) -> str:
        return super()._url.rstrip("/").removesuffix("/v1")

    def reply_limit(self, max_tokens: int | None) -> int:
        """The longest reply in tokens; it is always said."""
        return super().reply_limit(max_tokens) or MAX_REPLY_TOKENS

    def _request(
        self, messages: list[Message], max_tokens: int | None, schema: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        system = "\n\n".join(m["content"] for m in messages if m["role"] == "system")
        turns = _turns(messages)
        # A question that stands alone, as a sub-call does, is not asked again: writing it to the cache would cost more.
        grows = bool(system) or len(turns) > 1
        if grows and turns:
            turns[-1]["content"][-1] |= CACHED
        return {
            "model": self.model_name,
            "messages": turns,
            "max_tokens": max_tokens,
            "extra_body": _with_format({**(self.extra_body or {}), **(self.sampling_args or {})}, schema),
            **({"system": [_text(system) | CACHED]} if system.strip() else {}),
        }

    async def _create(self, client: Any, request: dict[str, Any]) -> Any:
        return await client.messages.create(**request)

    def _has_mode_for(self, schema: dict[str, Any]) -> bool:
        return is_closed(schema) and _format(schema) is not None

    def _shows_schema(self) -> bool:
        return True

    def _draft(self) -> MessageDraft:
        return MessageDraft(self.model_name)


def _turns(messages: list[Message]) -> list[dict[str, Any]]:
    """The conversation without the system's words; neighbours of one role become one turn."""
    spoken = (m for m in messages if m["role"] != "system")
    return [
        {"role": role, "content": [block for m in group for block in _blocks(m)]}
        for role, group in groupby(spoken, key=lambda m: m["role"])
    ]


def _blocks(message: Message) -> list[dict[str, Any]]:
    """The pictures of a message, and then its words."""
    return [*map(_picture, message.get("images", ())), _text(message["content"])]


def _picture(image: Image) -> dict[str, Any]:
    source = {"type": "base64", "media_type": image.media_type, "data": b64encode(image.data).decode()}
    return {"type": "image", "source": source}


def _with_format(fields: dict[str, Any], schema: dict[str, Any] | None) -> dict[str, Any]:
    """The fields of a request and, beside what a user says there, the format of the reply."""
    if schema is None:
        return fields
    return {**fields, "output_config": {**fields.get("output_config", {}), "format": _format(schema)}}


def _format(schema: dict[str, Any]) -> dict[str, Any] | None:
    """The schema without what the API does not know, which then stands in descriptions; None when that cannot be."""
    import anthropic

    try:
        return {"type": "json_schema", "schema": anthropic.transform_schema(schema)}
    except (ValueError, TypeError, AssertionError, AttributeError):
        return None


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text if text.strip() else EMPTY}
