"""A log's row in the list of runs, read from its first and last lines: logs may be large, and many."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rlm_kernel.text import clip_end
from rlm_kernel.trajectory.log.jsonl import event_of
from rlm_kernel.trajectory.states import State, state_of_error_name, state_without_end
from rlm_kernel.trajectory.tree import Trajectory, sum_paid

_BLOCKS = (1 << 16, 1 << 20, 1 << 25)
_MAX_HEAD = 1 << 22
_MAX_TEXT = 600
_LAST_LINES = 5
_MAX_COUNTED = 1 << 21
_PAID = frozenset(
    {"metadata", "reply", "summary", "cell", "subcall", "answer", "rejected", "subcall_end", "child", "failed"}
)
"""The lines from which the cost of a run is added up."""
_EPOCH = "1970-01-01T00:00:00+00:00"
MAX_NUMBER = 1e15  # as on the page: a larger number is not a real figure, and sums could overflow
_TIMES = (-6e10, 2.5e11)
_QUESTION = re.compile(r"^Answer the following: (.*?)\n\nYour context is", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Summary:
    """One run in the list.

    Attributes:
        name: of the file.
        size: bytes.
        modified: when it was last written to, in seconds since 1970.
        state: see `trajectory.states`.
        question, answer, model, environment, error: empty or None where the log does not say.
        began: when the run began, in seconds since 1970; when the log was last written to where it does not say.
        seconds, turns, calls, tokens, cost: of the whole run, or None where the log does not say. `calls`: of models,
            sub-calls included; `cost`: in US dollars, None also if the price of a call is not known.
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
    environment: str = ""
    began: float = 0.0
    turns: int | None = None
    calls: int | None = None


def parse_lines(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The JSON objects among lines; other lines are skipped, because a log may be cut or hostile."""
    for line in lines:
        with suppress(ValueError, RecursionError):
            parsed = json.loads(line)
            if isinstance(parsed, dict):
                yield parsed


def as_dict(value: Any) -> dict[str, Any]:
    """The value if it is an object of JSON, else an empty one."""
    return value if isinstance(value, dict) else {}


def is_time(seconds: float) -> bool:
    """Whether seconds since 1970 are a time in every time zone: the years 1 and 9999 are not."""
    return _TIMES[0] < seconds < _TIMES[1]


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
    if known.get("tokens") is None and stat.st_size <= _MAX_COUNTED:
        known |= _spent(path)
    state = _state(known, stat.st_mtime)
    return Summary(path.name, stat.st_size, stat.st_mtime, state, **{"began": stat.st_mtime, **known})


def _state(known: dict[str, Any], modified: float) -> State:
    error_type = known.pop("error_type", None)
    if error_type is not None:
        return state_of_error_name(error_type)
    return "answered" if "answer" in known else state_without_end(modified)


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
            kind = str(line.get("error_type"))
            named = "" if state_of_error_name(kind) == "stopped" else kind
            text = ": ".join(filter(None, (named, str(line.get("error") or ""))))
            return {"error_type": kind, "error": _short(text), "seconds": _number(line.get("time"))}
        case "iteration":
            turns = _whole(line.get("iteration"))
            return {"turns": turns} if first.get("log_schema") else {"turns": turns, **_of_iteration(line, first)}
    return {}


def _of_beginning(line: dict[str, Any]) -> dict[str, Any]:
    found = {
        "question": _short(line.get("question") or line.get("input_text")),
        "model": _short(line.get("model") or line.get("root_model")),
        "environment": _short(line.get("environment") or line.get("environment_type")),
    }
    began = _seconds_between(_EPOCH, line.get("timestamp"))
    return {**found, "began": began} if began is not None and is_time(began) else found


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
        "calls": int(sum(filter(None, (_number(model.get("total_calls")) for model in models)))),
        "cost": None if usage.get("unpriced_models") else _number(usage.get("total_cost")),
    }


def _seconds_between(begin: Any, end: Any) -> float | None:
    try:
        return (_time(end) - _time(begin)).total_seconds()
    except (TypeError, ValueError, OverflowError):
        return None


def _time(text: Any) -> datetime:
    """A time of a log. The reference writes local times, without a zone."""
    return datetime.fromisoformat(text).astimezone(UTC)


def _spent(path: Path) -> dict[str, Any]:
    """Tokens, calls and cost of a log whose last line does not have them: the run has no answer."""
    run = Trajectory()
    with path.open("rb") as file:
        for line in parse_lines(file):
            # A line that cannot be read costs nothing. The prompts are not needed, so their files are not read.
            with suppress(KeyError, TypeError, ValueError, AttributeError, RecursionError):
                if line.get("type") in _PAID:
                    run.add(event_of(line))
    if run.started is None:
        return {}
    spent = sum_paid(run.spending())
    return {
        "turns": len(run.turns),
        "tokens": spent.total_input_tokens + spent.total_output_tokens,
        "calls": spent.total_calls,
        "cost": None if spent.unpriced_models else spent.total_cost,
    }


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


def _whole(value: Any) -> int | None:
    number = _number(value)
    return None if number is None else int(number)


def _short(text: Any) -> str:
    return "" if text is None else clip_end(str(text), _MAX_TEXT)


def _number(value: Any) -> float | None:
    """A number that is a figure, or None: a log may be damaged, or made to break its readers."""
    known = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MAX_NUMBER
    return value if known else None
