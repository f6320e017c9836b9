"""OpenAI's chat completions: messages with images and schemas in a request, and reading the response."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlm_kernel.clients.pricing import Tokens
from rlm_kernel.clients.reply import Draft, amount, count, dollars
from rlm_kernel.schema.answer_schema import is_strict

if TYPE_CHECKING:
    from rlm_kernel.types import Image, Message


def chat_message(message: Message) -> dict[str, Any]:
    """The message; only one with pictures has parts, because some servers know texts only."""
    images = message.get("images", ())
    if not images:
        return {"role": message["role"], "content": message["content"]}
    words = {"type": "text", "text": message["content"]}
    return {"role": message["role"], "content": [*map(_picture, images), words]}


def response_format(schema: dict[str, Any] | None) -> dict[str, Any]:
    """The field that asks for JSON by a schema; empty without one.

    OpenAI refuses `strict` for a schema that leaves anything open; other servers do not look at it.
    """
    if schema is None:
        return {}
    named = {"name": "answer", "schema": schema, "strict": is_strict(schema)}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def _picture(image: Image) -> dict[str, Any]:
    url = f"data:{image.media_type};base64,{b64encode(image.data).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


@dataclass(slots=True)
class ChatDraft(Draft):
    """A chat completion, or the chunks of one."""

    def add(self, response: Any) -> str:
        """Take in a chat completion or a chunk of one; its text comes back."""
        self.model = getattr(response, "model", None) or self.model
        self.complaint = _complaint(response) or self.complaint
        if (usage := getattr(response, "usage", None)) is not None:
            self.tokens, self.cost = _tokens(usage), _cost(usage)
        choices = getattr(response, "choices", None)
        return self._choose(choices[0]) if isinstance(choices, list) and choices else ""

    def _choose(self, choice: Any) -> str:
        self.begun = True
        self.finish_reason = getattr(choice, "finish_reason", None) or self.finish_reason
        text = _text(getattr(choice, "message", None) or getattr(choice, "delta", None))
        if text is not None:
            self.pieces.append(text)
        return text or ""


def _text(message: Any) -> str | None:
    """The words of a message or a delta; a refusal has a field of its own."""
    words = (getattr(message, name, None) for name in ("content", "refusal"))
    return next((text for text in words if isinstance(text, str)), None)


def _complaint(response: Any) -> str | None:
    """An error that came with status 200, or what came instead of JSON."""
    if isinstance(response, str):
        return "the reply is text, not JSON"
    error = getattr(response, "error", None)
    said = error.get("message") if isinstance(error, Mapping) else error
    return str(said) if said else None


def _tokens(usage: Any) -> Tokens | None:
    """What was used; None when it is told in no words of this API, or not at all."""
    prompt, completion = count(usage, "prompt_tokens"), count(usage, "completion_tokens")
    if prompt is None and completion is None:
        return None
    details = getattr(usage, "prompt_tokens_details", None)
    cached, written = count(details, "cached_tokens"), count(details, "cache_write_tokens")
    return Tokens(prompt or 0, completion or 0, cached or 0, written or 0)


def _cost(usage: Any) -> float | None:
    """What OpenRouter charges. With a user's own key that is its fee, and the model's provider charges the rest."""
    cost = amount(usage, "cost")
    if cost is None or not getattr(usage, "is_byok", False):
        return cost
    details = getattr(usage, "cost_details", None)
    upstream = dollars(details.get("upstream_inference_cost")) if isinstance(details, Mapping) else None
    return None if upstream is None else cost + upstream
