"""The requests of a call: an SDK repeats those that fail, and the provider may charge each one that it has received."""

from __future__ import annotations

import asyncio
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
        connecting: whether the server cannot have the last one yet.
        on_repeat: called before a further request with the number of those that may be charged so far.
    """

    unseen: int = 0
    answered: bool = False
    counted: bool = False
    connecting: bool = False
    on_repeat: Callable[[int], object] = lambda _: None

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
    reports = _reports_sending(http_client)

    async def counted(request: Any, **options: Any) -> Any:
        sent = requests_sent.get()
        if sent is None:
            return await send(request, **options)
        if (lost := sent.lost(has_usage=False)) > 0:
            sent.on_repeat(lost)
        sent.unseen, sent.answered, sent.counted = lost + 1, False, True
        sent.connecting = reports
        request.extensions = {"trace": _see_httpcore, **request.extensions}
        try:
            response = await send(request, **options)
        except asyncio.CancelledError:
            sent.unseen -= sent.connecting
            raise
        except Exception as error:
            sent.unseen -= _is_unsent(error)
            raise
        sent.unseen -= response.status_code not in GAVE_UP
        sent.answered = response.is_success
        return response

    http_client.send = counted
    return http_client


def _reports_sending(http_client: Any) -> bool:
    """Have the transport of a client say when it sends a request, and return whether it can.

    The `trace` of a request does it for httpcore, and nothing is to be done here.
    """
    transport = http_client._transport  # noqa: SLF001 (there is no other way to it)
    if (open_session := getattr(transport, "get_client", None)) is None:
        return type(transport).__name__ == "AsyncHTTPTransport"

    def open_traced() -> Any:
        session = open_session()
        session.trace_configs.append(_aiohttp_trace())
        return session

    transport.get_client = open_traced
    return True


def _aiohttp_trace() -> Any:
    from aiohttp import TraceConfig

    async def see(*_: object) -> None:
        _note_sending()

    config = TraceConfig()
    config.on_request_headers_sent.append(see)
    config.freeze()
    return config


async def _see_httpcore(event: str, _: object) -> None:
    """Take an event such as ``http11.send_request_body.started``."""
    if event.endswith(".send_request_body.started"):
        _note_sending()


def _note_sending() -> None:
    if (sent := requests_sent.get()) is not None:
        sent.connecting = False


def causes(error: BaseException) -> Iterator[str]:
    """The class names of the causes of an error."""
    while (cause := error.__cause__) is not None:
        yield type(cause).__name__
        error = cause


def _is_unsent(error: Exception) -> bool:
    names = {type(error).__name__, *causes(error)}
    return not names.isdisjoint(_UNSENT) and names.isdisjoint(BREAKS)
