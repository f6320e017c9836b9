"""HTTP for all SDKs: which server may be contacted, and how much of its reply is read.

Every SDK reads through a client of httpx or httpx2, and both support event hooks. One hook asks for uncompressed
replies, because a kilobyte of gzip can expand to a megabyte of text. The other counts what arrives in replies, streams
and error pages. If a server compresses anyway, its reply is decoded in pieces, so that the limit applies to the decoded
size. The number of JSON values is limited too: parsed JSON takes a hundred times the memory of its text.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

OnHeaders = Callable[[int, Mapping[str, str]], None]

CONNECT_SECONDS = 10.0
"""Limit for opening a connection; the setting `timeout` is for the answer."""

MAX_REPLY_BYTES = 16_000_000
"""Limit of a whole reply, decoded. The longest replies of today's models, 128,000 tokens, are a megabyte of text."""

MAX_VALUES = 100_000
"""Limit of objects and arrays in a reply, or in one event of a stream."""

MAX_EVENT_BYTES = 4_000_000
MAX_EVENT_LINES = 1_000
"""Limits of one event of a stream. With each line, the SDKs copy all that they have of the event."""

CHARACTERS_PER_TOKEN = 128
"""The longest tokens of known models: runs of blanks."""

SPARE_CHARACTERS = 10_000

EVENTS_PER_TOKEN = 8
"""Most providers send one event per token, some one per character."""

SPARE_EVENTS = 1_000

_PIECE = 65_536
_EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_GZIP_OR_DEFLATE = 32 + zlib.MAX_WBITS


def is_loopback(url: str) -> bool:
    """Whether the server is on this machine.

    Raises:
        ValueError: it is not a URL.
    """
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback or ip_address(host).is_unspecified
    except ValueError:
        return host == "localhost"


def without_password(url: str) -> str:
    """The URL without user, password and query, safe to show."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def http_options(url: str, on_headers: OnHeaders | None = None) -> dict[str, Any]:
    """The options of an HTTP client that contacts only this server, and limits what it reads.

    Redirects are not followed: they would carry the conversation to another server, and with some SDKs the key. A proxy
    from the environment is not used for a server on this machine, which it could not reach.

    Args:
        url: of the server.
        on_headers: called with the status and the headers of each response.
    """
    return {"follow_redirects": False, "trust_env": not is_loopback(url), "event_hooks": event_hooks(on_headers)}


def event_hooks(on_headers: OnHeaders | None = None) -> dict[str, list[Callable[[Any], Any]]]:
    """The `event_hooks` of an HTTP client that limit what it reads."""

    async def tell(response: Any) -> None:
        if on_headers is not None:
            on_headers(response.status_code, response.headers)

    return {"request": [_ask_for_plain], "response": [tell, _limit]}


class UnreadableReply(BaseException):
    """A reply that is not read to its end; the message says why.

    Not an `Exception`: an SDK takes every `Exception` for a lost connection, and would request the same reply again.
    `lm_errors` converts it into an `LMError`.

    Attributes:
        status: the HTTP status of the response.
    """

    def __init__(self, why: str, status: int | None = None) -> None:
        super().__init__(why)
        self.status = status


def is_too_long(characters: int, events: int, max_tokens: int | None) -> bool:
    """Whether a stream with this many characters and events must be longer than `max_tokens`."""
    if max_tokens is None:
        return False
    return (
        characters > CHARACTERS_PER_TOKEN * max_tokens + SPARE_CHARACTERS
        or events > EVENTS_PER_TOKEN * max_tokens + SPARE_EVENTS
    )


async def _ask_for_plain(request: Any) -> None:
    request.headers["accept-encoding"] = "identity"


async def _limit(response: Any) -> None:
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if "content-encoding" in response.headers:
        del response.headers["content-encoding"]  # it is decoded here
    streamed = response.headers.get("content-type", "").startswith("text/event-stream")
    raw, status = response.aiter_raw, response.status_code

    def limited(chunk_size: int | None = None) -> AsyncIterator[bytes]:
        return _read(raw(chunk_size), encoding, Size(streamed=streamed), status)

    response.aiter_raw = limited


async def _read(raw: AsyncGenerator[bytes], encoding: str, size: Size, status: int) -> AsyncGenerator[bytes]:
    try:
        decode = _decoder(encoding)
        async for chunk in raw:
            for piece in decode(chunk):
                size.add(piece)
                yield piece
    except (UnreadableReply, zlib.error) as error:
        raise UnreadableReply(str(error), status) from None
    finally:
        await raw.aclose()


class Size:
    """How much of a reply has arrived.

    Args:
        streamed: whether the reply is a stream of events; the SDK reads them one by one.
    """

    def __init__(self, *, streamed: bool) -> None:
        self._streamed = streamed
        self._bytes = 0
        self._unread = (0, 0, 0)
        self._tail = b""

    def add(self, piece: bytes) -> None:
        """Count a piece.

        Raises:
            UnreadableReply: the reply exceeds a limit.
        """
        self._bytes += len(piece)
        if self._bytes > MAX_REPLY_BYTES:
            raise UnreadableReply(f"the reply has more than {MAX_REPLY_BYTES // 1_000_000} MB")
        if not self._streamed:
            self._hold(piece)
            return
        seen, begins = self._tail + piece, len(self._tail)  # an end of an event may lie across two pieces
        self._tail = seen[-3:]
        first = _EVENT_END.search(seen)
        self._hold(piece if first is None else seen[begins : max(begins, first.end())])
        if first is not None:
            self._unread = (0, 0, 0)
            self._hold(seen[max(seen.rfind(mark) + len(mark) for mark in (b"\n\n", b"\r\n\r\n", b"\r\r")) :])

    def _hold(self, piece: bytes) -> None:
        """Count what the SDK has to keep until it can parse it."""
        values, lines = piece.count(b"{") + piece.count(b"["), piece.count(b"\n") + piece.count(b"\r")
        self._unread = self._unread[0] + len(piece), self._unread[1] + values, self._unread[2] + lines
        if self._unread[1] > MAX_VALUES:
            raise UnreadableReply(f"the reply has more than {MAX_VALUES:,} objects and lists")
        if self._streamed and (self._unread[0] > MAX_EVENT_BYTES or self._unread[2] > MAX_EVENT_LINES):
            raise UnreadableReply("an event of the stream does not end")


def _decoder(encoding: str) -> Callable[[bytes], Iterator[bytes]]:
    if encoding == "identity":
        return _split
    if encoding not in {"gzip", "x-gzip", "deflate"}:
        raise UnreadableReply(f"the reply is compressed ({encoding[:40]!r}), although none was requested")
    unpacking = zlib.decompressobj(_GZIP_OR_DEFLATE)

    def decode(chunk: bytes) -> Iterator[bytes]:
        while chunk and not unpacking.eof:
            yield unpacking.decompress(chunk, _PIECE)
            chunk = unpacking.unconsumed_tail

    return decode


def _split(chunk: bytes) -> Iterator[bytes]:
    for start in range(0, len(chunk), _PIECE):
        yield chunk[start : start + _PIECE]
