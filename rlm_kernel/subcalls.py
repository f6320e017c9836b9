"""Answer the sub-calls of a cell with language models: which model, how many at a time, and what it cost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rlm_kernel.clients.lm import LM
from rlm_kernel.errors import LimitError, LMError
from rlm_kernel.limits import Ledger
from rlm_kernel.plan import Models
from rlm_kernel.records import Answer, Message, Query, Usage
from rlm_kernel.together import together
from rlm_kernel.trajectory.events import SubcallAnswered, SubcallFinished, SubcallStarted

CHARACTERS_PER_TOKEN = 5
"""A low estimate of a prompt's tokens: a prompt is refused unsent only when it is beyond doubt too long."""

Emit = Callable[..., None]


@dataclass(slots=True)
class SubCalls:
    """The `Responder` of a run. `rlm_query` is answered like `llm_query`: by a plain call.

    Attributes:
        models: who can be asked.
        ledger: counts every call and keeps the limits.
        emit: tells the readers of the run.
        reply_tokens: the longest answer.
        most_at_once: how many calls may be in flight.
        on_limit: called when a limit of the run is reached, to end the cell that asks.
        cell: the number of the running cell, kept by the engine.
    """

    models: Models
    ledger: Ledger
    emit: Emit
    reply_tokens: int
    most_at_once: int
    on_limit: Callable[[], None]
    cell: int = 0
    _turn: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._turn = asyncio.Semaphore(self.most_at_once)

    async def answer(self, query: Query) -> Sequence[Answer]:
        """The answers of a query's prompts, in order; at most `most_at_once` calls are in flight over all queries."""
        lm, cell, started = self.models.named(query.model), self.cell, time.perf_counter()
        if lm is None:
            known = ", ".join(map(repr, self.models.names))
            return [Answer(error=f"there is no model {query.model!r}. Known: {known}.")] * len(query.prompts)
        self.emit(
            SubcallStarted,
            cell=cell,
            query=query.id,
            kind=query.kind,
            model=lm.model,
            count=len(query.prompts),
        )
        answers: list[Answer] = [Answer(error="cancelled")] * len(query.prompts)
        places = iter(enumerate(query.prompts))

        async def work() -> None:
            for index, prompt in places:
                answers[index] = await self._ask(lm, query.id, cell, index, prompt)

        workers = min(self.most_at_once, len(query.prompts))
        try:
            await (work() if workers == 1 else together(*(work() for _ in range(workers))))
        finally:
            failed = sum(answer.error is not None for answer in answers)
            seconds = time.perf_counter() - started
            self.emit(SubcallFinished, cell=cell, query=query.id, failed=failed, seconds=seconds)
        return answers

    async def _ask(self, lm: LM, query: str, cell: int, index: int, prompt: str) -> Answer:
        text, error, usage, started = "", self._too_long(lm, prompt), Usage(), time.perf_counter()
        if error is None:
            async with self._turn:
                started = time.perf_counter()
                messages: list[Message] = [{"role": "user", "content": prompt}]
                try:
                    async with self.ledger.call(lm.model) as receipt:
                        reply = await lm.complete(messages, max_tokens=self.reply_tokens)
                        text, usage = reply.text, reply.usage
                        receipt.usage = usage
                except LMError as failure:
                    error = str(failure)
                except LimitError:
                    self.on_limit()
                    raise
        self.emit(
            SubcallAnswered,
            cell=cell,
            query=query,
            index=index,
            model=lm.model,
            prompt=prompt,
            text=text,
            error=error,
            usage=usage,
            seconds=time.perf_counter() - started,
        )
        return Answer(text, error)

    def _too_long(self, lm: LM, prompt: str) -> str | None:
        tokens = len(prompt) // CHARACTERS_PER_TOKEN
        if lm.context_window is None or tokens < lm.context_window:
            return None
        return (
            f"the prompt has {len(prompt):,} characters, at least {tokens:,} tokens, and the window of {lm.model} is "
            f"{lm.context_window:,} tokens. Split it into smaller prompts."
        )
