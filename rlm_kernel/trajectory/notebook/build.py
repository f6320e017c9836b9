"""Build the notebook of a run: a pure function of its trajectory.

    notebook = notebook_of(trajectory, About("rlm_2026-11-20_08-00-00_1a2b3c4d"))

It opens in every Jupyter client and runs in each of them without a key: the setup cell answers the cells from the log
beside it. Around the turns are the question, the cells that prepare a replay, and the answer with its cost. Each cell
says in `metadata.rlm` what it is; `metadata.rlm` of the notebook describes the run.
"""

from __future__ import annotations

import asyncio
import hashlib
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from rlm_kernel.text import format_cost, format_duration
from rlm_kernel.trajectory.log.reader import Recording, StoredContext
from rlm_kernel.trajectory.notebook import markdown, setup_cell
from rlm_kernel.trajectory.notebook.calls import sum_usage
from rlm_kernel.trajectory.notebook.cells import NotebookCell, Place, markdown_cell, turn_cells
from rlm_kernel.trajectory.tree import Trajectory
from rlm_kernel.types import UsageSummary

if TYPE_CHECKING:
    from nbformat import NotebookNode

MAX_QUESTION = 20_000
MAX_ANSWER = 100_000
_TITLE = 100

SETUP_TAG = "rlm-setup"

SCHEMA = 1
"""The version of `metadata.rlm`."""

OUR_ENVIRONMENTS = frozenset({"local", "docker", "modal", "gateway", "prime", "daytona", "e2b", "agent"})
"""Environments whose kernelspec is called `rlm-` and their name; another name is that of a kernelspec itself."""

Redact = Callable[[str], str]
Child = tuple[int, str, int]
"""The place of a child in its parent: the cell, the id of the call, the place of the prompt in it."""


def title_cell(trajectory: Trajectory, place: Place, run: str, forked_from: dict[str, Any] | None) -> NotebookCell:
    """The question, and who answered it over what."""
    started = trajectory.started
    question = (started.question if started else None) or ""
    log = f"{run}.jsonl"
    links = [f"[log]({_link(log)})"]
    if place.parent:
        links.append(f"[the run that asked]({_link(place.parent)})")
    lines = [
        f"# {markdown.one_line(question, _TITLE) or 'A run without a question'}",
        _quote(question) if len(question) > _TITLE or "\n" in question else "",
        " · ".join([*_run_facts(trajectory), *links]),
        "" if forked_from is None else f"*Went on from {markdown.one_line(_fork(forked_from), 300)}.*",
    ]
    return markdown_cell("title", "title", "\n\n".join(filter(None, lines)), place)


def parameters_cell(values: dict[str, Any], place: Place) -> NotebookCell:
    """The cell that papermill and its like fill in."""
    source = "\n".join(f"{name} = {value!r}" for name, value in values.items())
    return _code("parameters", source, place, {"tags": ["parameters"], "rlm": {"role": "parameters"}})


def folded_setup_cell(source: str, place: Place) -> NotebookCell:
    """The cell that prepares a replay, folded."""
    hidden = {"source_hidden": True}
    return _code("setup", source, place, {"tags": [SETUP_TAG], "jupyter": hidden, "rlm": {"role": "setup"}})


def end_cells(trajectory: Trajectory, place: Place) -> Iterator[NotebookCell]:
    """The answer, or how far the run got, and what it cost."""
    yield markdown_cell("answer", "answer", _answer(trajectory), place, outcome=outcome_of(trajectory))
    spent = usage_of(trajectory)
    if spent.model_usage_summaries:
        yield markdown_cell("usage", "usage", _usage_table(spent, trajectory.seconds), place)


def outcome_of(trajectory: Trajectory) -> str:
    """``answered``, ``failed``, ``stopped``, or ``unfinished``: under way, or killed."""
    if trajectory.completion is not None:
        return "answered"
    if trajectory.failure is None:
        return "unfinished"
    return "stopped" if isinstance(trajectory.failure, asyncio.CancelledError | KeyboardInterrupt) else "failed"


def usage_of(trajectory: Trajectory) -> UsageSummary:
    """What the run took, children included, as far as it got."""
    if trajectory.completion is not None:
        return trajectory.completion.usage_summary
    return sum_usage(trajectory.spending())


def facts_of(trajectory: Trajectory) -> dict[str, Any]:
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


def _run_facts(trajectory: Trajectory) -> list[str]:
    started = trajectory.started
    if started is None:
        return []
    unit = "characters" if started.context_type == "str" else "items"
    size = f"{markdown.one_line(started.context_type)} of {started.context_length:,} {unit}"
    model = markdown.one_line(started.model)
    if started.sub_model != started.model:
        model = f"{model} (sub-calls: {markdown.one_line(started.sub_model)})"
    return [model, f"{markdown.one_line(started.environment)} kernel", size]


def _fork(forked_from: dict[str, Any]) -> str:
    return ", ".join(f"{key}: {value}" for key, value in forked_from.items() if value is not None)


def _quote(text: str) -> str:
    shown = markdown.prose(markdown.clip_text(text, MAX_QUESTION), breaks=True)
    return "\n".join(f"> {one}" for one in shown.split("\n"))


def _link(file: str) -> str:
    return urllib.parse.quote(file)


def _answer(trajectory: Trajectory) -> str:
    if trajectory.completion is not None:
        said = markdown.clip_text(trajectory.completion.response, MAX_ANSWER)
        return f"## Answer\n\n{markdown.prose(said, breaks=True) or '*(empty)*'}"
    failure = trajectory.failure
    if failure is None:
        return f"## Not finished\n\nThis is how far the record goes: {_progress_text(trajectory)}."
    kind = markdown.one_line(type(failure).__name__)
    told = f"**{kind}** after {format_duration(trajectory.seconds)}: {_progress_text(trajectory)}."
    parts = [f"## Ended without an answer\n\n{told}"]
    if str(failure):
        parts.append(markdown.code_block(markdown.clip_text(str(failure), MAX_QUESTION)))
    if partial := getattr(failure, "partial_answer", None):
        draft = markdown.prose(markdown.clip_text(partial, MAX_ANSWER), breaks=True)
        parts.append(f"The best answer until then:\n\n{draft}")
    return "\n\n".join(parts)


def _progress_text(trajectory: Trajectory) -> str:
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
        cost = markdown.escape_dollars(format_cost(one.total_cost, "unknown"))
        rows.append(f"| {markdown.one_line(model)} | {shown} | {cost} |")
    whole = markdown.escape_dollars(
        f"{spent.total_calls:,} calls · {format_cost(spent.total_cost)} · {format_duration(seconds)}"
    )
    return "\n".join([*rows, "", markdown.small(whole)])


@dataclass(frozen=True, slots=True)
class About:
    """What a notebook says of a run besides its trajectory.

    Attributes:
        stem: the name of the run; its log is `{stem}.jsonl`.
        rlm_dir: the folder of the log, as it was given.
        context: where the input is kept, or None when it is not (yet).
        forked_from: the run that it resumes: the log's name and the turn; None: it resumes none.
        started: when the run began, as an ISO 8601 time, or None.
        child: for the notebook of a child: its place in its parent, that one's in its own, from the root down.
        name: the notebook's file without the suffix; empty: `stem`.
        parent: for the notebook of a child: the file of its parent's.
    """

    stem: str
    rlm_dir: str = "."
    context: StoredContext | None = None
    forked_from: dict[str, Any] | None = None
    started: str | None = None
    child: tuple[Child, ...] = ()
    name: str = ""
    parent: str = ""

    @property
    def file(self) -> str:
        """The name of the notebook's file."""
        return f"{self.name or self.stem}.ipynb"


def notebook_of(trajectory: Trajectory, about: About, redact: Redact | None = None) -> NotebookNode:
    """The notebook of a run as far as it got; those of its children are others.

    Args:
        trajectory: the run.
        about: what else is to be said.
        redact: applied to every text of the finished notebook.

    Raises:
        nbformat.ValidationError: the notebook is not valid; events of the engine always make a valid one.
    """
    import nbformat

    place = _place(trajectory, about)
    cells = [_redact(cell, redact) for cell in _cells(trajectory, about, place)]
    _sign(cells)
    metadata = _redact(_metadata(trajectory, about), redact)
    known = {"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": cells}
    notebook: NotebookNode = nbformat.from_dict(known)  # type: ignore[no-untyped-call]
    nbformat.validate(notebook)
    return notebook


def runs(trajectory: Trajectory, about: About) -> Iterator[tuple[Trajectory, About]]:
    """A run and all below it, each with what its notebook says of it."""
    yield trajectory, about
    place = _place(trajectory, about)
    for cell in trajectory.cells:
        for number, call in enumerate(cell.calls):
            for index, child in sorted(call.children.items()):
                path = (*about.child, (cell.number, call.started.query, index))
                name = place.child(cell.number, number, index)
                yield from runs(
                    child, replace(about, child=path, name=name, parent=about.file, context=None, started=None)
                )


def about_run(path: PurePath, said: Mapping[str, Any]) -> About:
    """What the first line of a log says, for the notebook of its run.

    Args:
        path: of the log or of the notebook.
        said: the fields of that line.
    """
    forked_from, started = said.get("forked_from"), said.get("timestamp")
    return About(path.stem, rlm_dir=str(path.parent), forked_from=forked_from, started=started)


def about_recording(recording: Recording) -> About:
    """What a log says of its run, to build its notebook again."""
    return replace(about_run(recording.path.absolute(), recording.metadata), context=recording.context)


def renew_setup_cell(notebook: NotebookNode) -> None:
    """Give a saved notebook the setup cell of this version of rlm-kernel, whose replay file this version can write."""
    for cell in notebook.cells:
        if SETUP_TAG in cell.metadata.get("tags", []):
            cell.source = setup_cell.source()
            cell.metadata.setdefault("rlm", {})["sha256"] = fingerprint(cell.source)


def fingerprint(source: str) -> str:
    """The SHA-256 of the source of a cell, in hex, as `metadata.rlm.sha256` has it."""
    return hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()


def _place(trajectory: Trajectory, about: About) -> Place:
    started = trajectory.started
    asked = [] if started is None else [started.question, started.context_type, started.context_length]
    prefix = f"rlm-{fingerprint(repr([asked, *about.child]))[:8]}"
    over = trajectory.completion is not None or trajectory.failure is not None
    when = None if about.started is None else datetime.fromisoformat(about.started)
    return Place(prefix, PurePath(about.file).stem, about.parent, when, over)


def _cells(trajectory: Trajectory, about: About, place: Place) -> Iterator[NotebookCell]:
    yield title_cell(trajectory, place, about.stem, about.forked_from)
    yield parameters_cell(_parameters(about), place)
    yield folded_setup_cell(setup_cell.source(), place)
    for turn in trajectory.turns:
        yield from turn_cells(turn, place)
    yield from end_cells(trajectory, place)


def _parameters(about: About) -> dict[str, Any]:
    known: dict[str, Any] = {"rlm_dir": about.rlm_dir, "rlm_log": f"{about.stem}.jsonl", "rlm_mode": "replay"}
    return {**known, "rlm_child": [list(step) for step in about.child]} if about.child else known


def _metadata(trajectory: Trajectory, about: About) -> dict[str, Any]:
    rlm = {
        "schema": SCHEMA,
        "run": about.stem,
        "log": f"{about.stem}.jsonl",
        "rlm_dir": about.rlm_dir,
        "outcome": outcome_of(trajectory),
        "usage": usage_of(trajectory).to_dict(),
        **facts_of(trajectory),
    }
    if about.context is not None:
        rlm["context"] = {key: getattr(about.context, key) for key in ("sha256", "encoding", "size", "file")}
    if about.forked_from is not None:
        rlm["forked_from"] = about.forked_from
    if about.child:
        rlm["child"] = [list(step) for step in about.child]
    if children := [described.file for _, described in runs(trajectory, about)][1:]:
        rlm["children"] = children
    return {
        "kernelspec": _kernelspec(trajectory),
        "language_info": {
            "name": "python",
            "file_extension": ".py",
            "mimetype": "text/x-python",
            "pygments_lexer": "ipython3",
        },
        "rlm": rlm,
    }


def _kernelspec(trajectory: Trajectory) -> dict[str, str]:
    """Cells that a model wrote run again where the run was; another kernel is the user's explicit choice."""
    name = title = trajectory.started.environment if trajectory.started else "local"
    if name in OUR_ENVIRONMENTS:
        name, title = f"rlm-{name}", f"RLM ({name})"
    return {"name": name, "display_name": title, "language": "python"}


def _redact(value: Any, redact: Redact | None) -> Any:
    """The value with every text in it redacted, and writable as UTF-8."""
    if isinstance(value, str):
        text = value if redact is None else redact(value)
        return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, dict):
        return {_redact(key, None): _redact(item, redact) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_redact(item, redact) for item in value]
    return value


def _sign(cells: list[NotebookCell]) -> None:
    """Make ids unique, and say of each code cell what its source was when it ran."""
    seen: set[str] = set()
    for cell in cells:
        known, number = cell["id"], 1
        while cell["id"] in seen:
            number += 1
            cell["id"] = f"{known}-{number}"
        seen.add(cell["id"])
        if cell["cell_type"] == "code":
            cell["metadata"]["rlm"]["sha256"] = fingerprint(cell["source"])
