"""What a provider sends is bounded while it is read, whatever SDK reads it.

All SDKs read through a client of httpx or httpx2, and both know hooks: one asks for replies that are not compressed,
because a kilobyte of gzip can be a megabyte of text; the other counts what arrives, of replies, streams and error pages
alike. A server that compresses all the same is read piece by piece, so that the bound is one of what comes out. Too
many values are refused as well: parsed JSON takes a hundred times the room of its text.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from typing import Any

MAX_REPLY_BYTES = 16_000_000
"""Of a whole reply, decoded. The longest that models write today, 128,000 tokens, are a megabyte of text."""

MAX_VALUES = 100_000
"""Objects and arrays in a reply, or in one event of a stream."""

MAX_EVENT_BYTES = 4_000_000
MAX_EVENT_LINES = 1_000
"""Of one event of a stream. The SDKs copy what they have of it with each line."""

CHARACTERS_PER_TOKEN = 128
"""No token of a known model stands for more: those are runs of blanks."""

SPARE_CHARACTERS = 10_000

EVENTS_PER_TOKEN = 8
"""Of a stream: most providers send one for each token, some one for each character."""

SPARE_EVENTS = 1_000

_PIECE = 65_536
_EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_GZIP_OR_DEFLATE = 32 + zlib.MAX_WBITS


class UnreadableReply(BaseException):
    """A reply that is not read to its end. Its words say why.

    Not an `Exception`, because an SDK takes each of those for a lost connection, and asks for the same bomb again.
    `lm_errors` turns it into an `LMError`.

    Attributes:
        status: of the response.
    """

    def __init__(self, why: str, status: int | None = None) -> None:
        super().__init__(why)
        self.status = status


def hooks() -> dict[str, list[Callable[[Any], Any]]]:
    """The `event_hooks` of an HTTP client that keeps the bounds."""
    return {"request": [_ask_for_plain], "response": [_bound]}


def is_too_long(characters: int, events: int, max_tokens: int | None) -> bool:
    """Whether a stream of so many events with so much text cannot be a reply of so many tokens any more."""
    if max_tokens is None:
        return False
    return (
        characters > CHARACTERS_PER_TOKEN * max_tokens + SPARE_CHARACTERS
        or events > EVENTS_PER_TOKEN * max_tokens + SPARE_EVENTS
    )


async def _ask_for_plain(request: Any) -> None:
    request.headers["accept-encoding"] = "identity"


async def _bound(response: Any) -> None:
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if "content-encoding" in response.headers:
        del response.headers["content-encoding"]  # it is decoded here
    streamed = response.headers.get("content-type", "").startswith("text/event-stream")
    raw, status = response.aiter_raw, response.status_code

    def bounded(chunk_size: int | None = None) -> AsyncIterator[bytes]:
        return _read(raw(chunk_size), encoding, Size(streamed=streamed), status)

    response.aiter_raw = bounded


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
        streamed: whether it is a stream of events, which are read one by one.
    """

    def __init__(self, *, streamed: bool) -> None:
        self._streamed = streamed
        self._bytes = 0
        self._unread = (0, 0, 0)
        self._tail = b""

    def add(self, piece: bytes) -> None:
        """Count a piece.

        Raises:
            UnreadableReply: with it there is more than a reply can hold.
        """
        self._bytes += len(piece)
        if self._bytes > MAX_REPLY_BYTES:
            raise UnreadableReply(f"the reply has more than {MAX_REPLY_BYTES // 1_000_000} MB")
        if not self._streamed:
            self._hold(piece)
            return
        seen, begins = self._tail + piece, len(self._tail)  # an end may lie across two pieces
        self._tail = seen[-3:]
        first = _EVENT_END.search(seen)
        self._hold(piece if first is None else seen[begins : max(begins, first.end())])
        if first is not None:
            self._unread = (0, 0, 0)
            self._hold(seen[max(seen.rfind(mark) + len(mark) for mark in (b"\n\n", b"\r\n\r\n", b"\r\r")) :])

    def _hold(self, piece: bytes) -> None:
        """Count what the SDK has to hold until it can read it."""
        values, lines = piece.count(b"{") + piece.count(b"["), piece.count(b"\n") + piece.count(b"\r")
        self._unread = self._unread[0] + len(piece), self._unread[1] + values, self._unread[2] + lines
        if self._unread[1] > MAX_VALUES:
            raise UnreadableReply(f"the reply has more than {MAX_VALUES:,} objects and lists")
        if self._streamed and (self._unread[0] > MAX_EVENT_BYTES or self._unread[2] > MAX_EVENT_LINES):
            raise UnreadableReply("an event of the stream does not end")


def _decoder(encoding: str) -> Callable[[bytes], Iterator[bytes]]:
    if encoding == "identity":
        return _pieces
    if encoding not in {"gzip", "x-gzip", "deflate"}:
        raise UnreadableReply(f"the reply is compressed ({encoding[:40]!r}), and none was asked for that is")
    unpacking = zlib.decompressobj(_GZIP_OR_DEFLATE)

    def decode(chunk: bytes) -> Iterator[bytes]:
        while chunk and not unpacking.eof:
            yield unpacking.decompress(chunk, _PIECE)
            chunk = unpacking.unconsumed_tail

    return decode


def _pieces(chunk: bytes) -> Iterator[bytes]:
    for start in range(0, len(chunk), _PIECE):
        yield chunk[start : start + _PIECE]
