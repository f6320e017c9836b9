"""The driver's end: it admits the calls of all workers with one `SharedLimits`."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from rlm_kernel._async import CLEANUP_SECONDS, start_in_thread
from rlm_kernel.batch.engines import messages
from rlm_kernel.batch.engines.messages import Link, Outbox
from rlm_kernel.batch.engines.records import Records
from rlm_kernel.clients.estimates import Bound
from rlm_kernel.clients.rate_limits import RateSeen
from rlm_kernel.clients.requests_sent import RequestsSent
from rlm_kernel.engine.budget import Receipt
from rlm_kernel.engine.shared_limits import Admission, SharedLimits
from rlm_kernel.errors import LimitError
from rlm_kernel.types import Usage, UsageMeter, UsageSummary

BEAT_SECONDS = 15
"""Between two signs of life to each worker."""
LAST_MESSAGES_SECONDS = 30
"""How long a result waits for the last messages of its worker, at most."""


@dataclass(slots=True)
class _Model:
    """The model of a call, as `SharedLimits` reads it."""

    model: str
    rate_seen: RateSeen | None


@dataclass(slots=True)
class _Call:
    """A call of a worker.

    Attributes:
        task: asks it.
        settled: how it ended.
        work: admits and counts it.
        admitted: whether it was.
        lost: earlier requests of it that may be charged.
    """

    task: str
    settled: asyncio.Future[messages.Settled]
    work: asyncio.Task[None] | None = None
    admitted: bool = False
    lost: int = 0

    def take(self, message: messages.Repeated | messages.Settled) -> None:
        """Take a message of the worker about it."""
        if isinstance(message, messages.Repeated):
            self.lost = message.lost
        elif self.settled.done():  # it was given up
            return
        elif self.admitted:
            self.settled.set_result(message)
        else:
            self.drop()

    def drop(self) -> None:
        """Its end will not be seen."""
        if self.work is not None:
            self.work.cancel()


class Admissions:
    """Admits the calls of the workers of a batch. Used in the engine's loop.

    A call whose worker is lost is counted by its upper bound, as any call whose end is not seen.

    Args:
        shared: the limits.
        records: the folder of the logs, or None.

    Attributes:
        limits: those that count the recorded calls of a task, by its id; `shared` counts them for others.
    """

    def __init__(self, shared: SharedLimits, records: Records | None) -> None:
        self._shared, self._records = shared, records
        self.limits: dict[str, Admission] = {}
        self._outboxes: set[Outbox] = set()
        self._calls: dict[tuple[Outbox, int], _Call] = {}
        self._is_closing = False
        self._ended: set[str] = set()
        self._counted: dict[str, Counter[tuple[str, Usage]]] = defaultdict(Counter)
        self._lost: dict[str, list[tuple[str, Usage]]] = defaultdict(list)
        self._again: dict[str, Counter[tuple[str, Usage]]] = {}
        self._changed = asyncio.Event()

    async def serve(self, link: Link) -> None:
        """Serve a worker until it is gone."""
        outbox = Outbox(link)
        outbox.put(messages.Close() if self._is_closing else messages.StillHere())
        self._outboxes.add(outbox)
        beat = asyncio.ensure_future(_beat(outbox))
        try:
            while True:
                for message in await messages.receive(link):
                    if isinstance(message, messages.Closed):
                        return
                    self._take(message, outbox)
        except EOFError:
            return
        finally:
            beat.cancel()
            self._outboxes.discard(outbox)
            self._changed.set()
            outbox.close()

    async def close(self) -> None:
        """Stop all runs, and wait for the end of their kernels, `CLEANUP_SECONDS` at most."""
        self._is_closing = True
        for outbox in self._outboxes:
            outbox.put(messages.Close())
        with suppress(TimeoutError):
            async with asyncio.timeout(CLEANUP_SECONDS):
                while self._outboxes:
                    await self._next_change()
        for call in self._calls.values():
            call.drop()

    def lose(self) -> None:
        """No further message comes: the engine is lost."""
        self._is_closing = True
        self._changed.set()

    async def finish(self, task: str, *, has_ended: bool) -> UsageSummary:
        """Forget a task that has its result, and return what all its tries used, calls of lost workers included.

        Args:
            task: the task.
            has_ended: whether its worker has said so, or will: its last messages may come later than its result.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_MESSAGES_SECONDS):
                while has_ended and task not in self._ended and not self._is_closing:
                    await self._next_change()
        await self._drop_calls(task)
        self._ended.discard(task)
        self._lost.pop(task, None)
        self._again.pop(task, None)
        self.limits.pop(task, None)
        if self._records is not None:
            self._records.forget(task)
        meter = UsageMeter()
        for (model, usage), times in self._counted.pop(task, {}).items():
            for _ in range(times):
                meter.add(model, usage)
        return meter.summary()

    async def _next_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _take(self, message: object, outbox: Outbox) -> None:
        match message:
            case messages.Ask():
                self._ask(message, outbox)
            case messages.Repeated(call=number) | messages.Settled(call=number):
                if (call := self._calls.get((outbox, number))) is not None:
                    call.take(message)
            case messages.Counted(task=task, model=model, usage=usage):
                self._count(task, model, usage)
            case messages.FilePart() if self._records is not None:
                self._records.take(message)
            case messages.Fetch(call=call, name=name) if self._records is not None:
                fetched = start_in_thread(partial(self._records.earlier, name))
                answer = asyncio.wrap_future(fetched)
                answer.add_done_callback(lambda done: outbox.put(messages.Answer(call, records=done.result())))
            case messages.Started(task=task):
                self._ended.discard(task)
                self._drop_calls(task)
                self._again[task] = Counter(self._counted[task])
            case messages.Ended(task=task):
                self._ended.add(task)
                self._changed.set()

    def _ask(self, asked: messages.Ask, outbox: Outbox) -> None:
        key, call = (outbox, asked.call), _Call(asked.task, asyncio.get_running_loop().create_future())
        self._calls[key] = call
        call.work = asyncio.ensure_future(self._admit(asked, call, outbox))
        call.work.add_done_callback(lambda _: self._calls.pop(key, None))

    async def _admit(self, asked: messages.Ask, call: _Call, outbox: Outbox) -> None:
        """Admit a call and count it."""
        lm, receipt, price = _Model(asked.model, asked.seen), Receipt(), asked.price
        limit = Bound(*asked.tokens) if price is None else Bound(*asked.tokens, price)
        try:
            async with self._shared.call(lm, limit, receipt):
                call.admitted = True
                outbox.put(messages.Answer(asked.call))
                try:
                    end = await call.settled
                finally:
                    receipt.requests += call.lost  # counts if the end is not seen
                receipt.reply, receipt.sent = end.reply, RequestsSent(end.lost, counted=True)
                lm.rate_seen = end.seen or lm.rate_seen
        except LimitError as error:
            outbox.put(messages.Answer(asked.call, error))
        finally:
            if receipt.usage is not None:
                self._counted[asked.task][asked.model, receipt.usage] += 1
                if call.settled.cancelled():
                    self._lost[asked.task].append((asked.model, receipt.usage))

    def _drop_calls(self, task: str) -> asyncio.Future[Any]:
        """Give up the open calls of a task: its worker was lost. The result is done when they are counted."""
        dropped = [call for call in self._calls.values() if call.task == task]
        for call in dropped:
            call.drop()
        return asyncio.gather(*(call.work for call in dropped if call.work is not None), return_exceptions=True)

    def _count(self, task: str, model: str, usage: Usage) -> None:
        """Count a call on record, unless an earlier try of this batch counted it."""
        again = self._again.get(task, Counter())
        if again[model, usage] > 0:
            again[model, usage] -= 1
            return
        if (lost := self._lost_before(task, model, usage)) is not None:
            self._counted[task][model, lost] -= 1
            self._counted[task][model, usage] += 1
            return
        self._counted[task][model, usage] += 1
        self.limits.get(task, self._shared).count(model, usage)

    def _lost_before(self, task: str, model: str, usage: Usage) -> Usage | None:
        """What was counted for a call that is on record, although its worker was lost before it said so; or None."""
        tokens, lost = usage.input_tokens + usage.output_tokens, self._lost[task]
        bounds = [(one.input_tokens + one.output_tokens, index) for index, (of, one) in enumerate(lost) if of == model]
        found = min(((bound, index) for bound, index in bounds if bound >= tokens), default=None)
        return None if found is None else lost.pop(found[1])[1]


async def _beat(outbox: Outbox) -> None:
    while True:
        await asyncio.sleep(BEAT_SECONDS)
        outbox.put(messages.StillHere())
