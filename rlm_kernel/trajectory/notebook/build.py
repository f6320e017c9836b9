"""Build the notebook of a run: a pure function of its trajectory.

    notebook = notebook_of(trajectory, RunIdentity("rlm_2026-11-20_08-00-00_1a2b3c4d"))

It opens in every Jupyter client and runs there without a key: the setup cell answers the other cells from the log.
Before the turns are the question and the cells that prepare a replay, after them the answer with its cost. Each cell
has its role in `metadata.rlm`; `metadata.rlm` of the notebook describes the run.
"""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import PurePath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from rlm_kernel.parsing.compiler import TREES
from rlm_kernel.text import format_cost, format_duration
from rlm_kernel.trajectory.log.file_names import NOTEBOOK, stem_of
from rlm_kernel.trajectory.log.reader import Recording, StoredContext
from rlm_kernel.trajectory.notebook import markdown, setup_cell
from rlm_kernel.trajectory.notebook.cells import NotebookCell, Place, markdown_cell, turn_cells
from rlm_kernel.trajectory.tree import Trajectory, sum_paid
from rlm_kernel.types import UsageSummary

if TYPE_CHECKING:
    from nbformat import NotebookNode

MAX_QUESTION = 20_000
MAX_ANSWER = 100_000
_TITLE, _FACTS = 100, 400
_LANGUAGE = {
    "name": "python", "file_extension": ".py", "mimetype": "text/x-python", "pygments_lexer": "ipython3",
    "codemirror_mode": {"name": "ipython", "version": 3}, "nbconvert_exporter": "python",
}  # fmt: skip
"""With the version, the same as ipykernel gives: JupyterLab marks a notebook as changed that has another one."""
_STARTED = ("question", "model", "sub_model", "environment", "context_type", "context_length", "depth", "seed")
"""Fields of `RunStarted` that `metadata.rlm` repeats."""

SETUP_TAG = "rlm-setup"

SCHEMA = 1
"""The version of `metadata.rlm`."""

OUR_ENVIRONMENTS = frozenset(
    {"local", "docker", "modal", "jupyter", "ssh", "gateway", "prime", "daytona", "e2b", "agent"}
)
"""Environments with a kernelspec of the name `rlm-NAME`; any other environment is the name of a kernelspec."""

Redact = Callable[[str], str]
Child = tuple[int, str, int]
"""The place of a child in its parent: the cell, the id of the call, the place of the prompt in it."""


def _title_cell(trajectory: Trajectory, place: Place, identity: RunIdentity) -> NotebookCell:
    """The question, the models, the environment and the input."""
    started = trajectory.started
    question = started.asked if started else ""
    facts = [] if started is None else [markdown.one_line(started.facts, _FACTS)]
    facts.append(f"[log]({'../' if place.parent and not place.is_flat else ''}{quote(f'{identity.stem}.jsonl')})")
    if place.parent:
        facts.append(f"[parent run]({quote(place.parent)})")
    lines = [f"# {markdown.one_line(question, _TITLE) or 'A run without a question'}"]
    if len(question) > _TITLE or "\n" in question:
        shown = markdown.prose(markdown.clip_text(question, MAX_QUESTION), breaks=True)
        lines.append("\n".join(f"> {line}" for line in shown.split("\n")))
    lines.append(" · ".join(facts))
    if identity.forked_from is not None:
        origin = ", ".join(f"{key}: {value}" for key, value in identity.forked_from.items() if value is not None)
        lines.append(f"*Resumed from {markdown.one_line(origin, 300)}.*")
    return markdown_cell("title", "title", "\n\n".join(lines), place)


@dataclass(frozen=True, slots=True)
class Earlier:
    """What the end of a notebook says about turns that the trajectory has no more.

    Attributes:
        cells: how many they had.
        paid: their usage.
        children: the files of the notebooks of their descendants.
    """

    cells: int = 0
    paid: UsageSummary = field(default_factory=UsageSummary)
    children: tuple[str, ...] = ()

    def plus(self, past: Trajectory, identity: RunIdentity) -> Earlier:
        """With further turns."""
        children = [child.file for _, child in runs(past, identity)][1:]
        paid = self.paid.plus(sum_paid(past.spending()))
        return Earlier(self.cells + len(past.cells), paid, (*self.children, *children))


def _end_cells(trajectory: Trajectory, place: Place, earlier: Earlier) -> Iterator[NotebookCell]:
    """The answer, or how far the run got, and its cost."""
    yield markdown_cell("answer", "answer", _answer(trajectory, earlier), place, outcome=trajectory.state)
    spent = _usage(trajectory, earlier)
    if spent.model_usage_summaries:
        yield markdown_cell("usage", "usage", _usage_table(spent, trajectory.seconds), place)


def _usage(trajectory: Trajectory, earlier: Earlier) -> UsageSummary:
    """The usage of the run so far, with its children."""
    if trajectory.completion is not None:
        return trajectory.completion.usage_summary
    return earlier.paid.plus(sum_paid(trajectory.spending()))


def _code(name: str, source: str, place: Place, metadata: dict[str, Any]) -> NotebookCell:
    return {
        "cell_type": "code",
        "id": f"{place.prefix}-{name}",
        "metadata": metadata,
        "source": source,
        "execution_count": None,
        "outputs": [],
    }


def _answer(trajectory: Trajectory, earlier: Earlier) -> str:
    if trajectory.completion is not None:
        answer = markdown.clip_text(trajectory.completion.response, MAX_ANSWER)
        return f"## Answer\n\n{markdown.prose(answer, breaks=True) or '*(empty)*'}"
    failure, state = trajectory.failure, trajectory.state.capitalize()
    if failure is None:
        return f"## {state}\n\nThe record ends here: {_progress_text(trajectory, earlier)}."
    kind = "" if state == "Stopped" else f"**{markdown.one_line(type(failure).__name__)}** a"
    ending = f"{kind or 'A'}fter {format_duration(trajectory.seconds)}: {_progress_text(trajectory, earlier)}."
    parts = [f"## {state}\n\n{ending}"]
    if str(failure):
        parts.append(markdown.code_block(markdown.clip_text(str(failure), MAX_QUESTION)))
    if partial := getattr(failure, "partial_answer", None):
        draft = markdown.prose(markdown.clip_text(partial, MAX_ANSWER), breaks=True)
        parts.append(f"The best answer so far:\n\n{draft}")
    return "\n\n".join(parts)


def _progress_text(trajectory: Trajectory, earlier: Earlier) -> str:
    turns, cells = len(trajectory.turns), trajectory.cells
    if not turns:
        return "no call of the model yet"
    running = [str(cell.number) for cell in cells if cell.result is None]
    where = f"turn {trajectory.turns[-1].iteration}, {earlier.cells + len(cells) - len(running):,} finished cells"
    return f"{where}, cell {', '.join(running)} had begun" if running else where


def _usage_table(spent: UsageSummary, seconds: float) -> str:
    rows = ["| model | calls | tokens in | tokens out | cost |", "|---|--:|--:|--:|--:|"]
    for model, one in spent.model_usage_summaries.items():
        numbers = (one.total_calls, one.total_input_tokens, one.total_output_tokens)
        shown = " | ".join(f"{number:,}" for number in numbers)
        cost = markdown.escape_dollars(format_cost(one.total_cost, "unknown"))
        rows.append(f"| {markdown.one_line(model)} | {shown} | {cost} |")
    whole = markdown.escape_dollars(f"{spent.facts} · {format_duration(seconds)}")
    return "\n".join([*rows, "", markdown.small(whole)])


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """The name of a run, its files and its origin: what a notebook holds besides the trajectory.

    Attributes:
        stem: the name of the run; its log is `{stem}.jsonl`.
        rlm_dir: the folder of the log, as it was given.
        context: where the input is stored, or None if it is not stored (yet).
        forked_from: the run that this one resumes: the name of its log and the turn; or None.
        started: when the run began, as an ISO 8601 time, or None.
        child: for the notebook of a child: the places of the runs from the root down to the child.
        name: the notebook's file in the folder of the log, without the suffix; empty: `stem`.
        parent: for the notebook of a child: the file of its parent's notebook, as seen from it.
        is_flat: whether the notebooks of all its runs are beside each other, as earlier versions wrote them.
    """

    stem: str
    rlm_dir: str = "."
    context: StoredContext | None = None
    forked_from: dict[str, Any] | None = None
    started: str | None = None
    child: tuple[Child, ...] = ()
    name: str = ""
    parent: str = ""
    is_flat: bool = False

    @property
    def file(self) -> str:
        """The notebook's file in the folder of the log."""
        return f"{self.name or self.stem}.ipynb"


def notebook_of(trajectory: Trajectory, identity: RunIdentity, redact: Redact | None = None) -> NotebookNode:
    """The notebook of a run so far. Its children have notebooks of their own.

    Args:
        trajectory: the run.
        identity: its name, files and origin.
        redact: applied to every text of the finished notebook.

    Raises:
        nbformat.ValidationError: the notebook is not valid; events of the engine always make a valid one.
    """
    ids: set[str] = set()
    cells = [*opening_of(trajectory, identity, redact, ids), *turns_of(trajectory, identity, redact, ids)]
    end, metadata = end_of(trajectory, identity, redact, ids)
    return valid([*cells, *end], metadata)


def opening_of(
    trajectory: Trajectory, identity: RunIdentity, redact: Redact | None, ids: set[str]
) -> list[NotebookCell]:
    """The cells before the turns. `ids`: of all cells of the notebook so far; those of new ones are added."""
    return _finished(_opening_cells(trajectory, identity, _place(trajectory, identity)), redact, ids)


def turns_of(trajectory: Trajectory, identity: RunIdentity, redact: Redact | None, ids: set[str]) -> list[NotebookCell]:
    """The cells of the turns. `ids`: as for `opening_of`."""
    place = _place(trajectory, identity)
    return _finished((cell for turn in trajectory.turns for cell in turn_cells(turn, place)), redact, ids)


def end_of(
    trajectory: Trajectory, identity: RunIdentity, redact: Redact | None, ids: set[str], earlier: Earlier | None = None
) -> tuple[list[NotebookCell], dict[str, Any]]:
    """The cells after the turns, and the metadata of the notebook. `ids`: as for `opening_of`."""
    earlier = earlier or Earlier()
    end = _end_cells(trajectory, _place(trajectory, identity), earlier)
    return _finished(end, redact, ids), _redact(_metadata(trajectory, identity, earlier), redact)


def load_nbformat() -> Any:
    """The module nbformat. Its first import takes 0.5 s, so it is imported when it is used.

    One thread imports it at a time. Two that need it at once see each other's half of it, and its imports make syntax
    trees.
    """
    with TREES:
        import nbformat

        return nbformat


def valid(cells: Sequence[NotebookCell], metadata: dict[str, Any]) -> NotebookNode:
    """A notebook.

    Raises:
        nbformat.ValidationError: it is not valid.
    """
    nbformat = load_nbformat()
    known = {"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": cells}
    notebook: NotebookNode = nbformat.from_dict(known)
    nbformat.validate(notebook)
    return notebook


def runs(trajectory: Trajectory, identity: RunIdentity) -> Iterator[tuple[Trajectory, RunIdentity]]:
    """A run and all its descendants, each with its identity."""
    yield trajectory, identity
    place = _place(trajectory, identity)
    for cell in trajectory.cells:
        for number, call in enumerate(cell.calls):
            for index, child in sorted(call.children.items()):
                path = (*identity.child, (cell.number, call.started.query, index))
                file = place.child(cell, number, index)
                folder = "" if identity.is_flat else f"{identity.stem}/"
                below = replace(identity, child=path, name=f"{folder}{PurePath(file).stem}")
                below = replace(below, parent=place.seen_from_child, context=None, started=None)
                yield from runs(child, below)


def identity_of_log(path: PurePath, first_line: Mapping[str, Any]) -> RunIdentity:
    """The identity of a run.

    Args:
        path: of the log or of the notebook.
        first_line: of the log.
    """
    forked_from, started = first_line.get("forked_from"), first_line.get("timestamp")
    return RunIdentity(stem_of(path), rlm_dir=str(path.parent), forked_from=forked_from, started=started)


def identity_of_recording(recording: Recording) -> RunIdentity:
    """The identity of a recorded run, to build its notebook again."""
    path = recording.path.absolute()
    is_flat = any(path.parent.glob(f"{glob.escape(recording.stem)}-child-*{NOTEBOOK}"))
    return replace(identity_of_log(path, recording.metadata), context=recording.context, is_flat=is_flat)


def renew_setup_cell(notebook: NotebookNode) -> None:
    """Replace the setup cell of a saved notebook by that of this version of rlm-kernel, which can write its file."""
    for cell in notebook.cells:
        if SETUP_TAG in cell.metadata.get("tags", []):
            cell.source = setup_cell.source()
            cell.metadata.setdefault("rlm", {})["sha256"] = fingerprint(cell.source)


def fingerprint(source: str) -> str:
    """The SHA-256 of the source of a cell, in hex, as `metadata.rlm.sha256` has it."""
    return hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()


def _place(trajectory: Trajectory, identity: RunIdentity) -> Place:
    started = trajectory.started
    inputs = [] if started is None else [started.question, started.context_type, started.context_length]
    prefix = f"rlm-{fingerprint(repr([inputs, *identity.child]))[:8]}"
    when = None if identity.started is None else datetime.fromisoformat(identity.started)
    stem = PurePath(identity.file).stem
    return Place(prefix, stem, identity.parent, when, trajectory.state != "running", identity.is_flat)


def _opening_cells(trajectory: Trajectory, identity: RunIdentity, place: Place) -> Iterator[NotebookCell]:
    yield _title_cell(trajectory, place, identity)
    values: dict[str, Any] = {"rlm_dir": identity.rlm_dir, "rlm_log": f"{identity.stem}.jsonl", "rlm_mode": "replay"}
    values |= {"rlm_child": _as_lists(identity.child)} if identity.child else {}
    parameters = "\n".join(f"{name} = {value!r}" for name, value in values.items())
    yield _code("parameters", parameters, place, {"tags": ["parameters"], "rlm": {"role": "parameters"}})
    hidden = {"tags": [SETUP_TAG], "jupyter": {"source_hidden": True}, "rlm": {"role": "setup"}}
    yield _code("setup", setup_cell.source(), place, hidden)


def _as_lists(child: tuple[Child, ...]) -> list[list[int | str]]:
    return [list(step) for step in child]


def _metadata(trajectory: Trajectory, identity: RunIdentity, earlier: Earlier) -> dict[str, Any]:
    rlm = {
        "schema": SCHEMA,
        "run": identity.stem,
        "log": f"{identity.stem}.jsonl",
        "rlm_dir": identity.rlm_dir,
        "outcome": trajectory.state,
        "usage": _usage(trajectory, earlier).to_dict(),
    }
    if trajectory.started is not None:
        rlm |= {name: getattr(trajectory.started, name) for name in _STARTED}
    if identity.context is not None:
        rlm["context"] = {key: getattr(identity.context, key) for key in ("sha256", "encoding", "size", "file")}
    if identity.forked_from is not None:
        rlm["forked_from"] = identity.forked_from
    if identity.child:
        rlm["child"] = _as_lists(identity.child)
    if children := [*earlier.children, *[described.file for _, described in runs(trajectory, identity)][1:]]:
        rlm["children"] = children
    return {"kernelspec": _kernelspec(trajectory), "language_info": _language(trajectory), "rlm": rlm}


def _kernelspec(trajectory: Trajectory) -> dict[str, str]:
    """The environment of the run: the user must choose explicitly to run cells of a model in another one."""
    name = title = trajectory.started.environment if trajectory.started else "local"
    if name in OUR_ENVIRONMENTS:
        name, title = f"rlm-{name}", f"RLM ({name})"
    return {"name": name, "display_name": title, "language": "python"}


def _language(trajectory: Trajectory) -> dict[str, Any]:
    return _LANGUAGE | ({"version": trajectory.python} if trajectory.python else {})


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


def _finished(cells: Iterable[NotebookCell], redact: Redact | None, ids: set[str]) -> list[NotebookCell]:
    """The cells without secrets, with unique ids, and each code cell with the fingerprint of its source."""
    finished = [_redact(cell, redact) for cell in cells]
    for cell in finished:
        known, number = cell["id"], 1
        while cell["id"] in ids:
            number += 1
            cell["id"] = f"{known}-{number}"
        ids.add(cell["id"])
        if cell["cell_type"] == "code":
            cell["metadata"]["rlm"]["sha256"] = fingerprint(cell["source"])
    return finished
