"""The requests of a call: an SDK repeats those that fail, and the provider may charge each one that it has received."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from rlm_kernel.errors import GAVE_UP

BREAKS = frozenset({"ReadError", "RemoteProtocolError", "WriteError", "ServerDisconnectedError", "ClientOSError"})
"""Classes of httpx and aiohttp for a connection that broke. The SDK's aiohttp transport reports these as timeouts."""

_UNSENT = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol", "LocalProtocolError"})
"""Classes of httpx for a request that was not sent, unless a connection that broke is the cause."""


@dataclass(slots=True)
class RequestsSent:
    """The requests of one call so far.

    Attributes:
        unseen: how many were sent and have no response: they timed out, were cut or cancelled, or are in progress.
        answered: whether the last one has a response that is no error.
        counted: whether they are counted here; not with an HTTP client of the user's, or with other SDKs.
    """

    unseen: int = 0
    answered: bool = False
    counted: bool = False

    def lost(self, *, has_usage: bool) -> int:
        """How many may be charged without a usage that was seen.

        Args:
            has_usage: whether the response to the last one reports its usage.
        """
        return self.unseen + (self.answered and not has_usage)


requests_sent: ContextVar[RequestsSent | None] = ContextVar("requests_sent", default=None)
"""Of the call in progress."""


def count_requests(http_client: Any) -> Any:
    """Make an HTTP client of httpx count its requests in `requests_sent`, and return it."""
    send: Callable[..., Awaitable[Any]] = http_client.send

    async def counted(request: Any, **options: Any) -> Any:
        sent = requests_sent.get()
        if sent is None:
            return await send(request, **options)
        sent.unseen, sent.answered, sent.counted = sent.lost(has_usage=False) + 1, False, True
        try:
            response = await send(request, **options)
        except Exception as error:
            sent.unseen -= _is_unsent(error)
            raise
        sent.unseen -= response.status_code not in GAVE_UP
        sent.answered = response.is_success
        return response

    http_client.send = counted
    return http_client


def causes(error: BaseException) -> Iterator[str]:
    """The class names of the causes of an error."""
    while (cause := error.__cause__) is not None:
        yield type(cause).__name__
        error = cause


def _is_unsent(error: Exception) -> bool:
    names = {type(error).__name__, *causes(error)}
    return not names.isdisjoint(_UNSENT) and names.isdisjoint(BREAKS)
