"""A log's row in the list of runs, read from its first and last lines: logs may be large, and many."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from rlm_kernel.text import clip_end
from rlm_kernel.viewer.log_source import FRESH_SECONDS, as_dict, parse_lines

State = Literal["answered", "failed", "running", "open"]

_BLOCKS = (1 << 16, 1 << 20, 1 << 25)
_MAX_HEAD = 1 << 22
_MAX_TEXT = 600
_LAST_LINES = 5
_MAX_NUMBER = 1e15  # as on the page: a larger number is not a real figure, and sums could overflow
_QUESTION = re.compile(r"^Answer the following: (.*?)\n\nYour context is", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Summary:
    """One run in the list.

    Attributes:
        name: of the file.
        size: bytes.
        modified: when it was last written to, in seconds since 1970.
        state: ``open``: no end is on record, and nothing was written for a while.
        question, answer, model, error: empty or None where the log does not say.
        seconds, tokens, cost: of the whole run, or None where the log does not say.
    """

    name: str
    size: int
    modified: float
    state: State
    question: str = ""
    model: str = ""
    answer: str | None = None
    error: str | None = None
    seconds: float | None = None
    tokens: int | None = None
    cost: float | None = None


def summary_of(path: Path) -> Summary:
    """The summary of a log; of any other file, its name and size.

    Raises:
        OSError: it cannot be read.
    """
    stat = path.stat()
    known: dict[str, Any] = {}
    with path.open("rb") as file:
        head = list(parse_lines(file.readline(_MAX_HEAD) for _ in range(2)))
        for line in [*head[:2], *reversed(list(_last(file, stat.st_size)))]:
            known |= _fields_of_line(line, head[0] if head else {})
    return Summary(path.name, stat.st_size, stat.st_mtime, _state(known, stat.st_mtime), **known)


def _state(known: dict[str, Any], modified: float) -> State:
    if known.get("error"):
        return "failed"
    if "answer" in known:
        return "answered"
    return "running" if time.time() - modified < FRESH_SECONDS else "open"


def _fields_of_line(line: dict[str, Any], first: dict[str, Any]) -> dict[str, Any]:
    """What a line says for the list."""
    match line.get("type"):
        case "metadata":
            return _of_beginning(line)
        case "finished":
            return {
                "answer": _short(line.get("response")),
                "seconds": _number(line.get("execution_time")),
                **_usage_fields(line),
            }
        case "failed":
            text = f"{line.get('error_type')}: {line.get('error')}"
            return {"error": _short(text), "seconds": _number(line.get("time"))}
        case "iteration" if not first.get("log_schema"):
            return _of_iteration(line, first)
    return {}


def _of_beginning(line: dict[str, Any]) -> dict[str, Any]:
    return {
        "question": _short(line.get("question") or line.get("input_text")),
        "model": _short(line.get("model") or line.get("root_model")),
    }


def _of_iteration(line: dict[str, Any], first: dict[str, Any]) -> dict[str, Any]:
    """A turn in a log of the reference, which has no line for the end."""
    found: dict[str, Any] = {"seconds": _seconds_between(first.get("timestamp"), line.get("timestamp"))}
    messages = line.get("prompt") if isinstance(line.get("prompt"), list) else []
    words = [m["content"] for m in messages or [] if isinstance(m, dict) and isinstance(m.get("content"), str)]
    question = next((match[1] for text in words if (match := _QUESTION.match(text))), None)
    if question:
        found["question"] = _short(question)
    if line.get("final_answer") is not None:
        found["answer"] = _short(line["final_answer"])
    return found


def _usage_fields(line: dict[str, Any]) -> dict[str, Any]:
    usage = as_dict(line.get("usage_summary"))
    models = [as_dict(model) for model in as_dict(usage.get("model_usage_summaries")).values()]
    counts = [_number(model.get(f"total_{kind}_tokens")) for model in models for kind in ("input", "output")]
    return {
        "tokens": int(sum(filter(None, counts))),
        "cost": None if usage.get("unpriced_models") else _number(usage.get("total_cost")),
    }


def _seconds_between(begin: Any, end: Any) -> float | None:
    try:
        return (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds()
    except (TypeError, ValueError):
        return None


def _last(file: Any, size: int) -> Iterator[dict[str, Any]]:
    """The last whole lines, the latest first. A line may be longer than a block: then a larger one is read."""
    for block in _BLOCKS:
        file.seek(max(0, size - block))
        lines = file.read(block).split(b"\n")
        whole = lines if size <= block else lines[1:]
        found = list(parse_lines(reversed(whole[-_LAST_LINES - 1 :])))
        if found or size <= block:
            yield from found
            return


def _short(text: Any) -> str:
    return "" if text is None else clip_end(str(text), _MAX_TEXT)


def _number(value: Any) -> float | None:
    """A number that is a figure, or None: a log may be damaged, or made to break its readers."""
    known = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _MAX_NUMBER
    return value if known else None
