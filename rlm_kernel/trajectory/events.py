"""The events of a run: typed records that the engine emits once.

The console, the callbacks, the log, the notebook and `RLM.stream()` are readers of this stream; none of them asks the
engine for anything. Every event carries `time`, seconds since the run started.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rlm_kernel.types import (
    Answer,
    CellResult,
    Image,
    Input,
    Output,
    QueryKind,
    Reply,
    RLMChatCompletion,
    ToolCall,
    Usage,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """The base of all events. `time`: seconds since the run started; the stream sets it."""

    time: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Event):
    """A completion began.

    Attributes:
        model: the root model.
        sub_model: the model of sub-calls.
        environment: the name of the environment.
        question: the `root_prompt`, or None.
        context_type: ``"str"``, ``"list"``, ``"dict"``, ``"bytes"`` or the class of a table.
        context_length: characters of a str, items otherwise.
        max_iterations: how many turns the root model has.
        depth: of the RLM in its tree.
        context: the input itself.
        setup: cells that were run in the kernel before the first turn.
        tools: the custom tools, as `Tool.recorded` writes them; values with the name of a secret are hidden.
        seed: of `random` and of hashes in the kernel.
        schema: the JSON Schema that the answer has to fit, or None.
        input_text: of an input without a `question` that is a text: its beginning and its end, for a person to read.
    """

    model: str
    sub_model: str
    environment: str
    question: str | None
    context_type: str
    context_length: int
    max_iterations: int
    depth: int = 0
    context: Input = field(default="", repr=False)
    setup: tuple[str, ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    seed: int = 0
    schema: dict[str, Any] | None = None
    input_text: str = ""

    @property
    def asked(self) -> str:
        """What was asked, for a person to read; empty where only the input says it."""
        return self.question or self.input_text

    @property
    def facts(self) -> str:
        """Models, environment and size of the input: ``gpt-5 · local kernel · str of 1,200 characters``."""
        models = self.model if self.sub_model == self.model else f"{self.model} (sub-calls: {self.sub_model})"
        unit = ("character" if self.context_type == "str" else "item") + "s" * (self.context_length != 1)
        return f"{models} · {self.environment} kernel · {self.context_type} of {self.context_length:,} {unit}"


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelReady(Event):
    """The kernel answers and holds the context.

    Attributes:
        seconds: how long that took.
        python: the version of its Python; empty if it is unknown.
    """

    seconds: float
    python: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class IterationStarted(Event):
    """A call of the root model begins.

    Attributes:
        iteration: counts from 1; the request for an answer after the last turn has the next number.
        messages: those since its last reply; before the first reply the whole opening.
    """

    iteration: int
    messages: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelText(Event):
    """A piece of the root model's reply while it is written. Only emitted to a live reader."""

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
    """The turn is over: the cells of the reply ran, or there is an answer. `seconds`: since the turn began."""

    iteration: int
    seconds: float
    answer: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CellStarted(Event):
    """A code block of the reply runs.

    Attributes:
        iteration: the turn.
        cell: counts the cells of the run from 1.
        code: what runs.
        replaced: the code of the reply, if `on_cell` replaced it.
    """

    iteration: int
    cell: int
    code: str
    replaced: str | None = None


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
    """A cell called `llm_query`, `rlm_query` or a batch of one.

    Attributes:
        cell: the cell that made the call.
        query: the id of the call, unique within the cell.
        kind: which function was called.
        model: the model that is called.
        prompts: the texts, in order.
        keys: what identifies each prompt in a replay (`journal.keys`).
        schema: the JSON Schema that the answers have to fit, or None.
        images: the pictures sent with every prompt, with their bytes; a record keeps those once, by their hash.
    """

    cell: int
    query: str
    kind: QueryKind
    model: str
    prompts: tuple[str, ...]
    keys: tuple[str, ...] = ()
    schema: dict[str, Any] | None = None
    images: tuple[Image, ...] = ()

    @property
    def count(self) -> int:
        """How many prompts are in the call."""
        return len(self.prompts)


@dataclass(frozen=True, slots=True, kw_only=True)
class SubcallAnswered(Event):
    """One prompt of a sub-call has its answer, or an error.

    Attributes:
        cell: the cell that made the call.
        query: the id of the call, as in `SubcallStarted`.
        index: place of the prompt in the batch, from 0.
        model: the model that answered.
        prompt: the whole prompt.
        text: the answer, as JSON with a schema; empty when `error` is set.
        error: why there is no answer, or None.
        usage: what it cost, the replies that were rejected included.
        seconds: how long the model took, waiting for its turn not included.
        attempts: the number of replies of the model; 0 if there was none.
        raw_text: with a schema the text of the model, from which `text` was made; else None.
        refused: the call itself was wrong, as in `Answer`.
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
    attempts: int = 1
    raw_text: str | None = None
    refused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SubcallRejected(Event):
    """A reply to a prompt with a schema does not fit it. The model is asked again, or the prompt has failed.

    Attributes:
        cell: the cell that made the call.
        query: the id of the call, as in `SubcallStarted`.
        index: place of the prompt in the batch, from 0.
        attempt: which reply to this prompt, from 1.
        reply: the whole reply; its usage is a part of that of `SubcallAnswered`.
        problems: what is wrong with it, a sentence each.
    """

    cell: int
    query: str
    index: int
    attempt: int
    reply: Reply
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SubcallFinished(Event):
    """All prompts of a sub-call are answered, failed or cancelled.

    Attributes:
        cell: the cell that made the call.
        query: the id of the call, as in `SubcallStarted`.
        failed: how many have no answer.
        seconds: how long it took.
        given_up: calls of a model that were under way and whose prompt has no answer, not even an error: the model, and
            the estimate that is counted for it.
    """

    cell: int
    query: str
    failed: int
    seconds: float
    given_up: tuple[tuple[str, Usage], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCalled(Event):
    """A cell called a custom tool or `budget()`, and it is done.

    Attributes:
        cell: the cell that called.
        call: which call, with its arguments.
        outcome: the result or the exception, as JSON.
        seconds: how long it took.
        key: what identifies the call in a replay (`journal.keys`).
        occurrence: how often the cell had made the same call before: calls at once end in any order. None: in order.
    """

    cell: int
    call: ToolCall
    outcome: Answer
    seconds: float
    key: str = ""
    occurrence: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Compacted(Event):
    """The conversation was summarised by the root model; the whole of it is in the variable `history`.

    Attributes:
        iteration: the turn before.
        reply: the summary.
        messages: those since the reply before it; empty if `IterationStarted` has them already.
    """

    iteration: int
    reply: Reply
    messages: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildEvent(Event):
    """Something happened in the child RLM that answers a prompt of an `rlm_query`.

    Attributes:
        cell: the cell that made the call.
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
class MessageStarted(Event):
    """The record of an agent's conversation: a message of the user begins.

    Attributes:
        iteration: the first turn for it; the turns of a conversation are counted through.
        text: the message.
        model: the root model that answers it; empty in older records: that of the conversation's beginning.
    """

    iteration: int
    text: str
    model: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageFinished(Event):
    """The record of an agent's conversation: a message has its answer, or there is none.

    Attributes:
        iteration: the last turn for it.
        answer: the answer, or None.
        error: why there is no answer, or None.
    """

    iteration: int
    answer: str | None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished(Event):
    """The completion is there."""

    completion: RLMChatCompletion


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFailed(Event):
    """The run ended with an error or was cancelled. `given_up`: calls of the root model, as in `SubcallFinished`."""

    error: BaseException
    given_up: tuple[tuple[str, Usage], ...] = ()


OnEvent = Callable[[Event], None]
"""A reader of the stream. Called in the engine's event loop, in order; must not block."""
