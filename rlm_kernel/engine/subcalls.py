"""Answer the sub-calls of a cell with language models: select the model, limit concurrency, count usage."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from rlm_kernel._async import gather_or_cancel, process
from rlm_kernel.clients.base import BaseLM
from rlm_kernel.clients.non_answers import WITHHELD, answer_of
from rlm_kernel.engine.agent_tools import OWN_NAMES
from rlm_kernel.engine.billing import ModelCalls
from rlm_kernel.engine.config import Models
from rlm_kernel.engine.gates import NO_GATES, Gates, Refuse, Replace, ToolRequest
from rlm_kernel.engine.recorded import UNKNOWN_MODEL, UNKNOWN_PRICE, RecordedAnswer, RecordedRun, counted_prompts
from rlm_kernel.engine.tools import Tool, tool_called
from rlm_kernel.errors import SHOWN_CHARACTERS, ConfigError, RLMError, TimeoutExceededError
from rlm_kernel.schema.answer_schema import Repairs, Schema
from rlm_kernel.schema.validation import MisfitError
from rlm_kernel.text import clip
from rlm_kernel.trajectory.emitter import Emitter
from rlm_kernel.trajectory.events import (
    Notice,
    SubcallAnswered,
    SubcallFinished,
    SubcallRejected,
    SubcallStarted,
    ToolCalled,
)
from rlm_kernel.trajectory.tree import Cell
from rlm_kernel.types import Answer, Message, Query, Reply, RLMChatCompletion, Slot, ToolCall, Usage

CHARACTERS_PER_TOKEN = 5
"""A low estimate of a prompt's tokens: a prompt is refused without a call only if it is certainly too long."""

NO_CALL_LEFT = "no sub-call is left (max_calls): answer with what you have"


@dataclass(frozen=True, slots=True)
class SubcallPrompt:
    """One prompt of a query.

    Attributes:
        query: the call it belongs to.
        index: its index in the call.
        lm: the model that answers.
        schema: what the answer has to fit, or None.
    """

    query: Query
    index: int
    lm: BaseLM
    schema: Schema | None = None

    @property
    def slot(self) -> Slot:
        """The place of its answer in the record."""
        return self.query.slots[self.index]

    @property
    def text(self) -> str:
        """The prompt itself."""
        return self.query.prompts[self.index]

    @property
    def message(self) -> Message:
        """The message to the model."""
        plain: Message = {"role": "user", "content": self.text}
        return {**plain, "images": self.query.images} if self.query.images else plain


@dataclass(slots=True)
class Attempts:
    """The model calls for one prompt so far.

    Attributes:
        started: when the first one was admitted, in seconds of `time.perf_counter`.
        usage: of all replies together.
        count: the number of replies.
        raw_text: the reply that contains a structured answer, or None.
        given_up: the usage that was counted for a call without a reply, or None.
    """

    started: float
    usage: Usage = field(default_factory=Usage)
    count: int = 0
    raw_text: str | None = None
    given_up: Usage | None = None

    def add(self, usage: Usage) -> None:
        """Count one more reply, or all replies of a child."""
        self.usage = self.usage.plus(usage) if self.count else usage
        self.count += 1

    def give_up(self, usage: Usage | None) -> None:
        """Count a call without a reply. None: it was refused, or not sent."""
        self.given_up = usage
        if usage is not None:
            self.add(usage)


StartChild = Callable[[SubcallPrompt], Awaitable[RLMChatCompletion]]
"""Answers the prompt of an `rlm_query` with a child RLM."""


@dataclass(slots=True)
class SubCalls:
    """The `Responder` of a run. Its questions must have their slots.

    Attributes:
        models: the models that can be called.
        calls: calls them and counts their usage.
        emit: emits the events of the run.
        reply_tokens: the longest answer of a plain call.
        max_children: the maximum of concurrent children.
        child_turn: held by a child from before the start of its kernel until its end.
        start_child: answers `rlm_query`; None at the maximum depth, where it is answered like `llm_query`.
        on_limit: called when a limit of the tree is reached, to end the running cell.
        tools: the functions on the host that a cell may call, by name.
        budget: the function behind `budget()`; a custom tool may have the same name.
        gates: decide about the calls that are not on record.
        recorded: the answers of an earlier run, which are used again.
    """

    models: Models
    calls: ModelCalls
    emit: Emitter
    reply_tokens: int | None
    max_children: int
    child_turn: Callable[[], AbstractAsyncContextManager[None]]
    start_child: StartChild | None
    on_limit: Callable[[], None]
    tools: Mapping[str, Tool]
    budget: Tool
    gates: Gates = NO_GATES
    recorded: RecordedRun = field(default_factory=RecordedRun)
    _sibling_turn: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._sibling_turn = asyncio.Semaphore(self.max_children)

    def relive(self, cell: Cell) -> None:
        """Emit the events of a cell that ended in an earlier run again, and count what it cost."""
        for event in cell.recorded_events():
            self.emit(replace(event))
        for model, usage in cell.spending():
            self.calls.count(model, usage)
        self.calls.ledger.count_calls(counted_prompts(cell))

    async def answer(self, question: Query | ToolCall) -> Sequence[Answer]:
        """The answers of a query's prompts, in order, or what a tool returned."""
        if isinstance(question, ToolCall):
            return [await self._call_tool(question)]
        cell, started = question.slots[0].cell, time.perf_counter()
        lm, why = self._model_for(question)
        self._announce(question, lm)  # before the first await: the record keeps the order of the questions
        if lm is None:
            return self._answer_without_model(question, Answer(error=why))
        try:
            self._check_images(question, lm)
            schema = None if question.schema is None else await asyncio.to_thread(Schema.of, question.schema)
        except (TypeError, ValueError) as error:
            return self._answer_without_model(question, Answer(error=str(error), refused=True))
        if (instead := await self._instead_of(question)) is not None:
            return self._answer_without_model(question, *instead)
        prompts = [SubcallPrompt(question, index, lm, schema) for index in range(len(question.prompts))]
        answers = [Answer(error="cancelled")] * len(prompts)
        given_up: list[tuple[str, Usage]] = []
        try:
            if len(prompts) == 1:
                answers[0] = await self._ask(prompts[0], given_up)
            else:
                await self._ask_all(prompts, answers, given_up)
        finally:
            failed = sum(answer.error is not None for answer in answers)
            seconds = time.perf_counter() - started
            self.emit(
                SubcallFinished(cell=cell, query=question.id, failed=failed, seconds=seconds, given_up=tuple(given_up))
            )
        return answers

    async def _call_tool(self, call: ToolCall) -> Answer:
        tool = tool_called({"budget": self.budget, **self.tools}, call.tool)
        slot, started = call.slots[0], time.perf_counter()
        if (known := self.recorded.outcomes.get(slot)) is not None:
            outcome = known
        elif tool is None:
            return Answer(error=json.dumps(["NameError", f"there is no tool {call.tool!r}"]))
        else:
            outcome = await self._outcome(tool, call)
        seconds = time.perf_counter() - started
        cell, key, occurrence = slot
        self.emit(ToolCalled(cell=cell, call=call, outcome=outcome, seconds=seconds, key=key, occurrence=occurrence))
        return outcome

    async def _outcome(self, tool: Tool, call: ToolCall) -> Answer:
        """What a call of a tool leads to: its result, or what `on_tool` decides."""
        own = call.tool in OWN_NAMES or tool is self.budget
        request = ToolRequest(call.tool, tuple(call.args), dict(call.kwargs))
        with self._ending_the_run():
            decided = None if own else await self.gates.tool(request)
        match decided:
            case Refuse(reason):
                self.emit(Notice(message=f"A call of {call.tool} was refused: {reason}"))
                return Answer(error=json.dumps(["PermissionError", f"the user refused this call: {reason}"]))
            case Replace(value):
                self.emit(Notice(message=f"The result of a call of {call.tool} was given by the user."))
                return await tool.given(value, call)
        if (refusal := await self._not_approved(tool, call)) is not None:
            return refusal
        async with self.calls.ledger.tool_turn:
            return await tool.call(call)

    async def _not_approved(self, tool: Tool, call: ToolCall) -> Answer | None:
        """The answer to a call that must not happen; None: it may.

        A call that cannot be shown to who decides does not happen: a moment later the server may have such a function.
        """
        try:
            asked = tool.approval(call)
        except (AttributeError, TypeError, ValueError) as error:
            return Answer(error=json.dumps([type(error).__name__, str(error)]))
        if asked is None:
            return None
        with self._ending_the_run():
            why = await self.gates.approvals.why_not(asked)
        if not why:
            return None
        self.emit(Notice(message=f"A call of {call.tool} was refused: {why}"))
        return Answer(error=json.dumps(["PermissionError", f"{call.tool} was not called: {why}."]))

    async def _instead_of(self, query: Query) -> list[Answer] | None:
        """The answers of a sub-call that `on_tool` refused or gave; None: it happens. Answers on record are used."""
        if self._is_on_record(query):
            return None
        named = {} if query.model is None else {"model": query.model}
        with self._ending_the_run():
            decided = await self.gates.tool(ToolRequest(query.kind, query.prompts, named))
            given = _texts(decided.value, query) if isinstance(decided, Replace) else []
        if isinstance(decided, Refuse):
            self.emit(Notice(message=f"A call of {query.kind} was refused: {decided.reason}"))
            return [Answer(error=f"the user refused this call: {decided.reason}", refused=True)] * len(query.prompts)
        if decided is not None:
            self.emit(Notice(message=f"The answer to a call of {query.kind} was given by the user."))
        return [Answer(text) for text in given] or None

    @contextmanager
    def _ending_the_run(self) -> Iterator[None]:
        """An error of `on_tool` ends the run, and is not told to the cell."""
        try:
            yield
        except Exception as error:
            self.calls.ledger.broken = self.calls.ledger.broken or error
            self.on_limit()
            raise

    def _announce(self, query: Query, lm: BaseLM | None) -> None:
        self.emit(
            SubcallStarted(
                cell=query.slots[0].cell,
                query=query.id,
                kind=query.kind,
                model=lm.model if lm else clip(str(query.model), SHOWN_CHARACTERS),
                prompts=query.prompts,
                keys=tuple(slot.key for slot in query.slots),
                schema=query.schema,
                images=query.images,
            )
        )

    def _model_for(self, query: Query) -> tuple[BaseLM | None, str]:
        """The model that answers a query, or None and the reason."""
        try:
            if query.kind == "llm_query":
                lm = self.models.named(query.model)
            else:
                lm = self.models.for_child(query.model, has_repl=self._starts_children(query))
        except ConfigError as error:
            return None, str(error)
        known, named = ", ".join(map(repr, self.models.names)), repr(clip(str(query.model), SHOWN_CHARACTERS))
        if lm is None or lm in self.models.all or self._is_on_record(query) or self.calls.can_charge(lm):
            return lm, f"{UNKNOWN_MODEL} {named}. Known: {known}."
        return None, (
            f"{UNKNOWN_PRICE} {named} is unknown, so max_budget cannot count it. Known: {known}. The user can add it "
            "to other_backends, with its prices in other_backend_kwargs."
        )

    def _is_on_record(self, query: Query) -> bool:
        return all(slot in self.recorded.answers for slot in query.slots)

    def _check_images(self, query: Query, lm: BaseLM) -> None:
        """Refuse images that the model cannot read.

        Raises:
            ValueError: the model takes no images; the message says what to do.
        """
        if query.images and self._starts_children(query):
            raise ValueError("rlm_query takes no images: ask about them with llm_query")
        if query.images and not lm.takes_images:
            seeing = ", ".join(repr(other.model) for other in self.models.all if other.takes_images)
            do = f"name one that does, model= one of {seeing}" if seeing else "describe what they show in the prompt"
            raise ValueError(f"the backend {lm.backend!r} takes no images for its model {lm.model!r}: {do}")

    async def _ask_all(
        self, prompts: Sequence[SubcallPrompt], answers: list[Answer], given_up: list[tuple[str, Usage]]
    ) -> None:
        """Put the answers of a batch into `answers`, in order."""
        todo = iter(prompts)

        async def work() -> None:
            for prompt in todo:
                answers[prompt.index] = await self._ask(prompt, given_up)

        # No more workers than concurrent calls: waiting workers cost more than the calls.
        turns = self.max_children if self._starts_children(prompts[0].query) else self.calls.ledger.max_queries
        await gather_or_cancel(*(work() for _ in range(min(turns, len(prompts)))))

    def _answer_without_model(self, query: Query, answer: Answer, *more: Answer) -> list[Answer]:
        """Answer a call without a model. It is recorded, because a replay has to give the same answer.

        Args:
            query: the call.
            answer: to each prompt, or to the first one.
            more: to the others.
        """
        model = clip(query.model or self.models.default.model, SHOWN_CHARACTERS)
        answers = [answer, *more] if more else [answer] * len(query.prompts)
        for index, one in enumerate(answers):
            self._emit_answer(query, index, model, one, Attempts(time.perf_counter()))
        failed = sum(one.error is not None for one in answers)
        self.emit(SubcallFinished(cell=query.slots[0].cell, query=query.id, failed=failed, seconds=0.0))
        return answers

    async def _ask(self, prompt: SubcallPrompt, given_up: list[tuple[str, Usage]]) -> Answer:
        """The answer of a prompt. If the run ends before it, the usage of its call is added to `given_up`."""
        if (known := self.recorded.answers.get(prompt.slot)) is not None:
            return self._answer_from_record(prompt, known)
        is_admitted = self.calls.ledger.take_call()
        text, attempts = "", Attempts(time.perf_counter())
        error = _too_long(prompt) if is_admitted else NO_CALL_LEFT
        try:
            if error is None:
                is_child = self._starts_children(prompt.query)
                text = await (self._ask_child(prompt, attempts) if is_child else self._ask_model(prompt, attempts))
        except BaseException as failure:
            is_limit = self.calls.ledger.broken is not None or isinstance(failure, TimeoutExceededError)
            if is_limit or not isinstance(failure, Exception):
                given_up += [] if attempts.given_up is None else [(prompt.lm.model, attempts.given_up)]
                if isinstance(failure, Exception):
                    self.on_limit()
                raise
            error = str(failure) if isinstance(failure, RLMError) else f"{type(failure).__name__}: {failure}"
            text = (failure.partial_answer or "") if isinstance(failure, RLMError) else ""
        return self._emit_answer(prompt.query, prompt.index, prompt.lm.model, Answer(text, error), attempts)

    def _emit_answer(self, query: Query, index: int, model: str, answer: Answer, attempts: Attempts) -> Answer:
        self.emit(
            SubcallAnswered(
                cell=query.slots[index].cell,
                query=query.id,
                index=index,
                model=model,
                prompt=query.prompts[index],
                text=answer.text,
                error=answer.error,
                usage=attempts.usage,
                seconds=time.perf_counter() - attempts.started,
                attempts=attempts.count,
                raw_text=attempts.raw_text,
                refused=answer.refused,
            )
        )
        return answer

    def _answer_from_record(self, prompt: SubcallPrompt, known: RecordedAnswer) -> Answer:
        """The answer of an earlier run. Its events are emitted again with the new id of the call."""
        query, index = prompt.query.id, prompt.index
        for event in known.before:
            self.emit(replace(event, query=query, index=index))
        self.emit(replace(known.answered, query=query, index=index, prompt=prompt.text))
        for model, usage in known.spending:
            self.calls.count(model, usage)
        self.calls.ledger.count_calls(known.prompts)
        return known.answer

    def _starts_children(self, query: Query) -> bool:
        return query.kind == "rlm_query" and self.start_child is not None

    async def _ask_child(self, prompt: SubcallPrompt, attempts: Attempts) -> str:
        """The answer of a child; with a schema as JSON."""
        assert self.start_child is not None, "see _starts_children"
        async with self._sibling_turn, self.child_turn():
            attempts.started = time.perf_counter()
            completion = await self.start_child(prompt)
        attempts.add(completion.usage_summary.total)
        return completion.response

    async def _ask_model(self, prompt: SubcallPrompt, attempts: Attempts) -> str:
        """The answer of a model; with a schema as JSON. Recorded replies that did not fit are used again."""

        def on_turn() -> None:
            if not attempts.count:
                attempts.started = time.perf_counter()

        def on_misfit(reply: Reply, misfit: MisfitError) -> None:
            self.emit(
                SubcallRejected(
                    cell=prompt.slot.cell,
                    query=prompt.query.id,
                    index=prompt.index,
                    attempt=attempts.count,
                    reply=reply,
                    problems=misfit.problems,
                )
            )

        repairs, rejected = Repairs(prompt.schema, on_misfit), self.recorded.rejected.get(prompt.slot)
        while True:
            reply = await self.calls.ask(
                prompt.lm,
                [prompt.message, *repairs.added],
                prompt.schema,
                max_tokens=self.reply_tokens,
                recorded=rejected.popleft() if rejected else None,
                turn=self.calls.ledger.turn,
                on_turn=on_turn,
                on_failure=attempts.give_up,
            )
            attempts.add(reply.usage)
            if prompt.schema is None or reply.finish_reason in WITHHELD:
                return await process(len(reply.text), partial(answer_of, reply, prompt.lm.backend))
            if (text := await repairs.read(reply)) is not None:
                attempts.raw_text = reply.text
                return text


def _texts(value: Any, query: Query) -> list[str]:
    """The answers that `on_tool` gave, as a model would have written them.

    Raises:
        ConfigError: it is not one answer, or one for each prompt.
    """
    answers = value if isinstance(value, list) and len(query.prompts) > 1 else [value] * len(query.prompts)
    if len(answers) != len(query.prompts):
        raise ConfigError(f"on_tool: Replace has {len(answers)} answers, and the call {len(query.prompts)} prompts.")
    if query.schema is None and all(isinstance(answer, str) for answer in answers):
        return answers
    try:
        return [json.dumps(answer) for answer in answers]
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"on_tool: Replace(value) takes plain data: {error}.") from error


def _too_long(prompt: SubcallPrompt) -> str | None:
    tokens, window = len(prompt.text) // CHARACTERS_PER_TOKEN, prompt.lm.context_window
    if prompt.query.kind == "rlm_query" or window is None or tokens < window:
        return None
    return (
        f"the prompt has {len(prompt.text):,} characters, at least {tokens:,} tokens, and the window of "
        f"{prompt.lm.model} is {window:,} tokens. Split it into smaller prompts."
    )
