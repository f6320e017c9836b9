"""The steps of a replay: the cells of a record, or those of its notebook, which may have been edited."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_kernel.errors import RecordingError
from rlm_kernel.trajectory.log import prompt_store
from rlm_kernel.trajectory.log.notebook_metadata import restore_metadata
from rlm_kernel.trajectory.log.reader import Recording, StoredContext
from rlm_kernel.trajectory.notebook.build import fingerprint
from rlm_kernel.trajectory.notebook.cells import is_cut_off
from rlm_kernel.trajectory.tree import Cell, Trajectory
from rlm_kernel.untrusted import json_text

if TYPE_CHECKING:
    from nbformat import NotebookNode

MAX_NOTEBOOK_BYTES = 1 << 30
_ALTERED = (AttributeError, KeyError, RecursionError, TypeError)
"""What nbformat raises for JSON that is not a notebook."""


@dataclass(frozen=True, slots=True)
class Step:
    """A cell to run.

    Attributes:
        number: of the recorded cell; 0 for an added one.
        code: what is run.
        recorded: the recorded cell, or None.
    """

    number: int
    code: str
    recorded: Cell | None

    @property
    def edited(self) -> bool:
        """Whether its code differs from the record."""
        return self.recorded is not None and self.recorded.code != self.code

    @property
    def can_run(self) -> bool:
        """Whether it ended by itself in the run: a cell that killed the kernel, or hung, is not run again."""
        return self.recorded is None or self.edited or not is_cut_off(self.recorded)


def script_of_run(run: Trajectory) -> tuple[Step, ...]:
    """The recorded cells."""
    return tuple(Step(cell.number, cell.code, cell) for cell in run.cells)


def script_of_notebook(notebook: NotebookNode, run: Trajectory) -> tuple[Step, ...]:
    """The cells of a notebook of the run, some of which may be edited, removed or added."""
    recorded = {cell.number: cell for cell in run.cells}
    steps = []
    for cell in notebook.cells:
        about = cell.metadata.get("rlm", {})
        number = about.get("cell") if isinstance(about.get("cell"), int) else 0
        if is_of_the_run(cell) or is_added(cell):
            steps.append(Step(number, source_as_it_ran(cell, recorded.get(number)), recorded.get(number)))
    return tuple(steps)


def is_of_the_run(cell: NotebookNode) -> bool:
    """Whether the model wrote this cell of the notebook."""
    return bool(cell.cell_type == "code" and "cell" in cell.metadata.get("rlm", {}))


def is_added(cell: NotebookNode) -> bool:
    """Whether the cell was added to the notebook of the run."""
    ours = "rlm" in cell.metadata or {"parameters", "injected-parameters"} & set(cell.metadata.get("tags", []))
    return bool(cell.cell_type == "code" and not ours and cell.source.strip())


def source_as_it_ran(cell: NotebookNode, recorded: Cell | None) -> str:
    """The recorded code of a cell that was not edited, else its source."""
    as_it_ran = cell.metadata["rlm"].get("sha256") if "rlm" in cell.metadata else None
    if recorded is None or as_it_ran is None:
        return str(cell.source)
    # jupytext drops the blank lines around a source
    unchanged = as_it_ran == fingerprint(cell.source) or cell.source.strip("\n") == recorded.code.strip("\n")
    return recorded.code if unchanged else str(cell.source)


def read_notebook(path: Path) -> NotebookNode:
    """A notebook from a file.

    Raises:
        RecordingError: the file cannot be read, it is not a notebook, or its metadata are not ours.
    """
    import nbformat
    from nbformat.reader import NotJSONError

    try:
        text = json_text.read_file(path, MAX_NOTEBOOK_BYTES).decode("utf-8")
        notebook: NotebookNode = nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
        restore_metadata(notebook)
    except (OSError, ValueError, NotJSONError, nbformat.ValidationError, *_ALTERED) as error:
        raise RecordingError(f"{path} cannot be read as a notebook: {error}") from error
    if wrong := _wrong(notebook):
        raise RecordingError(
            f"{path} is not as we wrote it: {wrong}. Take the notebook of the log's folder, or the log."
        )
    return notebook


def _wrong(notebook: NotebookNode) -> str | None:
    """The problem of a notebook in a few words, or None."""
    about = notebook.metadata.get("rlm", {})
    if not isinstance(about, dict):
        return "metadata.rlm is not an object"
    if not _are(int, about.get("dropped", [])):
        return "metadata.rlm.dropped is not a list of numbers"
    altered = (number for number, cell in enumerate(notebook.cells, 1) if not _is_whole(cell))
    return next((f"cell {number} of it is altered" for number in altered), None)


def _is_whole(cell: NotebookNode) -> bool:
    metadata = cell.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(cell.get("source"), str):
        return False
    about = metadata.get("rlm", {})
    return isinstance(about, dict) and isinstance(about.get("cell", 0), int) and _are(str, metadata.get("tags", []))


def _are(kind: type, values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, kind) for value in values)


def removed_cells(notebook: NotebookNode, run: Trajectory) -> tuple[int, ...]:
    """The recorded cells that ended by themselves and are not in the notebook, unless an export dropped them."""
    there = {cell.metadata["rlm"]["cell"] for cell in notebook.cells if is_of_the_run(cell)}
    there |= set(notebook.metadata.get("rlm", {}).get("dropped", ()))
    return tuple(cell.number for cell in run.cells if cell.number not in there and not is_cut_off(cell))


def run_of(recording: Recording, about: Mapping[str, Any]) -> Recording:
    """The run of a notebook: that of the log, or that of a child in it.

    Args:
        recording: the log.
        about: `metadata.rlm` of the notebook.

    Raises:
        RecordingError: the log holds no such child.
    """
    places = about.get("child", [])
    if not isinstance(places, list):
        raise RecordingError(f"The notebook is not of a child run of {recording.path}: metadata.rlm.child was altered.")
    for place in places:
        match place:
            case [int(number), str(query), int(index)]:
                recording = _child(recording, number, query, index)
            case _:
                raise RecordingError(f"{recording.path} holds no run at {place!r}: metadata.rlm.child was altered.")
    return recording


def _child(recording: Recording, number: int, query: str, index: int) -> Recording:
    """The run of a child. Its context is the prompt that it answers."""
    calls = (call for cell in recording.trajectory.cells if cell.number == number for call in cell.calls)
    call = next((call for call in calls if call.started.query == query and index in call.children), None)
    if call is None:
        raise RecordingError(f"{recording.path} holds no run for prompt {index} of the call {query} in cell {number}.")
    prompt, child = call.started.prompts[index], call.children[index].started
    if child is not None and prompt_store.is_in_part(prompt, child.context_length):
        raise RecordingError(
            f"The input of the child in cell {number}, call {query}, is missing beside {recording.path} or was "
            "altered: put back the folder `prompts`."
        )
    content = prompt.encode("utf-8", "surrogatepass")
    context = StoredContext(hashlib.sha256(content).hexdigest(), "text", len(content), value=prompt)
    configuration = {**(recording.metadata.get("configuration") or {}), "persistent": False}
    metadata = {**recording.metadata, "configuration": configuration, "continues": None}
    return replace(recording, metadata=metadata, context=context, trajectory=call.children[index])
