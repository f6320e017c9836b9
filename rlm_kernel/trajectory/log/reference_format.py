"""The fields of the reference's log format, for the tools that read it.

`metadata` lines name the models and limits, `iteration` lines hold a whole turn. In the log long texts are shortened,
because the lines before an `iteration` hold them already; in `completion.metadata` they are complete.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from rlm_kernel.text import clip
from rlm_kernel.trajectory.tree import Call, Cell, Trajectory, Turn, sum_usage

LOGGED_CHARACTERS = 20_000
"""Of an output, a prompt or an answer."""
MAX_LOGGED_CHARACTERS = 100_000
"""Of all sub-calls of a cell together."""
MIN_LOGGED_CHARACTERS = 200
MAX_LOGGED_CALLS = 1_000
"""Of a cell; further ones are only counted. The lines before hold all of them."""


def metadata(configuration: Mapping[str, Any], root_model: str) -> dict[str, Any]:
    """The documented fields of the first line. `configuration`: the arguments of the `RLM`."""
    return {
        "root_model": root_model,
        "max_depth": configuration.get("max_depth"),
        "max_iterations": configuration.get("max_iterations"),
        "backend": configuration.get("backend"),
        "backend_kwargs": configuration.get("backend_kwargs"),
        "environment_type": configuration.get("environment"),
        "environment_kwargs": configuration.get("environment_kwargs"),
        "other_backends": configuration.get("other_backends"),
    }


def trajectory(run: Trajectory, run_metadata: Mapping[str, Any]) -> dict[str, Any]:
    """A run as `completion.metadata` has it; children are in the `rlm_calls` that started them."""
    return {"run_metadata": dict(run_metadata), "iterations": [iteration(turn) for turn in run.turns]}


def iteration(turn: Turn, limit: int | None = None) -> dict[str, Any]:
    """One turn. `limit`: characters that are kept of each text; None: all, and the runs of children."""
    answer = turn.finished.answer if turn.finished else None
    answer = None if answer is None else _clip(answer, limit)
    return {
        "iteration": turn.iteration,
        "prompt": [{**message, "content": _clip(message["content"], limit)} for message in turn.messages],
        "response": _clip(turn.reply.text if turn.reply else "", limit),
        "code_blocks": [{"code": cell.code, "result": _result(cell, answer, limit)} for cell in turn.cells],
        "final_answer": answer,
        "iteration_time": turn.finished.seconds if turn.finished else None,
    }


def _result(cell: Cell, answer: str | None, limit: int | None) -> dict[str, Any]:
    result = cell.result
    given = None if result is None else result.report.final if result.report.answer is None else result.report.answer
    traceback = result.error.traceback if result and result.error else ""
    return {
        "stdout": _clip(result.stdout if result else "", limit),
        "stderr": _clip("\n".join(filter(None, (result.stderr if result else "", traceback))), limit),
        "locals": dict(result.report.variables) if result else {},
        "execution_time": result.seconds if result else None,
        **_calls_of(cell, limit),
        "final_answer": answer if given is not None else None,
    }


def _calls_of(cell: Cell, limit: int | None) -> dict[str, Any]:
    """The sub-calls of a cell. In the log they share a limit, and those beyond it are only counted."""
    count = sum(len(call.answers) for call in cell.calls)
    if limit is None:
        return {"rlm_calls": [one for call in cell.calls for one in _calls(call, None)]}
    share = min(limit, max(MIN_LOGGED_CHARACTERS, MAX_LOGGED_CHARACTERS // max(2 * count, 1)))
    listed = list(islice((one for call in cell.calls for one in _calls(call, share)), MAX_LOGGED_CALLS))
    return {"rlm_calls": listed} | ({"rlm_calls_left_out": count - len(listed)} if count > len(listed) else {})


def _calls(call: Call, limit: int | None) -> Iterable[dict[str, Any]]:
    for index, answered in sorted(call.answers.items()):
        fields = {
            "root_model": _clip(answered.model, limit),
            "prompt": _clip(call.started.prompts[index], limit),
            "response": _clip(answered.text, limit),
            "usage_summary": sum_usage(call.spending_of(index)).to_dict(),
            "execution_time": answered.seconds,
        }
        if answered.error is not None:
            fields["error"] = _clip(answered.error, limit)
        child = call.children.get(index)
        if child is not None and limit is None:
            fields["metadata"] = trajectory(child, metadata({}, child.model))
        yield fields


def _clip(text: str, limit: int | None) -> str:
    return text if limit is None else clip(text, limit)
