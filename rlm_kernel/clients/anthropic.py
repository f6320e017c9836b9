"""The `anthropic` backend: the Messages API through the official SDK.

It differs from chat completions in the form of a conversation: the system prompt is a parameter, the roles alternate,
no text is empty, and `max_tokens` is required. A conversation that will grow, such as the root model's, marks its end
for the provider's prompt cache, so that the next turn reads from the cache what this one wrote.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic_core import to_json

from rlm_kernel.clients.chat_format import reason_of
from rlm_kernel.clients.encoding import MessageEncoder, check_fields, join_surrogates, request_body
from rlm_kernel.clients.pricing import Tokens
from rlm_kernel.clients.provider import ProviderAdapter, ReplyBuilder, field_of, text_of, token_count
from rlm_kernel.clients.refused_parts import USER_LAST
from rlm_kernel.schema.answer_schema import is_closed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rlm_kernel.types import Image, Message

MAX_REPLY_TOKENS = 8192
"""The default of `max_tokens`: every model since Claude 3.5 can write this many."""

CACHED = {"cache_control": {"type": "ephemeral"}}
EMPTY = "(empty)"


@dataclass(slots=True)
class MessageBuilder(ReplyBuilder):
    """Reads a message, or the events of one. Blocks without text, such as thinking, are skipped."""

    complaint: str = "the reply is no message"

    def add(self, response: Any) -> str:
        """Read a message or an event, and return its text."""
        match field_of(response, "type"):
            case "message":
                return self._add_message(response)
            case "message_start":
                return self._add_message(field_of(response, "message"))
            case "content_block_start":
                return self._add_block(field_of(response, "content_block"))
            case "content_block_delta":
                return self._add_block(field_of(response, "delta"))
            case "message_delta":
                self._read_stop_reason(field_of(response, "delta"))
                self._read_usage(field_of(response, "usage"))
            case "message_stop":
                self.ended = True
            case "error":
                self.error = response
                self.complaint = text_of(field_of(response, "error"), "message") or self.complaint
        return ""

    def _add_message(self, message: Any) -> str:
        self.begun = True
        self.model = text_of(message, "model") or self.model
        self._read_stop_reason(message)
        self._read_usage(field_of(message, "usage"))
        blocks = field_of(message, "content")
        if isinstance(blocks, str):
            blocks = [{"type": "text", "text": blocks}]
        return "".join(map(self._add_block, blocks)) if isinstance(blocks, list) else ""

    def _add_block(self, block: Any) -> str:
        text = field_of(block, "text")
        if field_of(block, "type") not in ("text", "text_delta") or not isinstance(text, str):
            return ""
        self.pieces.append(text)
        return text

    def _read_stop_reason(self, record: Any) -> None:
        reason = field_of(record, "stop_reason")
        self.finish_reason = reason_of(reason) or self.finish_reason

    def _read_usage(self, usage: Any) -> None:
        """Keep the last numbers: a stream reports the output as it grows, and the input often only at the start."""
        plain, output = token_count(usage, "input_tokens"), token_count(usage, "output_tokens")
        if plain is None and output is None:
            return
        cached = token_count(usage, "cache_read_input_tokens") or 0
        written = token_count(usage, "cache_creation_input_tokens") or 0
        total, output = (plain or 0) + cached + written, output or 0
        if total:
            self.tokens = Tokens(total, output, cached, written)
        else:
            self.tokens = replace(self.tokens or Tokens(), output=output)


@dataclass(eq=False, repr=False)
class AnthropicAdapter(ProviderAdapter):
    """Calls Anthropic's API."""

    default_url: ClassVar[str] = "https://api.anthropic.com"
    api: ClassVar[str] = "Anthropic"
    url_form: ClassVar[str] = "it is what stands before /v1/messages"
    default_max_tokens: ClassVar[int | None] = MAX_REPLY_TOKENS
    reserved: ClassVar[frozenset[str]] = frozenset(
        {"extra_body", "max_tokens", "messages", "model", "stream", "system"}
    )
    reply_builder: ClassVar[type[ReplyBuilder]] = MessageBuilder
    extras: ClassVar[tuple[str, ...]] = ("cache_control",)
    forms: ClassVar[frozenset[str]] = frozenset({USER_LAST})
    models_path: str | None = field(default="/v1/models?limit=1000", init=False)
    shows_schema: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._encode = MessageEncoder(_blocks)
        check_fields("sampling_args", self.sampling_args)
        check_fields("extra_body", self.extra_body, ("messages", "stream"))

    def open(self) -> Any:
        """Build an `AsyncAnthropic`."""
        import anthropic

        client: Any = anthropic.AsyncAnthropic(**self.sdk_options(anthropic))
        # The SDK reads tokens and headers from the environment, which must not reach every server in base_url.
        client.auth_token = None
        client._custom_headers = dict(self.headers or {})  # noqa: SLF001 (the argument only adds to them)
        return client

    def build_request(
        self, messages: Sequence[Message], max_tokens: int | None, schema: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """The fields of the body; the messages are encoded."""
        system = "\n\n".join(m["content"] for m in messages if m["role"] == "system")
        others = [m for m in messages if m["role"] != "system"]
        blocks = [json[1:-1] for json in self._encode(others)]
        # A single question, as a sub-call sends it, is not repeated: writing it to the cache would cost more.
        cached = {} if "cache_control" in self.left_out else CACHED
        if cached and others and (system or len({m["role"] for m in others}) > 1):
            blocks[-1] = to_json(_marked(others[-1]))[1:-1]
        fields = {**(self.extra_body or {}), **(self.sampling_args or {})}
        if schema is not None:
            fields["output_config"] = {**fields.get("output_config", {}), "format": _format(schema)}
        if system.strip():
            fields["system"] = [_text_block(system) | cached]
        turns = _alternate(others, blocks)
        return {"model": self.model_name, "max_tokens": max_tokens, **fields, "messages": b",".join(turns)}

    async def send(self, client: Any, request: dict[str, Any], *, stream: bool) -> Any:
        """Post the request. Not with `messages.create`, which walks through all messages in Python for each call."""
        body = {**request, "stream": True} if stream else request
        return await client.post("/v1/messages", cast_to=object, content=request_body(body), stream=stream)

    def accepts_schema(self, schema: dict[str, Any]) -> bool:
        """Whether the schema allows no additional properties, which the mode would remove, and can be converted."""
        return is_closed(schema) and _format(schema) is not None

    @property
    def url(self) -> str:
        """The endpoint without /v1, which the SDK adds."""
        return super().url.rstrip("/").removesuffix("/v1")


def _alternate(messages: Sequence[Message], blocks: list[bytes]) -> Iterator[bytes]:
    """The JSON of each turn. Adjacent messages of one role become one turn, with the blocks of all."""
    pairs = zip((m["role"] for m in messages), blocks, strict=True)
    for role, group in groupby(pairs, key=itemgetter(0)):
        yield b'{"role":"%s","content":[%s]}' % (role.encode(), b",".join(json for _, json in group))


def _blocks(message: Message) -> list[dict[str, Any]]:
    """The images of a message, followed by its text."""
    return [*map(_image_block, message.get("images", ())), _text_block(message["content"])]


def _marked(message: Message) -> list[dict[str, Any]]:
    """The blocks of a message, with the mark of the cache at the last one."""
    *others, last = _blocks(message)
    return [*others, last | CACHED]


def _image_block(image: Image) -> dict[str, Any]:
    source = {"type": "base64", "media_type": image.media_type, "data": b64encode(image.data).decode()}
    return {"type": "image", "source": source}


def _text_block(text: str) -> dict[str, Any]:
    return {"type": "text", "text": join_surrogates(text) if text.strip() else EMPTY}


def _format(schema: dict[str, Any]) -> dict[str, Any] | None:
    """The schema in the API's subset, with unsupported keywords moved to descriptions; None if that fails."""
    import anthropic

    try:
        return {"type": "json_schema", "schema": anthropic.transform_schema(schema)}
    except (ValueError, TypeError, AssertionError, AttributeError):
        return None
