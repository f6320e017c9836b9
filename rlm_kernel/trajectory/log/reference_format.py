"""The fields of the reference's log format, for the tools that read it.

`metadata` lines name the models and limits, `iteration` lines hold a whole turn. In the file of turns long texts are
shortened, because the record beside it holds them; in `completion.metadata` they are complete.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from rlm_kernel.text import clip
from rlm_kernel.trajectory.tree import Call, Cell, Trajectory, Turn, is_kept, sum_usage
from rlm_kernel.types import Output

LOGGED_CHARACTERS = 20_000
"""Of an output, a prompt or an answer."""
MAX_LOGGED_CHARACTERS = 100_000
"""Of all sub-calls of a cell together."""
MIN_LOGGED_CHARACTERS = 200
MAX_LOGGED_CALLS = 1_000
"""Of a cell; further ones are only counted. The record holds all of them."""

_METADATA = (
    "timestamp", "root_model", "max_depth", "max_iterations", "backend", "backend_kwargs", "environment_type",
    "environment_kwargs", "other_backends",
)  # fmt: skip
"""The fields of a `metadata` line, besides its type."""


def metadata(configuration: Mapping[str, Any], root_model: str) -> dict[str, Any]:
    """The documented fields of the first line. `configuration`: the arguments of the `RLM`."""
    return {
        "root_model": root_model,
        "max_depth": configuration.get("max_depth"),
        "max_iterations": configuration.get("max_iterations"),
        "backend": configuration.get("backend"),
        "backend_kwargs": configuration.get("backend_kwargs") or {},
        "environment_type": configuration.get("environment"),
        "environment_kwargs": configuration.get("environment_kwargs") or {},
        "other_backends": configuration.get("other_backends"),
    }


def named(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `metadata` line, in which objects are named by their class: a page prints the fields as text."""
    others = fields.get("other_backends")
    names = {name: _name(fields.get(name)) for name in ("backend", "environment_type")}
    return {**fields, **names, "other_backends": others and [_name(one) for one in others]}


def metadata_line(first: Mapping[str, Any]) -> dict[str, Any]:
    """The `metadata` line of the file of turns, made from the first line of the record."""
    return {"type": "metadata", **named({name: first.get(name) for name in _METADATA})}


def _name(value: Any) -> str | None:
    """The name of a backend or an environment. Plain data about an object holds that of its class."""
    return value if isinstance(value, str | None) else str(value.get("object") if isinstance(value, dict) else value)


class ReadMessages:
    """The messages that the root model reads in its next turn."""

    def __init__(self) -> None:
        self._opening: list[Mapping[str, Any]] = []
        self._read: list[Mapping[str, Any]] = []

    def add(self, turn: Turn) -> list[Mapping[str, Any]]:
        """The messages of a turn and of those before it. The next turn has them too, and this one's reply."""
        kept = [message for message in turn.messages if is_kept(message)]
        self._opening = self._opening or kept
        prompt = [*self._read, *map(_message, turn.messages)]
        self._read = [*self._read, *kept, *([] if turn.reply is None else [_said(turn.reply.text)])]
        if turn.summary is not None:
            self.summarise(turn.summary.text)
        return prompt

    def summarise(self, summary: str) -> None:
        """A summary replaces all messages but those of the first turn."""
        self._read = [*self._opening, _said(summary)]


def _message(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """A message as the model read it, without our mark."""
    return {key: value for key, value in message.items() if key != "kept"} if "kept" in message else message


def _said(text: str) -> Mapping[str, Any]:
    return {"role": "assistant", "content": text}


def trajectory(run: Trajectory, run_metadata: Mapping[str, Any]) -> dict[str, Any]:
    """A run as `completion.metadata` has it; children are in the `rlm_calls` that started them.

    The prompt of a turn is all that the model read in it: the messages of earlier turns are the same objects.
    """
    messages = ReadMessages()
    iterations = [_whole(turn, messages.add(turn), run_metadata, run.seconds) for turn in run.turns]
    return {"run_metadata": dict(run_metadata), "iterations": iterations}


def _whole(
    turn: Turn, prompt: list[Mapping[str, Any]], run_metadata: Mapping[str, Any], seconds: float
) -> dict[str, Any]:
    """A turn of `completion.metadata`. `seconds`: from the start of the run to its last event."""
    began = run_metadata.get("timestamp")
    ended = timedelta(seconds=turn.finished.time if turn.finished else seconds)
    when = None if began is None else (datetime.fromisoformat(began) + ended).isoformat(timespec="milliseconds")
    fields = iteration(turn, run_metadata=run_metadata)
    return {"type": "iteration", "timestamp": when, **fields, "prompt": prompt}


def iteration(
    turn: Turn, limit: int | None = None, run_metadata: Mapping[str, Any] | None = None, failure: str = ""
) -> dict[str, Any]:
    """One turn, with the messages that are new in it.

    Args:
        turn: of a run.
        limit: characters that are kept of each text; None: all, and the runs of children.
        run_metadata: of the run; those of its children are made from it.
        failure: why the turn did not end; it is in the stderr of the last cell.
    """
    answer = turn.finished.answer if turn.finished else None
    answer = None if answer is None else _clip(answer, limit)
    results = [_result(cell, answer, limit, run_metadata or {}) for cell in turn.cells]
    if failure and results:
        results[-1]["stderr"] = _clip("\n".join(filter(None, (results[-1]["stderr"], failure))), limit)
    return {
        "iteration": turn.iteration,
        "prompt": [{**message, "content": _clip(message["content"], limit)} for message in turn.messages],
        "response": _clip(turn.reply.text if turn.reply else "", limit),
        "code_blocks": [
            {"code": cell.code, "result": result} for cell, result in zip(turn.cells, results, strict=True)
        ],
        "final_answer": answer,
        "iteration_time": turn.finished.seconds if turn.finished else None,
    }


def _result(cell: Cell, answer: str | None, limit: int | None, run_metadata: Mapping[str, Any]) -> dict[str, Any]:
    result = cell.result
    given = None if result is None else result.report.final if result.report.answer is None else result.report.answer
    traceback = result.error.traceback if result and result.error else ""
    return {
        "stdout": _clip("".join(map(_printed, result.outputs)) if result else "", limit),
        "stderr": _clip("\n".join(filter(None, (result.stderr if result else "", traceback))), limit),
        "locals": {**result.report.variables, **result.report.values} if result else {},
        "execution_time": result.seconds if result else 0.0,
        **_calls_of(cell, limit, run_metadata),
        "final_answer": answer if given is not None else None,
    }


def _printed(output: Output) -> str:
    """What an output adds to stdout. Displays and the value of the last line are there too: the model reads them."""
    if output["output_type"] == "stream":
        return str(output["text"]) if output["name"] == "stdout" else ""
    text = output.get("data", {}).get("text/plain")  # an error has no data
    return "" if text is None else f"{text}\n"


def _calls_of(cell: Cell, limit: int | None, run_metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The sub-calls of a cell. In the log they share a limit, and those beyond it are only counted."""
    count = sum(len(call.answers) for call in cell.calls)
    if limit is None:
        return {"rlm_calls": [one for call in cell.calls for one in _calls(call, None, run_metadata)]}
    share = min(limit, max(MIN_LOGGED_CHARACTERS, MAX_LOGGED_CHARACTERS // max(2 * count, 1)))
    listed = list(islice((one for call in cell.calls for one in _calls(call, share, run_metadata)), MAX_LOGGED_CALLS))
    return {"rlm_calls": listed} | ({"rlm_calls_left_out": count - len(listed)} if count > len(listed) else {})


def _calls(call: Call, limit: int | None, run_metadata: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    for index, answered in sorted(call.answers.items()):
        usage = sum_usage(call.spending_of(index))
        fields = {
            "root_model": _clip(answered.model, limit),
            "prompt": _clip(call.started.prompts[index], limit),
            "response": _clip(answered.text, limit),
            "usage_summary": usage.to_dict(),
            "execution_time": answered.seconds,
        }
        if limit is not None:  # the visualizer shows them, in a file of turns only
            fields |= {"prompt_tokens": usage.total_input_tokens, "completion_tokens": usage.total_output_tokens}
        if answered.error is not None:
            fields["error"] = _clip(answered.error, limit)
        child = call.children.get(index)
        if child is not None and limit is None:
            fields["metadata"] = trajectory(child, _of_child(child, run_metadata))
        yield fields


def _of_child(child: Trajectory, run_metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of a child's run: it has the arguments of its parent, but perhaps another model."""
    known = {name: run_metadata.get(name) for name in _METADATA}
    if child.started is None:
        return {**known, "root_model": child.model}
    if child.model != known["root_model"]:
        other = next(iter(known["other_backends"] or ()), known["backend"])
        known |= {"root_model": child.model, "backend": other, "backend_kwargs": {"model_name": child.model}}
    limits = {"max_iterations": child.started.max_iterations, "environment_type": child.started.environment}
    return {**known, **limits}


def _clip(text: str, limit: int | None) -> str:
    return text if limit is None else clip(text, limit)
