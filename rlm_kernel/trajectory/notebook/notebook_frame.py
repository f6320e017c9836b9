"""What stands around the turns in the notebook of a run: the question, the cells that prepare a replay, the end."""

from __future__ import annotations

import asyncio
import urllib.parse
from collections.abc import Iterator
from typing import Any

from rlm_kernel.records import UsageSummary
from rlm_kernel.trajectory.amounts import duration
from rlm_kernel.trajectory.notebook import markdown
from rlm_kernel.trajectory.notebook.notebook_calls import cost, summed
from rlm_kernel.trajectory.notebook.notebook_cells import NotebookCell, Place, markdown_cell
from rlm_kernel.trajectory.tree import Trajectory

LONGEST_QUESTION = 20_000
LONGEST_ANSWER = 100_000
_TITLE = 100

SETUP_TAG = "rlm-setup"


def title(trajectory: Trajectory, place: Place, run: str, forked_from: dict[str, Any] | None) -> NotebookCell:
    """The question, and who answered it over what."""
    started = trajectory.started
    question = (started.question if started else None) or ""
    log = f"{run}.jsonl"
    links = [f"[log]({_link(log)})"]
    if place.parent:
        links.append(f"[the run that asked]({_link(place.parent)})")
    lines = [
        f"# {markdown.line(question, _TITLE) or 'A run without a question'}",
        _quoted(question) if len(question) > _TITLE or "\n" in question else "",
        " · ".join([*_run(trajectory), *links]),
        "" if forked_from is None else f"*Went on from {markdown.line(_fork(forked_from), 300)}.*",
    ]
    return markdown_cell("title", "title", "\n\n".join(filter(None, lines)), place)


def parameters(values: dict[str, Any], place: Place) -> NotebookCell:
    """The cell that papermill and its like fill in."""
    source = "\n".join(f"{name} = {value!r}" for name, value in values.items())
    return _code("parameters", source, place, {"tags": ["parameters"], "rlm": {"role": "parameters"}})


def setup(source: str, place: Place) -> NotebookCell:
    """The cell that prepares a replay, folded."""
    hidden = {"source_hidden": True}
    return _code("setup", source, place, {"tags": [SETUP_TAG], "jupyter": hidden, "rlm": {"role": "setup"}})


def end(trajectory: Trajectory, place: Place) -> Iterator[NotebookCell]:
    """The answer, or how far the run got, and what it cost."""
    yield markdown_cell("answer", "answer", _answer(trajectory), place, outcome=outcome(trajectory))
    spent = usage(trajectory)
    if spent.model_usage_summaries:
        yield markdown_cell("usage", "usage", _usage_table(spent, trajectory.seconds), place)


def outcome(trajectory: Trajectory) -> str:
    """``answered``, ``failed``, ``stopped``, or ``unfinished``: under way, or killed."""
    if trajectory.completion is not None:
        return "answered"
    if trajectory.failure is None:
        return "unfinished"
    return "stopped" if isinstance(trajectory.failure, asyncio.CancelledError | KeyboardInterrupt) else "failed"


def usage(trajectory: Trajectory) -> UsageSummary:
    """What the run took, children included, as far as it got."""
    if trajectory.completion is not None:
        return trajectory.completion.usage_summary
    return summed(trajectory.spending())


def facts(trajectory: Trajectory) -> dict[str, Any]:
    """What was asked of whom, for `metadata.rlm`."""
    started = trajectory.started
    if started is None:
        return {}
    names = ("question", "model", "sub_model", "environment", "context_type", "context_length", "depth", "seed")
    return {name: getattr(started, name) for name in names}


def _code(name: str, source: str, place: Place, metadata: dict[str, Any]) -> NotebookCell:
    return {
        "cell_type": "code",
        "id": f"{place.prefix}-{name}",
        "metadata": metadata,
        "source": source,
        "execution_count": None,
        "outputs": [],
    }


def _run(trajectory: Trajectory) -> list[str]:
    started = trajectory.started
    if started is None:
        return []
    unit = "characters" if started.context_type == "str" else "items"
    size = f"{markdown.line(started.context_type)} of {started.context_length:,} {unit}"
    model = markdown.line(started.model)
    if started.sub_model != started.model:
        model = f"{model} (sub-calls: {markdown.line(started.sub_model)})"
    return [model, f"{markdown.line(started.environment)} kernel", size]


def _fork(forked_from: dict[str, Any]) -> str:
    return ", ".join(f"{key}: {value}" for key, value in forked_from.items() if value is not None)


def _quoted(text: str) -> str:
    shown = markdown.prose(markdown.clipped(text, LONGEST_QUESTION), breaks=True)
    return "\n".join(f"> {one}" for one in shown.split("\n"))


def _link(file: str) -> str:
    return urllib.parse.quote(file)


def _answer(trajectory: Trajectory) -> str:
    if trajectory.completion is not None:
        said = markdown.clipped(trajectory.completion.response, LONGEST_ANSWER)
        return f"## Answer\n\n{markdown.prose(said, breaks=True) or '*(empty)*'}"
    failure = trajectory.failure
    if failure is None:
        return f"## Not finished\n\nThis is how far the record goes: {_reached(trajectory)}."
    told = f"**{markdown.line(type(failure).__name__)}** after {duration(trajectory.seconds)}: {_reached(trajectory)}."
    parts = [f"## Ended without an answer\n\n{told}"]
    if str(failure):
        parts.append(markdown.fenced(markdown.clipped(str(failure), LONGEST_QUESTION)))
    if partial := getattr(failure, "partial_answer", None):
        draft = markdown.prose(markdown.clipped(partial, LONGEST_ANSWER), breaks=True)
        parts.append(f"The best answer until then:\n\n{draft}")
    return "\n\n".join(parts)


def _reached(trajectory: Trajectory) -> str:
    turns, cells = len(trajectory.turns), trajectory.cells
    if not turns:
        return "the model was not asked yet"
    running = [str(cell.number) for cell in cells if cell.result is None]
    where = f"turn {trajectory.turns[-1].iteration}, {len(cells) - len(running):,} finished cells"
    return f"{where}, cell {', '.join(running)} had begun" if running else where


def _usage_table(spent: UsageSummary, seconds: float) -> str:
    rows = ["| model | calls | tokens in | tokens out | cost |", "|---|--:|--:|--:|--:|"]
    for model, one in spent.model_usage_summaries.items():
        numbers = (one.total_calls, one.total_input_tokens, one.total_output_tokens)
        shown = " | ".join(f"{number:,}" for number in numbers)
        rows.append(f"| {markdown.line(model)} | {shown} | {_dollars(one.total_cost)} |")
    whole = markdown.money(f"{spent.total_calls:,} calls · {cost(spent)} · {duration(seconds)}")
    return "\n".join([*rows, "", markdown.small(whole)])


def _dollars(amount: float | None) -> str:
    return "unknown" if amount is None else markdown.money(f"${amount:.4f}")
