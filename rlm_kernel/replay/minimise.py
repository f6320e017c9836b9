"""Export a recorded run: a notebook with the cells that the answer needs, or a page, a script, a Markdown file.

The needed cells are found by trial: from the last to the first each cell is left out once, and is dropped if the other
cells still lead to the answer.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from rlm_kernel._async import Job
from rlm_kernel.engine.record_access import Trust, Use, admitted
from rlm_kernel.errors import RecordingError, check_extra
from rlm_kernel.replay import script_export, static_export
from rlm_kernel.replay.replayer import CLIPPED, Replayer, Script, code_of_others, script_of
from rlm_kernel.replay.report import Outcome, outcome_of
from rlm_kernel.replay.setup import context_of, environment_of
from rlm_kernel.replay.steps import Step
from rlm_kernel.trajectory.log import archive
from rlm_kernel.trajectory.log.reader import Recording
from rlm_kernel.trajectory.notebook.build import SETUP_TAG, identity_of_recording, notebook_of

if TYPE_CHECKING:
    from nbformat import NotebookNode

FORMATS = ("html", "py", "md")
"""A page, a script, a text."""

_SET_UP = {SETUP_TAG, archive.TAG, "parameters", "injected-parameters"}
_OF_TURNS = ("model", "words", "notice", "summary")

NONE = Outcome("none")

OnTrial = Callable[[Step, int, int], object]
"""Called before a cell is left out for a trial: the cell, how many trials there were, and how many there will be."""


@dataclass(frozen=True, slots=True)
class Cleaning:
    """The result of `clean`.

    Attributes:
        notebook: with the cells that the answer needs.
        kept: the numbers of these cells.
        dropped: the numbers of the other cells.
    """

    notebook: NotebookNode
    kept: tuple[int, ...]
    dropped: tuple[int, ...]


def clean(
    source: Recording | str | Path,
    *,
    environment: str | None = None,
    on_trial: OnTrial = lambda *_: None,
    trust: Trust = False,
) -> Cleaning:
    """The notebook of a run without the cells that its answer does not need.

    Args:
        source: a log, its notebook, or a recording that was read.
        environment: where the cells are tried; None: where they ran.
        on_trial: is called before each trial. There is one for each cell.
        trust: whether the record of a stranger may use what it opens of this machine, as for `replay`.

    Raises:
        RecordingError: the run has no answer, its replay does not lead to it, or it is a stranger's and would run
            without a wall.
        KernelError: the kernel did not start.
    """
    recording, steps, removed = script_of(source)
    if recording.clipped_at is not None:
        raise RecordingError(f"The log {recording.path} cannot be cleaned: cell {recording.clipped_at} {CLIPPED}.")
    recording = admitted(recording, Use(environment, code=code_of_others(steps)), trust)
    return Job(_clean((recording, steps, removed), environment, on_trial)).wait()


def convert(notebook: NotebookNode, kind: str, path: Path, *, attached: bytes = b"", outcome: Outcome = NONE) -> None:
    """Write a notebook as something else. Nothing of a page or a text runs when it is opened, and nothing is loaded.

    Args:
        notebook: to be written.
        kind: one of `FORMATS`.
        path: of the file; pictures of a Markdown text go into a folder next to it.
        attached: a notebook that can be saved from a page; empty: none.
        outcome: of the run, for a script: an answer that no cell gave is given at its end.

    Raises:
        ConfigError: nbconvert is not installed.
        RecordingError: the notebook is not valid.
        OSError: it cannot be written.
    """
    import nbformat

    try:
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        raise RecordingError(f"The notebook is not valid: {error.message[:200]}") from error
    if kind != "py":  # a reader need not see what only a kernel does
        notebook = deepcopy(notebook)
        notebook.cells = [cell for cell in notebook.cells if not _SET_UP & set(cell.metadata.get("tags", []))]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_converted(notebook, kind, path, attached, outcome), "utf-8", errors="replace")


def _converted(notebook: NotebookNode, kind: str, path: Path, attached: bytes, outcome: Outcome) -> str:
    if kind == "md":
        return static_export.text(notebook, partial(_save, path, itertools.count(1)))
    if kind == "py":
        return script_export.script(notebook, outcome)
    check_extra(f"--to {kind}", "nbconvert", "notebooks")
    return static_export.page(notebook, path.stem, attached)


def _save(path: Path, numbers: Iterator[int], suffix: str, content: bytes) -> str:
    """Write a picture into the folder of a text's pictures. Returns its address in the text."""
    folder = path.with_name(f"{path.stem}_files")
    folder.mkdir(exist_ok=True)
    file = folder / f"picture-{next(numbers)}.{suffix}"
    file.write_bytes(content)
    return quote(f"{folder.name}/{file.name}")


async def _clean(script: Script, environment: str | None, on_trial: OnTrial) -> Cleaning:
    recording, steps, _ = script
    outcome = outcome_of(recording.trajectory)
    if outcome.way == "none":
        raise RecordingError(f"{recording.path} has no answer that the cells could lead to.")
    trials = Trials(recording, environment)
    runnable = [step for step in steps if step.can_run]
    if not await trials.lead_to_the_answer(runnable):
        raise RecordingError(
            f"The cells of {recording.path} do not lead to the recorded answer when they run again: see rlm replay."
        )
    kept = await trials.find_needed(runnable, outcome, on_trial)
    numbers = tuple(step.number for step in kept)
    dropped = tuple(step.number for step in steps if step.number not in numbers)
    return Cleaning(_notebook_with(recording, numbers, dropped), numbers, dropped)


class Trials:
    """Replays of a run with fewer and fewer cells.

    Args:
        recording: the run.
        environment: where the cells are tried; None: where they ran.
    """

    def __init__(self, recording: Recording, environment: str | None) -> None:
        self._recording = recording
        self._environment = environment_of(recording, environment)
        self._tolerated: set[tuple[str, int | None]] | None = None

    async def find_needed(self, steps: Sequence[Step], outcome: Outcome, on_trial: OnTrial) -> list[Step]:
        """The steps that are left when each has been left out once, the last one first."""
        kept, protected = list(steps), _read_by_the_model(steps) if outcome.way == "words" else None
        for place, step in enumerate(reversed(steps), 1):
            on_trial(step, place, len(steps))
            fewer = [other for other in kept if other is not step]
            if step is not protected and (await self.lead_to_the_answer(fewer) if fewer else outcome.way == "words"):
                kept = fewer
        return kept

    async def lead_to_the_answer(self, steps: Sequence[Step]) -> bool:
        """Whether the steps come to the recorded answer, and show what they showed.

        The first call is for the whole run. What differs there already, a time that a cell prints, say, is no reason to
        keep another cell.
        """
        context = await context_of(self._recording)
        replayer = Replayer(self._recording, self._environment, context)
        await replayer.run(steps)
        found = {(d.kind, d.cell) for d in replayer.divergences}
        if self._tolerated is None:
            self._tolerated = {one for one in found if one[0] == "output"}
        return all(kind == "scene" or (kind, cell) in self._tolerated for kind, cell in found)


def _read_by_the_model(steps: Sequence[Step]) -> Step | None:
    """The cell whose output the model read before it wrote the answer in its own words."""
    for step in reversed(steps):
        result = step.recorded.result if step.recorded else None
        if result is not None and result.status == "ok" and result.outputs:
            return step
    return None


def _notebook_with(recording: Recording, kept: Sequence[int], dropped: Sequence[int]) -> NotebookNode:
    """The notebook of the run with these cells, and the words around them."""
    notebook = notebook_of(recording.trajectory, identity_of_recording(recording))
    code = [cell for cell in notebook.cells if cell.metadata["rlm"]["role"] == "code"]
    turns = {cell.metadata["rlm"]["turn"] for cell in code if cell.metadata["rlm"]["cell"] in kept}
    turns |= {turn.iteration for turn in recording.trajectory.turns[-1:]}
    notebook.cells = [cell for cell in notebook.cells if _stays(cell.metadata["rlm"], set(kept), turns)]
    notebook.metadata["rlm"]["dropped"] = list(dropped)
    if dropped:
        listed = ", ".join(map(str, dropped))
        notebook.cells[0].source += f"\n\n*Without the cells that the answer does not need ({listed}).*"
    return notebook


def _stays(about: dict[str, Any], kept: set[int], turns: set[int]) -> bool:
    if about["role"] == "code":
        return about["cell"] in kept
    return about["role"] not in _OF_TURNS or about.get("turn") in turns
