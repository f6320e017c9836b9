"""Answer the sub-calls of a cell with language models: which model, how many in parallel, at what cost."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace

from rlm_kernel._async import gather_or_cancel
from rlm_kernel.clients.base import BaseLM
from rlm_kernel.engine import billing
from rlm_kernel.engine.budget import Ledger, Receipt
from rlm_kernel.engine.config import Models
from rlm_kernel.engine.journal import Slot
from rlm_kernel.engine.recorded import RecordedAnswer, RecordedRun
from rlm_kernel.engine.tools import Tool
from rlm_kernel.errors import SHOWN_CHARACTERS, RLMError, TimeoutExceededError
from rlm_kernel.schema.answer_schema import Schema
from rlm_kernel.schema.retry import ask_with_repairs
from rlm_kernel.schema.validation import MisfitError
from rlm_kernel.text import clip
from rlm_kernel.trajectory.emitter import Emitter
from rlm_kernel.trajectory.events import SubcallAnswered, SubcallFinished, SubcallRejected, SubcallStarted, ToolCalled
from rlm_kernel.trajectory.tree import Cell
from rlm_kernel.types import Answer, Message, Query, Reply, RLMChatCompletion, ToolCall, Usage, UsageMeter

CHARACTERS_PER_TOKEN = 5
"""A low estimate of a prompt's tokens: a prompt is refused unsent only when it is beyond doubt too long."""


@dataclass(frozen=True, slots=True)
class SubcallPrompt:
    """One prompt of a query, on its way to an answer.

    Attributes:
        cell: the number of the cell that asked.
        query: the call it belongs to.
        index: its place in the call.
        lm: the model that answers.
        slot: where its answer stands on record.
        schema: what the answer has to fit, or None.
    """

    cell: int
    query: Query
    index: int
    lm: BaseLM
    slot: Slot
    schema: Schema | None = None

    @property
    def text(self) -> str:
        """The words."""
        return self.query.prompts[self.index]

    @property
    def message(self) -> Message:
        """What a model reads."""
        plain: Message = {"role": "user", "content": self.text}
        return {**plain, "images": self.query.images} if self.query.images else plain


@dataclass(slots=True)
class Effort:
    """What the answer of a prompt has taken so far.

    Attributes:
        started: when its turn came.
        usage: of all its replies.
        attempts: how many those are.
        said: the reply of which a structured answer was made.
        given_up: what was counted for a call that ended without a reply, or None.
    """

    started: float
    usage: Usage = field(default_factory=Usage)
    attempts: int = 0
    said: str | None = None
    given_up: Usage | None = None

    def add(self, usage: Usage) -> None:
        """One more reply, or all of a child's."""
        self.usage = self.usage.plus(usage) if self.attempts else usage
        self.attempts += 1

    def give_up(self, usage: Usage | None) -> None:
        """The call ended without a reply; None: it was refused, or not sent."""
        self.given_up = usage
        if usage is not None:
            self.add(usage)


StartChild = Callable[[SubcallPrompt], Awaitable[RLMChatCompletion]]
"""Answers the prompt of an `rlm_query` with an RLM of its own."""


@dataclass(slots=True)
class SubCalls:
    """The `Responder` of a run.

    Attributes:
        models: who can be asked.
        ledger: keeps the limits of the tree.
        usage: counts the calls of this run.
        emit: tells the readers of the run.
        reply_tokens: the longest answer of a plain call.
        max_children: how many children may run at a time.
        child_turn: held by a child from before its kernel starts until it has ended.
        start_child: answers `rlm_query`; None where the depth is used up, then it is answered like `llm_query`.
        on_limit: called when a limit of the tree is reached, to end the cell that asks.
        tools: the functions on the host that a cell may call, by name.
        recorded: what an earlier run was answered, which is not asked again.
        cell: the number of the running cell, kept by the REPL.
    """

    models: Models
    ledger: Ledger
    usage: UsageMeter
    emit: Emitter
    reply_tokens: int
    max_children: int
    child_turn: Callable[[], AbstractAsyncContextManager[None]]
    start_child: StartChild | None
    on_limit: Callable[[], None]
    tools: Mapping[str, Tool]
    recorded: RecordedRun = field(default_factory=RecordedRun)
    cell: int = 0
    _sibling_turn: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._sibling_turn = asyncio.Semaphore(self.max_children)

    async def answer(self, query: Query | ToolCall, slots: Sequence[Slot]) -> Sequence[Answer]:
        """The answers of a query's prompts, in order, or what a tool returned. `slots`: where they stand on record."""
        return [await self._call(query, slots[0])] if isinstance(query, ToolCall) else await self._query(query, slots)

    def relive(self, cell: Cell) -> None:
        """Tell the readers again of a cell that ended in an earlier run, and count what it cost."""
        for event in cell.recorded_events():
            self.emit.again(event)
        for model, usage in cell.spending():
            self.ledger.count(model, usage, self.usage)

    async def _call(self, call: ToolCall, slot: Slot) -> Answer:
        tool, cell, started = self.tools.get(call.tool), self.cell, time.perf_counter()
        if (known := self.recorded.outcomes.get(slot)) is not None:
            outcome = known
        elif tool is None:
            return Answer(error=json.dumps(["NameError", f"there is no tool {call.tool!r}"]))
        else:
            async with self.ledger.tool_turn:
                outcome = await tool.call(call)
        about = {"cell": cell, "key": slot.key, "occurrence": slot.occurrence}
        self.emit(ToolCalled, **about, call=call, outcome=outcome, seconds=time.perf_counter() - started)
        return outcome

    async def _query(self, query: Query, slots: Sequence[Slot]) -> Sequence[Answer]:
        lm, cell, started = self.models.named(query.model), self.cell, time.perf_counter()
        count = len(query.prompts)
        self.emit(  # before anything is waited for: what is on record stands in the order in which it was asked
            SubcallStarted,
            cell=cell,
            query=query.id,
            kind=query.kind,
            model=lm.model if lm else clip(str(query.model), SHOWN_CHARACTERS),
            prompts=query.prompts,
            keys=tuple(slot.key for slot in slots),
            schema=query.schema,
            images=query.images,
        )
        if lm is None:
            known = ", ".join(map(repr, self.models.names))
            wrong = repr(clip(str(query.model), SHOWN_CHARACTERS))
            return self._answer_without_model(cell, query, Answer(error=f"there is no model {wrong}. Known: {known}."))
        try:
            self._check_images(query, lm)
            schema = None if query.schema is None else await asyncio.to_thread(Schema.of, query.schema)
        except (TypeError, ValueError) as error:
            return self._answer_without_model(cell, query, Answer(error=str(error), refused=True))
        answers = [Answer(error="cancelled")] * count
        todo = iter(range(count))
        given_up: list[tuple[str, Usage]] = []

        async def work() -> None:
            for index in todo:
                answers[index] = await self._ask(SubcallPrompt(cell, query, index, lm, slots[index], schema), given_up)

        # No more workers than turns: those that wait for one cost more than the calls.
        turns = self.max_children if self._starts_children(query) else self.ledger.max_queries
        try:
            await gather_or_cancel(*(work() for _ in range(min(turns, count))))
        finally:
            failed = sum(answer.error is not None for answer in answers)
            seconds = time.perf_counter() - started
            about = {"failed": failed, "seconds": seconds, "given_up": tuple(given_up)}
            self.emit(SubcallFinished, cell=cell, query=query.id, **about)
        return answers

    def _answer_without_model(self, cell: int, query: Query, answer: Answer) -> list[Answer]:
        """Tell of a call that nobody is asked: on record, because a replay has to answer it alike."""
        where, model = (
            {"cell": cell, "query": query.id},
            clip(query.model or self.models.default.model, SHOWN_CHARACTERS),
        )
        said = {"model": model, "text": "", "error": answer.error, "refused": answer.refused, "attempts": 0}
        for index, prompt in enumerate(query.prompts):
            self.emit(SubcallAnswered, **where, **said, index=index, prompt=prompt, usage=Usage(), seconds=0.0)
        self.emit(SubcallFinished, **where, failed=len(query.prompts), seconds=0.0)
        return [answer] * len(query.prompts)

    async def _ask(self, prompt: SubcallPrompt, given_up: list[tuple[str, Usage]]) -> Answer:
        """The answer of a prompt. What a call took whose prompt gets none, not even an error, goes to `given_up`."""
        if (known := self.recorded.answers.get(prompt.slot)) is not None:
            return self._answer_from_record(prompt, known)
        text, error, effort = "", _too_long(prompt), Effort(time.perf_counter())
        if error is None:
            try:
                text = await self._complete(prompt, effort)
            except Exception as failure:
                if self.ledger.broken is not None or isinstance(failure, TimeoutExceededError):
                    given_up += _given_up(prompt, effort)
                    self.on_limit()
                    raise
                error = str(failure) if isinstance(failure, RLMError) else f"{type(failure).__name__}: {failure}"
            except BaseException:
                given_up += _given_up(prompt, effort)
                raise
        self.emit(
            SubcallAnswered,
            cell=prompt.cell,
            query=prompt.query.id,
            index=prompt.index,
            model=prompt.lm.model,
            prompt=prompt.text,
            text=text,
            error=error,
            usage=effort.usage,
            seconds=time.perf_counter() - effort.started,
            attempts=effort.attempts,
            said=effort.said,
        )
        return Answer(text, error)

    def _answer_from_record(self, prompt: SubcallPrompt, known: RecordedAnswer) -> Answer:
        """What an earlier run was answered, told again under the id that the call has now."""
        query, index = prompt.query.id, prompt.index
        for event in known.before:
            self.emit.again(replace(event, query=query, index=index))
        self.emit.again(replace(known.answered, query=query, index=index, prompt=prompt.text))
        for model, usage in known.spending:
            self.ledger.count(model, usage, self.usage)
        return known.answer

    def _starts_children(self, query: Query) -> bool:
        return query.kind == "rlm_query" and self.start_child is not None

    def _check_images(self, query: Query, lm: BaseLM) -> None:
        """Refuse pictures that nobody would look at.

        Raises:
            ValueError: who takes none, and what to do.
        """
        if query.images and self._starts_children(query):
            raise ValueError("rlm_query takes no images: ask about them with llm_query")
        if query.images and not lm.takes_images:
            seeing = ", ".join(repr(other.model) for other in self.models.all if other.takes_images)
            do = f"name one that does, model= one of {seeing}" if seeing else "describe what they show in the prompt"
            raise ValueError(f"the backend {lm.backend!r} takes no images for its model {lm.model!r}: {do}")

    async def _complete(self, prompt: SubcallPrompt, effort: Effort) -> str:
        """The answer; with a schema as JSON."""
        if self.start_child is not None and self._starts_children(prompt.query):
            async with self._sibling_turn, self.child_turn():
                effort.started = time.perf_counter()
                completion = await self.start_child(prompt)
            effort.add(completion.usage_summary.total)
            return completion.response
        if prompt.schema is None:
            return (await self._ask_model(prompt, effort)).text

        def rejected(reply: Reply, misfit: MisfitError) -> None:
            where = {"cell": prompt.cell, "query": prompt.query.id, "index": prompt.index}
            self.emit(SubcallRejected, **where, attempt=effort.attempts, reply=reply, problems=misfit.problems)

        fitting = await ask_with_repairs(lambda added: self._ask_model(prompt, effort, added), prompt.schema, rejected)
        effort.said = fitting.reply.text
        return fitting.text

    async def _ask_model(self, prompt: SubcallPrompt, effort: Effort, added: Sequence[Message] = ()) -> Reply:
        """One call, on the ledger; in its place a reply on record that did not fit, if there is one."""
        if known := self.recorded.rejected.get(prompt.slot):
            reply = known.popleft()
            self.ledger.count(prompt.lm.model, reply.usage, self.usage)
            effort.add(reply.usage)
            return reply

        def on_turn() -> None:
            if not effort.attempts:
                effort.started = time.perf_counter()

        receipt = Receipt()
        try:
            async with self.ledger.turn:
                reply = await billing.ask(
                    prompt.lm,
                    [prompt.message, *added],
                    prompt.schema,
                    max_tokens=self.reply_tokens,
                    ledger=self.ledger,
                    meter=self.usage,
                    receipt=receipt,
                    on_turn=on_turn,
                )
        except BaseException:
            effort.give_up(receipt.usage)
            raise
        effort.add(reply.usage)
        return reply


def _given_up(prompt: SubcallPrompt, effort: Effort) -> list[tuple[str, Usage]]:
    return [] if effort.given_up is None else [(prompt.lm.model, effort.given_up)]


def _too_long(prompt: SubcallPrompt) -> str | None:
    tokens, window = len(prompt.text) // CHARACTERS_PER_TOKEN, prompt.lm.context_window
    if prompt.query.kind == "rlm_query" or window is None or tokens < window:
        return None
    return (
        f"the prompt has {len(prompt.text):,} characters, at least {tokens:,} tokens, and the window of "
        f"{prompt.lm.model} is {window:,} tokens. Split it into smaller prompts."
    )
