"""A provider on 127.0.0.1 that answers every request with more than a host can hold.

with Bomber("gzip") as bomber:
    ...  # ask bomber.url
bomber.requests  # how many were asked
"""

from __future__ import annotations

import itertools
import re
import socket
import threading
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Self

TEXT = b"a" * 1_000_000
CONTENT_BEGINS = b'{"choices": [{"message": {"content": "'
JSON = "application/json"
EVENTS = "text/event-stream"


def squeezed(window_bits: int, megabytes: int = 1_500) -> bytes:
    """So many megabytes of a reply, in a thousandth of the room: the same block again and again."""
    packer = zlib.compressobj(9, wbits=window_bits)
    begins, block = (packer.compress(part) + packer.flush(zlib.Z_FULL_FLUSH) for part in (CONTENT_BEGINS, TEXT))
    return begins + megabytes * block


def head(content_type: str, encoding: str | None = None, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {content_type}", "Connection: close"]
    return "\r\n".join([*lines, *([f"Content-Encoding: {encoding}"] if encoding else []), "", ""]).encode()


def endless(piece: bytes) -> Iterator[bytes]:
    return itertools.repeat(piece * (65_536 // len(piece)))


CHUNK = b'data: {"choices": [{"index": 0, "delta": {"content": "%s"}}]}\n\n'
MAX_VALUES = b'{"choices": [' + b"{}, " * 99_000 + b"{}]}"

BOMBS = {
    "gzip": lambda: [head(JSON, "gzip"), squeezed(31)],
    "deflate": lambda: [head(JSON, "deflate"), squeezed(15)],
    "gzip with an error": lambda: [head(JSON, "gzip", "400 Bad Request"), squeezed(31)],
    "gzip with a busy server": lambda: [head(JSON, "gzip", "503 Busy"), squeezed(31)],
    "gzip of events": lambda: [head(EVENTS, "gzip"), squeezed(31)],
    "brotli": lambda: [head(JSON, "br"), b"\x5b\xff\xff" * 1_000],
    "zstd": lambda: [head(JSON, "zstd"), b"\x28\xb5\x2f\xfd" * 1_000],
    "values without an end": lambda: itertools.chain([head(JSON), b'{"choices": ['], endless(b"{}, ")),
    "an error without an end": lambda: itertools.chain([head(JSON, status="500 Oops")], endless(b"a")),
    "a stream without an end": lambda: itertools.chain([head(EVENTS)], endless(CHUNK % b"a")),
    "an event without an end": lambda: itertools.chain([head(EVENTS), b"data: "], endless(b"a")),
    "an event of lines without an end": lambda: itertools.chain([head(EVENTS)], endless(b"data: a\n")),
    "comments without an end": lambda: itertools.chain([head(EVENTS)], endless(b": still here\n\n")),
    "values in an event": lambda: itertools.chain([head(EVENTS), b"data: ["], endless(b"{}, ")),
    "a header without an end": lambda: itertools.chain([b"HTTP/1.1 200 OK\r\nX-Long: "], endless(b"a")),
    "headers without an end": lambda: itertools.chain([b"HTTP/1.1 200 OK\r\n"], endless(b"X-More: a\r\n")),
    "as many values as are read": lambda: [head(JSON), MAX_VALUES],
    "as many values as are read, in an event": lambda: [
        head(EVENTS),
        b"data: " + MAX_VALUES + b"\n\ndata: [DONE]\n\n",
    ],
    "nested lists": lambda: [head(JSON), b"[" * 90_000 + b"]" * 90_000],
}
BOMBS["a body without an end"] = lambda: itertools.chain([head(JSON), CONTENT_BEGINS], endless(b"a"))


class Bomber:
    """Listens from the first moment until it is closed."""

    def __init__(self, bomb: str) -> None:
        self.requests = 0
        self._pieces = BOMBS[bomb]
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._serve, daemon=True)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._bomb, args=[client], daemon=True).start()

    def _bomb(self, client: socket.socket) -> None:
        with suppress(OSError), client:
            asked = _request(client)
            if not asked.startswith(b"POST"):
                client.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            self.requests += 1
            for piece in self._pieces():
                client.sendall(piece)


def _request(client: socket.socket) -> bytes:
    """A whole request, so that a closed connection is no reset."""
    seen = b""
    while b"\r\n\r\n" not in seen:
        seen += client.recv(65_536) or b"\r\n\r\n"
    heading, _, body = seen.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", heading)
    missing = int(length[1]) - len(body) if length else 0
    while missing > 0 and (more := client.recv(65_536)):
        missing -= len(more)
    return heading
