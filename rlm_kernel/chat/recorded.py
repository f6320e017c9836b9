"""The conversations of a folder of logs, and the turns of one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rlm_kernel.chat.conversation import STOPPED, Turn
from rlm_kernel.errors import RecordingError
from rlm_kernel.trajectory import events
from rlm_kernel.trajectory.log.reader import events_of_log, read_log
from rlm_kernel.trajectory.runs.index import logs_in
from rlm_kernel.trajectory.runs.summary import as_dict, parse_lines

_MAX_LINE = 1 << 22
_STOP = "CancelledError"


def find(named: str, folder: Path) -> Path:
    """The log of a conversation.

    Args:
        named: a log or its notebook, a part of the name of one in the folder, or empty for the newest one there.
        folder: of the logs.

    Raises:
        RecordingError: there is none, or several have that name.
    """
    if named and Path(named).is_file():
        return Path(named)
    try:
        found = [log for log in _conversations(folder) if named in log.name]
    except OSError:
        found = []
    if not found:
        which = f"No conversation {named!r}" if named else "There is no conversation"
        raise RecordingError(f"{which} in {folder}: `rlm chat` begins one, and --log-dir names another folder.")
    if named and len(found) > 1:
        names = ", ".join(log.name for log in found[:5])
        raise RecordingError(f"{len(found)} conversations have {named!r} in their names: {names}. Give more of it.")
    return found[0]


def _conversations(folder: Path) -> Iterator[Path]:
    """The logs of agents that hold a message, the newest first."""
    for log in logs_in(folder):
        with log.path.open("rb") as file:
            first = next(parse_lines([file.readline(_MAX_LINE)]), {})
        if as_dict(first.get("agent")):
            yield log.path


def turns_of(log: Path) -> list[Turn]:
    """The turns of a recorded conversation, without their runs.

    Raises:
        RecordingError: it cannot be read.
    """
    turns: list[Turn] = []
    for event in events_of_log(read_log(log).path):
        match event:
            case events.MessageStarted(text=text):
                turns.append(Turn(text))
            case events.MessageFinished(answer=answer, error=error) if turns:
                kind, _, words = (error or "").partition(": ")
                turns[-1].answer, turns[-1].error = answer or "", STOPPED if kind == _STOP else words or kind
            case events.CellStarted() | events.SubcallStarted() if turns:
                turns[-1].take(event)
    for turn in turns:
        turn.run.clear()
    return turns
