"""A run as a tree: its turns, their cells, the calls of the cells, and the runs of its children.

The stream of events is flat. A reader that shows or repeats a run builds this tree by adding one event after another,
during the run or from its log; `events_of` goes the other way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

from rlm_kernel.text import format_duration, not_blank
from rlm_kernel.trajectory import events
from rlm_kernel.trajectory.events import Event, SubcallAnswered, SubcallStarted
from rlm_kernel.trajectory.states import State, state_of_error
from rlm_kernel.types import Answer, CellResult, Reply, RLMChatCompletion, ToolCall, Usage, UsageMeter, UsageSummary

SETUP = 0
"""The cell number for the sub-calls of a kernel's setup; the cells of the turns count from 1."""

History = list[dict[str, Any]]
"""The messages to a model and its replies, as the variable `history` holds them."""

Spending = Iterator[tuple[str, Usage]]
"""Calls that were paid for: the model's label and what the call cost."""


@dataclass(slots=True)
class ToolUse:
    """One call of a custom tool; see `ToolCalled`."""

    call: ToolCall
    outcome: Answer
    seconds: float
    key: str
    occurrence: int | None = None


@dataclass(slots=True)
class Call:
    """One `llm_query`, `rlm_query` or batch.

    Attributes:
        started: the event that began it.
        answers: by the place of the prompt; some are missing in a run that was killed.
        children: the runs of an `rlm_query`, by the place of the prompt.
        rejected: replies that did not fit the schema, by the place of the prompt.
        failed: how many prompts have no answer; None while the call is under way.
        seconds: how long it took, or None.
        given_up: see `SubcallFinished`.
    """

    started: events.SubcallStarted
    answers: dict[int, events.SubcallAnswered] = field(default_factory=dict)
    children: dict[int, Trajectory] = field(default_factory=dict)
    rejected: dict[int, list[Reply]] = field(default_factory=dict)
    failed: int | None = None
    seconds: float | None = None
    given_up: tuple[tuple[str, Usage], ...] = ()

    @property
    def is_over(self) -> bool:
        """Whether it and its children have ended."""
        return self.failed is not None and all(child.is_over for child in self.children.values())

    def spending(self) -> Spending:
        """The cost of its prompts, those that children answered included."""
        for index in sorted({*self.answers, *self.children, *self.rejected}):
            yield from self.spending_of(index)
        yield from self.given_up

    def spending_of(self, index: int) -> Spending:
        """The cost of a prompt, reply by reply."""
        answer, model = self.answers.get(index), self.started.model
        if index in self.children:
            yield from self.children[index].spending()
            return
        paid = [reply.usage for reply in self.rejected.get(index, ())]
        if answer is not None and answer.attempts != len(paid):
            rest = reduce(Usage.minus, paid, answer.usage)
            paid += [rest] * (rest != Usage())  # a call that failed or was refused
        for usage in paid:
            yield (answer.model if answer else model), usage


@dataclass(slots=True)
class Cell:
    """One cell that ran, or was about to.

    Attributes:
        number: counts the cells of the run from 1.
        code: its source.
        calls: its sub-calls, in the order in which they began.
        tools: its calls of custom tools, in the order in which they ended.
        result: what it did; None when the run was killed before its end.
        events: its events, except pieces of output.
        replaced: the code of the model, if `on_cell` replaced it.
    """

    number: int
    code: str
    calls: list[Call] = field(default_factory=list)
    tools: list[ToolUse] = field(default_factory=list)
    result: CellResult | None = None
    events: list[Event] = field(default_factory=list)
    replaced: str | None = None
    _by_query: dict[str, Call] = field(default_factory=dict)

    def begin(self, started: SubcallStarted) -> None:
        """A call of the cell."""
        call = self._by_query[started.query] = Call(started)
        self.calls.append(call)

    def spending(self) -> Spending:
        """The cost of its sub-calls."""
        for call in self.calls:
            yield from call.spending()

    def recorded_events(self) -> Iterator[Event]:
        """Its events. The answers have their prompts, which a log does not repeat."""
        for event in self.events:
            if isinstance(event, SubcallAnswered):
                yield replace(event, prompt=self.call(event.query, event.index).started.prompts[event.index])
            else:
                yield event

    def call(self, query: str, index: int = 0) -> Call:
        """The call with this id, which has a prompt at this place.

        Raises:
            KeyError: there is no such call, so the log was altered.
        """
        call = self._by_query[query]
        if not 0 <= index < call.started.count:
            raise KeyError(f"prompt {index} of the call {query}")
        return call


@dataclass(slots=True)
class Turn:
    """One turn of the root model.

    Attributes:
        iteration: counts from 1.
        messages: those since the reply before.
        reply: the model's reply; None when the run was killed before.
        seconds: how long the model took.
        cells: those of the reply that ran.
        notices: messages to the user during the turn.
        summary: the summary that replaced the conversation after this turn, or None.
        finished: the end of the turn; None when the run ended in it.
        message: the message of a user that begins with this turn, in a conversation.
        message_model: the root model that answers it; empty: that of the conversation's beginning.
        message_end: the end of the message, in its last turn.
    """

    iteration: int
    messages: tuple[Mapping[str, Any], ...] = ()
    reply: Reply | None = None
    seconds: float = 0.0
    cells: list[Cell] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    summary: Reply | None = None
    finished: events.IterationFinished | None = None
    message: str | None = None
    message_model: str = ""
    message_end: events.MessageFinished | None = None

    @property
    def is_over(self) -> bool:
        """Whether its reply, its cells, their calls and the children of those have ended."""
        ended = all(cell.result is not None and all(call.is_over for call in cell.calls) for cell in self.cells)
        return ended and self.reply is not None

    def take_message(self, event: events.MessageStarted | events.MessageFinished) -> None:
        """A message of a conversation begins or ends with this turn."""
        if isinstance(event, events.MessageStarted):
            self.message, self.message_model = event.text, event.model
        else:
            self.message_end = event


@dataclass(frozen=True, slots=True)
class Counts:
    """How often models were called below the root. Children count with everything in them.

    Attributes:
        subcalls: prompts of `llm_query` and `rlm_query`.
        children: runs that an `rlm_query` started.
    """

    subcalls: int = 0
    children: int = 0

    def plus(self, other: Counts) -> Counts:
        """Both together."""
        return Counts(self.subcalls + other.subcalls, self.children + other.children)

    def __str__(self) -> str:
        shown = [f"{self.subcalls:,} sub-call{'s' * (self.subcalls != 1)}"] * bool(self.subcalls)
        shown += [f"{self.children:,} child{'ren' * (self.children != 1)}"] * bool(self.children)
        return ", ".join(shown)


def sum_usage(spending: Iterable[tuple[str, Usage]]) -> UsageSummary:
    """The usage of calls, by model."""
    meter = UsageMeter()
    for model, usage in spending:
        meter.add(model, usage)
    return meter.summary()


def sum_paid(spending: Iterable[tuple[str, Usage]]) -> UsageSummary:
    """Like `sum_usage`, without calls that failed before they used a token: their unknown cost is no cost."""
    return sum_usage((model, usage) for model, usage in spending if usage != Usage())


def describe_ending(result: CellResult) -> str:
    """A sentence about a cell that was stopped, or that lost its kernel or some output; empty for all others."""
    match result.status:
        case "timeout":
            return f"The cell was stopped after {format_duration(result.seconds)}: it took too long."
        case "died":
            return "The kernel died while it ran this cell."
        case "refused":
            return f"The cell did not run: {result.error.message if result.error else 'it was refused'}"
    dropped = result.dropped_characters
    return f"{dropped:,} characters of output were not kept." if dropped else ""


def take_history(histories: dict[int, History], cell: int) -> History | None:
    """The new value of `history` for a kernel before it runs a cell; None: the kernel has the right value.

    Args:
        histories: see `Trajectory.histories`; those up to this cell are removed, also of cells that do not run again.
        cell: its number.
    """
    passed = [number for number in histories if number <= cell]
    taken = [histories.pop(number) for number in passed]
    return taken[-1] if taken else None


class Trajectory:
    """A run so far.

    Attributes:
        started: the event that began it, or None before.
        kernel_seconds: until the kernel was ready, or None.
        python: the version of its Python; empty if it is unknown.
        setup: the sub-calls of the kernel's setup, as a cell without code that belongs to no turn.
        turns: of the root model.
        replies: all replies of the root model in order, summaries included.
        completion: the result, or None.
        failure: the error that ended the run, or None.
        given_up: see `RunFailed`.
        seconds: the time of the last event.
        lost: whether the process of the run died before the end; only the reader of a log knows.
    """

    def __init__(self, recorded: Iterable[Event] = ()) -> None:
        self.started: events.RunStarted | None = None
        self.kernel_seconds: float | None = None
        self.python = ""
        self.setup = Cell(SETUP, "")
        self.turns: list[Turn] = []
        self.replies: list[events.ModelReplied | events.Compacted] = []
        self.completion: RLMChatCompletion | None = None
        self.failure: BaseException | None = None
        self.given_up: tuple[tuple[str, Usage], ...] = ()
        self.seconds = 0.0
        self.lost = False
        self._cells: dict[int, Cell] = {}
        self._conversation: list[Mapping[str, Any]] = []
        self._summaries: dict[int, int] = {}
        self._summarised = False
        self._models: dict[int, str] = {}
        self._answering = ""
        for event in recorded:
            self.add(event)

    @property
    def cells(self) -> list[Cell]:
        """All cells of its turns in order."""
        return list(self._cells.values())

    @property
    def model(self) -> str:
        """The label of the root model; empty before the run began."""
        return self.started.model if self.started else ""

    @property
    def is_over(self) -> bool:
        """Whether the run has ended, with an answer or without."""
        return self.completion is not None or self.failure is not None

    @property
    def state(self) -> State:
        """The state of the run, see `states`."""
        if self.completion is not None:
            return "answered"
        if self.failure is not None:
            return state_of_error(self.failure)
        return "lost" if self.lost else "running"

    def lose(self) -> None:
        """Mark the run and its children as lost where they have no end."""
        self.lost = not self.is_over
        for cell in (self.setup, *self._cells.values()):
            for call in cell.calls:
                for child in call.children.values():
                    child.lose()

    def counts(self) -> Counts:
        """The sub-calls and children of the run and its children."""
        calls = [call for cell in (self.setup, *self._cells.values()) for call in cell.calls]
        own = Counts(sum(call.started.count for call in calls), sum(len(call.children) for call in calls))
        return reduce(Counts.plus, (child.counts() for call in calls for child in call.children.values()), own)

    def spending(self) -> Spending:
        """The cost of the run and its children, call by call."""
        for replied in self.replies:
            yield self._models.get(replied.iteration, self.model), replied.reply.usage
        for cell in (self.setup, *self._cells.values()):
            yield from cell.spending()
        yield from self.given_up

    def conversation(self) -> History:
        """The messages to the root model and its replies, as the REPL keeps them in `history`."""
        return [dict(message) for message in self._conversation]

    def histories(self) -> dict[int, History]:
        """The values of `history` in a run that was summarised, each by the number of the first cell that had it."""
        conversation = self.conversation()
        return {cell: conversation[:length] for cell, length in self._summaries.items()}

    def forget(self) -> None:
        """Remove everything but how the run began."""
        self.turns, self.replies, self.setup = [], [], Cell(SETUP, "")
        self._cells, self._conversation, self._summaries = {}, [], {}

    def take_past(self, kept: int = 1) -> Trajectory:
        """Remove the turns that nothing will be added to, and return them as a run of their own.

        These are turns whose cells and calls have ended; a later one waits for all before it. The conversation is not
        kept either.

        Args:
            kept: how many turns stay at least; nothing is added to one before the last.
        """
        past = Trajectory()
        past.started, past._models = self.started, self._models
        while len(self.turns) > kept and self.turns[0].is_over:
            turn = self.turns.pop(0)
            past.turns.append(turn)
            past._cells |= {cell.number: self._cells.pop(cell.number) for cell in turn.cells}
        over = {turn.iteration for turn in past.turns}
        past.replies = [reply for reply in self.replies if reply.iteration in over]
        self.replies = [reply for reply in self.replies if reply.iteration not in over]
        self._conversation, self._summaries = [], {}
        return past

    def add(self, event: Event) -> None:  # noqa: C901, PLR0912 (one case for each kind)
        """Take the next event of the stream."""
        self.seconds = max(self.seconds, event.time)
        match event:
            case events.RunStarted():
                self.started = event
            case events.KernelReady():
                self.kernel_seconds, self.python = event.seconds, event.python
            case events.IterationStarted():
                self._turn(event.iteration).messages += event.messages
                if not self._summarised:  # the history does not mention a summary
                    self._conversation += event.messages
                self._summarised = False
            case events.ModelReplied():
                turn = self._turn(event.iteration)
                turn.reply, turn.seconds = event.reply, event.seconds
                if self._answering:
                    self._models[event.iteration] = self._answering
                self.replies.append(event)
                self._conversation.append({"role": "assistant", "content": not_blank(event.reply.text)})
            case events.Compacted():
                self._turn(event.iteration).summary = event.reply
                self.replies.append(event)
                self._conversation += event.messages
                self._summarised = True
                self._summaries[max(self._cells, default=0) + 1] = len(self._conversation)
            case events.IterationFinished():
                self._turn(event.iteration).finished = event
            case events.Notice():
                self._turn(self.turns[-1].iteration if self.turns else 1).notices.append(event.message)
            case events.RunFinished():
                self.completion = event.completion
            case events.RunFailed():
                self.failure, self.given_up = event.error, event.given_up
            case events.MessageStarted() | events.MessageFinished():
                self._answering = getattr(event, "model", self._answering)
                self._turn(event.iteration).take_message(event)
            case events.CellStarted():
                self._begin(event)
            case _:
                self._add_to_cell(event)

    def _turn(self, iteration: int) -> Turn:
        if not self.turns or self.turns[-1].iteration != iteration:
            self.turns.append(Turn(iteration))
        return self.turns[-1]

    def _begin(self, event: events.CellStarted) -> None:
        cell = self._cells[event.cell] = Cell(event.cell, event.code, events=[event], replaced=event.replaced)
        self._turn(event.iteration).cells.append(cell)

    def _add_to_cell(self, event: Event) -> None:
        number = getattr(event, "cell", -1)
        cell = self.setup if number == SETUP else self._cells.get(number)
        if cell is None or isinstance(event, events.CellOutput):
            return
        cell.events.append(event)
        match event:
            case events.CellFinished():
                cell.result = event.result
            case events.SubcallStarted():
                cell.begin(event)
            case events.SubcallAnswered():
                cell.call(event.query, event.index).answers[event.index] = event
            case events.SubcallRejected():
                cell.call(event.query, event.index).rejected.setdefault(event.index, []).append(event.reply)
            case events.SubcallFinished():
                call = cell.call(event.query)
                call.failed, call.seconds, call.given_up = event.failed, event.seconds, event.given_up
            case events.ToolCalled():
                cell.tools.append(ToolUse(event.call, event.outcome, event.seconds, event.key, event.occurrence))
            case events.ChildEvent():
                cell.call(event.query, event.index).children.setdefault(event.index, Trajectory()).add(event.event)


def events_of(run: Trajectory) -> Iterator[Event]:
    """The events of a run so far, without pieces of text and output, which are not recorded."""
    if run.started is None:
        return
    yield run.started
    replies = {reply.iteration: reply for reply in run.replies if isinstance(reply, events.ModelReplied)}
    for turn in run.turns:
        reply = replies.get(turn.iteration)
        time = reply.time if reply else run.seconds
        if turn.message is not None:
            yield events.MessageStarted(
                time=time, iteration=turn.iteration, text=turn.message, model=turn.message_model
            )
        yield events.IterationStarted(time=time, iteration=turn.iteration, messages=turn.messages)
        if reply is not None:
            yield reply
        for cell in turn.cells:
            yield from cell.recorded_events()
        for message in turn.notices:
            yield events.Notice(time=time, message=message)
        yield from filter(None, (turn.finished, turn.message_end))
    if run.completion is not None:
        yield events.RunFinished(time=run.seconds, completion=run.completion)
    elif run.failure is not None:
        yield events.RunFailed(time=run.seconds, error=run.failure, given_up=run.given_up)
