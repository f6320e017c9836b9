"""The Anthropic side of the loopback provider: what a step looks like as a message, as its events, as an error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

PATH = "/v1/messages"
STOP_REASONS = {"stop": "end_turn", "length": "max_tokens"}


def text_of(content: Any) -> str:
    """The text of a message, be it a text or a list of blocks."""
    return content if isinstance(content, str) else "".join(block.get("text", "") for block in content)


def message(says: Any, model: str, spent: tuple[int, int] | None) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [*says.blocks, *([] if says.text is None else [{"type": "text", "text": says.text}])],
        "stop_reason": STOP_REASONS.get(says.finish_reason, says.finish_reason),
        "stop_sequence": None,
        **({} if spent is None else {"usage": usage(says, spent)}),
    }


def usage(says: Any, spent: tuple[int, int]) -> dict[str, int]:
    """Anthropic counts what was read from the cache, or written to it, apart from the other input."""
    return {
        "input_tokens": spent[0] - says.cached - says.written,
        "cache_read_input_tokens": says.cached,
        "cache_creation_input_tokens": says.written,
        "output_tokens": spent[1],
    }


def events(says: Any, pieces: Sequence[str], model: str, spent: tuple[int, int] | None) -> Iterator[dict[str, Any]]:
    whole = message(says, model, spent)
    begun = {**whole, "content": [], "stop_reason": None}
    if spent is not None:
        begun["usage"] = {**whole["usage"], "output_tokens": 1}
    yield {"type": "message_start", "message": begun}
    blocks: list[tuple[dict[str, Any], list[dict[str, Any]]]] = [(block, []) for block in says.blocks]
    if says.text is not None:
        blocks.append(({"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in pieces]))
    for index, (block, deltas) in enumerate(blocks):
        yield {"type": "content_block_start", "index": index, "content_block": block}
        yield {"type": "ping"}
        yield from ({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas)
        yield {"type": "content_block_stop", "index": index}
    ending = {"type": "message_delta", "delta": {"stop_reason": whole["stop_reason"], "stop_sequence": None}}
    yield ending if spent is None else {**ending, "usage": {"output_tokens": spent[1]}}
    yield {"type": "message_stop"}


def error(message: str, kind: str | None) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind or "api_error", "message": message}, "request_id": "req_loopback"}
