"""Recorded runs as training data: chat lines with masks, for supervised fine-tuning of a root model.

Each reply of a root model is trained on once, after the messages that it was written from. All other messages, those by
the assistant that no model wrote among them, are masked. Runs of children have lines of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rlm_kernel.errors import RecordingError
from rlm_kernel.parsing import without_thinking
from rlm_kernel.text import not_blank
from rlm_kernel.trajectory import events
from rlm_kernel.trajectory.log.file_names import by_beginning
from rlm_kernel.trajectory.log.reader import Recording, log_of, read_log
from rlm_kernel.trajectory.runs.index import logs_in
from rlm_kernel.trajectory.runs.notes import Notes, read_notes
from rlm_kernel.trajectory.tree import Trajectory, Turn, is_kept

Per = Literal["turn", "run"]
"""What a line holds: one reply and its prompt, or as much of a run as is one conversation."""

_Messages = list[dict[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which runs and replies become lines.

    Attributes:
        state: of the runs, and of their children, such as ``"answered"``; empty: any.
        thumb: that the runs have; empty: any.
        tags: all of which the runs have.
        children: whether runs that an `rlm_query` started are included.
        without_errors: whether replies whose code raised are masked.
    """

    state: str = ""
    thumb: str = ""
    tags: tuple[str, ...] = ()
    children: bool = True
    without_errors: bool = False

    def takes(self, run: Trajectory, notes: Notes) -> bool:
        """Whether a run is selected."""
        return self.state in ("", str(run.state)) and self.thumb in ("", notes.thumb) and {*self.tags} <= {*notes.tags}


@dataclass(frozen=True, slots=True)
class Example:
    """One reply of a root model, and what it was written from.

    Attributes:
        prompt: the messages that the model read.
        reply: its text.
        turn: counts from 1.
        depth: of the run; 0 is the root.
        is_trained: whether it is trained on.
    """

    prompt: _Messages
    reply: str
    turn: int
    depth: int
    is_trained: bool


def lines_of(
    path: str | Path,
    *,
    per: Per = "turn",
    selection: Selection | None = None,
    metadata: bool = False,
    skipped: list[str] | None = None,
) -> Iterator[dict[str, Any]]:
    """The lines of a log or of a folder of logs, the oldest run first.

    Args:
        path: the log, its notebook, or the folder.
        per: ``"turn"``: ``{"prompt": [...], "completion": [...]}``, of which the completion is trained on. ``"run"``:
            ``{"messages": [...]}``, where messages of the assistant have a ``weight``: 1 is trained on, 0 is not.
        selection: which runs and replies; None: all.
        metadata: whether lines have ``rlm``: the run, its model and state, the turn and the depth, thumb and tags.
        skipped: takes a sentence for each log of the folder that is left out because it cannot be read.

    Raises:
        RecordingError: there is no such log, or it is not one of ours.
    """
    chosen = selection or Selection()
    for recording in _recordings(Path(path), [] if skipped is None else skipped):
        notes = read_notes(recording.path.parent).get(recording.stem, Notes())
        if not chosen.takes(recording.trajectory, notes):
            continue
        about = {"run": recording.stem, "thumb": notes.thumb, "tags": list(notes.tags)}
        for depth, run in _runs(recording.trajectory, chosen, 0):
            known = {**about, "model": run.model, "state": str(run.state), "depth": depth} if metadata else {}
            yield from _lines(list(examples_of(run, depth, chosen.without_errors)), per, known)


def examples_of(run: Trajectory, depth: int = 0, without_errors: bool = False) -> Iterator[Example]:
    """The replies of a run with their prompts.

    Args:
        run: the run, without its children.
        depth: of it.
        without_errors: whether replies whose code raised are not trained on.
    """
    read, opening = _Messages(), _Messages()
    early = _summarised_before_reply(run)
    for turn in run.turns:
        said = turn.messages
        if any(message["role"] == "system" for message in said):  # another message, or the prompts for small models
            read, opening = [], []
        if turn.iteration in early and turn.summary is not None:
            read, said = [*opening, _by_assistant(_summary(turn))], said[-1:]
        kept = [_plain(message) for message in said if is_kept(message)]
        opening = opening or kept
        if turn.reply is None:
            return
        prompt = [*read, *map(_plain, said)]
        raised = any(cell.result is not None and cell.result.status != "ok" for cell in turn.cells)
        text = turn.reply.text
        yield Example(prompt, text, turn.iteration, depth, bool(text.strip()) and not (without_errors and raised))
        read = [*read, *kept, _by_assistant(not_blank(text))]
        if turn.summary is not None and turn.iteration not in early:
            read = [*opening, _by_assistant(_summary(turn))]


def _recordings(path: Path, skipped: list[str]) -> Iterator[Recording]:
    if not path.is_dir():
        recording = read_log(path)
        if recording.clipped_at is not None:
            raise RecordingError(f"{path} is not complete: it reached max_log_bytes. Such a log is no training data.")
        yield recording
        return
    for log in sorted((found.path for found in logs_in(path)), key=by_beginning):
        try:
            recording = read_log(log_of(log))
        except RecordingError as error:
            skipped.append(f"{log.name} is left out: {error}")
            continue
        if recording.clipped_at is not None:
            skipped.append(f"{log.name} is left out: it is not complete, because it reached max_log_bytes.")
            continue
        yield recording


def _runs(run: Trajectory, chosen: Selection, depth: int) -> Iterator[tuple[int, Trajectory]]:
    """A run and, if they are selected, its children; the tree may be deep."""
    found = [(depth, run)]
    while found:
        depth, run = found.pop(0)
        yield depth, run
        if chosen.children:
            children = (child for cell in run.cells for call in cell.calls for child in call.children.values())
            found += [(depth + 1, child) for child in children if chosen.state in ("", str(child.state))]


def _lines(examples: Sequence[Example], per: Per, about: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if per == "run":
        yield from _conversations(examples, about)
        return
    for example in examples:
        if example.is_trained:
            line: dict[str, Any] = {"prompt": example.prompt, "completion": [_by_assistant(example.reply)]}
            yield {**line, "rlm": {**about, "turn": example.turn}} if about else line


def _conversations(examples: Iterable[Example], about: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """One line for as many replies as are one conversation. In the next line they are read, and not trained on."""
    messages, weights = _Messages(), list[int]()
    for example in examples:
        if messages and example.prompt[: len(messages)] != messages:
            yield from _conversation(messages, weights, about)
            weights = []
        weights += [0] * (len(example.prompt) - len(weights)) + [int(example.is_trained)]
        messages = [*example.prompt, _by_assistant(not_blank(example.reply))]
    yield from _conversation(messages, weights, about)


def _conversation(messages: _Messages, weights: Sequence[int], about: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    last = max((place for place, weight in enumerate(weights, 1) if weight), default=0)
    pairs = list(zip(messages, weights, strict=True))[:last]  # what follows the last trained reply is of no use
    if pairs:
        weighted = [{**m, "weight": w} if m["role"] == "assistant" else m for m, w in pairs]
        yield {"messages": weighted, **({"rlm": dict(about)} if about else {})}


def _summarised_before_reply(run: Trajectory) -> set[int]:
    """The turns in which the conversation was summarised because the provider found it too long."""
    replied: set[int] = set()
    early: set[int] = set()
    for reply in run.replies:
        if not isinstance(reply, events.Compacted):
            replied.add(reply.iteration)
        elif reply.iteration not in replied:
            early.add(reply.iteration)
    return early


def _summary(turn: Turn) -> str:
    return "" if turn.summary is None else not_blank(without_thinking(turn.summary.text).strip())


def _by_assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def _plain(message: Mapping[str, Any]) -> dict[str, str]:
    return {"role": str(message["role"]), "content": str(message["content"])}
