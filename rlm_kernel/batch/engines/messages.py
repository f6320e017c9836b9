"""What workers and the driver of a batch send each other.

The driver is the process of `RLM.map`. It owns the limits and the files. A worker has one link to it, over which it
asks before each call of a model. A link carries lists of messages, pickled, in order.
"""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rlm_kernel.clients.estimates import Bound
from rlm_kernel.clients.rate_limits import RateSeen
from rlm_kernel.types import Reply, Usage


class LinkLostError(Exception):
    """The link between a worker and the driver broke."""


class Link(Protocol):
    """One end of a connection between a worker and the driver."""

    async def send(self, content: bytes) -> None:
        """Send bytes. What cannot be sent any more is dropped: the other end is gone."""
        ...

    async def receive(self) -> bytes:
        """The next bytes.

        Raises:
            EOFError: the other end is gone.
        """
        ...

    def close(self) -> None:
        """Close it."""
        ...


class Address(Protocol):
    """Where a worker finds the driver. It can be pickled."""

    async def connect(self) -> Link:
        """Connect to the driver.

        Raises:
            OSError: it cannot be reached.
        """
        ...


class Outbox:
    """Sends messages over a link, in order. Those that come while the link is busy are sent together.

    Args:
        link: the link.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._waiting: list[Any] = []
        self._sender: asyncio.Task[None] | None = None

    def put(self, message: Any, *, with_next: bool = False) -> None:
        """Send a message, without waiting. `with_next`: together with the next one, which will come."""
        self._waiting.append(message)
        if self._sender is None and not with_next:
            self._sender = asyncio.ensure_future(self._send())

    async def flush(self) -> None:
        """Wait until all messages are sent."""
        if self._sender is not None:
            await asyncio.shield(self._sender)

    def close(self) -> None:
        """Close the link when all messages are sent."""
        if self._sender is None:
            self._link.close()
        else:
            self._sender.add_done_callback(lambda _: self._link.close())

    async def _send(self) -> None:
        try:
            while self._waiting:
                messages, self._waiting = self._waiting, []
                await self._link.send(pickle.dumps(messages))
        finally:
            self._sender = None


async def receive(link: Link) -> Sequence[Any]:
    """The next messages of a link.

    Raises:
        EOFError: the other end is gone.
    """
    messages: list[Any] = pickle.loads(await link.receive())  # noqa: S301 (the other end runs our code anyway)
    return messages


# -- from a worker


@dataclass(frozen=True, slots=True)
class Hello:
    """A new worker. The answer is `StillHere`, or `Close`."""


@dataclass(frozen=True, slots=True)
class Started:
    """A try of a task begins. What an earlier one left open has ended: its worker was lost."""

    task: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A try of a task has ended, and its kernel is closed."""

    task: str


@dataclass(frozen=True, slots=True)
class Closed:
    """All runs of a worker have ended. It is the last message of its link."""


@dataclass(frozen=True, slots=True)
class LinearPrice:
    """The price of a call from the prices at its bound, for any number of tokens. It can be pickled.

    Attributes:
        limit: tokens of prompt and reply.
        dollars: what they cost.
    """

    limit: tuple[int, int]
    dollars: tuple[float, float]

    def __call__(self, read: int, wrote: int) -> float:
        """US dollars of tokens of prompt and reply."""
        return sum(
            dollars * count / max(1, limit)
            for dollars, count, limit in zip(self.dollars, (read, wrote), self.limit, strict=True)
        )

    @classmethod
    def of(cls, limit: Bound) -> LinearPrice | None:
        """The prices at a bound; None if they are unknown."""
        both, prompt = limit.price(limit.input_tokens, limit.output_tokens), limit.price(limit.input_tokens, 0)
        if both is None or prompt is None:
            return None
        return cls((limit.input_tokens, limit.output_tokens), (prompt, both - prompt))


@dataclass(frozen=True, slots=True)
class Ask:
    """May this call be sent? The answer is an `Answer`.

    Attributes:
        call: its number on this link.
        task: asks it.
        model: the model's name.
        tokens: of prompt and reply, at most.
        price: of the call; None: unknown.
        seen: what the latest response said of rate limits, if it was not sent before.
    """

    call: int
    task: str
    model: str
    tokens: tuple[int, int]
    price: LinearPrice | None
    seen: RateSeen | None


@dataclass(frozen=True, slots=True)
class Repeated:
    """The SDK repeats a request of a call. If the worker is lost, all its requests are counted.

    Attributes:
        call: its number on this link.
        lost: requests so far that may be charged.
    """

    call: int
    lost: int


@dataclass(frozen=True, slots=True)
class Settled:
    """A call has ended, or will not be sent.

    Attributes:
        call: its number.
        reply: without its text where the usage is complete; None: there is none.
        lost: how many of its requests may be charged without a usage that was seen.
        seen: as in `Ask`.
    """

    call: int
    reply: Reply | None
    lost: int
    seen: RateSeen | None


@dataclass(frozen=True, slots=True)
class Counted:
    """A call on record was used again by a run that was resumed."""

    task: str
    model: str
    usage: Usage


@dataclass(frozen=True, slots=True)
class Fetch:
    """What are the records of earlier runs of a task? The answer is an `Answer`.

    Attributes:
        call: a number, as in `Ask`.
        name: how the names of its logs begin.
    """

    call: int
    name: str


@dataclass(frozen=True, slots=True)
class FilePart:
    """The next bytes of a file of a run, for the folder of the logs.

    Attributes:
        task: whose run it is.
        name: of the file, relative to that folder.
        content: whole lines, if it is a record.
        is_first: whether the file begins here.
    """

    task: str
    name: str
    content: bytes
    is_first: bool


# -- from the driver


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to an `Ask`, if it has no `error`: the call may be sent; or to a `Fetch`.

    Attributes:
        call: its number.
        error: why the call may not be sent.
        records: the content of the records.
    """

    call: int
    error: Exception | None = None
    records: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class StillHere:
    """The driver is alive."""


@dataclass(frozen=True, slots=True)
class Close:
    """The batch has ended: stop all runs."""
