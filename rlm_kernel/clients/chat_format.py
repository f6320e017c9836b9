"""The format of OpenAI's chat completions: messages, images and schemas in a request, and reading the response."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlm_kernel.clients.encoding import join_surrogates
from rlm_kernel.clients.pricing import Tokens
from rlm_kernel.clients.provider import ReplyBuilder, dollars, field_of, token_count
from rlm_kernel.schema.answer_schema import is_strict

if TYPE_CHECKING:
    from rlm_kernel.types import Image, Message


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


@dataclass(slots=True)
class ChatReplyBuilder(ReplyBuilder):
    """Reads a chat completion, or the chunks of one."""

    def add(self, response: Any) -> str:
        """Read a chat completion or a chunk, and return its text."""
        self.model = field_of(response, "model") or self.model
        self.complaint = _find_complaint(response) or self.complaint
        if (usage := field_of(response, "usage")) is not None:
            self.tokens, self.cost = _read_tokens(usage), _read_cost(usage)
        choices = field_of(response, "choices")
        return self._add_choice(choices[0]) if isinstance(choices, list) and choices else ""

    def _add_choice(self, choice: Any) -> str:
        self.begun = True
        self.finish_reason = field_of(choice, "finish_reason") or self.finish_reason
        message = field_of(choice, "message") or field_of(choice, "delta")
        contents = (field_of(message, name) for name in ("content", "refusal"))
        text = next((content for content in contents if isinstance(content, str)), None)
        if text is not None:
            self.pieces.append(text)
        return text or ""


def _find_complaint(response: Any) -> str | None:
    """The message of an error that came with status 200, or what came instead of JSON."""
    if isinstance(response, str):
        return "the reply is text, not JSON"
    error = field_of(response, "error")
    message = error.get("message") if isinstance(error, Mapping) else error
    return str(message) if message else None


def _read_tokens(usage: Any) -> Tokens | None:
    """The tokens that were used; None if they are not reported in this API's fields."""
    prompt, completion = token_count(usage, "prompt_tokens"), token_count(usage, "completion_tokens")
    if prompt is None and completion is None:
        return None
    details = field_of(usage, "prompt_tokens_details")
    cached, written = token_count(details, "cached_tokens"), token_count(details, "cache_write_tokens")
    return Tokens(prompt or 0, completion or 0, cached or 0, written or 0)


def _read_cost(usage: Any) -> float | None:
    """OpenRouter's charge. With the user's own key this is only its fee, and the provider charges the rest."""
    cost = dollars(field_of(usage, "cost"))
    if cost is None or not field_of(usage, "is_byok"):
        return cost
    details = field_of(usage, "cost_details")
    upstream = dollars(details.get("upstream_inference_cost")) if isinstance(details, Mapping) else None
    return None if upstream is None else cost + upstream
