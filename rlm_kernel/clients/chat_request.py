"""Parts of a request in the words of OpenAI's chat completions: a message with pictures, and a schema."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any

from rlm_kernel.schemas import is_strict

if TYPE_CHECKING:
    from rlm_kernel.records import Image, Message


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
