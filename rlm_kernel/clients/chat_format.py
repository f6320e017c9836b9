"""The format of OpenAI's chat completions: messages, images and schemas in a request, and reading the response."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rlm_kernel.clients.encoding import join_surrogates
from rlm_kernel.clients.pricing import Tokens
from rlm_kernel.clients.provider import ReplyBuilder, dollars, field_of, text_of, token_count
from rlm_kernel.schema.answer_schema import is_strict

if TYPE_CHECKING:
    from rlm_kernel.types import Image, Message


FINISH_REASONS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(
            ("end_turn", "eos", "eos_token", "stop_sequence", "stop_token", "complete", "completed"), "stop"
        ),
        **dict.fromkeys(
            "max_tokens max_output_tokens model_length token_limit model_context_window_exceeded max_length "
            "error_limit context_length_exceeded incomplete".split(),
            "length",
        ),
        **dict.fromkeys(
            "safety recitation blocklist prohibited_content spii content_filtered sensitive language image_safety "
            "content_filter_error guardrail_intervened error_toxic".split(),
            "content_filter",
        ),
        **dict.fromkeys(
            "failed network_error insufficient_system_resource abort aborted cancelled canceled timeout timed_out "
            "pause_turn repetition_truncation error_finish".split(),
            "error",
        ),
        **dict.fromkeys(
            "function_call tool_call tool_use malformed_function_call unexpected_tool_call".split(), "tool_calls"
        ),
    }
)
"""Reasons of other APIs for the end of a reply, in small letters, and OpenAI's. All others are kept."""


def reason_of(given: Any) -> str | None:
    """A reason for the end of a reply in OpenAI's words; None if there is none."""
    if not isinstance(given, str):
        return None
    words = _WORD_BORDER.sub("_", given.strip())
    plain = words.lower().removeprefix("finish_reason_")
    if plain in _NO_REASON:
        return None
    known = FINISH_REASONS.get(plain, "error" if plain.startswith("error_") else plain)
    return known if known in _OWN_REASONS else given


_NO_REASON = frozenset({"", "none", "null", "unspecified", "unknown"})
_WORD_BORDER = re.compile(r"[\s-]++|(?<=[a-z])(?=[A-Z])")
_OWN_REASONS = frozenset({"stop", "length", "content_filter", "error", "tool_calls", "refusal"})


def chat_message(message: Message) -> dict[str, Any]:
    """The message; its content has parts only if it has images, because some servers only accept text."""
    content, images = join_surrogates(message["content"]), message.get("images", ())
    if not images:
        return {"role": message["role"], "content": content}
    return {"role": message["role"], "content": [*map(_image_part, images), {"type": "text", "text": content}]}


def response_format(schema: dict[str, Any] | None) -> dict[str, Any]:
    """The field that asks for JSON by a schema; empty without a schema.

    OpenAI refuses `strict` for a schema with optional or additional properties; other servers ignore it.
    """
    if schema is None:
        return {}
    named = {"name": "answer", "schema": schema, "strict": is_strict(schema)}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def _image_part(image: Image) -> dict[str, Any]:
    url = f"data:{image.media_type};base64,{b64encode(image.data).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


DONE: Mapping[str, Any] = MappingProxyType({"choices": []})
"""Follows the last chunk of a stream that ended with ``[DONE]``."""


class UntilDone:
    """A stream of OpenAI's SDK with `DONE` after its last chunk. The SDK swallows the ``[DONE]`` of the server.

    Without it, an end of the connection is no end of the reply.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._events = stream._iter_events  # noqa: SLF001 (the SDK has no other place for it)
        self._is_done = False
        stream._iter_events = self._watched  # noqa: SLF001

    async def __aenter__(self) -> AsyncIterator[Any]:
        """The chunks."""
        return self._chunks()

    async def __aexit__(self, *_: object) -> None:
        """Close the connection."""
        await self._stream.close()

    async def _chunks(self) -> AsyncIterator[Any]:
        if "event-stream" not in self._stream.response.headers.get("content-type", "event-stream"):
            whole = decoded((await self._stream.response.aread()).decode())  # it does not stream
            yield whole
            if isinstance(field_of(whole, "choices"), list):
                yield DONE
            return
        async for chunk in self._stream:
            yield chunk
        if self._is_done:
            yield DONE

    async def _watched(self) -> AsyncIterator[Any]:
        async for event in self._events():
            self._is_done = self._is_done or event.data.startswith("[DONE]")
            if event.data.strip():  # an empty one keeps the connection alive
                yield event


def decoded(response: Any) -> Any:
    """A response that came as text, decoded; anything else as it is."""
    if isinstance(response, str) and response.lstrip("\ufeff \r\n\t")[:1] == "{":
        with suppress(ValueError, RecursionError):
            return json.loads(response.lstrip("\ufeff"))
    return response


@dataclass(slots=True)
class ChatReplyBuilder(ReplyBuilder):
    """Reads a chat completion, or the chunks of one.

    Attributes:
        is_refused: whether the text is a refusal.
        asks_for_tool: whether the reply calls a tool.
    """

    is_refused: bool = False
    asks_for_tool: bool = False

    def add(self, response: Any) -> str:
        """Read a chat completion or a chunk, and return its text."""
        if response is DONE:
            self.ended = True
        self.model = text_of(response, "model") or self.model
        self.complaint = _find_complaint(response) or self.complaint
        if (usage := field_of(response, "usage")) is not None:
            self.tokens, self.cost = _read_tokens(usage) or self.tokens, _read_cost(usage) or self.cost
        choices = field_of(response, "choices")
        if field_of(response, "error") or choices is None:
            self.error = response
        if not isinstance(choices, list):
            return ""
        if choices:
            return self._add_choice(next(filter(_is_first, choices), choices[0]))
        self.begun = self.begun or field_of(response, "error") is None
        return ""

    def _add_choice(self, choice: Any) -> str:
        self.begun = True
        message, delta = field_of(choice, "message"), field_of(choice, "delta")
        if not _is_first(choice) and message is None:
            return ""  # a piece of another reply
        if delta or self.pieces:  # some servers repeat the whole message beside each piece
            message = delta
        text, refusal = text_in(field_of(message, "content")), _refusal_in(message)
        if message is None and not text:
            text = text_of(choice, "text")  # of the older API of completions
        self.finish_reason = reason_of(field_of(choice, "finish_reason")) or self.finish_reason
        if not text and refusal:
            text, self.is_refused = refusal, True
        self.error = field_of(choice, "error") or self.error
        self.asks_for_tool = self.asks_for_tool or bool(field_of(message, "tool_calls"))
        if text:
            self.pieces.append(text)
        return text

    def end(self) -> None:
        """Correct the reason: some servers say "stop" where the model refused, or asked for a tool."""
        if self.is_refused:
            self.finish_reason = "refusal"
        elif self.asks_for_tool and not self.pieces and self.finish_reason == "stop":
            self.finish_reason = "tool_calls"


def _is_first(choice: Any) -> bool:
    """Whether a choice is the first one, or has no index."""
    index = field_of(choice, "index")
    return not isinstance(index, int) or index == 0


def text_in(content: Any) -> str:
    """The text of a content: a text, or parts, of which thinking is none."""
    if isinstance(content, str):
        return content
    if isinstance(content, int | float) and not isinstance(content, bool):
        return str(content)
    content = [content] if isinstance(content, Mapping) else content
    return "".join(map(_text_of_part, content)) if isinstance(content, list) else ""


def _text_of_part(part: Any) -> str:
    text = part if isinstance(part, str) else field_of(part, "text")
    text = field_of(text, "value") if isinstance(text, Mapping) else text
    is_text = isinstance(part, str) or field_of(part, "type") in ("text", "output_text", None)
    return text if is_text and isinstance(text, str) else ""


def _refusal_in(message: Any) -> str:
    """The words of a refusal, in a field or in a part; empty if there is none."""
    parts = field_of(message, "content")
    found = [message, *(parts if isinstance(parts, list) else [])]
    return next((text for one in found if (text := text_of(one, "refusal"))), "")


def _find_complaint(response: Any) -> str | None:
    """The message of an error that came with status 200, or what came instead of JSON."""
    if isinstance(response, str):
        return "the reply is text, not JSON"
    error = field_of(response, "error")
    message = error.get("message") if isinstance(error, Mapping) else error
    if not message and field_of(response, "choices") is None:
        message = text_of(response, "message") or text_of(response, "detail")
    return str(message) if message else None


_IS_NONE = -1


def _read_tokens(usage: Any) -> Tokens | None:
    """The tokens that were used; None if they are not reported, or if one of the numbers is none."""
    prompt, completion = (
        _count(usage, "prompt_tokens", "input_tokens"),
        _count(usage, "completion_tokens", "output_tokens"),
    )
    if (prompt is None and completion is None) or _IS_NONE in (prompt, completion):
        return None
    details = field_of(usage, "prompt_tokens_details")
    cached, written = token_count(details, "cached_tokens"), token_count(details, "cache_write_tokens")
    if cached is None:
        cached = token_count(usage, "prompt_cache_hit_tokens")  # DeepSeek
    return Tokens(prompt or 0, completion or 0, min(cached or 0, prompt or 0), written or 0)


def _count(usage: Any, *names: str) -> int | None:
    """A number of tokens under the first name that is there; `_IS_NONE`: what is there is no number."""
    given = next((name for name in names if field_of(usage, name) is not None), None)
    if given is None:
        return None
    count = token_count(usage, given)
    return _IS_NONE if count is None else count


def _read_cost(usage: Any) -> float | None:
    """OpenRouter's charge. With the user's own key this is only its fee, and the provider charges the rest."""
    cost = dollars(field_of(usage, "cost"))
    if cost is None or not field_of(usage, "is_byok"):
        return cost
    details = field_of(usage, "cost_details")
    upstream = dollars(details.get("upstream_inference_cost")) if isinstance(details, Mapping) else None
    return None if upstream is None else cost + upstream
