"""The host's end of the relay: a kernel behind two streams of bytes, as ZMQ sockets that any Jupyter client can use.

    class Remote:                                    # a process elsewhere that runs relay.py
        async def write(self, data): ...             # to its standard input
        def __aiter__(self): ...                     # the pieces of its standard output, as they come
        async def close(self): ...                   # end it, and whatever was made for it

    relay = await RelayHost.open(connection, remote)
    status = await relay.ended

`connection` is what a connection file holds: the addresses at which the sockets are bound, ipc ones in a 0700 directory
as a rule, and the key with which the kernel will sign. Messages are carried as they are: signed at one end of the wire,
checked at the other.

Code in the kernel was written by a model and may write to the stream too. What is no frame ends the relay.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any, Protocol, Self

import zmq

from rlm_kernel.errors import KernelError
from rlm_kernel.provisioners import relay
from rlm_kernel.sockets import zmq_context

LOST = 255
"""The exit status of a kernel of which nobody knows how it ended."""
CHUNK_BYTES = 2**20
LOG_BYTES = 4_000
INTERRUPT_LINGER_MS = 1_000
LAST_FRAMES_SECONDS = 5.0
_BURST = 200


class Remote(Protocol):
    """A process elsewhere that runs `relay.py`, and the two ends of its pipes. Used in the engine's event loop."""

    async def write(self, data: bytes) -> None:
        """Write to its standard input, and return when there is room for more; called with `CHUNK_BYTES` at most.

        Raises:
            OSError: it has ended, or cannot be reached.
        """
        ...

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The pieces of its standard output as they come; ends with it. May raise OSError."""
        ...

    async def close(self) -> None:
        """End the process and remove what was made for it. Idempotent, and silent about what has ended already."""
        ...


class RelayHost:
    """Carries frames between the sockets of a connection file and a `Remote`. Use it in the loop that opened it.

    Attributes:
        ended: done when the kernel, the relay or the stream has ended: the exit status of the kernel, or `LOST`.
        log: the last of what the kernel and its launcher wrote to their standard output and error.
    """

    def __init__(
        self, connection: Mapping[str, Any], remote: Remote, *, text: bool = False, patience: float | None = None
    ) -> None:
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.log = b""
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._remote = remote
        self._text = text
        self._patience = patience
        self._sockets: dict[int, zmq.Socket[bytes]] = {}
        self._outgoing: deque[list[Any]] = deque()
        self._something = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def open(
        cls,
        connection: Mapping[str, Any],
        remote: Remote,
        *,
        text: bool = False,
        launcher_options: Sequence[str] = (),
        patience: float | None = None,
    ) -> Self:
        """Bind the sockets and have the kernel started. It is usable when it answers: this does not wait for it.

        Args:
            connection: `transport`, `ip`, the five ports, `key` and `signature_scheme`, as in a connection file.
            remote: runs `relay.py`, with `--text` if `text`. It is closed by `close`, and when it ends.
            text: the streams carry lines of text only.
            launcher_options: put before those of ipykernel, e.g. ``["--memory", "1073741824"]``.
            patience: seconds of our silence after which the relay and the kernel end, for places where the end of this
                process does not end their input; None: they wait for that end.

        Raises:
            KernelError: a socket cannot be bound.
        """
        host = cls(connection, remote, text=text, patience=patience)
        try:
            host._bind()
        except zmq.ZMQError as error:
            await host.close()
            raise KernelError(f"The relay cannot listen at {connection['ip']}: {error}") from error
        key = connection["key"]
        settings = {
            "key": key.decode() if isinstance(key, bytes) else key,
            "signature_scheme": connection["signature_scheme"],
            "launcher_options": list(launcher_options),
            "patience": patience,
        }
        host._send(relay.START, [json.dumps(settings).encode(), source("launcher.py").encode()])
        host._tasks = [asyncio.create_task(host._write()), asyncio.create_task(host._read())]
        return host

    async def close(self) -> None:
        """End the remote process, and with it the kernel; close the sockets. Idempotent."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._unbind()
        self._end(LOST)
        await self._remote.close()

    def _bind(self) -> None:
        for channel, name in relay.CHANNELS.items():
            socket = zmq_context().socket(zmq.PUB if channel == relay.IOPUB else zmq.ROUTER)
            self._sockets[channel] = socket
            socket.bind(address(self._connection, name))
            if channel != relay.IOPUB:
                self._loop.add_reader(socket.fileno(), self._from_clients, channel)

    def _unbind(self) -> None:
        for channel, socket in self._sockets.items():
            if channel != relay.IOPUB:
                self._loop.remove_reader(socket.fileno())
            socket.close(0)
        self._sockets = {}

    def _end(self, status: int) -> None:
        if not self.ended.done():
            self.ended.set_result(status)

    # -- to the kernel

    def _from_clients(self, channel: int) -> None:
        """Read what is there: a zmq descriptor signals an edge, so it must be read until it is empty."""
        for _ in range(_BURST):
            socket = self._sockets.get(channel)
            if socket is None:
                return
            try:
                frames = socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            self._send(channel, [frame.buffer for frame in frames])
        self._loop.call_soon(self._from_clients, channel)

    def _send(self, kind: int, parts: Iterable[Any]) -> None:
        self._outgoing.append(relay.encode(kind, parts))
        self._something.set()

    async def _write(self) -> None:
        try:
            while True:
                await self._something_to_say()
                while self._outgoing:
                    for chunk in _chunks(self._outgoing.popleft()):
                        await self._remote.write(relay.as_lines(chunk) if self._text else chunk)
        except OSError as error:
            self._note(f"The relay's input is closed: {error}")
            # A kernel that hears nothing any more is of no use. What it said last may still be on its way.
            await asyncio.wait({self.ended}, timeout=LAST_FRAMES_SECONDS)
            self._end(LOST)

    async def _something_to_say(self) -> None:
        """Wait for a frame; when none comes for long, say that we live."""
        try:
            async with asyncio.timeout(self._patience and self._patience / 4):
                await self._something.wait()
        except TimeoutError:
            self._send(relay.ALIVE, [b""])
        self._something.clear()

    # -- from the kernel

    async def _read(self) -> None:
        frames, lines = relay.Frames(), relay.Lines()
        try:
            async for data in self._remote:
                for kind, parts in frames.feed(lines.feed(data) if self._text else data):
                    self._take(kind, parts)
        except (OSError, relay.BrokenStreamError) as error:
            self._note(f"The relay's output is broken: {error}")
        finally:
            self._end(LOST)

    def _take(self, kind: int, parts: list[bytearray]) -> None:
        if kind in self._sockets:
            self._to_clients(kind, parts)
        elif kind == relay.LOG and parts:
            self.log = (self.log + bytes(parts[0]))[-LOG_BYTES:]
        elif kind == relay.ENDED and parts:
            self._end(_status(parts[0]))
        else:
            raise relay.BrokenStreamError(f"a frame of kind {kind} with {len(parts)} parts")

    def _to_clients(self, channel: int, parts: list[bytearray]) -> None:
        self._sockets[channel].send_multipart(parts, copy=False)
        if channel != relay.IOPUB:
            # Sending may swallow the edge that says there is something to read.
            self._loop.call_soon(self._from_clients, channel)

    def _note(self, words: str) -> None:
        self.log = self.log + f"\n{words}".encode()


def source(name: str) -> str:
    """The source of a file of ours that runs elsewhere: `relay.py` or `launcher.py`."""
    return files("rlm_kernel.provisioners").joinpath(name).read_text("utf-8")


def address(connection: Mapping[str, Any], channel: str) -> str:
    """Where a channel's socket is: `channel` is ``"shell"``, ``"iopub"``, ``"stdin"``, ``"control"`` or ``"hb"``."""
    separator = "-" if connection["transport"] == "ipc" else ":"
    return f"{connection['transport']}://{connection['ip']}{separator}{connection[f'{channel}_port']}"


def interrupt(connection: Mapping[str, Any]) -> None:
    """Ask a kernel for a KeyboardInterrupt in the running cell: what any client does with an `interrupt_request`."""
    from jupyter_client.session import Session

    key = connection["key"]
    session = Session(key=key if isinstance(key, bytes) else key.encode())
    with zmq_context().socket(zmq.DEALER) as socket:
        socket.linger = INTERRUPT_LINGER_MS
        socket.connect(address(connection, "control"))
        session.send(socket, "interrupt_request", {})


def _chunks(pieces: list[Any]) -> Iterable[bytes]:
    """A frame in writes of a bounded size; small pieces go together."""
    small = b"".join(pieces) if sum(map(len, pieces)) <= CHUNK_BYTES else None
    for piece in pieces if small is None else [small]:
        for start in range(0, len(piece), CHUNK_BYTES):
            yield bytes(piece[start : start + CHUNK_BYTES])


def _status(number: bytearray) -> int:
    try:
        return int(number)
    except ValueError as error:
        raise relay.BrokenStreamError("an exit status that is no number") from error
