"""The host's end of the relay: ZMQ sockets for any Jupyter client, to a kernel behind two streams of bytes.

    class Remote:                                    # a remote process that runs remote_end.py
        async def write(self, data): ...             # to its standard input
        def __aiter__(self): ...                     # the pieces of its standard output
        async def close(self): ...                   # end it, and remove what was made for it

    relay = await RelayHost.open(connection, remote)
    status = await relay.ended

`connection` is the content of a connection file: the addresses of the sockets, usually ipc ones in a 0700 directory,
and the key with which the kernel signs. The relay does not change messages: client and kernel sign and check them.

A model writes the code in the kernel, and that code may write to the stream too. Invalid frames end the relay. Messages
are not held: they are passed on while they arrive, and reading stops while the clients do not take them.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from functools import partial
from importlib.resources import files
from typing import Any, Protocol, Self

import zmq

from rlm_kernel.errors import KernelError
from rlm_kernel.provisioners.relay import remote_end
from rlm_kernel.provisioners.relay.frames import FramesInPieces
from rlm_kernel.provisioners.zmq_context import zmq_context
from rlm_kernel.zmtp.codec import frame_head
from rlm_kernel.zmtp.sockets import Connection, Listener, address

LOST = 255
"""The exit status when it is not known how the kernel ended."""
CHUNK_BYTES = 2**20
LOG_BYTES = 4_000
INTERRUPT_LINGER_MS = 1_000
MAX_REPLY_BYTES = 100_000
LAST_FRAMES_SECONDS = 5.0
MAX_UNTAKEN_BYTES = 8_000_000
"""While that much waits for a client, no more is read from the kernel."""
SLOW_SECONDS = 10.0
MAX_STRIKES = 6
"""Periods of `SLOW_SECONDS` in which a client may take nothing; then its connection is closed."""
MAX_OUTGOING_BYTES = 64_000_000
"""While that much waits for the remote end, no more is read from clients."""


class Remote(Protocol):
    """A remote process that runs `remote_end.py`, and its pipes. Used in the engine's event loop."""

    async def write(self, data: bytes) -> None:
        """Write at most `CHUNK_BYTES` to its standard input, and return when there is room for more.

        Raises:
            OSError: it has ended, or cannot be reached.
        """
        ...

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The pieces of its standard output, until it ends. May raise OSError."""
        ...

    async def close(self) -> None:
        """End the process and remove what was made for it. Idempotent; no error if it has ended already."""
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
        self._listeners: dict[int, Listener] = {}
        self._clients: dict[tuple[int, bytes], Connection] = {}
        self._topics: dict[Connection, set[bytes]] = {}
        self._numbers = itertools.count(1)
        self._drained = asyncio.Event()
        self._receivers: list[Connection] = []  # of the message that is arriving
        self._outgoing: deque[list[Any]] = deque()
        self._outgoing_bytes = 0
        self._has_outgoing = asyncio.Event()
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
        """Bind the sockets and start the kernel. This does not wait until the kernel answers.

        Args:
            connection: `transport`, `ip`, the five ports, `key` and `signature_scheme`, as in a connection file.
            remote: runs `remote_end.py`, with `--text` if `text`. It is closed by `close`, and when it ends.
            text: the streams carry lines of text only.
            launcher_options: options of `launcher.py`, e.g. ``["--memory", "1073741824"]``.
            patience: seconds of silence of the host after which the relay and the kernel end, where the end of this
                process does not end their input; None: the end of the input ends them.

        Raises:
            KernelError: a socket cannot be bound.
        """
        host = cls(connection, remote, text=text, patience=patience)
        try:
            host._bind()
        except OSError as error:
            await host.close()
            raise KernelError(f"The relay cannot listen at {connection['ip']}: {error}") from error
        key = connection["key"]
        settings = {
            "key": key.decode() if isinstance(key, bytes) else key,
            "signature_scheme": connection["signature_scheme"],
            "launcher_options": list(launcher_options),
            "patience": patience,
        }
        host._send(remote_end.START, [json.dumps(settings).encode(), source("launcher.py").encode()])
        host._tasks = [asyncio.create_task(host._write()), asyncio.create_task(host._read())]
        return host

    async def close(self) -> None:
        """End the remote process, and with it the kernel; close the sockets. Idempotent."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()
        self._end(LOST)
        await self._remote.close()

    def _bind(self) -> None:
        for channel, name in remote_end.CHANNELS.items():
            kind, take = (
                ("PUB", self._subscribe) if channel == remote_end.IOPUB else ("ROUTER", partial(self._forward, channel))
            )
            self._listeners[channel] = Listener(address(self._connection, name), kind, take)
            self._listeners[channel].on_open = partial(self._register, channel)
            self._listeners[channel].on_drained = self._drained.set

    def _end(self, status: int) -> None:
        if not self.ended.done():
            self.ended.set_result(status)

    # -- to the kernel

    def _register(self, channel: int, client: Connection) -> None:
        """Register a client under its identity. Of two with one identity, the later one gets the messages."""
        client.identity = client.identity or b"\0" + next(self._numbers).to_bytes(4, "big")
        place = channel, client.identity
        self._clients[place] = client
        client.ended.add_done_callback(lambda _: self._unregister(place, client))

    def _forward(self, channel: int, client: Connection, parts: list[Any]) -> None:
        """Send a client's message to the kernel."""
        self._send(channel, [client.identity, *parts])

    def _unregister(self, place: tuple[int, bytes], client: Connection) -> None:
        if self._clients.get(place) is client:
            del self._clients[place]

    def _subscribe(self, client: Connection, parts: list[Any]) -> None:
        """Add or remove a client's subscription to IOPub: one byte, and the prefix of the topics."""
        subscription = bytes(parts[0])
        if client not in self._topics:
            self._topics[client] = set()
            client.ended.add_done_callback(lambda _: self._topics.pop(client))
        change = self._topics[client].add if subscription[:1] == b"\1" else self._topics[client].discard
        change(subscription[1:])

    def _send(self, kind: int, parts: Sequence[Any]) -> None:
        self._outgoing.append(remote_end.encode(kind, parts))
        self._outgoing_bytes += sum(map(len, parts))
        if self._outgoing_bytes > MAX_OUTGOING_BYTES:
            for client in self._all_clients():
                client.pause()
        self._has_outgoing.set()

    def _all_clients(self) -> list[Connection]:
        return [client for listener in self._listeners.values() for client in listener.connections]

    async def _write(self) -> None:
        try:
            while True:
                await self._wait_for_frame()
                while self._outgoing:
                    await self._write_frame(self._outgoing.popleft())
        except OSError as error:
            self._note(f"The relay's input is closed: {error}")
            # The kernel cannot be reached any more. Its last output may still arrive.
            await asyncio.wait({self.ended}, timeout=LAST_FRAMES_SECONDS)
            self._end(LOST)

    async def _write_frame(self, pieces: list[Any]) -> None:
        for chunk in _chunks(pieces):
            await self._remote.write(remote_end.as_lines(chunk) if self._text else chunk)
        _, *parts = pieces
        was, self._outgoing_bytes = self._outgoing_bytes, self._outgoing_bytes - sum(map(len, parts))
        if was > MAX_OUTGOING_BYTES >= self._outgoing_bytes:
            for client in self._all_clients():
                client.resume()

    async def _wait_for_frame(self) -> None:
        """Wait for a frame to be sent. After a quarter of `patience` add an ALIVE frame."""
        try:
            async with asyncio.timeout(self._patience and self._patience / 4):
                await self._has_outgoing.wait()
        except TimeoutError:
            self._send(remote_end.ALIVE, [b""])
        self._has_outgoing.clear()

    # -- from the kernel

    async def _read(self) -> None:
        frames, lines = FramesInPieces(self), remote_end.Lines()
        try:
            async for data in self._remote:
                frames.feed(lines.feed(data) if self._text else data)
                await self._wait_for_slow_clients()
        except (OSError, remote_end.BrokenStreamError) as error:
            self._note(f"The relay's output is broken: {error}")
        finally:
            self._end(LOST)

    async def _wait_for_slow_clients(self) -> None:
        """Wait while much is unsent to a client. A client that takes nothing for long is disconnected."""
        strikes = 0
        while slow := [c for c in self._all_clients() if c.unsent > MAX_UNTAKEN_BYTES]:
            self._drained.clear()
            try:
                async with asyncio.timeout(SLOW_SECONDS):
                    await self._drained.wait()
                strikes = 0
            except TimeoutError:
                strikes += 1
            if strikes == MAX_STRIKES:
                for client in slow:
                    client.close("it took no messages of the kernel")

    def take_status(self, kind: int, data: bytes) -> None:
        """A frame for the host: the kernel's process wrote to its standard output, or has ended."""
        if kind == remote_end.LOG:
            self.log = (self.log + data)[-LOG_BYTES:]
        elif kind == remote_end.ENDED:
            self._end(_status(data))
        else:
            raise remote_end.BrokenStreamError(f"a frame of kind {kind}")

    def message_begins(self, channel: int, first: bytes) -> None:
        """A message of the kernel begins. Its first part is the client's identity, or the topic on IOPub."""
        if channel == remote_end.IOPUB:
            topics = self._topics.items()
            self._receivers = [client for client, wanted in topics if any(map(first.startswith, wanted))]
        else:
            client = self._clients.get((channel, first))
            self._receivers = [] if client is None else [client]

    def part_begins(self, size: int, *, more: bool) -> None:
        """A part of that message begins."""
        for client in self._receivers:
            client.write([frame_head(size, more=more)])

    def piece(self, data: bytes) -> None:
        """Some bytes of that part."""
        for client in self._receivers:
            client.write([data])

    def _note(self, text: str) -> None:
        self.log += f"\n{text}".encode()


def source(name: str) -> str:
    """The source of a file that runs remotely: `relay/remote_end.py` or `launcher.py`."""
    return files("rlm_kernel.provisioners").joinpath(name).read_text("utf-8")


def interrupt(connection: Mapping[str, Any]) -> None:
    """Raise KeyboardInterrupt in the running cell of a kernel by an `interrupt_request`."""
    from jupyter_client.session import Session

    key = connection["key"]
    session = Session(key=key if isinstance(key, bytes) else key.encode())
    with zmq_context().socket(zmq.DEALER) as socket:
        socket.linger = INTERRUPT_LINGER_MS
        socket.rcvhwm, socket.maxmsgsize = 1, MAX_REPLY_BYTES
        socket.connect(address(connection, "control"))
        session.send(socket, "interrupt_request", {})


def _chunks(pieces: list[Any]) -> Iterable[bytes]:
    """Split a frame into writes of a bounded size; small pieces are joined."""
    small = b"".join(pieces) if sum(map(len, pieces)) <= CHUNK_BYTES else None
    for piece in pieces if small is None else [small]:
        for start in range(0, len(piece), CHUNK_BYTES):
            yield bytes(piece[start : start + CHUNK_BYTES])


def _status(number: bytes) -> int:
    try:
        return int(number)
    except ValueError as error:
        raise remote_end.BrokenStreamError("an exit status that is not a number") from error
