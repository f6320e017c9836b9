"""A turn of a run as cells of a notebook: prose as Markdown, code as executed cells with their outputs.

Cells are plain dicts of nbformat 4.5. Their ids depend only on their place in the run, so two runs of one question can
be compared cell by cell.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from rlm_kernel.kernel.outputs import cell_number
from rlm_kernel.parsing import is_fence, opened_language, without_thinking
from rlm_kernel.text import format_cost, format_duration, format_tokens
from rlm_kernel.trajectory import events
from rlm_kernel.trajectory.log.file_names import slug_of
from rlm_kernel.trajectory.notebook import calls as notebook_calls
from rlm_kernel.trajectory.notebook import markdown, saved_outputs
from rlm_kernel.trajectory.tree import Cell, Turn
from rlm_kernel.types import CellResult, Output, Reply

NotebookCell = dict[str, Any]

MAX_PROSE = 60_000
"""Characters of a reply or a summary that the notebook shows."""

MAX_SPLIT = 200_000
"""Characters of a reply whose thoughts are folded, and whose words and code are shown in their order.

All words of a longer one come first.
"""

_MAX_PLACES = 50
"""Occurrences of a code in the words that are checked for a fence."""

_MAX_MISSES = 10
"""Codes that may be missing in the words; after that no further code is searched for."""

RAISES = "raises-exception"
"""Jupyter's tag for a cell that may raise."""

CUT_OFF = "rlm-cut-off"
"""The tag of a cell that did not end by itself: a replay shows its recorded outputs and does not run it."""


@dataclass(frozen=True, slots=True)
class Place:
    """The notebook that cells are made for.

    Attributes:
        prefix: of the ids of its cells.
        stem: of its file.
        parent: the file of the parent run's notebook; empty for the root.
        started: when the run began, or None if unknown.
        over: whether the run is over.
        is_flat: whether the notebooks of all its runs are beside each other, as earlier versions wrote them.
    """

    prefix: str
    stem: str
    parent: str
    started: datetime | None
    over: bool
    is_flat: bool = False

    @property
    def seen_from_child(self) -> str:
        """The file of this notebook, as seen from that of a child."""
        return f"{'' if self.parent or self.is_flat else '../'}{self.stem}.ipynb"

    def child(self, cell: Cell, call: int, index: int) -> str:
        """The file of a child's notebook, as seen from this one. The children of a run are in a folder with its name.

        Its name has the numbers of the cell, the call and the prompt in that, from 1, and first words of the prompt.
        """
        numbers = f"{cell.number}-{call + 1}-{index + 1}"
        if self.is_flat:
            return f"{self.stem}{'-' if self.parent else '-child-'}{numbers}.ipynb"
        before = f"{self.stem.partition('_')[0]}-" if self.parent else f"{self.stem}/"
        words = slug_of("".join(cell.calls[call].started.prompts[index : index + 1]))
        return f"{before}{numbers}{f'_{words}' if words else ''}.ipynb"


def markdown_cell(name: str, role: str, source: str, place: Place, **about: Any) -> NotebookCell:
    """A Markdown cell. `name`: the end of its id."""
    metadata = {"rlm": {"role": role, **about}}
    return {"cell_type": "markdown", "id": f"{place.prefix}-{name}", "metadata": metadata, "source": source}


def turn_cells(turn: Turn, place: Place) -> Iterator[NotebookCell]:
    """The cells of a turn."""
    name = f"t{turn.iteration:03d}"
    about: dict[str, Any] = {"turn": turn.iteration}
    if turn.message is not None:
        yield _message("message", turn.message, turn, place)
    heading = f"## Turn {turn.iteration}"
    if turn.reply is None:
        text = "The run ended before the model replied." if place.over else "The model is writing its reply."
        yield markdown_cell(f"{name}-model", "model", f"{heading}\n\n*{text}*", place, **about)
        yield from (code_cell(turn, index, place) for index in range(len(turn.cells)))
    else:
        facts = f"{heading}\n\n{markdown.small(_facts(turn.reply, turn.seconds))}"
        about |= {"usage": dataclasses.asdict(turn.reply.usage), "model": turn.reply.model}
        yield from _reply_cells(turn, facts, place, about)
    for number, notice in enumerate(turn.notices, 1):
        quoted = f"> {markdown.one_line(notice, 1_000)}"
        yield markdown_cell(f"{name}-n{number}", "notice", quoted, place, turn=turn.iteration)
    if turn.summary is not None:
        yield _summary(turn, turn.summary, place)
    if turn.message_end is not None:
        answer, error = turn.message_end.answer, turn.message_end.error
        yield _message("answer", f"No answer: {error}" if answer is None else answer, turn, place)


def _message(role: str, text: str, turn: Turn, place: Place) -> NotebookCell:
    """A message of the user in a conversation, or its answer."""
    shown = markdown.prose(markdown.clip_text(text, MAX_PROSE), breaks=True) or "*(empty)*"
    source = f"# Message\n\n{shown}" if role == "message" else f"**Answer**\n\n{shown}"
    return markdown_cell(f"t{turn.iteration:03d}-{role}", role, source, place, turn=turn.iteration)


def _reply_cells(turn: Turn, facts: str, place: Place, about: dict[str, Any]) -> Iterator[NotebookCell]:
    """The words and the code in the order in which the model wrote them; the heading is in the first cell."""
    assert turn.reply is not None, "checked by turn_cells"
    thoughts, words = _thoughts(turn.reply.text)
    levels = markdown.heading_levels(words)
    pieces = list(split(words, [cell.code for cell in turn.cells]))
    first = pieces.pop(0) if pieces and isinstance(pieces[0], str) else ""
    opening = [facts, thoughts, _words(str(first), levels)]
    name = f"t{turn.iteration:03d}"
    yield markdown_cell(f"{name}-model", "model", "\n\n".join(filter(None, opening)), place, **about)
    for number, piece in enumerate(pieces, 1):
        if isinstance(piece, int):
            yield code_cell(turn, piece, place)
        else:
            yield markdown_cell(f"{name}-p{number}", "words", _words(piece, levels), place, turn=turn.iteration)


def split(words: str, codes: Sequence[str]) -> Iterator[str | int]:
    """A reply in pieces: words, and the places of the codes in it that ran. The fences of those are left out."""
    if len(words) > MAX_SPLIT:
        yield words.strip()
        yield from range(len(codes))
        return
    at = misses = 0
    for place, code in enumerate(codes):
        fence, start = (-1, -1)
        for opens in (opened_language, is_fence):  # code without a mark runs only in a reply without marked code
            if start < 0 and misses < _MAX_MISSES:
                fence, start = _block(words, code, at, opens)
        misses += start < 0
        if start >= 0:
            if before := words[at:fence].strip():
                yield before
            closing = start + 1 + len(code) + 1
            end = words.find("\n", closing)
            at = len(words) if end < 0 or closing > len(words) else end + 1
        yield place
    if rest := words[at:].strip():
        yield rest


def _block(words: str, code: str, at: int, opens: Callable[[str, int, int], object]) -> tuple[int, int]:
    """Where the fence above a code begins, and where it ends; -1 if the code is in no block that `opens` knows."""
    start = words.find(f"\n{code}", at)
    for _ in range(_MAX_PLACES):
        if start < 0:
            break
        fence, end = words.rfind("\n", at, start) + 1 or at, start + 1 + len(code)
        if words[end : end + 1] in ("", "\n") and opens(words, fence, start):
            return fence, start
        start = words.find(f"\n{code}", start + 1)
    return -1, -1


def code_cell(turn: Turn, index: int, place: Place) -> NotebookCell:
    """A cell of a turn with everything it showed. `index`: its place in the turn, from 0."""
    cell = turn.cells[index]
    result = cell.result
    about = {"role": "code", "turn": turn.iteration, "cell": cell.number, "status": status(cell)}
    if cell.replaced is not None:
        about["replaced"] = cell.replaced
    metadata: dict[str, Any] = {"rlm": about}
    if tags := _tags(cell):
        metadata["tags"] = tags
    if times := _times(cell, place.started):
        metadata["execution"] = times
    return {
        "cell_type": "code",
        "id": f"{place.prefix}-t{turn.iteration:03d}-c{index + 1}",
        "metadata": metadata,
        "source": cell.code,
        "execution_count": None if result is None else cell_number(result.execution_count),
        "outputs": _outputs(cell, result, place),
    }


def status(cell: Cell) -> str:
    """How a cell ended: ``ok``, ``error``, ``timeout``, ``died``, ``interrupted`` or ``unfinished``."""
    if cell.result is None:
        return "unfinished"
    interrupted = cell.result.error is not None and cell.result.error.name == "KeyboardInterrupt"
    has_unanswered = any(len(call.answers) < call.started.count for call in cell.calls)
    stopped = cell.result.status == "error" and (interrupted or has_unanswered)
    return "interrupted" if stopped else cell.result.status


def is_cut_off(cell: Cell) -> bool:
    """Whether a cell did not end by itself. It is not run again: it would take as long, or end the kernel once more."""
    return status(cell) not in ("ok", "error")


def _tags(cell: Cell) -> list[str]:
    if is_cut_off(cell):
        return [CUT_OFF]
    return [RAISES] if status(cell) == "error" else []


def _outputs(cell: Cell, result: CellResult | None, place: Place) -> list[Output]:
    shown = [] if result is None else saved_outputs.bound_outputs(result.outputs)
    shown += saved_outputs.ending(result, over=place.over)
    calls = notebook_calls.calls_output(cell, lambda call, index: place.child(cell, call, index))
    return shown if calls is None else [*shown, calls]


def _times(cell: Cell, started: datetime | None) -> dict[str, str]:
    """When a cell ran, as nbclient writes it."""
    seconds = [event.time for event in cell.events if isinstance(event, events.CellStarted | events.CellFinished)]
    if started is None or not seconds:
        return {}
    begin = _iso(started, seconds[0])
    times = {"iopub.status.busy": begin, "iopub.execute_input": begin}
    if len(seconds) > 1:
        end = _iso(started, seconds[-1])
        times |= {"iopub.status.idle": end, "shell.execute_reply": end}
    return times


def _iso(started: datetime, seconds: float) -> str:
    return (started + timedelta(seconds=seconds)).isoformat(timespec="microseconds")


def _thoughts(text: str) -> tuple[str, str]:
    """What the model thought aloud, folded, and the rest of its words."""
    words = without_thinking(text) if len(text) <= MAX_SPLIT else text
    if words == text:
        return "", text
    thought = text.removesuffix(words).strip() if text.endswith(words) else text
    folded = markdown.code_block(markdown.clip_text(thought, MAX_PROSE))
    return markdown.details("Thoughts of the model", folded), words


def _words(text: str, levels: Collection[int] | None = None) -> str:
    return markdown.prose(markdown.clip_text(text, MAX_PROSE), levels=levels)


def _facts(reply: Reply, seconds: float) -> str:
    usage = reply.usage
    cost = "" if usage.cost is None else markdown.escape_dollars(format_cost(usage.cost))
    cut = "cut by the length limit" if reply.finish_reason == "length" else ""
    tokens = format_tokens(usage.input_tokens, usage.output_tokens, usage.estimated_tokens)
    return " · ".join(filter(None, [tokens, cost, format_duration(seconds), cut]))


def _summary(turn: Turn, reply: Reply, place: Place) -> NotebookCell:
    note = "*The conversation filled the model's window. This summary replaces it from here on:*"
    source = f"{note}\n\n{_words(without_thinking(reply.text))}"
    about = {"turn": turn.iteration, "usage": dataclasses.asdict(reply.usage)}
    return markdown_cell(f"t{turn.iteration:03d}-summary", "summary", source, place, **about)
