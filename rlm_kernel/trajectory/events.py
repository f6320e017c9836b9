"""What happens in a run, said once by the engine as typed records.

The console, the callbacks and `RLM.stream()` are readers of this stream; none of them asks the engine for anything.
Every event carries `time`, seconds since the run started.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rlm_kernel.records import Answer, CellResult, Output, QueryKind, Reply, RLMChatCompletion, ToolCall, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """The base of all events. `time`: seconds since the run started."""

    time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Event):
    """A completion began.

    Attributes:
        model: the root model.
        sub_model: the model of sub-calls.
        environment: the name of the environment.
        question: the `root_prompt`, or None.
        context_type: ``"str"``, ``"list"`` or ``"dict"``.
        context_length: characters of a str, items otherwise.
        max_iterations: how many turns the root model has.
    """

    model: str
    sub_model: str
    environment: str
    question: str | None
    context_type: str
    context_length: int
    max_iterations: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelReady(Event):
    """The kernel answers and holds the context. `seconds`: how long that took."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class IterationStarted(Event):
    """The root model is asked. `iteration` counts from 1; the last word after the limit has the next number."""

    iteration: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelText(Event):
    """A piece of the root model's reply while it is written. Only emitted when somebody reads it live."""

    iteration: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReplied(Event):
    """The root model's whole reply. `seconds`: how long the model took."""

    iteration: int
    reply: Reply
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class IterationFinished(Event):
    """The reply was taken: its cells ran, or there is an answer. `seconds`: since the model was asked."""

    iteration: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CellStarted(Event):
    """A code block of the reply runs. `cell` counts the cells of the run from 1."""

    iteration: int
    cell: int
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CellOutput(Event):
    """A piece of output of the running cell, as nbformat writes it (a stream comes in pieces)."""

    cell: int
    output: Output


@dataclass(frozen=True, slots=True, kw_only=True)
class CellFinished(Event):
    """The cell is over."""

    iteration: int
    cell: int
    result: CellResult


@dataclass(frozen=True, slots=True, kw_only=True)
class SubcallStarted(Event):
    """A cell called `llm_query`, `rlm_query` or a batch of one."""

    cell: int
    query: str
    kind: QueryKind
    model: str
    prompts: tuple[str, ...]

    @property
    def count(self) -> int:
        """How many prompts are in the call."""
        return len(self.prompts)


@dataclass(frozen=True, slots=True, kw_only=True)
class SubcallAnswered(Event):
    """One prompt of a sub-call has its answer, or an error.

    Attributes:
        cell: the cell that asked.
        query: the id of the call, as in `SubcallStarted`.
        index: place of the prompt in the batch, from 0.
        model: the model that answered.
        prompt: the whole prompt.
        text: the answer; empty when `error` is set.
        error: why there is no answer, or None.
        usage: what it cost.
        seconds: how long the model took, waiting for its turn not included.
    """

    cell: int
    query: str
    index: int
    model: str
    prompt: str
    text: str
    error: str | None
    usage: Usage
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SubcallFinished(Event):
    """All prompts of a sub-call are answered, failed or cancelled. `failed`: how many have no answer."""

    cell: int
    query: str
    failed: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCalled(Event):
    """A cell called a custom tool, and it is done.

    Attributes:
        cell: the cell that called.
        call: which call, with its arguments.
        outcome: the result or the exception, as JSON.
        seconds: how long it took.
    """

    cell: int
    call: ToolCall
    outcome: Answer
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Compacted(Event):
    """The conversation was summarised by the root model; the whole of it is in the variable `history`."""

    iteration: int
    reply: Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildEvent(Event):
    """Something happened in the child RLM that answers a prompt of an `rlm_query`.

    Attributes:
        cell: the cell that asked.
        query: the id of the call, as in `SubcallStarted`.
        index: place of the prompt in the batch, from 0.
        event: what happened; its `time` counts from the start of the child.
    """

    cell: int
    query: str
    index: int
    event: Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice(Event):
    """Something the user should know (a restarted kernel, a challenged answer), in one sentence."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished(Event):
    """The completion is there."""

    completion: RLMChatCompletion


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFailed(Event):
    """The run ended with an error or was cancelled."""

    error: BaseException


OnEvent = Callable[[Event], None]
"""A reader of the stream. Called in the engine's event loop, in order; must not block."""
