"""How messages travel to a server and back: the pipes of a process, and HTTP. Both have limits."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import httpx2
from mcp.client.sse import sse_client
from mcp.client.stdio import StdioServerParameters, get_default_environment, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from rlm_kernel._async import process as processed
from rlm_kernel.errors import ConfigError
from rlm_kernel.mcp.config import MCPServer
from rlm_kernel.text import clip, plain

if TYPE_CHECKING:
    from mcp.client._transport import TransportStreams

MAX_MESSAGE_BYTES = 80_000_000
"""A message that is longer ends the connection."""
MAX_LAST_WORDS = 4_000
"""Bytes of the end of a server's standard error that are kept."""
END_SECONDS = 5.0
"""The supervisor ends the server sooner."""
CONNECT_SECONDS = 30.0


class LastWords:
    """Why a server has ended: its exit status, and the end of its standard error."""

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque(maxlen=64)
        self.status: int | None = None
        self.reason = ""

    def add(self, piece: bytes) -> None:
        """Keep a piece of the standard error."""
        self._pieces.append(piece[-MAX_LAST_WORDS:])

    def __str__(self) -> str:
        text = plain(b"".join(self._pieces)[-MAX_LAST_WORDS:].decode("utf-8", "replace")).strip()
        status = "" if self.status is None else f"exit status {self.status}"
        return clip(": ".join(filter(None, (self.reason or status, text))), MAX_LAST_WORDS // 4, head=0.2)


def transport(server: MCPServer, words: LastWords) -> Any:
    """The transport of a server, for `mcp.Client`.

    Raises:
        ConfigError: there is no such program.
    """
    if server.url is not None:
        is_old = server.url.partition("?")[0].rstrip("/").endswith("/sse")
        return _sse(server) if is_old else _http(server)
    assert server.command is not None, "checked by MCPServer"
    environ = {**get_default_environment(), **server.env}
    folder = Path(server.cwd or ".")
    if not folder.is_dir():
        raise ConfigError(f"its working directory {folder} does not exist")
    found = shutil.which(server.command, path=environ.get("PATH"))
    beside = folder / server.command
    if found is None and not (os.sep in server.command and os.access(beside, os.X_OK)):
        raise ConfigError(f"there is no program {server.command!r}{_HINTS.get(server.command, '')}")
    if sys.platform == "win32":  # pragma: no cover (no process groups, no poll: the SDK's way)
        given = StdioServerParameters(command=server.command, args=list(server.args), env=environ, cwd=server.cwd)
        return stdio_client(given)
    return _stdio([server.command, *server.args], environ, server.cwd, words)


_HINTS = {"npx": ": install Node.js", "uvx": ": install uv", "docker": ": install Docker"}


@asynccontextmanager
async def _stdio(
    command: list[str], environ: dict[str, str], cwd: str | os.PathLike[str] | None, words: LastWords
) -> AsyncGenerator[TransportStreams]:
    """The pipes of a process. The SDK's reader takes quadratic time for a long message, and has no limit."""
    supervisor = str(Path(__file__).with_name("supervisor.py"))
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", supervisor, *command,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env=environ, cwd=cwd, limit=MAX_MESSAGE_BYTES, start_new_session=True,
    )  # fmt: skip
    to_client, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    outgoing, from_client = anyio.create_memory_object_stream[SessionMessage](0)
    tasks = [
        asyncio.ensure_future(_receive(child, to_client, words)),
        asyncio.ensure_future(_send(child, from_client)),
        asyncio.ensure_future(_listen(child, words)),
    ]
    try:
        yield incoming, outgoing
    finally:
        for stream in (incoming, outgoing):
            stream.close()
        await _end(child, tasks)


async def _end(child: asyncio.subprocess.Process, tasks: list[asyncio.Future[None]]) -> None:
    with anyio.CancelScope(shield=True):
        assert child.stdin is not None, "it has pipes"
        child.stdin.close()
        for task in tasks[:2]:
            task.cancel()
        drain = asyncio.ensure_future(_drain(child))  # a server that writes must be able to end
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                await child.wait()
        if child.returncode is None:  # pragma: no cover (the supervisor is stopped)
            child.kill()
        for task in (*tasks, drain):
            task.cancel()
        await asyncio.wait([*tasks, drain])


async def _drain(child: asyncio.subprocess.Process) -> None:
    assert child.stdout is not None, "it has pipes"
    with contextlib.suppress(OSError, RuntimeError):
        while await child.stdout.read(1 << 16):
            pass


async def _receive(child: asyncio.subprocess.Process, to_client: Any, words: LastWords) -> None:
    """Pass on the messages of the server. Lines that are none are passed over: some servers print to stdout."""
    assert child.stdout is not None, "it has pipes"
    async with to_client:
        with contextlib.suppress(anyio.ClosedResourceError, anyio.BrokenResourceError, OSError):
            while line := await _line(child.stdout, words):
                if line.strip():
                    await _pass_on(line, to_client)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                words.status = await child.wait()


async def _line(stream: asyncio.StreamReader, words: LastWords) -> bytes:
    """The next line; empty at the end."""
    try:
        return await stream.readuntil(b"\n")
    except asyncio.IncompleteReadError as end:
        return end.partial
    except asyncio.LimitOverrunError:
        words.reason = f"it sent a message of more than {MAX_MESSAGE_BYTES:,} bytes"
        return b""


async def _pass_on(line: bytes, to_client: Any) -> None:
    try:
        message = await processed(len(line), lambda: jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValueError:
        return
    await to_client.send(SessionMessage(message))


async def _send(child: asyncio.subprocess.Process, from_client: Any) -> None:
    assert child.stdin is not None, "it has pipes"
    with contextlib.suppress(OSError, anyio.ClosedResourceError, anyio.BrokenResourceError):
        async with from_client:
            async for message in from_client:
                text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                child.stdin.write(text.encode() + b"\n")
                await child.stdin.drain()


async def _listen(child: asyncio.subprocess.Process, words: LastWords) -> None:
    assert child.stderr is not None, "it has pipes"
    with contextlib.suppress(OSError):
        while piece := await child.stderr.read(1 << 16):
            words.add(piece)


@asynccontextmanager
async def _http(server: MCPServer) -> AsyncGenerator[TransportStreams]:
    assert server.url is not None, "checked by the caller"
    limits = httpx2.Timeout(CONNECT_SECONDS, read=None)  # each call has its own timeout
    async with (
        httpx2.AsyncClient(
            headers={**server.headers, "Accept-Encoding": "identity"},
            timeout=limits,
            event_hooks={"response": [_bound]},
        ) as client,
        streamable_http_client(server.url, http_client=client, max_sse_event_size=MAX_MESSAGE_BYTES) as streams,
    ):
        yield streams


async def _bound(response: httpx2.Response) -> None:
    """Limit the size of a response that is one message. What is compressed may become any size."""
    if response.headers.get("content-encoding", "identity") != "identity":
        raise httpx2.DecodingError("the server sent a compressed message, which was not asked for")
    if "event-stream" not in response.headers.get("content-type", ""):
        response.stream = _Bounded(response.stream)


class _Bounded(httpx2.AsyncByteStream):
    """A body that may have `MAX_MESSAGE_BYTES`."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for piece in self._stream:
            size += len(piece)
            if size > MAX_MESSAGE_BYTES:
                raise httpx2.ReadError(f"the server sent a message of more than {MAX_MESSAGE_BYTES:,} bytes")
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()


def _sse(server: MCPServer) -> Any:
    assert server.url is not None, "checked by the caller"
    return sse_client(server.url, dict(server.headers), timeout=CONNECT_SECONDS, sse_read_timeout=24 * 3600)
