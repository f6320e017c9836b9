"""ZMTP connections in an asyncio loop. The reader bounds what is held, and the number of unsent bytes is known.

`Connection` is a single connection, `Line` connects to a listening socket again and again, `Listener` accepts
connections.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlm_kernel.zmtp.codec import GREETING, BrokenProtocolError, Reader, encode, ping, pong, ready

READ_BYTES = 65_536
SLICE_SECONDS = 0.005
"""How long a connection is read or written before other tasks run."""
AGAIN_SECONDS = 0.005
"""Pause between two attempts to connect."""
_MAX_PIECES = 64
"""Written by one system call."""
_BACKLOG = 128


class Parts:
    """Assembles whole messages of any size from the frames of a connection, for trusted peers.

    Args:
        on_message: called with the parts of each message.
    """

    def __init__(self, on_message: Callable[[list[Any]], None]) -> None:
        self._on_message = on_message
        self._parts: list[bytes | bytearray] = []
        self._part = bytearray()
        self._more = False

    def begin(self, size: int, *, more: bool) -> None:  # noqa: ARG002
        """Start a frame."""
        self._part, self._more = bytearray(), more

    def whole(self, frame: bytes | bytearray, *, more: bool) -> None:
        """Take a frame that arrived at once."""
        self._parts.append(frame)
        if not more:
            parts, self._parts = self._parts, []
            self._on_message(parts)

    def piece(self, data: memoryview) -> None:
        """Take a piece of the frame."""
        self._part += data

    def end(self) -> None:
        """End the frame."""
        self.whole(self._part, more=self._more)


class Connection:
    """One connection. Belongs to the loop in which it was made, and owns the socket.

    Args:
        sock: connected, not blocking.
        frames: takes the frames: an object with `whole`, `begin`, `piece` and `end` as in `codec.Receiver`.
        kind: of our socket: ``"DEALER"``, ``"SUB"``, ``"ROUTER"`` or ``"PUB"``.
        identity: ours.

    Attributes:
        ended: done when it was closed by either side; the result is the reason in words.
        identity: the peer's; empty when it has none, or has not sent it yet.
        is_ready: whether the handshake is over.
        unsent: bytes that wait to be sent.
        unanswered: how often the peer was asked for a sign of life since the last bytes came; 0 if it never gave one.
        on_ready: called when the handshake is over.
        on_drained: called when some of the unsent bytes were sent.
    """

    def __init__(self, sock: socket.socket, frames: Any, kind: str, identity: bytes = b"") -> None:
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[str] = self._loop.create_future()
        self.identity = b""
        self.is_ready = False
        self.unsent = self.unanswered = 0
        self.on_ready: Callable[[], None] = lambda: None
        self.on_drained: Callable[[], None] = lambda: None
        self.whole, self.begin, self.piece, self.end = frames.whole, frames.begin, frames.piece, frames.end
        self._kind = kind
        self._socket: socket.socket | None = sock
        self._reader = Reader(self)
        self._pieces: deque[memoryview] = deque()
        self._is_writing = self._is_paused = self._has_ponged = False
        self._loop.add_reader(sock, self._read)
        self.write([GREETING, ready(kind, identity)])

    def ready(self, identity: bytes) -> None:
        """The handshake is over."""
        self.identity, self.is_ready = identity, True
        self.on_ready()

    def ping(self, context: bytes) -> None:
        """Answer a kernel. A client is not answered, because it may be in the middle of a frame of ours."""
        if self._kind in ("DEALER", "SUB"):
            self.write([pong(context)])

    def pong(self) -> None:
        """The peer gives a sign of life."""
        self._has_ponged = True

    def ask(self) -> None:
        """Ask the peer for a sign of life. Only a peer that has given one is expected to."""
        self.unanswered += self._has_ponged
        self.write([ping()])

    def send(self, parts: Sequence[Any]) -> None:
        """Send a message. Large parts are not copied, so they must not change before they are sent."""
        self.write(encode(parts))

    def write(self, pieces: Iterable[Any]) -> None:
        """Send bytes. Does nothing when the connection is closed."""
        for piece in pieces if self._socket is not None else ():
            if piece:
                self._pieces.append(memoryview(piece))
                self.unsent += len(piece)
        if not self._is_writing:
            self._write()

    def pause(self) -> None:
        """Stop reading until `resume`: the peer has to hold its messages."""
        if self._socket is not None and not self._is_paused:
            self._is_paused = True
            self._loop.remove_reader(self._socket)

    def resume(self) -> None:
        """Read on."""
        if self._socket is not None and self._is_paused:
            self._is_paused = False
            self._loop.add_reader(self._socket, self._read)

    def close(self, why: str = "it was closed") -> None:
        """Close it. Unsent bytes are dropped. Idempotent."""
        sock, self._socket = self._socket, None
        if sock is not None:
            self._loop.remove_reader(sock)
            self._loop.remove_writer(sock)
            sock.close()
            self._pieces.clear()
            self.unsent = 0
            self.ended.set_result(why)
            self.on_drained()

    def _read(self) -> None:
        until = time.monotonic() + SLICE_SECONDS
        while self._socket is not None and not self._is_paused:
            try:
                data = self._socket.recv(READ_BYTES)
            except (BlockingIOError, InterruptedError):
                return None
            except OSError as error:
                return self.close(str(error))
            if not data:
                return self.close("the other end closed it")
            self.unanswered = 0
            try:
                self._reader.feed(data)
            except BrokenProtocolError as error:
                return self.close(f"what came over it was not ZeroMQ's protocol: {error}")
            if time.monotonic() > until:
                return None  # the loop calls this again at once
        return None

    def _write(self) -> None:
        until = time.monotonic() + SLICE_SECONDS
        while self._pieces and self._socket is not None:
            try:
                sent = self._socket.sendmsg([self._pieces[n] for n in range(min(_MAX_PIECES, len(self._pieces)))])
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                return self.close(str(error))
            self._forget(sent)
            if time.monotonic() > until:
                break
        return self._listen_for_room()

    def _forget(self, sent: int) -> None:
        self.unsent -= sent
        while sent:
            first = self._pieces[0]
            if len(first) > sent:
                self._pieces[0] = first[sent:]
                return
            sent -= len(self._pieces.popleft())

    def _listen_for_room(self) -> None:
        if self._socket is not None and self._is_writing != bool(self._pieces):
            self._is_writing = not self._is_writing
            if self._is_writing:
                self._loop.add_writer(self._socket, self._write)
            else:
                self._loop.remove_writer(self._socket)
        self.on_drained()


class Line:
    """A connection to a socket that listens, now or later. It is made as soon as possible, and again after a loss.

    Args:
        address: ``ipc://PATH`` or ``tcp://HOST:PORT``.
        frames, kind, identity: of the connection.
        hello: the first message on each connection, or None.

    Attributes:
        cut: done when a connection that had been ready was lost; the result is the reason in words.
        on_drained: called when some of the unsent bytes were sent.
    """

    def __init__(
        self,
        address: str,
        frames: Callable[[], Any],
        kind: str,
        *,
        identity: bytes = b"",
        hello: Sequence[bytes] | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.cut: asyncio.Future[str] = self._loop.create_future()
        self.on_drained: Callable[[], None] = lambda: None
        self._frames = frames
        self._kind = kind
        self._identity = identity
        self._hello = hello
        self._connection: Connection | None = None
        self._waiting: list[list[Any]] = []
        self._is_paused = False
        self._task = self._loop.create_task(self._keep(address))

    @property
    def unsent(self) -> int:
        """Bytes that wait to be sent."""
        unsent = 0 if self._connection is None else self._connection.unsent
        return unsent + sum(len(part) for parts in self._waiting for part in parts)

    @property
    def unanswered(self) -> int:
        """See `Connection`."""
        return 0 if self._connection is None else self._connection.unanswered

    def ask(self) -> None:
        """Ask the peer for a sign of life."""
        if self._connection is not None and self._connection.is_ready:
            self._connection.ask()

    def send(self, parts: Sequence[Any]) -> None:
        """Send a message, or hold it until there is a connection."""
        if self._connection is not None and self._connection.is_ready:
            self._connection.send(parts)
        else:
            self._waiting.append(list(parts))

    def pause(self) -> None:
        """Stop reading until `resume`."""
        self._is_paused = True
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        """Read on."""
        self._is_paused = False
        if self._connection is not None:
            self._connection.resume()

    def close(self) -> None:
        """Close it. Idempotent."""
        self._task.cancel()
        if self._connection is not None:
            self._connection.close()

    def _drained(self) -> None:
        self.on_drained()

    async def _keep(self, address: str) -> None:
        while True:
            try:
                sock = await connected(address)
            except OSError:
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            why = await self._use(Connection(sock, self._frames(), self._kind, self._identity))
            if why is None:
                await asyncio.sleep(AGAIN_SECONDS)
            elif not self.cut.done():
                self.cut.set_result(why)

    async def _use(self, connection: Connection) -> str | None:
        """Use a connection until it ends. Returns the reason, or None if it was never ready."""
        self._connection = connection
        connection.on_drained = self._drained
        connection.on_ready = lambda: self._open(connection)
        await asyncio.wait({connection.ended})  # a cancellation is not passed on to it
        self._connection = None
        return connection.ended.result() if connection.is_ready else None

    def _open(self, connection: Connection) -> None:
        """Send the messages that were held."""
        if self._hello is not None:
            connection.send(self._hello)
        waiting, self._waiting = self._waiting, []
        for parts in waiting:
            connection.send(parts)
        if self._is_paused:
            connection.pause()


class Listener:
    """A socket to which clients connect.

    Args:
        address: as for `listen`.
        kind: ``"ROUTER"`` or ``"PUB"``.
        on_message: called with the connection and the parts of a message of a client. Clients are trusted.

    Attributes:
        connections: all that are open.
        on_open: called with a connection when its handshake is over.
        on_drained: called when some of the unsent bytes of a connection were sent.

    Raises:
        OSError: the address cannot be used.
    """

    def __init__(self, address: str, kind: str, on_message: Callable[[Connection, list[Any]], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self.on_open: Callable[[Connection], None] = lambda _: None
        self.on_drained: Callable[[], None] = lambda: None
        self.connections: set[Connection] = set()
        self._kind = kind
        self._on_message = on_message
        self._address = address
        self._socket = listen(address)
        self._loop.add_reader(self._socket, self._accept)

    def close(self) -> None:
        """Close it and its connections. Idempotent."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            if self._address.startswith("ipc://"):
                Path(self._address.removeprefix("ipc://")).unlink(missing_ok=True)
        for connection in list(self.connections):
            connection.close()

    def _drained(self) -> None:
        self.on_drained()

    def _accept(self) -> None:
        try:
            sock, _ = self._socket.accept()
        except OSError:
            return  # the client has gone already
        sock.setblocking(False)
        parts = Parts(lambda parts: self._on_message(connection, parts))
        connection = Connection(sock, parts, self._kind)
        connection.on_drained = self._drained
        connection.on_ready = lambda: self.on_open(connection)
        self.connections.add(connection)
        connection.ended.add_done_callback(lambda _: self.connections.discard(connection))


async def connected(address: str) -> socket.socket:
    """A socket that is connected to `address`.

    Raises:
        OSError: no socket listens there.
    """
    family, place = _place(address)
    sock = socket.socket(family)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, place)
    except BaseException:
        sock.close()
        raise
    if family != _UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def address(connection: Mapping[str, Any], channel: str) -> str:
    """The address of the socket of a channel: ``"shell"``, ``"iopub"``, ``"stdin"``, ``"control"`` or ``"hb"``."""
    separator = "-" if connection["transport"] == "ipc" else ":"
    return f"{connection['transport']}://{connection['ip']}{separator}{connection[f'{channel}_port']}"


_UNIX = getattr(socket, "AF_UNIX", None)


def _place(address: str) -> tuple[Any, Any]:
    """The family and the address that Python's sockets take."""
    transport, _, place = address.partition("://")
    if transport == "ipc":
        return _UNIX, place
    host, _, port = place.rpartition(":")
    return (socket.AF_INET6 if ":" in host else socket.AF_INET), (host.strip("[]"), int(port))


def listen(address: str) -> socket.socket:
    """A socket that listens at `address`. A file that is left from another socket is removed.

    Raises:
        OSError: the address cannot be used.
    """
    family, place = _place(address)
    if family == _UNIX:
        Path(place).unlink(missing_ok=True)
    sock = socket.socket(family)
    try:
        sock.setblocking(False)
        if family != _UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(place)
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock
