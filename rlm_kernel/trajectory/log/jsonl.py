"""Events as lines of the log, and back.

A line is a JSON object with a `type` and the fields of the event. Lines do not repeat each other: an answer does not
repeat its prompt, and the outcome not the input. `metadata` and `iteration` also carry the fields of the reference's
format (`reference_format.py`), which are not read back.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Iterable
from functools import cache
from typing import Any

from rlm_kernel import errors
from rlm_kernel.trajectory import events
from rlm_kernel.trajectory.events import Event
from rlm_kernel.trajectory.log import prompt_store
from rlm_kernel.types import RLMChatCompletion, ToolCall, Usage, held_fields

SCHEMA = 1
"""The version of the lines, in `metadata`."""

KINDS: dict[type[Event], str] = {
    events.RunStarted: "metadata",
    events.KernelReady: "kernel_ready",
    events.IterationStarted: "asked",
    events.ModelReplied: "reply",
    events.CellStarted: "cell",
    events.SubcallStarted: "subcall",
    events.SubcallRejected: "rejected",
    events.SubcallAnswered: "answer",
    events.SubcallFinished: "subcall_end",
    events.ToolCalled: "tool_call",
    events.CellFinished: "cell_result",
    events.IterationFinished: "iteration",
    events.Compacted: "summary",
    events.Notice: "notice",
    events.MessageStarted: "message",
    events.MessageFinished: "message_end",
    events.ChildEvent: "child",
    events.RunFinished: "finished",
    events.RunFailed: "failed",
}
"""The recorded events; pieces of text and output are not recorded, because a later event has the whole."""

_SPENDING = tuple[tuple[str, Usage], ...]
_EVENTS: dict[str, Any] = {kind: event for event, kind in KINDS.items()}

TYPES = ("context", *_EVENTS)
"""The types of the lines of a log; a `context` line is not an event, it says where the input is stored."""

_KEYS = {"messages": "told", "raw_text": "said"}
"""The keys of fields that have another name in the log; the keys stay, so that old logs can be read."""

_NOT_REPEATED = {"prompt", "metadata"}
"""Fields of a completion that earlier lines hold."""

_LEFT_OUT = {events.RunStarted: ("context",), events.SubcallAnswered: ("prompt",), ToolCall: ("slots",)}


def line_of(event: Event) -> dict[str, Any] | None:
    """The line of an event, or None for one that is not recorded."""
    kind = KINDS.get(type(event))
    match event:
        case _ if kind is None:
            return None
        case events.ChildEvent():
            inner = line_of(event.event)
            where = {"cell": event.cell, "query": event.query, "index": event.index}
            return None if inner is None else {"type": kind, "time": event.time, **where, "line": inner}
        case events.RunFinished():
            outcome = RLMChatCompletion(**{**held_fields(event.completion), "metadata": None}).to_dict()
            return {"type": kind, "time": event.time, **{key: outcome[key] for key in outcome.keys() - _NOT_REPEATED}}
        case events.RunFailed(error=error):
            partial = getattr(error, "partial_answer", None)
            failure = {"error_type": type(error).__name__, "error": str(error), "partial_answer": partial}
            given_up = {"given_up": event.given_up} if event.given_up else {}
            return {"type": kind, "time": event.time, **failure, **given_up}
        case events.SubcallStarted():
            return prompt_store.shortened({"type": kind, **_fields_of(event)})
    fields = _fields_of(event)
    if fields.get("replaced", "") is None:  # the code of most cells is the model's
        del fields["replaced"]
    return {"type": kind, **fields}


def text_of(line: dict[str, Any]) -> str:
    """The line as JSON, in ASCII: lone surrogates survive, and no character can end it early."""
    return _ENCODER.encode(line)


def event_of(line: dict[str, Any]) -> Event:
    """The event of a line.

    Raises:
        ValueError, KeyError: the line was not written by `line_of`.
    """
    kind = _EVENTS[line["type"]]
    if kind is events.ChildEvent:
        where = {key: line[key] for key in ("time", "cell", "query", "index")}
        return events.ChildEvent(**where, event=event_of(line["line"]))
    if kind is events.RunFailed:
        given_up = reader_of(_SPENDING).validate_python(line.get("given_up", ()))
        return events.RunFailed(time=line["time"], error=_error(line), given_up=given_up)
    keys = ((field.name, _KEYS.get(field.name, field.name)) for field in dataclasses.fields(kind))
    fields: dict[str, Any] = {name: line[key] for name, key in keys if key in line}
    if kind is events.SubcallAnswered:
        fields["prompt"] = ""
    if kind is events.RunFinished:
        fields["completion"] = {**line, "prompt": ""}
    event: Event = reader_of(kind).validate_python(fields)
    if isinstance(event, events.RunStarted):
        check_tools(event.tools)
    return event


def check_tools(tools: Iterable[Any]) -> None:
    """Check that custom tools have the fields that `Tool.recorded` writes.

    Raises:
        TypeError, ValueError, KeyError: a field is missing or wrong.
    """
    for tool in tools:
        name, kind, _ = (tool[key] for key in ("name", "kind", "description"))
        if not isinstance(name, str) or kind not in ("function", "value", "code"):
            raise ValueError(f"{name!r} of the kind {kind!r} is not a tool")
        if not isinstance(tool["card"] if kind == "function" else {}, dict):
            raise TypeError(f"the card of the tool {name} is not an object")
        if kind == "code" and not isinstance(tool.get("content", ""), str):
            raise TypeError(f"the code of the tool {name} is not a text")


@cache
def reader_of(kind: Any) -> Any:
    """The `TypeAdapter` that checks plain data and makes a value of this type from it."""
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _fields_of(record: Any) -> dict[str, Any]:
    kind: Any = type(record)
    return {key: getattr(record, name) for key, name in _fields(kind)}


@cache
def _fields(kind: Any) -> tuple[tuple[str, str], ...]:
    """The recorded fields of a class of records: the key in the log and the name."""
    names = [field.name for field in dataclasses.fields(kind) if field.name not in _LEFT_OUT.get(kind, ())]
    return tuple((_KEYS.get(name, name), name) for name in names)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {
            name: field for name, field in _fields_of(value).items() if not isinstance(field, bytes)
        }  # of a picture
    raise TypeError(f"{type(value).__name__} cannot be recorded")


_ENCODER = json.JSONEncoder(default=_plain, separators=(",", ":"))


def _error(line: dict[str, Any]) -> BaseException:
    """The error of a run that failed, rebuilt from its name and message."""
    if line["error_type"] in (asyncio.CancelledError.__name__, KeyboardInterrupt.__name__):
        return asyncio.CancelledError(line["error"])
    known = getattr(errors, str(line["error_type"]), None)
    kind = known if isinstance(known, type) and issubclass(known, errors.RLMError) else errors.RLMError
    error = kind.__new__(kind)
    Exception.__init__(error, line["error"])
    error.partial_answer = line.get("partial_answer")
    return error
