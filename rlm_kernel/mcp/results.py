"""What a server returns, as parts that the guest makes values of: text, JSON, images, bytes."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mcp_types import CallToolResult

IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")

Part = dict[str, Any]
"""One of `text`, `json`, or `image` and `bytes` in base64, the last two with their `type`."""


def parts_of(result: CallToolResult, *, unwraps: bool) -> list[Part]:
    """The parts of what a tool returned. Structured content stands for the texts, which say the same."""
    content = [_part(block) for block in result.content]
    structured: Any = result.structured_content
    if structured is None:
        return content
    if unwraps and isinstance(structured, dict) and structured.keys() == {"result"}:
        structured = structured["result"]
    return [{"json": structured}, *(part for part in content if "text" not in part)]


def parts_of_resource(contents: Iterable[Any]) -> list[Part]:
    """The parts of a resource."""
    return [_contents(one) for one in contents]


def error_text(result: CallToolResult) -> str:
    """The text of an error."""
    texts = [block.text for block in result.content if block.type == "text"]
    return "\n".join(texts).strip() or str(result.structured_content or "it failed, and the server does not say why")


def _part(block: Any) -> Part:
    match block.type:
        case "text":
            return {"text": block.text}
        case "image" | "audio":
            return _binary(block.data, block.mime_type)
        case "resource":
            return _contents(block.resource)
    return {"json": block.model_dump(mode="json", by_alias=True, exclude_none=True)}


def _contents(resource: Any) -> Part:
    text = getattr(resource, "text", None)
    return {"text": text} if text is not None else _binary(resource.blob, resource.mime_type)


def _binary(data: str, kind: str | None) -> Part:
    try:
        base64.b64decode(data, validate=True)
    except (ValueError, binascii.Error):
        return {"text": data}
    return {"image" if kind in IMAGES else "bytes": data, "type": kind}
