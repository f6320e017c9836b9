"""The remote end of the relay, which runs next to a kernel. It carries ZMQ frames over its standard input and output.

    python remote_end.py [--text] [--own-directory]    or, where no file can be written:    python -c SOURCE [...]

It needs the standard library and pyzmq, a dependency of ipykernel. So a kernel can run wherever there are a Python with
ipykernel and two pipes: `docker run -i`, `exec` of a cloud sandbox, `kubectl exec -i`, ssh. No port is open there, and
no network is used. The host's end is `host_end.RelayHost`; both use the frames defined here.

The first frame of the host is START: settings as JSON, and the source of `launcher.py`, which starts the kernel and
kills all processes that the kernel started. The end of the input means that the host has ended, and ends the kernel.
Where the input never ends (some clouds keep it open), the host sends ALIVE now and then, and its silence means its end.
When the kernel ends, the frame ENDED is sent, and then the output ends. If this process is killed, the launcher's input
ends, and with it the kernel.

`--own-directory`: the kernel's working directory is an empty one, which is removed with the kernel.

A frame is a byte for its kind, four for the number of its parts, eight for the length of each part, and the parts;
numbers are big-endian. Frames of the five channels are messages of the kernel's sockets. Their first part, except on
IOPub, is the identity of the client. A channel for text only carries the same bytes as lines of base64 (`--text`).
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import queue
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

SHELL, IOPUB, STDIN, CONTROL, HEARTBEAT = range(5)
START, LOG, ENDED, ALIVE = 16, 17, 18, 19
CHANNELS = {SHELL: "shell", IOPUB: "iopub", STDIN: "stdin", CONTROL: "control", HEARTBEAT: "hb"}
"""In the order in which jupyter_client numbers ipc paths."""

MAX_PARTS = 100_000
MAX_PART_BYTES = 2**32
READ_BYTES = 2**20
LINE_BYTES = 2_880
"""Of a line before encoding. As base64 it stays below the 4,096 bytes that a terminal takes for a line."""
LINE_MARK = b"rlm:"
MAX_NOISE = 2**20
LAST_MESSAGES_MS = 50
MAX_BACKLOG_BYTES = 64_000_000
"""While that much waits to be written, the kernel's messages are not read; the kernel holds them."""
BACKLOG_MS = 20
MAX_MESSAGES_HELD = 1_000
"""Of IOPub, by the socket here; the kernel's own socket holds all others."""
MAX_SOCKETS = 200
"""For clients, whose end is not known here: zmq has 1,023 sockets, and each takes two descriptors."""
PR_SET_DUMPABLE = 4
_HEAD = struct.Struct("!BI")

Frame = tuple[int, list[bytearray]]


class BrokenStreamError(ValueError):
    """The incoming bytes are not frames: the other end is another program, or was tampered with."""


def encode(kind: int, parts: Iterable[Any]) -> list[Any]:
    """A frame as pieces to write one after another; the parts are not copied."""
    views = [memoryview(part).cast("B") for part in parts]
    head = _HEAD.pack(kind, len(views)) + struct.pack(f"!{len(views)}Q", *(len(view) for view in views))
    return [head, *views]


class Frames:
    """Cuts a stream of bytes into frames. A part is received into its final buffer: a large one is copied once."""

    def __init__(self) -> None:
        self._complete: list[Frame] = []
        self._buffers = self._cut()
        self._room = memoryview(next(self._buffers))

    def feed(self, data: Any) -> list[Frame]:
        """The frames that are complete with `data`.

        Raises:
            BrokenStreamError: these are not frames.
        """
        rest = memoryview(data)
        while True:
            if not self._room:
                self._room = memoryview(next(self._buffers))
            elif not rest:
                break
            else:
                taken = rest[: len(self._room)]
                self._room[: len(taken)] = taken
                rest, self._room = rest[len(taken) :], self._room[len(taken) :]
        complete, self._complete = self._complete, []
        return complete

    def _cut(self) -> Iterator[bytearray]:
        """Yield the buffers to fill, one after another."""
        while True:
            yield (head := bytearray(_HEAD.size))
            kind, count = _HEAD.unpack(head)
            if count > MAX_PARTS:
                raise BrokenStreamError(f"a frame of {count:,} parts")
            yield (numbers := bytearray(8 * count))
            lengths = struct.unpack(f"!{count}Q", numbers)
            if sum(lengths) > MAX_PART_BYTES:
                raise BrokenStreamError(f"a frame of {sum(lengths):,} bytes")
            parts = []
            for length in lengths:
                yield (part := bytearray(length))
                parts.append(part)
            self._complete.append((kind, parts))


def as_lines(data: Any) -> bytes:
    """Encode a piece of the stream as marked lines of base64."""
    starts = range(0, len(data), LINE_BYTES)
    return b"".join(b"%s%s\n" % (LINE_MARK, base64.b64encode(data[at : at + LINE_BYTES])) for at in starts)


class Lines:
    """Decodes the stream from marked lines of base64; other lines are noise of the channel."""

    def __init__(self) -> None:
        self._begun = b""

    def feed(self, data: Any) -> bytes:
        """The bytes of the lines that are complete with `data`.

        Raises:
            BrokenStreamError: a marked line is not base64, or a line is too long.
        """
        *complete, self._begun = (self._begun + bytes(data)).split(b"\n")
        if len(self._begun) > MAX_NOISE:
            raise BrokenStreamError("a line without an end")
        try:
            marked = (line.strip() for line in complete)
            ours = (line[len(LINE_MARK) :] for line in marked if line.startswith(LINE_MARK))
            return b"".join(base64.b64decode(line, validate=True) for line in ours)
        except binascii.Error as error:
            raise BrokenStreamError("a line that is not base64") from error


class Output:
    """The standard output, written by a thread of its own, so that the relay does not wait for it.

    Attributes:
        backlog: bytes that are not written yet.
    """

    def __init__(self, fd: int, *, text: bool) -> None:
        self._fd = fd
        self._text = text
        self.backlog = 0
        self._counting = threading.Lock()
        self._queue: queue.SimpleQueue[list[Any] | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, daemon=True)
        self._writer.start()

    def put(self, kind: int, parts: Iterable[Any]) -> None:
        """Send a frame."""
        pieces = encode(kind, parts)
        self._count(sum(map(len, pieces)))
        self._queue.put(pieces)

    def finish(self) -> None:
        """Return when everything is written."""
        self._queue.put(None)
        self._writer.join()

    def _write(self) -> None:
        while (pieces := self._queue.get()) is not None:
            small = b"".join(pieces) if sum(map(len, pieces)) < READ_BYTES else None
            for piece in pieces if small is None else [small]:
                self._write_all(memoryview(as_lines(piece) if self._text else piece))
            self._count(-sum(map(len, pieces)))

    def _count(self, change: int) -> None:
        with self._counting:
            self.backlog += change

    def _write_all(self, data: memoryview) -> None:
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError:
            os._exit(1)  # the host has ended; the launcher's input ends with this process


class Kernel:
    """The launcher and, below it, the kernel; and the sockets that are connected to it."""

    def __init__(self, settings: dict[str, Any], launcher: str, *, own_directory: bool = False) -> None:
        import zmq

        self._zmq = zmq
        self.directory = tempfile.mkdtemp(prefix="rlm-")
        self._cwd = os.path.join(self.directory, "work") if own_directory else None  # noqa: PTH118
        self.process = self._launch(settings, launcher)
        self._context = zmq.Context()
        for option, value in ((zmq.RCVHWM, 0), (zmq.SNDHWM, 0), (zmq.LINGER, 0), (zmq.RECONNECT_IVL, 5)):
            self._context.setsockopt(option, value)

    def _launch(self, settings: dict[str, Any], launcher: str) -> subprocess.Popen[bytes]:
        file = os.path.join(self.directory, "kernel.json")  # noqa: PTH118 (pathlib costs an import)
        ports = {f"{name}_port": number for number, name in enumerate(CHANNELS.values(), 1)}
        connection = {"transport": "ipc", "ip": os.path.join(self.directory, "k"), **ports}  # noqa: PTH118
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:  # noqa: PTH123
            json.dump({**connection, "key": settings["key"], "signature_scheme": settings["signature_scheme"]}, opened)
        if self._cwd is not None:
            os.mkdir(self._cwd)  # noqa: PTH102
        safe = ["-P"] if sys.version_info >= (3, 11) else []
        options = ["--host-pipe", "--remove", self.directory, *settings.get("launcher_options", [])]
        command = [sys.executable, *safe, "-c", launcher, *options, "-f", file]
        pipe = subprocess.PIPE
        return subprocess.Popen(  # noqa: S603 (the host says what is started here)
            command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, start_new_session=True, cwd=self._cwd
        )

    def remove_directory(self) -> None:
        """Remove its files. After the end of the host the launcher does that."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def subscribe(self) -> Any:
        """The socket that receives all messages on IOPub."""
        socket = self._context.socket(self._zmq.SUB)
        socket.subscribe(b"")
        socket.rcvhwm = MAX_MESSAGES_HELD
        socket.connect(self._address(IOPUB))
        return socket

    def client_socket(self, channel: int, identity: bytes) -> Any:
        """A new socket in place of a client's socket on a channel."""
        socket = self._context.socket(self._zmq.DEALER)
        # An identity that zmq generated begins with a zero byte, which may not be set.
        socket.identity = identity if identity[:1] not in (b"", b"\0") else b"-" + identity
        socket.connect(self._address(channel))
        return socket

    def _address(self, channel: int) -> str:
        return f"ipc://{self.directory}/k-{channel + 1}"


class Client:
    """The sockets in place of a client's, one per channel that it uses, and its number of requests without reply."""

    def __init__(self) -> None:
        self.sockets: dict[int, Any] = {}
        self.pending = 0


class Relay:
    """Carries frames until the kernel or the host has ended. One thread writes, another waits for the kernel's end."""

    def __init__(
        self, kernel: Kernel, frames: Frames, output: Output, lines: Lines | None, patience: float | None
    ) -> None:
        import zmq

        self._zmq = zmq
        self._kernel = kernel
        self._frames = frames
        self._output = output
        self._lines = lines
        self._patience = patience
        self._pause = None if patience is None else int(patience * 1000)
        self._last_input = time.monotonic()
        self._status = 1
        self._ended, self._end = os.pipe()
        assert kernel.process.stdout is not None
        self._log = kernel.process.stdout.fileno()
        self._poller, self._host_only = zmq.Poller(), zmq.Poller()
        self._host_only.register(0, zmq.POLLIN)
        self._routes: dict[Any, tuple[int, list[bytes]]] = {}
        self._clients: dict[bytes, Client] = {}
        for fd in (0, self._log, self._ended):
            self._poller.register(fd, zmq.POLLIN)
        self._watch(kernel.subscribe(), IOPUB, [])
        threading.Thread(target=self._wait, daemon=True).start()

    def run(self, begun: Iterable[Frame]) -> int:
        """Carry frames until the kernel has ended (returns its exit status) or the host has (returns -1)."""
        self._to_kernel(begun)
        while True:
            ready = self._ready()
            for source in ready:
                if source in self._routes:
                    self._to_host(source)
            if self._log in ready:
                self._read_log()
            if (0 in ready and not self._read_input()) or self._is_host_silent():
                return -1
            if self._ended in ready:
                self._last_messages()
                return self._status

    def _ready(self) -> list[Any]:
        """The sources that can be read; while the host takes nothing, only the host's input."""
        if self._output.backlog <= MAX_BACKLOG_BYTES:
            return [source for source, _ in self._poller.poll(self._pause)]
        return [source for source, _ in self._host_only.poll(BACKLOG_MS)]

    def _watch(self, socket: Any, channel: int, prefix: list[bytes]) -> None:
        self._routes[socket] = (channel, prefix)
        self._poller.register(socket, self._zmq.POLLIN)

    def _to_kernel(self, frames: Iterable[Frame]) -> None:
        for channel, (identity, *parts) in (frame for frame in frames if frame[0] != ALIVE):
            client = bytes(identity)
            if channel == SHELL:
                self._socket(STDIN, client)  # connected early: earlier requests of the kernel would be lost
            self._socket(channel, client).send_multipart(parts, copy=False)
            self._clients[client].pending += is_request(parts)
            if len(self._routes) > MAX_SOCKETS:
                self._close_quiet_clients()

    def _socket(self, channel: int, identity: bytes) -> Any:
        """The socket in place of a client's on a channel; its messages go to the host."""
        # Removed and added again, so that the dict is ordered by the last message.
        client = self._clients[identity] = self._clients.pop(identity, Client())
        if channel not in client.sockets:
            client.sockets[channel] = self._kernel.client_socket(channel, identity)
            self._watch(client.sockets[channel], channel, [identity])
        return client.sockets[channel]

    def _close_quiet_clients(self) -> None:
        """Close sockets of clients without open requests, the longest quiet ones first; never the latest client's."""
        for identity, client in list(self._clients.items())[:-1]:
            if len(self._routes) > MAX_SOCKETS and client.pending <= 0:
                del self._clients[identity]
                for socket in client.sockets.values():
                    self._poller.unregister(socket)
                    del self._routes[socket]
                    socket.close()

    def _to_host(self, socket: Any) -> None:
        channel, prefix = self._routes[socket]
        for _ in range(200):
            try:
                parts = socket.recv_multipart(self._zmq.NOBLOCK, copy=False)
            except self._zmq.Again:
                return
            self._output.put(channel, [*prefix, *(part.buffer for part in parts)])
            if channel in (SHELL, CONTROL):
                self._clients[prefix[0]].pending -= 1
            if self._output.backlog > MAX_BACKLOG_BYTES:
                return

    def _read_input(self) -> bool:
        self._last_input = time.monotonic()
        data = os.read(0, READ_BYTES)
        if data:
            self._to_kernel(self._frames.feed(data if self._lines is None else self._lines.feed(data)))
        return bool(data)

    def _is_host_silent(self) -> bool:
        """Whether the host has been silent for longer than `patience`."""
        return self._patience is not None and time.monotonic() - self._last_input > self._patience

    def _read_log(self) -> None:
        data = os.read(self._log, READ_BYTES)
        if data:
            self._output.put(LOG, [data])
        else:
            self._poller.unregister(self._log)

    def _wait(self) -> None:
        self._status = self._kernel.process.wait()
        os.write(self._end, b".")

    def _last_messages(self) -> None:
        """Read the kernel's sockets until no more messages arrive."""
        for fd in (0, self._ended):
            self._poller.unregister(fd)
        while ready := dict(self._poller.poll(LAST_MESSAGES_MS)):
            for source in ready:
                if source == self._log:
                    self._read_log()
                else:
                    self._to_host(source)


def is_request(parts: list[bytearray]) -> bool:
    """Whether the kernel replies to a message, which is given from its delimiter on."""
    return b'_request"' in b"".join(parts[2:3])


def make_undumpable() -> None:
    """Keep other processes of our user, such as the kernel, from writing to our descriptors and from tracing us."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def main(argv: list[str]) -> NoReturn:
    """Wait for START, start the kernel, carry frames, and exit."""
    lines = Lines() if "--text" in argv else None
    # The first process of a container gets no signal from inside that it does not handle; Python handles this one.
    # It is not ignored, because the kernel would inherit that.
    signal.signal(signal.SIGINT, lambda *_: None)
    make_undumpable()
    output = Output(os.dup(1), text=lines is not None)
    # Later prints must not break the stream of frames.
    os.dup2(2, 1)
    frames, complete = Frames(), list[Frame]()
    while not complete:
        data = os.read(0, READ_BYTES)
        if not data:
            os._exit(0)
        complete = frames.feed(data if lines is None else lines.feed(data))
    (kind, (started, launcher)), *begun = complete
    if kind != START:
        raise BrokenStreamError(f"the first frame is of kind {kind}")
    settings = json.loads(started)
    kernel = Kernel(settings, bytes(launcher).decode(), own_directory="--own-directory" in argv)
    relay = Relay(kernel, frames, output, lines, settings.get("patience"))
    status = relay.run(begun)
    if status != -1:
        kernel.remove_directory()
        output.put(ENDED, [str(status).encode()])
        output.finish()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
