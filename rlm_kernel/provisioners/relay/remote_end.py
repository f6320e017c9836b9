"""The remote end of the relay, beside a kernel: it carries ZMQ frames over its own standard input and output.

    python remote_end.py [--text]        or, where no file can be put:        python -c SOURCE [--text]

It needs the standard library and pyzmq (ipykernel brings that), so any place with a Python that has ipykernel and two
pipes can hold a kernel: `docker run -i`, a cloud sandbox's `exec`, `kubectl exec -i`, ssh. No port is open there, and
no network is used. The host's end is `host_end.RelayHost`; both speak the frames defined here.

The first frame of the host is START: settings as JSON, and the source of `launcher.py`, which starts the kernel and
kills everything that it started. When the input ends, the host has ended, and the kernel is ended too. Where an input
never ends (a cloud keeps it open), the host sends ALIVE now and then, and its silence counts as its end. When the
kernel ends, the frame ENDED is sent, and then the output ends. If this process is killed, the launcher's input ends,
and the kernel with it.

A frame is a byte for its kind, four for the number of its parts, eight for the length of each part, and the parts;
numbers are big-endian. Frames of the five channels are messages of the kernel's sockets; their first part, except on
IOPub, is the identity of the client. A channel that carries text only gets the same bytes as lines of base64
(`--text`).
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import queue
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
"""What a line carries; as base64 it stays below the 4,096 bytes that a terminal takes for a line."""
LINE_MARK = b"rlm:"
MAX_NOISE = 2**20
LAST_MESSAGES_MS = 50
MAX_BACKLOG_BYTES = 64_000_000
"""While that much waits to be written, the kernel is not heard: it keeps what it says."""
BACKLOG_MS = 20
MAX_MESSAGES_HELD = 1_000
"""Of IOPub, by the socket here; the kernel's own keeps all others."""
MAX_SOCKETS = 200
"""For clients, who never say that they have gone: zmq has 1,023 sockets, and each takes two descriptors."""
PR_SET_DUMPABLE = 4
_HEAD = struct.Struct("!BI")

Frame = tuple[int, list[bytearray]]


class BrokenStreamError(ValueError):
    """What arrives are no frames: the other end is something else, or was tampered with."""


def encode(kind: int, parts: Iterable[Any]) -> list[Any]:
    """A frame as pieces to be written one after another; the parts are not copied."""
    views = [memoryview(part).cast("B") for part in parts]
    head = _HEAD.pack(kind, len(views)) + struct.pack(f"!{len(views)}Q", *(len(view) for view in views))
    return [head, *views]


class Frames:
    """Cuts a stream of bytes into frames. A part is received where it stays: a large one is copied once."""

    def __init__(self) -> None:
        self._complete: list[Frame] = []
        self._buffers = self._cut()
        self._room = memoryview(next(self._buffers))

    def feed(self, data: Any) -> list[Frame]:
        """The frames that are complete with `data`.

        Raises:
            BrokenStreamError: these are no frames.
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
        """Yields the buffers to be filled, one after another."""
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
    """A piece of the stream as marked lines of base64."""
    starts = range(0, len(data), LINE_BYTES)
    return b"".join(b"%s%s\n" % (LINE_MARK, base64.b64encode(data[at : at + LINE_BYTES])) for at in starts)


class Lines:
    """Makes the stream again from marked lines of base64; what stands between them is noise of the channel."""

    def __init__(self) -> None:
        self._begun = b""

    def feed(self, data: Any) -> bytes:
        """The bytes of the lines that are complete with `data`.

        Raises:
            BrokenStreamError: a marked line is no base64, or a line never ends.
        """
        *complete, self._begun = (self._begun + bytes(data)).split(b"\n")
        if len(self._begun) > MAX_NOISE:
            raise BrokenStreamError("a line without an end")
        try:
            marked = (line.strip() for line in complete)
            ours = (line[len(LINE_MARK) :] for line in marked if line.startswith(LINE_MARK))
            return b"".join(base64.b64decode(line, validate=True) for line in ours)
        except binascii.Error as error:
            raise BrokenStreamError("a line that is no base64") from error


class Output:
    """Our standard output: written by a thread of its own, so that nobody waits for it.

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
            os._exit(1)  # nobody reads any more: the host is gone, and the launcher's input ends with us


class Kernel:
    """The launcher and, below it, the kernel; and the sockets that are connected to it."""

    def __init__(self, settings: dict[str, Any], launcher: str) -> None:
        import zmq

        self._zmq = zmq
        self.directory = tempfile.mkdtemp(prefix="rlm-")
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
        safe = ["-P"] if sys.version_info >= (3, 11) else []
        options = ["--host-pipe", "--remove", self.directory, *settings.get("launcher_options", [])]
        command = [sys.executable, *safe, "-c", launcher, *options, "-f", file]
        pipe = subprocess.PIPE
        return subprocess.Popen(  # noqa: S603 (the host says what is started here)
            command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, start_new_session=True
        )

    def subscribe(self) -> Any:
        """The socket that hears everything on IOPub."""
        socket = self._context.socket(self._zmq.SUB)
        socket.subscribe(b"")
        socket.rcvhwm = MAX_MESSAGES_HELD
        socket.connect(self._address(IOPUB))
        return socket

    def stand_in(self, channel: int, identity: bytes) -> Any:
        """A new socket that stands for a client's on a channel."""
        socket = self._context.socket(self._zmq.DEALER)
        # An identity that zmq made up begins with a zero, which is not allowed in one that is set.
        socket.identity = identity if identity[:1] not in (b"", b"\0") else b"-" + identity
        socket.connect(self._address(channel))
        return socket

    def _address(self, channel: int) -> str:
        return f"ipc://{self.directory}/k-{channel + 1}"


class Client:
    """What stands for a client: a socket on each channel that it uses, and its requests that have no reply yet."""

    def __init__(self) -> None:
        self.sockets: dict[int, Any] = {}
        self.owed = 0


class Relay:
    """Carries frames until the kernel or the host has ended. Another thread writes, a third waits for the end."""

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
        self._heard = time.monotonic()
        self._status = 1
        self._ended, self._end = os.pipe()
        assert kernel.process.stdout is not None
        self._log = kernel.process.stdout.fileno()
        self._poller, self._host_only = zmq.Poller(), zmq.Poller()
        self._host_only.register(0, zmq.POLLIN)
        self._places: dict[Any, tuple[int, list[bytes]]] = {}
        self._clients: dict[bytes, Client] = {}
        for fd in (0, self._log, self._ended):
            self._poller.register(fd, zmq.POLLIN)
        self._watch(kernel.subscribe(), IOPUB, [])
        threading.Thread(target=self._wait, daemon=True).start()

    def run(self, begun: Iterable[Frame]) -> int:
        """Carry, until the kernel has ended (its exit status comes back) or the host has (-1)."""
        self._to_kernel(begun)
        while True:
            ready = self._ready()
            for source in ready:
                if source in self._places:
                    self._to_host(source)
            if self._log in ready:
                self._read_log()
            if (0 in ready and not self._read_input()) or self._is_deserted():
                return -1
            if self._ended in ready:
                self._last_messages()
                return self._status

    def _ready(self) -> list[Any]:
        """Who has something to read; while the host takes nothing, only the host itself is looked at."""
        if self._output.backlog <= MAX_BACKLOG_BYTES:
            return [source for source, _ in self._poller.poll(self._pause)]
        return [source for source, _ in self._host_only.poll(BACKLOG_MS)]

    def _watch(self, socket: Any, channel: int, prefix: list[bytes]) -> None:
        self._places[socket] = (channel, prefix)
        self._poller.register(socket, self._zmq.POLLIN)

    def _to_kernel(self, frames: Iterable[Frame]) -> None:
        for channel, (identity, *parts) in (frame for frame in frames if frame[0] != ALIVE):
            client = bytes(identity)
            if channel == SHELL:
                self._socket(STDIN, client)  # connected early: what the kernel asks there before that is lost
            self._socket(channel, client).send_multipart(parts, copy=False)
            self._clients[client].owed += is_request(parts)
            if len(self._places) > MAX_SOCKETS:
                self._forget_the_quiet()

    def _socket(self, channel: int, identity: bytes) -> Any:
        """What stands for a client on a channel; its messages go to the host."""
        # Taken out and put back: who spoke last stands last.
        client = self._clients[identity] = self._clients.pop(identity, Client())
        if channel not in client.sockets:
            client.sockets[channel] = self._kernel.stand_in(channel, identity)
            self._watch(client.sockets[channel], channel, [identity])
        return client.sockets[channel]

    def _forget_the_quiet(self) -> None:
        """Close what stands for the clients that wait for nothing and were quiet longest, but for the last speaker."""
        for identity, client in list(self._clients.items())[:-1]:
            if len(self._places) > MAX_SOCKETS and client.owed <= 0:
                del self._clients[identity]
                for socket in client.sockets.values():
                    self._poller.unregister(socket)
                    del self._places[socket]
                    socket.close()

    def _to_host(self, socket: Any) -> None:
        channel, prefix = self._places[socket]
        for _ in range(200):
            try:
                parts = socket.recv_multipart(self._zmq.NOBLOCK, copy=False)
            except self._zmq.Again:
                return
            self._output.put(channel, [*prefix, *(part.buffer for part in parts)])
            if channel in (SHELL, CONTROL):
                self._clients[prefix[0]].owed -= 1
            if self._output.backlog > MAX_BACKLOG_BYTES:
                return

    def _read_input(self) -> bool:
        self._heard = time.monotonic()
        data = os.read(0, READ_BYTES)
        if data:
            self._to_kernel(self._frames.feed(data if self._lines is None else self._lines.feed(data)))
        return bool(data)

    def _is_deserted(self) -> bool:
        """Whether the host said nothing for longer than it promised."""
        return self._patience is not None and time.monotonic() - self._heard > self._patience

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
        """What the kernel still said: its sockets are read until nothing comes any more."""
        for fd in (0, self._ended):
            self._poller.unregister(fd)
        while ready := dict(self._poller.poll(LAST_MESSAGES_MS)):
            for source in ready:
                if source == self._log:
                    self._read_log()
                else:
                    self._to_host(source)


def is_request(parts: list[bytearray]) -> bool:
    """Whether a message, from its delimiter on, is one that the kernel replies to."""
    return b'_request"' in b"".join(parts[2:3])


def make_undumpable() -> None:
    """Let no other process of our user write to our descriptors, stop or trace us: the kernel's code is one."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def main(argv: list[str]) -> NoReturn:
    """Wait for START, start the kernel, carry frames. Does not return: everything here ends together."""
    lines = Lines() if "--text" in argv else None
    # As the first process of a container we get no signal from inside that we do not handle; Python handles this one.
    # It is not ignored, because the kernel would inherit that.
    signal.signal(signal.SIGINT, lambda *_: None)
    make_undumpable()
    output = Output(os.dup(1), text=lines is not None)
    # Whatever prints from now on must not break the stream of frames.
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
    kernel = Kernel(settings, bytes(launcher).decode())
    relay = Relay(kernel, frames, output, lines, settings.get("patience"))
    status = relay.run(begun)
    if status != -1:
        output.put(ENDED, [str(status).encode()])
        output.finish()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
