"""The notebook of a run: a pure function of its trajectory.

    notebook = notebook_of(trajectory, About("rlm_2026-11-20_08-00-00_1a2b3c4d"))

It opens in every Jupyter client and runs in each of them without a key: the setup cell answers what the cells ask from
the log beside it. Each cell says in `metadata.rlm` what it is; `metadata.rlm` of the notebook says what the run was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from rlm_kernel.trajectory.log.recording import Recording, StoredContext
from rlm_kernel.trajectory.notebook import notebook_frame, setup_cell
from rlm_kernel.trajectory.notebook.notebook_cells import NotebookCell, Place, turn_cells
from rlm_kernel.trajectory.tree import Trajectory

if TYPE_CHECKING:
    from nbformat import NotebookNode

SCHEMA = 1
"""The version of `metadata.rlm`."""

OUR_ENVIRONMENTS = frozenset({"local", "docker", "modal", "gateway", "prime", "daytona", "e2b", "agent"})
"""Environments whose kernelspec is called `rlm-` and their name; another name is that of a kernelspec itself."""

Redact = Callable[[str], str]
Child = tuple[int, str, int]
"""The place of a child in its parent: the cell, the id of the call, the place of the prompt in it."""


@dataclass(frozen=True, slots=True)
class About:
    """What a notebook says of a run beside its trajectory.

    Attributes:
        stem: the name of the run; its log is `{stem}.jsonl`.
        kernelspec: the environment of the run, by the name of its kernelspec; empty: what the trajectory says.
        kernel_title: what clients call that; empty: the same in words.
        rlm_dir: the folder of the log, as it was given.
        context: where the input is kept, or None when it is not (yet).
        forked_from: what the run went on from: the log's name and the turn; None for a run of its own.
        started: when the run began, as an ISO 8601 time, or None.
        child: for the notebook of a child: its place in its parent, that one's in its own, from the root down.
        name: the notebook's file without the suffix; empty: `stem`.
        parent: for the notebook of a child: the file of its parent's.
    """

    stem: str
    kernelspec: str = ""
    kernel_title: str = ""
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
        nbformat.ValidationError: it is not valid; no trajectory that the engine told makes it so.
    """
    import nbformat

    place = _place(trajectory, about)
    cells = [_cleaned(cell, redact) for cell in _cells(trajectory, about, place)]
    _sign(cells)
    metadata = _cleaned(_metadata(trajectory, about), redact)
    known = {"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": cells}
    notebook: NotebookNode = nbformat.from_dict(known)  # type: ignore[no-untyped-call]
    nbformat.validate(notebook)
    return notebook


def notebooks_of(
    trajectory: Trajectory, about: About, redact: Redact | None = None
) -> Iterator[tuple[str, NotebookNode]]:
    """The notebooks of a run and of all runs below it, the root first, each with the name of its file."""
    for run, described in runs(trajectory, about):
        yield described.file, notebook_of(run, described, redact)


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
    """What a log says of its run, for its notebook made anew."""
    return replace(about_run(recording.path.absolute(), recording.metadata), context=recording.context)


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
    yield notebook_frame.title(trajectory, place, about.stem, about.forked_from)
    yield notebook_frame.parameters(_parameters(about), place)
    yield notebook_frame.setup(setup_cell.source(), place)
    for turn in trajectory.turns:
        yield from turn_cells(turn, place)
    yield from notebook_frame.end(trajectory, place)


def _parameters(about: About) -> dict[str, Any]:
    known: dict[str, Any] = {"rlm_dir": about.rlm_dir, "rlm_log": f"{about.stem}.jsonl", "rlm_mode": "replay"}
    return {**known, "rlm_child": [list(step) for step in about.child]} if about.child else known


def _metadata(trajectory: Trajectory, about: About) -> dict[str, Any]:
    rlm = {
        "schema": SCHEMA,
        "run": about.stem,
        "log": f"{about.stem}.jsonl",
        "rlm_dir": about.rlm_dir,
        "outcome": notebook_frame.outcome(trajectory),
        "usage": notebook_frame.usage(trajectory).to_dict(),
        **notebook_frame.facts(trajectory),
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
        "kernelspec": _kernelspec(trajectory, about),
        "language_info": {
            "name": "python",
            "file_extension": ".py",
            "mimetype": "text/x-python",
            "pygments_lexer": "ipython3",
        },
        "rlm": rlm,
    }


def _kernelspec(trajectory: Trajectory, about: About) -> dict[str, str]:
    """Cells that a model wrote run again where the run was; another kernel is the user's explicit choice."""
    environment = trajectory.started.environment if trajectory.started else "local"
    of_ours = environment in OUR_ENVIRONMENTS
    name = about.kernelspec or (f"rlm-{environment}" if of_ours else environment)
    title = about.kernel_title or (f"RLM ({environment})" if name == f"rlm-{environment}" else name)
    return {"name": name, "display_name": title, "language": "python"}


def _cleaned(value: Any, redact: Redact | None) -> Any:
    """The value with every text in it redacted, and writable as UTF-8."""
    if isinstance(value, str):
        text = value if redact is None else redact(value)
        return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, dict):
        return {_cleaned(key, None): _cleaned(item, redact) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(item, redact) for item in value]
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
