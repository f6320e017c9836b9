"""Texts that can be sent: JSON in UTF-8 cannot hold the lone surrogates that a Python text can."""

from __future__ import annotations

import json
from typing import Any

from rlm_kernel.records import Message


def sendable(message: Message) -> Message:
    """The message with pairs of surrogates joined and lone ones replaced."""
    return {**message, "content": _joined(message["content"])}


def sendable_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with pairs of surrogates joined and lone ones replaced, in its names too."""
    text = json.dumps(schema, ensure_ascii=False)
    cleaned = _joined(text)
    return schema if cleaned is text else dict(json.loads(cleaned))


def _joined(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
