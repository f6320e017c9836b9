"""OpenAI's Responses API: its requests, and reading its responses and the events of its streams.

Nothing is stored at OpenAI (``store`` is false). The reasoning of a turn comes back encrypted and is sent again with
the next turn of the same conversation, so that the model goes on from it and the provider's cache matches.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

from rlm_kernel.clients.chat_format import reason_of
from rlm_kernel.clients.encoding import MAX_KEPT_BYTES, MessageEncoder, join_surrogates
from rlm_kernel.clients.pricing import Tokens
from rlm_kernel.clients.provider import ReplyBuilder, field_of, text_of, token_count
from rlm_kernel.text import not_blank

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from rlm_kernel.types import Image, Message

PATH = "/responses"
INCLUDED = "reasoning.encrypted_content"
SUMMARY = "reasoning.summary"

MIN_OUTPUT_TOKENS = 16
"""The smallest limit that the API accepts."""

ONLY_RESPONSES = re.compile(
    r"\A(?:o\d+-pro|gpt-\d+(?:\.\d+)?-pro|(?:gpt-\d.*-)?codex|.*-deep-research|computer-use)", re.ASCII
)
"""Beginnings of the names of OpenAI's models that chat completions refuse."""

_KEPT_ITEMS = frozenset({"reasoning", "message"})


def fields_of(given: Mapping[str, Any], left_out: Collection[str] = ()) -> dict[str, Any]:
    """Sampling arguments as fields of the Responses API: some have another place there.

    Args:
        given: fields, also by their names in chat completions.
        left_out: parts that the server refuses.
    """
    fields = dict(given)
    reasoning, text = dict(fields.pop("reasoning", None) or {}), dict(fields.pop("text", None) or {})
    for place, key, name in (
        (reasoning, "effort", "reasoning_effort"),
        (reasoning, "summary", "reasoning_summary"),
        (text, "verbosity", "verbosity"),
    ):
        if (value := fields.pop(name, None)) is not None:
            place[key] = value
    if isinstance(form := fields.pop("response_format", None), Mapping):
        text["format"] = {"type": form.get("type"), **(form.get("json_schema") or {})}
    if SUMMARY in left_out:
        reasoning.pop("summary", None)
    return {**fields, **({"reasoning": reasoning} if reasoning else {}), **({"text": text} if text else {})}


class Inputs:
    """The input items of conversations, and the reasoning of earlier replies, which belongs to them."""

    def __init__(self) -> None:
        self._encode = MessageEncoder(_item)
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._kept_bytes = 0

    def __call__(self, messages: Sequence[Message], *, reasoning: bool = True) -> Iterator[bytes]:
        """The JSON of the items of a conversation."""
        for key, item in zip(_keys(messages), self._encode(messages), strict=True):
            yield self._kept.get(key, item) if reasoning else item

    def keep(self, messages: Sequence[Message], text: str, output: Sequence[Any]) -> None:
        """Keep the output of a reply for the next turn. A single question, as a sub-call sends it, has none."""
        kinds = {text_of(item, "type") for item in output}
        if len(messages) < 2 or "reasoning" not in kinds or not kinds <= _KEPT_ITEMS or not text.strip():  # noqa: PLR2004
            return
        *_, key = _keys([*messages, {"role": "assistant", "content": not_blank(text)}])
        self._kept_bytes -= len(self._kept.pop(key, b""))
        self._kept[key] = json = b",".join(map(to_json, output))
        self._kept_bytes += len(json)
        while self._kept_bytes > MAX_KEPT_BYTES:
            self._kept_bytes -= len(self._kept.popitem(last=False)[1])


def _keys(messages: Sequence[Message]) -> Iterator[int]:
    """A key of each message and all before it. Strings keep their hashes, so no text is read again."""
    key = 0
    for message in messages:
        key = hash((key, message["role"], message["content"], message.get("images", ())))
        yield key


def _item(message: Message) -> dict[str, Any]:
    content, images = join_surrogates(message["content"]), message.get("images", ())
    if not images:
        return {"role": message["role"], "content": content}
    return {"role": message["role"], "content": [*map(_image, images), {"type": "input_text", "text": content}]}


def _image(image: Image) -> dict[str, Any]:
    url = f"data:{image.media_type};base64,{b64encode(image.data).decode()}"
    return {"type": "input_image", "detail": "auto", "image_url": url}


@dataclass(slots=True)
class ResponseBuilder(ReplyBuilder):
    """Reads a response, or the events of one. A message of the phase "commentary" is reasoning.

    Attributes:
        output: its items: reasoning, messages, calls of tools.
        is_refused: whether the text is a refusal.
        texts: the pieces of a stream so far, by the indexes of their item and of their part in it.
        open_part: the part whose pieces are passed on as they arrive.
        comments: the indexes of the items that are reasoning.
    """

    complaint: str = "the reply is no response"
    output: list[Any] = field(default_factory=list)
    is_refused: bool = False
    texts: dict[tuple[int, int], list[str]] = field(default_factory=dict)
    open_part: tuple[int, int] | None = None
    comments: set[int] = field(default_factory=set)

    def add(self, response: Any) -> str:
        """Read a response or an event, and return its text."""
        match field_of(response, "type"):
            case "response.output_text.delta" | "response.refusal.delta" as kind:
                return self._add_delta(response, is_refusal=kind == "response.refusal.delta")
            case "response.output_item.added" if _is_comment(field_of(response, "item")):
                self.comments.add(_index(response, "output_index"))
            case "response.output_text.done" | "response.refusal.done" if _part(response) == self.open_part:
                self.open_part = None
            case "response.created" | "response.in_progress":
                self.begun = True
            case "response.completed" | "response.incomplete" | "response.failed":
                return self._finish(field_of(response, "response"))
            case "error":
                self._complain(response)
            case _ if field_of(response, "object") == "response":
                return self._finish(response)
            case _ if field_of(response, "error"):
                self._complain(field_of(response, "error"))
        return ""

    def _add_delta(self, event: Any, *, is_refusal: bool) -> str:
        """The text of an event. Pieces of other parts wait for the end of the open part."""
        delta, part = field_of(event, "delta"), _part(event)
        if not isinstance(delta, str) or not delta or part[0] in self.comments or self.finish_reason is not None:
            return ""
        self.begun, self.is_refused = True, self.is_refused or is_refusal
        self.texts.setdefault(part, []).append(delta)
        if self.open_part is None:
            self.open_part = part
            delta = "".join(self.texts[part])
        if part != self.open_part:
            return ""
        self.pieces.append(delta)
        return delta

    def _finish(self, response: Any) -> str:
        self.begun = True
        self.model = text_of(response, "model") or self.model
        self._read_usage(field_of(response, "usage"))
        output, status = field_of(response, "output"), field_of(response, "status")
        self.output = output if isinstance(output, list) else []
        reason = field_of(field_of(response, "incomplete_details"), "reason") if status == "incomplete" else status
        self.finish_reason = reason_of(reason) or reason_of(status)
        if status == "failed":
            self._complain(field_of(response, "error"))
        return self._take_text()

    def _take_text(self) -> str:
        """Take the text of the whole response, as events may be lost, and return what was not passed on yet."""
        whole, passed_on = "".join(map(self._text_of, self._parts())), "".join(self.pieces)
        whole = whole or "".join(piece for _, pieces in sorted(self.texts.items()) for piece in pieces)
        self.pieces = [whole] if whole else []
        return whole.removeprefix(passed_on) if whole.startswith(passed_on) else ""

    def _parts(self) -> Iterator[Any]:
        for item in self.output:
            is_answer = field_of(item, "type") == "message" and not _is_comment(item)
            parts = field_of(item, "content") if is_answer else None
            yield from parts if isinstance(parts, list) else ()

    def _text_of(self, part: Any) -> str:
        self.is_refused = self.is_refused or field_of(part, "type") == "refusal"
        return text_of(part, "text") or text_of(part, "refusal")

    def _read_usage(self, usage: Any) -> None:
        """Reasoning is a part of the output tokens."""
        read, wrote = token_count(usage, "input_tokens"), token_count(usage, "output_tokens")
        if read is not None or wrote is not None:
            cached = token_count(field_of(usage, "input_tokens_details"), "cached_tokens")
            self.tokens = Tokens(read or 0, wrote or 0, cached or 0)

    def _complain(self, error: Any) -> None:
        self.error = error
        message = field_of(error, "message") or field_of(field_of(error, "error"), "message")
        self.complaint, self.failed, self.finish_reason = str(message or "the provider failed"), True, "error"

    def end(self) -> None:
        """The reason of a refusal, and of a reply that only asks for a tool."""
        if self.is_refused:
            self.finish_reason = "refusal"
        elif not self.pieces and any("call" in str(field_of(item, "type")) for item in self.output):
            self.finish_reason = "tool_calls" if self.finish_reason == "stop" else self.finish_reason


def _is_comment(item: Any) -> bool:
    return text_of(item, "phase") == "commentary"


def _part(event: Any) -> tuple[int, int]:
    return _index(event, "output_index"), _index(event, "content_index")


def _index(event: Any, name: str) -> int:
    value = field_of(event, name)
    return value if isinstance(value, int) else 0
