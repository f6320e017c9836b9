"""Cells of a recorded run that a person changed: the run goes on as if the model had written them so."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rlm_kernel.engine.recorded import RecordedAnswer, RecordedRun
from rlm_kernel.errors import RecordingError
from rlm_kernel.parsing import parse
from rlm_kernel.trajectory.events import ModelReplied
from rlm_kernel.trajectory.notebook.cells import split
from rlm_kernel.trajectory.tree import Cell, Trajectory, Turn
from rlm_kernel.types import Answer, Slot

_TICKS = re.compile(r"`+")


@dataclass(frozen=True, slots=True)
class EditedRecord:
    """A recorded run with changed cells. `RLM.resume` goes on from them.

    Attributes:
        path: of the log.
        codes: the code of the changed cells, each by the number of its cell.
        answers: what models answered the changed cells already; it is not asked again.
        outcomes: the same for tools.
        arguments: of the `RLM` that goes on, unless others are given.
    """

    path: Path
    codes: Mapping[int, str] = field(default_factory=dict)
    answers: Mapping[Slot, RecordedAnswer] = field(default_factory=dict)
    outcomes: Mapping[Slot, Answer] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def last_turn(self, run: Trajectory) -> int | None:
        """The last turn with a changed cell, or None."""
        turns = [turn.iteration for turn in run.turns for cell in turn.cells if cell.number in self.codes]
        return max(turns, default=None)

    def arguments_with(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments, those that are given in the first place. Other models take the place of all of these."""
        kept = {"logger"} if given.keys() & {"backend", "other_backends"} else self.arguments.keys()
        return {**{name: value for name, value in self.arguments.items() if name in kept}, **given}

    def change(self, recorded: RecordedRun, run: Trajectory, at: int | None) -> list[int]:
        """Change what a resumed run takes from the record.

        Args:
            recorded: is changed.
            run: the record.
            at: the last turn that counts; None: all.

        Returns:
            The numbers of the cells that were changed.

        Raises:
            RecordingError: the model did not write one of the cells.
        """
        changed: list[int] = []
        for turn in run.turns:
            numbers = [cell.number for cell in turn.cells if cell.number in self.codes]
            if not numbers or (at is not None and turn.iteration > at):
                continue
            text = reply_with(turn, self.codes)
            for place, event in enumerate(recorded.replies):
                if isinstance(event, ModelReplied) and event.iteration == turn.iteration:
                    recorded.replies[place] = _with_text(event, text)
            for number in numbers:
                recorded.cells.pop(number, None)
            changed += numbers
        recorded.answers |= {slot: known for slot, known in self.answers.items() if slot.cell in changed}
        recorded.outcomes |= {slot: known for slot, known in self.outcomes.items() if slot.cell in changed}
        return changed


def reply_with(turn: Turn, codes: Mapping[int, str]) -> str:
    """The reply of a turn, with other code in some of its cells. `codes`: by the number of the cell.

    Raises:
        RecordingError: the engine and not the model wrote such a cell.
    """
    reply = "" if turn.reply is None else turn.reply.text
    blocks = parse(reply).blocks
    cells = [cell for cell in turn.cells if not blocks or _written(cell) in blocks]
    if foreign := [cell.number for cell in turn.cells if cell.number in codes and cell not in cells]:
        raise RecordingError(f"The model did not write cell {foreign[0]}, so the run cannot go on from a change of it.")
    wanted = [codes.get(cell.number, _written(cell)) for cell in cells]
    pieces = split(reply, [_written(cell) for cell in cells]) if blocks else range(len(wanted))
    text = "\n\n".join(_fenced(wanted[piece]) if isinstance(piece, int) else piece for piece in pieces)
    is_read = parse(text).blocks[: len(wanted)] == tuple(code.strip("\n") for code in wanted)
    return text if is_read else "\n\n".join(map(_fenced, wanted))


def _written(cell: Cell) -> str:
    """The code as the model wrote it, before `on_cell` replaced it."""
    return cell.code if cell.replaced is None else cell.replaced


def _fenced(code: str) -> str:
    ticks = "`" * max([3, *(len(found) + 1 for found in _TICKS.findall(code))])
    code = code.strip("\n")
    return f"{ticks}repl\n{code}\n{ticks}"


def _with_text(event: ModelReplied, text: str) -> ModelReplied:
    return replace(event, reply=replace(event.reply, text=text))
