"""The limits of a batch over the links of its workers."""

from __future__ import annotations

import asyncio
import pickle
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel.batch.engines import sockets
from rlm_kernel.batch.engines import worker as workers
from rlm_kernel.batch.engines.admission import Admissions
from rlm_kernel.batch.engines.messages import (
    Address,
    Answer,
    Ask,
    Close,
    Closed,
    Counted,
    Fetch,
    FilePart,
    Hello,
    LinearPrice,
    Link,
    LinkLostError,
    Outbox,
    Repeated,
    Settled,
    Started,
    StillHere,
    receive,
)
from rlm_kernel.batch.engines.records import Records
from rlm_kernel.batch.engines.worker import Assignment
from rlm_kernel.batch.tasks import Task
from rlm_kernel.clients.estimates import Bound
from rlm_kernel.clients.rate_limits import Allowed, RateSeen
from rlm_kernel.engine.budget import Limits
from rlm_kernel.engine.shared_limits import RatePerMinute, SharedLimits, TaskLimits
from rlm_kernel.errors import BudgetExceededError
from rlm_kernel.types import ModelUsageSummary, Reply, Usage, UsageSummary

DOLLAR = LinearPrice((10, 10), (0.5, 0.5))

LINKS: list[Link] = []


class Worker:
    """A worker that sends what a test says."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.received: list[Any] = []

    async def send(self, *messages: Any) -> None:
        await self.link.send(pickle.dumps(messages))

    async def next(self) -> Any:
        while not self.received:
            self.received += await receive(self.link)
        return self.received.pop(0)


@asynccontextmanager
async def driver(shared: SharedLimits) -> AsyncIterator[tuple[Admissions, Address]]:
    admissions = Admissions(shared, None)
    async with sockets.listen(admissions.serve) as address:
        yield admissions, address
    while LINKS:
        LINKS.pop().close()
    await asyncio.sleep(0)  # their transports close


async def worker(address: Address) -> Worker:
    made = Worker(await address.connect())
    LINKS.append(made.link)
    await made.send(Hello())
    assert await made.next() == StillHere()
    return made


def ask(call: int, task: str, seen: RateSeen | None = None) -> Ask:
    return Ask(call, task, "model", (10, 10), DOLLAR, seen)


def settled(call: int, cost: float, seen: RateSeen | None = None) -> Settled:
    return Settled(call, Reply("", "model", Usage(10, 10, cost=cost)), 0, seen)


async def test_a_call_waits_for_the_end_of_one_of_another_worker() -> None:
    shared = SharedLimits(Limits(max_budget=1.5))
    async with driver(shared) as (_, address):
        first, second = await worker(address), await worker(address)
        await first.send(ask(1, "a"))
        assert await first.next() == Answer(1)
        await second.send(ask(1, "b"), ask(2, "c"))
        await first.send(settled(1, 0.25))
        assert await second.next() == Answer(1)
        await second.send(settled(1, 2.0))
        refused = await second.next()

    assert refused.call == 2
    assert isinstance(refused.error, BudgetExceededError)
    assert shared.usage.summary().total.cost == 2.25


async def test_what_one_worker_learns_from_headers_holds_for_all() -> None:
    shared = SharedLimits()
    async with driver(shared) as (admissions, address):
        first, second = await worker(address), await worker(address)
        await first.send(ask(1, "a"))
        assert await first.next() == Answer(1)
        await first.send(settled(1, 0.5, RateSeen(Allowed(60, 0), paused_until=time.time() + 100)), ask(2, "a"))
        await second.send(ask(1, "b"))
        await admissions.close()
        assert await second.next() == Close()
        assert await first.next() == Close()


async def test_one_rate_holds_for_all_workers() -> None:
    async with driver(SharedLimits(rate=RatePerMinute(requests=2))) as (admissions, address):
        first, second = await worker(address), await worker(address)
        for one in (first, second):
            await one.send(ask(1, "a"))
            assert await one.next() == Answer(1)
        await second.send(ask(2, "b"))
        await admissions.close()
        assert await second.next() == Close()


async def test_a_call_of_a_lost_worker_counts_its_bound_and_frees_its_reservation() -> None:
    shared = SharedLimits(Limits(max_budget=1.5))
    async with driver(shared) as (_, address):
        first, second = await worker(address), await worker(address)
        await first.send(Started("a"), ask(1, "a"))
        assert await first.next() == Answer(1)
        first.link.close()
        await second.send(Started("a"), ask(1, "a"))
        assert await second.next() == Answer(1)
        assert shared.usage.summary().total.cost == 1.0


async def test_what_does_not_know_the_key_is_not_unpickled() -> None:
    shared = SharedLimits()
    async with driver(shared) as (_, address):
        stranger = await worker_with_key(address, bytes(32))
        await stranger.send(Counted("a", "model", Usage(10, 10)))
        with pytest.raises((EOFError, OSError)):
            await stranger.next()
        assert shared.usage.summary().total_calls == 0


async def worker_with_key(address: Address, key: bytes) -> Worker:
    assert isinstance(address, sockets.SocketAddress)
    made = Worker(await replace(address, key=key).connect())
    LINKS.append(made.link)
    return made


async def test_each_request_of_a_call_of_a_lost_worker_is_counted() -> None:
    shared = SharedLimits(Limits(max_budget=5))
    async with driver(shared) as (_, address):
        first, second = await worker(address), await worker(address)
        await first.send(Started("a"), ask(1, "a"), Repeated(1, 1), Repeated(1, 2))
        assert await first.next() == Answer(1)
        first.link.close()
        await second.send(Started("a"), ask(1, "a"))
        assert await second.next() == Answer(1)
        assert shared.usage.summary().total.cost == 3.0


async def test_a_recorded_call_that_this_batch_paid_is_not_counted_again() -> None:
    shared, paid = SharedLimits(Limits(max_budget=100)), Usage(10, 10, cost=0.25)
    async with driver(shared) as (admissions, address):
        first, second = await worker(address), await worker(address)
        await first.send(Started("a"), Counted("a", "model", Usage(5, 5, cost=0.125)), ask(1, "a"))
        assert await first.next() == Answer(1)
        await first.send(settled(1, 0.25), Closed())
        with pytest.raises(EOFError):
            await first.next()
        await second.send(Started("a"), Counted("a", "model", Usage(5, 5, cost=0.125)), Counted("a", "model", paid))
        await second.send(Counted("a", "model", Usage(1, 1, cost=0.5)), Closed())
        await admissions.close()

    assert shared.usage.summary().total.cost == 0.875


async def test_a_recorded_call_that_an_earlier_batch_counted_is_not_counted_again() -> None:
    shared, paid = SharedLimits(Limits(max_budget=100)), Usage(10, 10, cost=0.25)
    async with driver(shared) as (admissions, address):
        admissions.limits["a"] = TaskLimits(shared, UsageSummary({"model": ModelUsageSummary.of(1, paid)}))
        one = await worker(address)
        await one.send(Started("a"), Counted("a", "model", paid), Counted("a", "model", Usage(1, 1, cost=0.5)))
        await one.send(Closed())
        await admissions.close()
        usage = await admissions.finish("a", has_ended=False)

    assert (shared.usage.summary().total.cost, usage.total.cost) == (0.5, 0.75)


@pytest.mark.parametrize("tokens", [(10, 10), (20, 5), (0, 1)])
def test_a_price_travels_as_numbers(tokens: Sequence[int]) -> None:
    read, wrote = tokens
    price = LinearPrice.of(Bound(100, 50, lambda read, wrote: read * 0.01 + wrote * 0.02))

    assert price is not None
    assert price(read, wrote) == pytest.approx(read * 0.01 + wrote * 0.02)
    assert LinearPrice.of(Bound(100, 50)) is None
    assert pickle.loads(pickle.dumps(Fetch(1, "x"))) == Fetch(1, "x")


class SlowLink:
    """A link whose other end takes messages late."""

    def __init__(self) -> None:
        self.free = asyncio.Event()
        self.seen: list[Any] = []

    async def send(self, content: bytes) -> None:
        await self.free.wait()
        self.seen += pickle.loads(content)

    async def receive(self) -> bytes:
        raise EOFError

    def close(self) -> None:
        self.seen.append("closed")


async def test_a_link_is_closed_after_its_last_message() -> None:
    link = SlowLink()
    outbox = Outbox(link)
    outbox.put(StillHere())
    await asyncio.sleep(0)
    outbox.put(Close())
    outbox.close()
    link.free.set()
    await outbox.flush()
    await asyncio.sleep(0)

    assert link.seen == [StillHere(), Close(), "closed"]


class BreakingLink:
    """A link to a driver that says that it is there, and is gone when `broken` is set."""

    def __init__(self) -> None:
        self.broken = asyncio.Event()
        self._welcomed = False

    async def send(self, content: bytes) -> None:
        pass

    async def receive(self) -> bytes:
        if not self._welcomed:
            self._welcomed = True
            return pickle.dumps([StillHere()])
        await self.broken.wait()
        raise EOFError

    def close(self) -> None:
        pass


async def test_a_worker_whose_link_breaks_stops_its_runs_and_leaves_the_batch_open() -> None:
    started = asyncio.Event()

    async def start(*_: Any) -> Any:
        started.set()
        await asyncio.Event().wait()

    link = BreakingLink()
    address: Any = None
    assignment = Assignment("batch", "logs", b"", {}, None, counts_dollars=False, is_limited=False, address=address)
    here = workers.Worker(assignment, start, link)
    await here.welcomed()
    run = asyncio.ensure_future(here.run(Task("a", context="x"), "digest"))
    await started.wait()
    link.broken.set()

    with pytest.raises(LinkLostError):
        await run
    with pytest.raises(LinkLostError):  # and not that the batch has ended
        await here.run(Task("b", context="x"), "digest")


def test_a_full_disk_at_the_driver_costs_the_rest_of_a_log_and_nothing_else(tmp_path: Path) -> None:
    records = Records(tmp_path, {})
    (tmp_path / "taken").write_text("")  # so no folder of this name can be made
    with pytest.warns(RuntimeWarning, match="taken/a.txt could not be written"):
        records.take(FilePart("a", "taken/a.txt", b"1", is_first=True))
    records.take(FilePart("a", "taken/a.txt", b"2", is_first=False))
    records.take(FilePart("b", "b.txt", b"1", is_first=True))

    assert (tmp_path / "b.txt").read_bytes() == b"1"
