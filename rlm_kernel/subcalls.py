"""Answer the sub-calls of a cell with language models: which model, how many at a time, and what it cost."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from rlm_kernel.clients.lm import LM
from rlm_kernel.errors import RLMError, TimeoutExceededError
from rlm_kernel.limits import Ledger
from rlm_kernel.plan import Models
from rlm_kernel.records import Answer, Message, Query, RLMChatCompletion, ToolCall, Usage
from rlm_kernel.together import together
from rlm_kernel.tools import Tool
from rlm_kernel.trajectory.events import SubcallAnswered, SubcallFinished, SubcallStarted, ToolCalled
from rlm_kernel.trajectory.stream import EventStream
from rlm_kernel.usage import UsageMeter

CHARACTERS_PER_TOKEN = 5
"""A low estimate of a prompt's tokens: a prompt is refused unsent only when it is beyond doubt too long."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt of a query, on its way to an answer.

    Attributes:
        cell: the number of the cell that asked.
        query: the call it belongs to.
        index: its place in the call.
        lm: the model that answers.
    """

    cell: int
    query: Query
    index: int
    lm: LM

    @property
    def text(self) -> str:
        """The words."""
        return self.query.prompts[self.index]


StartChild = Callable[[Prompt], Awaitable[RLMChatCompletion]]
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
        most_children: how many children may run at a time.
        start_child: answers `rlm_query`; None where the depth is used up, then it is answered like `llm_query`.
        on_limit: called when a limit of the tree is reached, to end the cell that asks.
        tools: the functions on the host that a cell may call, by name.
        cell: the number of the running cell, kept by the REPL.
    """

    models: Models
    ledger: Ledger
    usage: UsageMeter
    emit: EventStream
    reply_tokens: int
    most_children: int
    start_child: StartChild | None
    on_limit: Callable[[], None]
    tools: Mapping[str, Tool]
    cell: int = 0
    _child_turn: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._child_turn = asyncio.Semaphore(self.most_children)

    async def answer(self, query: Query | ToolCall) -> Sequence[Answer]:
        """The answers of a query's prompts, in order, or what a tool returned."""
        return [await self._call(query)] if isinstance(query, ToolCall) else await self._query(query)

    async def _call(self, call: ToolCall) -> Answer:
        tool, started = self.tools.get(call.tool), time.perf_counter()
        if tool is None:
            return Answer(error=json.dumps(["NameError", f"there is no tool {call.tool!r}"]))
        cell, outcome = self.cell, await tool.call(call)
        self.emit(ToolCalled, cell=cell, call=call, outcome=outcome, seconds=time.perf_counter() - started)
        return outcome

    async def _query(self, query: Query) -> Sequence[Answer]:
        lm, cell, started = self.models.named(query.model), self.cell, time.perf_counter()
        count = len(query.prompts)
        if lm is None:
            known = ", ".join(map(repr, self.models.names))
            return [Answer(error=f"there is no model {query.model!r}. Known: {known}.")] * count
        self.emit(SubcallStarted, cell=cell, query=query.id, kind=query.kind, model=lm.model, prompts=query.prompts)
        answers = [Answer(error="cancelled")] * count
        todo = iter(range(count))

        async def work() -> None:
            for index in todo:
                answers[index] = await self._ask(Prompt(cell, query, index, lm))

        # No more workers than turns: those that wait for one cost more than the calls.
        turns = self.most_children if self._starts_children(query) else self.ledger.most_queries
        try:
            await together(*(work() for _ in range(min(turns, count))))
        finally:
            failed = sum(answer.error is not None for answer in answers)
            seconds = time.perf_counter() - started
            self.emit(SubcallFinished, cell=cell, query=query.id, failed=failed, seconds=seconds)
        return answers

    async def _ask(self, prompt: Prompt) -> Answer:
        text, error, usage, started = "", _too_long(prompt), Usage(), time.perf_counter()
        if error is None:
            try:
                text, usage, started = await self._complete(prompt)
            except RLMError as failure:
                if self.ledger.broken is not None or isinstance(failure, TimeoutExceededError):
                    self.on_limit()
                    raise
                error = str(failure)
        self.emit(
            SubcallAnswered,
            cell=prompt.cell,
            query=prompt.query.id,
            index=prompt.index,
            model=prompt.lm.model,
            prompt=prompt.text,
            text=text,
            error=error,
            usage=usage,
            seconds=time.perf_counter() - started,
        )
        return Answer(text, error)

    def _starts_children(self, query: Query) -> bool:
        return query.kind == "rlm_query" and self.start_child is not None

    async def _complete(self, prompt: Prompt) -> tuple[str, Usage, float]:
        """The answer, what it cost, and when its turn came."""
        if self.start_child is not None and self._starts_children(prompt.query):
            async with self._child_turn:
                started = time.perf_counter()
                completion = await self.start_child(prompt)
            return completion.response, completion.usage_summary.total, started
        messages: list[Message] = [{"role": "user", "content": prompt.text}]
        async with self.ledger.turn, self.ledger.call(prompt.lm.model, self.usage) as receipt:
            started = time.perf_counter()
            reply = await prompt.lm.complete(messages, max_tokens=self.reply_tokens)
            receipt.usage = reply.usage
        return reply.text, reply.usage, started


def _too_long(prompt: Prompt) -> str | None:
    tokens, window = len(prompt.text) // CHARACTERS_PER_TOKEN, prompt.lm.context_window
    if prompt.query.kind == "rlm_query" or window is None or tokens < window:
        return None
    return (
        f"the prompt has {len(prompt.text):,} characters, at least {tokens:,} tokens, and the window of "
        f"{prompt.lm.model} is {window:,} tokens. Split it into smaller prompts."
    )
