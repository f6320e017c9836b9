"""The side of the loopback provider that speaks OpenAI's Responses API: a step as a response, and as its events.

`/v1/responses` answers a step as `/v1/chat/completions` does. Of `Says`, `blocks` are output items before the message,
such as `reasoning("...")`, and `fields={"refusal": "No."}` makes the message a refusal. `finish_reason` is ``"stop"``,
``"length"``, ``"content_filter"`` or ``"error"``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any

PATH = "/v1/responses"
INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


def reasoning(encrypted: str, summary: str = "") -> dict[str, Any]:
    """A reasoning item: what the model thought, encrypted, and its summary."""
    parts = [{"type": "summary_text", "text": summary}] if summary else []
    return {"id": f"rs_{encrypted}", "type": "reasoning", "summary": parts, "encrypted_content": encrypted}


def response(says: Any, model: str, spent: tuple[int, int] | None, *, thought: int = 0) -> dict[str, Any]:
    """The whole response. `thought`: how many of the output tokens were reasoning."""
    failed, reason = says.finish_reason == "error", INCOMPLETE.get(says.finish_reason)
    status = "failed" if failed else "incomplete" if reason else "completed"
    return {
        **_begun(model),
        "status": status,
        "error": {"code": "server_error", "message": "The model failed."} if failed else None,
        "incomplete_details": {"reason": reason} if reason else None,
        "output": [*says.blocks, *_messages(says, status)],
        "usage": None if spent is None else usage(spent, says.cached, thought),
    }


def usage(spent: tuple[int, int], cached: int, thought: int) -> dict[str, Any]:
    return {
        "input_tokens": spent[0],
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": spent[1],
        "output_tokens_details": {"reasoning_tokens": thought},
        "total_tokens": sum(spent),
    }


def events(says: Any, pieces: Sequence[str], model: str, spent: tuple[int, int] | None) -> Iterator[dict[str, Any]]:
    """The events of a stream, numbered."""
    for number, event in enumerate(_events(says, pieces, model, spent)):
        yield {**event, "sequence_number": number}


def text_of(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The messages of a request, with their texts as in chat completions; reasoning is left out."""
    return [{"role": item["role"], "content": _text(item["content"])} for item in body["input"] if item.get("content")]


def _begun(model: str) -> dict[str, Any]:
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 0,
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": model,
        "output": [],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": None,
    }


def _messages(says: Any, status: str) -> list[dict[str, Any]]:
    refusal = says.fields.get("refusal")
    if refusal:
        part = {"type": "refusal", "refusal": refusal}
    elif says.text is None:
        return []
    else:
        part = {"type": "output_text", "text": says.text, "annotations": [], "logprobs": []}
    ended = "incomplete" if status == "incomplete" else "completed"
    return [{"id": "msg_1", "type": "message", "role": "assistant", "status": ended, "content": [part]}]


def _events(says: Any, pieces: Sequence[str], model: str, spent: tuple[int, int] | None) -> Iterator[dict[str, Any]]:
    whole = response(says, model, spent)
    yield {"type": "response.created", "response": _begun(model)}
    yield {"type": "response.in_progress", "response": _begun(model)}
    for index, item in zip(count(), whole["output"], strict=False):
        yield {"type": "response.output_item.added", "output_index": index, "item": _opened(item)}
        if item["type"] == "message":
            yield from _parts(item, index, pieces)
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    yield {"type": f"response.{whole['status']}", "response": whole}


def _opened(item: dict[str, Any]) -> dict[str, Any]:
    return {**item, "status": "in_progress", "content": []} if item["type"] == "message" else item


def _parts(item: dict[str, Any], index: int, pieces: Sequence[str]) -> Iterator[dict[str, Any]]:
    (part,) = item["content"]
    kind, place = part["type"], {"item_id": item["id"], "output_index": index, "content_index": 0}
    name = "refusal" if kind == "refusal" else "text"
    deltas = [part["refusal"]] if kind == "refusal" else pieces
    extra = {} if kind == "refusal" else {"logprobs": []}
    yield {"type": "response.content_part.added", **place, "part": {**part, name: ""}}
    for delta in deltas:
        yield {"type": f"response.{kind}.delta", **place, "delta": delta, **extra}
    yield {"type": f"response.{kind}.done", **place, name: part[name], **extra}
    yield {"type": "response.content_part.done", **place, "part": part}


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
