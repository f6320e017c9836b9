"""stdin and stdout as the streams of the protocol.

Only sound messages reach the SDK, whose receiving loop would end at some of the others, and only the protocol reaches
stdout: whatever else writes there, such as a package or a child process, writes to stderr.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from typing import Any

from acp import RequestError

from rlm_kernel.errors import ConfigError
from rlm_kernel.untrusted import json_text

MAX_MESSAGE_BYTES = 64_000_000
"""Of one message of the client, with the pictures and files in it."""


class StandardStreams:
    """The streams of this process, taken from everything else in it.

    Attributes:
        reader: gives the sound messages of the client. It ends with stdin.
        writer: stdout.
    """

    def __init__(self, source: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = asyncio.StreamReader(limit=MAX_MESSAGE_BYTES)
        self.writer = writer
        self._source = source
        self._task = asyncio.create_task(self._pass_on())

    @classmethod
    async def open(cls) -> StandardStreams:
        """Take stdin and stdout.

        Raises:
            ConfigError: stdin or stdout is a file.
        """
        loop = asyncio.get_running_loop()
        source = asyncio.StreamReader(limit=MAX_MESSAGE_BYTES)
        try:
            await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(source), _taken(0, os.devnull, "rb"))
            pipe, protocol = await loop.connect_write_pipe(
                lambda: asyncio.streams.FlowControlMixin(loop), _taken(1, 2, "wb")
            )
        except ValueError as error:
            raise ConfigError(f"rlm acp speaks with an editor, over pipes: {error} The editor starts it.") from error
        return cls(source, asyncio.StreamWriter(pipe, protocol, None, loop))

    def end(self) -> None:
        """End the reader, as if the client had closed stdin."""
        self._task.cancel()

    async def _pass_on(self) -> None:
        try:
            async for line in _lines(self._source):
                refused = refusal(line)
                if line is not None and refused is None:
                    self.reader.feed_data(line)
                elif refused is not None and not self.writer.is_closing():
                    self.writer.write(refused)
        finally:
            self.reader.feed_eof()


def _taken(descriptor: int, instead: str | int, mode: str) -> Any:
    """A standard stream under another number. Its own one is `instead` from now on, also for child processes."""
    file = os.fdopen(os.dup(descriptor), mode, buffering=0)
    other = os.open(instead, os.O_RDWR | os.O_CLOEXEC) if isinstance(instead, str) else instead
    os.dup2(other, descriptor)
    return file


async def _lines(source: asyncio.StreamReader) -> AsyncIterator[bytes | None]:
    """The lines of a stream; None for one that is too long. What comes after the last newline is no message."""
    while True:
        try:
            yield await source.readuntil(b"\n")
        except asyncio.LimitOverrunError:
            with contextlib.suppress(asyncio.IncompleteReadError):
                await _skip(source)
            yield None
        except (asyncio.IncompleteReadError, ConnectionError):
            return


async def _skip(source: asyncio.StreamReader) -> None:
    while True:
        try:
            await source.readuntil(b"\n")
        except asyncio.LimitOverrunError as error:
            await source.readexactly(error.consumed)
        else:
            return


def refusal(line: bytes | None) -> bytes | None:
    """The answer to a line that is no message of JSON-RPC; None: it is one, or blank."""
    if line is None:
        return _error(RequestError.invalid_request({"details": f"A message has at most {MAX_MESSAGE_BYTES:,} bytes."}))
    if not line.strip():
        return None
    try:
        message = json_text.loads(line.decode("utf-8"))
    except ValueError as error:
        return _error(RequestError.parse_error({"details": str(error)}))
    if problem := _problem(message):
        return _error(RequestError.invalid_request({"details": problem}))
    return None


def _problem(message: Any) -> str | None:
    if not isinstance(message, dict):
        return "A message is an object."
    if not isinstance(message.get("id"), str | int | None) or isinstance(message.get("id"), bool):
        return "The id of a message is a number or a text."
    if not isinstance(message.get("method"), str | None):
        return "The method of a message is a text."
    if "method" not in message and not message.keys() & {"result", "error"}:
        return "A message has a method, a result or an error."
    if not isinstance(message.get("error"), dict | None) or not isinstance(message.get("params"), dict | None):
        return "The error and the params of a message are objects."
    return None


def _error(error: RequestError) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": None, "error": error.to_error_obj()}).encode() + b"\n"
