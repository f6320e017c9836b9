"""What a resumed run takes from its record: replies, cells, and the answers to the cells' questions.

A resumed run takes the same turns with the recorded replies, so no recorded question is asked again. Where the record
ends, models are called: also in the middle of a batch or of a child's run.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from rlm_kernel.engine.journal import Occurrences
from rlm_kernel.errors import ContextOverflowError
from rlm_kernel.trajectory import events
from rlm_kernel.trajectory.tree import Call, Cell, History, Trajectory, Turn
from rlm_kernel.types import Answer, Prompt, Reply, Slot, Usage

UNKNOWN_MODEL = "there is no model"
UNKNOWN_PRICE = "the price of"
"""How the answers to a prompt for a model that cannot be asked begin. The prompt is not counted for `max_calls`."""


@dataclass(frozen=True, slots=True)
class RecordedAnswer:
    """The answer of one prompt on record.

    Attributes:
        answered: the event of the answer.
        before: the earlier events of the prompt: of the child run that found the answer, or of replies that did not fit
            the schema.
        spending: the calls behind it: the label of the model and what the call cost.
        prompts: how many prompts count for `max_calls`: this one, and those of the child.
    """

    answered: events.SubcallAnswered
    before: tuple[events.ChildEvent | events.SubcallRejected, ...]
    spending: tuple[tuple[str, Usage], ...]
    prompts: int

    @property
    def answer(self) -> Answer:
        """The answer that the cell got."""
        return Answer(self.answered.text, self.answered.error, self.answered.refused)


@dataclass(frozen=True, slots=True)
class PriorRun:
    """A run that the same persistent kernel served before.

    Attributes:
        context: its input.
        history: its conversation.
        histories: the values of `history`, each by the number of the first cell that found it.
        recorded: its cells and their answers.
        cells: the number of its last cell, ended or not; 0 when it ran none.
    """

    context: Prompt
    history: History
    histories: dict[int, History]
    recorded: RecordedRun
    cells: int


@dataclass(slots=True)
class RecordedRun:
    """The record of one run.

    Attributes:
        replies: of the root model, summaries included, in order; the engine takes them from the left.
        cells: the finished cells by number, without the setup.
        answers: the answers of prompts, also in a cell that did not end.
        outcomes: the results of tools.
        children: the records of children that did not end.
        rejected: replies that did not fit a schema, for prompts without an answer.
        seconds: how long the run took.
        before: the runs that the same persistent kernel served before, in order.
    """

    replies: deque[events.ModelReplied | events.Compacted] = field(default_factory=deque)
    cells: dict[int, Cell] = field(default_factory=dict)
    answers: dict[Slot, RecordedAnswer] = field(default_factory=dict)
    outcomes: dict[Slot, Answer] = field(default_factory=dict)
    children: dict[Slot, RecordedRun] = field(default_factory=dict)
    rejected: dict[Slot, deque[Reply]] = field(default_factory=dict)
    seconds: float = 0.0
    before: tuple[PriorRun, ...] = ()

    @property
    def summary_is_next(self) -> bool:
        """Whether the next recorded reply is a summary of the conversation."""
        return bool(self.replies) and isinstance(self.replies[0], events.Compacted)

    def overflow(self) -> ContextOverflowError:
        """The error that led to this summary in the earlier run."""
        model = self.replies[0].reply.model
        return ContextOverflowError("too long, in the recorded run", backend="record", model=model)

    def recorded(self, cell: int | None = None) -> dict[Slot, Answer]:
        """The answers of models and tools in a cell; None: in all cells."""
        known = {slot: one.answer for slot, one in self.answers.items()} | self.outcomes
        return {slot: answer for slot, answer in known.items() if cell in (None, slot.cell)}


def recorded_run_of(run: Trajectory, at: int | None = None) -> RecordedRun:
    """What a resumed run takes from a record.

    Args:
        run: the record.
        at: the last iteration that counts; None: all of it.
    """
    recorded, occurrences = RecordedRun(seconds=run.seconds), Occurrences()
    turns = [turn for turn in run.turns if at is None or turn.iteration <= at]
    if at is not None and turns and (end := turns[-1].finished) is not None:
        recorded.seconds = end.time
    recorded.replies.extend(replied for replied in run.replies if at is None or replied.iteration <= at)
    _take_answers(recorded, run.setup, occurrences)
    for turn, cell in ((one, cell) for one in turns for cell in one.cells):
        if cell.result is not None and not _was_stopped(turn, cell):
            recorded.cells[cell.number] = cell
        _take_answers(recorded, cell, occurrences)
    return recorded


def merged(runs: Iterable[RecordedRun]) -> RecordedRun:
    """What several records of one run hold together. Each but the first was resumed from those before it.

    A run that is killed while it is resumed may hold less than the record that it was resumed from: more of one child
    and less of another, for example.
    """
    whole = RecordedRun()
    for run in runs:
        whole.replies = max(whole.replies, run.replies, key=len)
        whole.cells |= run.cells
        whole.answers |= run.answers
        whole.outcomes |= run.outcomes
        for slot, rejected in run.rejected.items():
            whole.rejected[slot] = max(whole.rejected.get(slot, deque()), rejected, key=len)
        for slot, child in run.children.items():
            whole.children[slot] = merged([whole.children.get(slot, RecordedRun()), child])
        whole.seconds = max(whole.seconds, run.seconds)
    return whole


def _take_answers(recorded: RecordedRun, cell: Cell, occurrences: Occurrences) -> None:
    before = _before_answers(cell)
    for call in cell.calls:
        _take_call(recorded, cell, call, occurrences, before)
    for tool in cell.tools:
        (slot,) = occurrences.slots(cell.number, (tool.key,))
        recorded.outcomes[slot if tool.occurrence is None else slot._replace(occurrence=tool.occurrence)] = tool.outcome


def counted_prompts(cell: Cell) -> int:
    """The prompts of a cell and of its children that count for `max_calls`."""
    return sum(_prompts_of(call, index) for call in cell.calls for index in {*call.answers, *call.children})


def _prompts_of(call: Call, index: int) -> int:
    child = call.children.get(index)
    below = () if child is None else (child.setup, *child.cells)
    return _is_counted(call.answers.get(index)) + sum(map(counted_prompts, below))


def _is_counted(answer: events.SubcallAnswered | None) -> bool:
    """Whether a prompt counts: not if `on_tool` answered or refused it, nor if the call was wrong."""
    if answer is None or answer.attempts:
        return True
    return (
        answer.error is not None and not answer.refused and not answer.error.startswith((UNKNOWN_MODEL, UNKNOWN_PRICE))
    )


def _was_stopped(turn: Turn, cell: Cell) -> bool:
    """Whether the run ended in this cell: it was interrupted at a limit while it waited for answers.

    It is resumed there as if it had been killed.
    """
    unanswered = any(len(call.answers) < call.started.count for call in cell.calls)
    return turn.finished is None and cell is turn.cells[-1] and unanswered


def _take_call(recorded: RecordedRun, cell: Cell, call: Call, occurrences: Occurrences, before: _AnswerEvent) -> None:
    for index, slot in enumerate(occurrences.slots(cell.number, call.started.keys)):
        if index in call.answers:
            earlier = tuple(before.get((call.started.query, index), ()))
            recorded.answers[slot] = RecordedAnswer(
                call.answers[index], earlier, tuple(call.spending_of(index)), _prompts_of(call, index)
            )
        elif index in call.children:
            recorded.children[slot] = recorded_run_of(call.children[index])
        elif index in call.rejected:
            recorded.rejected[slot] = deque(call.rejected[index])


_AnswerEvent = dict[tuple[str, int], list[events.ChildEvent | events.SubcallRejected]]


def _before_answers(cell: Cell) -> _AnswerEvent:
    """The events of each prompt of a cell before its answer, by the id of its call and its index."""
    earlier: _AnswerEvent = defaultdict(list)
    for event in cell.events:
        if isinstance(event, events.ChildEvent | events.SubcallRejected):
            earlier[event.query, event.index].append(event)
    return earlier
