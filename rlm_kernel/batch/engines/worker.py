"""A worker's end: runs tasks in the engine's loop of its process, with one `RLM` for all tasks of a batch."""

from __future__ import annotations

import asyncio
import itertools
import os
import pickle
import platform
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlm_kernel._async import Job
from rlm_kernel.batch.engines import messages
from rlm_kernel.batch.engines.messages import Address, Link, LinkLostError, Outbox
from rlm_kernel.batch.engines.records import Home, MakeLogger, has_proof, write_signed
from rlm_kernel.batch.results import TaskResult
from rlm_kernel.batch.runs import LocalRuns, Start, log_name
from rlm_kernel.batch.tasks import Task
from rlm_kernel.clients.base import BaseLM
from rlm_kernel.clients.estimates import Bound
from rlm_kernel.clients.rate_limits import RateSeen
from rlm_kernel.engine.budget import Receipt
from rlm_kernel.errors import ConfigError, LMError, RLMError
from rlm_kernel.trajectory.log.file_names import RECORD
from rlm_kernel.trajectory.log.logger import RLMLogger
from rlm_kernel.types import Reply, Usage


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a worker needs to run tasks of a batch. It holds no keys: they are in the environment of the worker.

    Attributes:
        batch: an id.
        logs_of: the name of the batch for its logs.
        make: makes the `RLM`, pickled; returns what starts a completion.
        configuration: its arguments, for the logs.
        log_dir: the folder of the logs, or None.
        counts_dollars: whether the batch has a budget.
        is_limited: whether it has any limit, so that other workers wait for the end of a call.
        address: of the driver.
    """

    batch: str
    logs_of: str
    make: bytes
    configuration: Mapping[str, Any]
    log_dir: Path | None
    counts_dollars: bool
    is_limited: bool
    address: Address


Outcome = tuple[TaskResult, BaseException | None]
"""The result of a task, and the error after which no further task is worth a try."""


def run(assignment: Assignment, task: Task, digest: str) -> Outcome:
    """Run a task; for executors that block a thread or a process for each."""
    return Job(_run(assignment, task, digest)).wait()


async def run_async(assignment: Assignment, task: Task, digest: str) -> Outcome:
    """Run a task; for executors that run coroutines."""
    return await Job(_run(assignment, task, digest)).wait_async()


_ENDED = "The batch has ended, or its driver is gone."

_workers: dict[str, asyncio.Task[Worker]] = {}
"""The batches of this process, by id. Used in the engine's loop."""
_ended: deque[str] = deque(maxlen=100)
"""Batches that have ended. An executor may still start one of their tasks."""


async def _run(assignment: Assignment, task: Task, digest: str) -> Outcome:
    if assignment.batch in _ended:
        raise RLMError(_ENDED)
    opening = _workers.get(assignment.batch)
    if opening is None:
        opening = _workers[assignment.batch] = asyncio.ensure_future(_open(assignment))
    try:
        worker = await asyncio.shield(opening)
    except Exception:
        _workers.pop(assignment.batch, None)  # the next task tries again
        raise
    return await worker.run(task, digest)


async def _open(assignment: Assignment) -> Worker:
    try:
        start = await asyncio.to_thread(pickle.loads(assignment.make))  # noqa: S301 (it is the driver's)
    except ConfigError as error:
        where = f"process {os.getpid()} on {platform.node()}"
        raise ConfigError(
            f"A worker ({where}) cannot make the RLM: {error} Workers need it in their environment."
        ) from None
    worker = Worker(assignment, start, await assignment.address.connect())
    await worker.welcomed()
    return worker


class Worker:
    """A batch in this process. Used in the engine's loop.

    Args:
        assignment: the batch.
        start: starts a completion of its `RLM`.
        link: to the driver.
    """

    def __init__(self, assignment: Assignment, start: Start, link: Link) -> None:
        self._assignment, self._start, self._link = assignment, start, link
        self._outbox = Outbox(link)
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[messages.Answer]] = {}
        self._runs: set[asyncio.Task[Outcome]] = set()
        self._seen: dict[str, RateSeen] = {}
        self._home = (
            None
            if assignment.log_dir is None or has_proof(assignment.log_dir, assignment.batch)
            else Home(self._outbox)
        )
        self._is_lost = False
        self._welcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._listener = asyncio.ensure_future(self._listen())

    async def welcomed(self) -> None:
        """Wait for the first message of the driver. Without it a late task would start a kernel that nobody stops.

        Raises:
            RLMError: the driver is gone.
        """
        self.put(messages.Hello())
        await asyncio.wait({self._listener, self._welcome}, return_when=asyncio.FIRST_COMPLETED)
        if self._is_over or not self._welcome.done():
            raise RLMError(_ENDED)

    async def run(self, task: Task, digest: str) -> Outcome:
        """Run a task.

        Raises:
            RLMError: the batch has ended.
            LinkLostError: the link to the driver broke; another one can run the task again.
        """
        if self._is_over:
            raise RLMError(_ENDED)
        if self._is_lost:
            raise LinkLostError
        run = asyncio.ensure_future(self._run(task, digest))
        self._runs.add(run)
        run.add_done_callback(self._runs.discard)
        try:
            return await run
        except asyncio.CancelledError:
            if self._is_over:  # a future of an executor cannot be cancelled by its worker
                raise RLMError(_ENDED) from None
            if self._is_lost:
                raise LinkLostError from None
            raise

    @property
    def _is_over(self) -> bool:
        return self._assignment.batch in _ended

    async def _run(self, task: Task, digest: str) -> Outcome:
        self._outbox.put(messages.Started(task.id), with_next=True)
        try:
            async with self._place(task, digest) as (log_dir, logger):
                configuration, logs_of = self._assignment.configuration, self._assignment.logs_of
                runs = LocalRuns(self._start, configuration, log_dir, logs_of, logger)
                result = await runs(task, _TaskLimits(self, task.id), digest)
        finally:
            self.put(messages.Ended(task.id))
        await self._outbox.flush()
        if result.log is not None and self._assignment.log_dir is not None:
            result = replace(result, log=str(self._assignment.log_dir / Path(result.log).name))
        return replace(result, completion=None), runs.stopped_by

    @asynccontextmanager
    async def _place(self, task: Task, digest: str) -> AsyncIterator[tuple[Path | None, MakeLogger]]:
        """A context with the folder of the logs of a task: the driver's, or another one, whose files are sent home."""
        if self._home is None:
            yield self._assignment.log_dir, RLMLogger
            return
        name = log_name(self._assignment.logs_of, task, digest)
        async with self._home.task(task.id, name) as (folder, logger):
            answer = await self.ask(messages.Fetch(self.next_number(), name))
            for number, record in enumerate(answer.records):
                await asyncio.to_thread(write_signed, folder / f"{name}_earlier-{number}{RECORD}", record)
            yield folder, logger

    def put(self, message: object) -> None:
        """Send a message to the driver."""
        self._outbox.put(message)

    def settle(self, message: messages.Settled) -> None:
        """Tell the driver how a call has ended; at once if another worker may wait for it."""
        self._outbox.put(message, with_next=not self._assignment.is_limited and message.seen is None)

    async def ask(self, question: messages.Ask | messages.Fetch) -> messages.Answer:
        """Ask the driver.

        Raises:
            LimitError: it does not admit the call.
        """
        number = question.call
        answer: asyncio.Future[messages.Answer] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        self.put(question)
        try:
            return await answer
        finally:
            del self._asked[number]

    @property
    def counts_dollars(self) -> bool:
        """Whether the batch has a budget."""
        return self._assignment.counts_dollars

    def next_number(self) -> int:
        """The number of a call."""
        return next(self._numbers)

    def new_headers(self, lm: BaseLM) -> RateSeen | None:
        """What the latest response of a model said of its rate limits, if the driver does not know it."""
        seen = lm.rate_seen
        if seen is None or seen is self._seen.get(lm.model):
            return None
        self._seen[lm.model] = seen
        return seen

    async def _listen(self) -> None:
        """Take the driver's answers until the batch ends."""
        try:
            while True:
                for message in await messages.receive(self._link):
                    if not self._welcome.done():
                        self._welcome.set_result(None)
                    match message:
                        case messages.Answer():
                            self._take(message)
                        case messages.Close():
                            _ended.append(self._assignment.batch)
                            return
        except EOFError:
            self._is_lost = True
        finally:
            _workers.pop(self._assignment.batch, None)
            for run in self._runs:
                run.cancel()
            if self._runs:
                await asyncio.wait(self._runs)
            self.put(messages.Closed())
            await self._outbox.flush()
            self._link.close()
            if self._home is not None:
                await asyncio.to_thread(self._home.close)

    def _take(self, answer: messages.Answer) -> None:
        asked = self._asked.get(answer.call)
        if asked is None or asked.done():
            return
        if answer.error is None:
            asked.set_result(answer)
        else:
            asked.set_exception(answer.error)


@dataclass(frozen=True, slots=True)
class _TaskLimits:
    """The limits of a batch for one of its tasks: an `Admission` that asks the driver."""

    worker: Worker
    task: str

    @property
    def counts_dollars(self) -> bool:
        """Whether the batch has a budget."""
        return self.worker.counts_dollars

    @asynccontextmanager
    async def call(self, lm: BaseLM, limit: Bound, receipt: Receipt) -> AsyncIterator[None]:
        """A context around one call of a model, which waits until the driver admits it.

        Raises:
            LimitError: nothing is left.
        """
        worker, number = self.worker, self.worker.next_number()
        requests, receipt.requests = receipt.requests, 0  # while it waits, nothing has been sent
        sent, reply = 0, None
        tokens = limit.input_tokens, limit.output_tokens
        price = messages.LinearPrice.of(limit)
        try:
            await worker.ask(messages.Ask(number, self.task, lm.model, tokens, price, worker.new_headers(lm)))
            receipt.requests = sent = requests
            receipt.sent.on_repeat = lambda lost: worker.put(messages.Repeated(number, lost))
            yield
            reply = receipt.reply
        except LMError as error:
            sent = error.requests
            reply = None if error.usage is None else Reply("", lm.model, error.usage, None)
            raise
        except ConfigError:  # the SDK could not be opened
            sent = 0
            raise
        finally:
            has_usage = reply is not None
            lost = receipt.sent.lost(has_usage=has_usage) if receipt.sent.counted else sent * (not has_usage)
            worker.settle(messages.Settled(number, _slim(reply), lost, worker.new_headers(lm)))

    def count(self, model: str, usage: Usage) -> None:
        """Count a call that is on record."""
        self.worker.put(messages.Counted(self.task, model, usage))


def _slim(reply: Reply | None) -> Reply | None:
    """A reply without its text, unless the text is needed to estimate its usage."""
    return reply if reply is None or not reply.usage.output_tokens else replace(reply, text="")
