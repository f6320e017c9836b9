"""A kernel of a Jupyter server as the `Remote` of a relay: frames of the relay here, messages on a WebSocket there.

After a cut the connection is opened again with the same session, so that the server sends what it has kept. The kernel
numbers its messages (`prelude.py`). When a number is missing after that, the kernel is given up: it is better to run
the cells again in a new kernel than to wait for a reply that was lost.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Any, Self

import aiohttp
from jupyter_client.session import DELIM, Session

from rlm_kernel._async import shielded
from rlm_kernel.at_exit import end_at_exit
from rlm_kernel.errors import ConfigError, KernelError
from rlm_kernel.provisioners.jupyter import prelude, wire
from rlm_kernel.provisioners.jupyter.server import (
    END_SECONDS,
    MAX_MESSAGE_BYTES,
    GoneError,
    Server,
    acknowledge_at_once,
)
from rlm_kernel.provisioners.relay import remote_end
from rlm_kernel.provisioners.relay.host_end import source

PIECE_BYTES = 4_000_000
"""Of a message to the guest. A server accepts 10 MB at a time, and gateways in front of it less."""
MAX_HEADER_BYTES = 1_000_000
MAX_PENDING = 10_000
START_SECONDS = 60.0
RECONNECT_SECONDS = 60.0
AGAIN_SECONDS = 0.2
LATE_SECONDS = 1.0
"""For messages on IOPub, which may arrive after a later reply."""
MAX_WAITING_FRAMES = 16
TOPIC = b"jupyter"
KINDS = {name: kind for kind, name in remote_end.CHANNELS.items()}
LOST = "The connection to the Jupyter server was cut, and messages of the kernel were lost."
TOO_BIG = 1009
"""The code by which a WebSocket is closed that got a message over the limit."""
RESTARTED = "The Jupyter server restarted the kernel, which had ended."
PRELUDE = """
def _install(shell):
    request = shell.kernel.get_parent("shell")["metadata"]["rlm"]
    module = {"__name__": "rlm_prelude"}
    exec(compile(request["source"], "rlm_prelude.py", "exec"), module)
    module["install"](shell, request)
_install(get_ipython())
del _install
"""


class JupyterRemote:
    """A `Remote` of the relay. Made by `start`, in the engine's loop.

    Attributes:
        why: why the kernel ended; empty while it runs, and when it is not known.
    """

    def __init__(self, server: Server, kernel: str) -> None:
        self.why = ""
        self._server = server
        self._kernel = kernel
        self._session = Session(key=b"")
        self._frames = remote_end.Frames()
        self._incoming: asyncio.Queue[bytes | None] = asyncio.Queue(MAX_WAITING_FRAMES)
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._connected = asyncio.Event()
        self._ended = False
        self._closing: asyncio.Future[bool] | None = None
        self._clients: dict[str, bytes] = {}  # who sent a request, by its id
        self._unacknowledged: deque[tuple[int, bytes]] = deque()
        self._pieces = 0
        self._losses = Losses()
        end_at_exit(self)

    @classmethod
    async def start(cls, server: Server, name: str | None, env: Mapping[str, str], *, private: bool) -> Self:
        """Start a kernel, and run the prelude in it.

        Args:
            server: the remote closes it, also when this raises.
            name: of the kernelspec; None: the server's default one.
            env: variables that are set in the kernel.
            private: whether its working directory is an empty one.

        Raises:
            KernelError: the kernel cannot be started.
            ConfigError: the server refuses the token or the name.
        """
        remote: Self | None = None
        try:
            remote = cls(server, await server.start_kernel(name))
            await remote._install({"source": source("jupyter/prelude.py"), "env": dict(env), "private": private})
        except BaseException:
            if remote is not None:
                remote._end("it did not start")
            await shielded(server.close() if remote is None else remote.close())
            raise
        return remote

    async def _install(self, settings: dict[str, Any]) -> None:
        """Connect, and run the prelude.

        Raises:
            KernelError: the kernel did not answer, or the prelude failed in it.
        """
        content = {"code": PRELUDE, "silent": True, "store_history": False, "allow_stdin": False}
        asked, data = self._message("shell", "execute_request", content, metadata={"rlm": settings})
        try:
            async with asyncio.timeout(START_SECONDS):
                self._socket = await self._server.connect(self._kernel, self._session.session)
                await self._socket.send_bytes(data)
                async for message in self._socket:
                    channel, parts = _decoded(message)
                    if channel == "shell" and _object(parts[1]).get("msg_id") == asked:
                        reply = _object(parts[3])
                        break
                else:
                    raise KernelError("The Jupyter server closed the connection while the kernel started.")
        except TimeoutError as error:
            raise KernelError(f"The kernel of the Jupyter server did not answer in {START_SECONDS:.0f} s.") from error
        if reply.get("status") != "ok":
            why = self._server.without_token(f"{reply.get('ename')}: {reply.get('evalue')}")
            raise KernelError(
                f"The kernel cannot be prepared ({why}): it must be an ipykernel with Python 3.9 or newer."
            )
        self._connected.set()

    # -- to the kernel

    async def write(self, data: bytes) -> None:
        """Send the messages that are complete with `data`.

        Raises:
            OSError: the kernel has ended.
        """
        for kind, parts in self._frames.feed(data):
            if kind == remote_end.START:
                self._session.key = json.loads(parts[0])["key"].encode()
            elif kind == remote_end.HEARTBEAT:
                await self._incoming.put(b"".join(remote_end.encode(kind, parts)))
            elif kind in remote_end.CHANNELS:
                await self._forward(remote_end.CHANNELS[kind], parts)

    async def _forward(self, channel: str, parts: list[bytearray]) -> None:
        """Send a message of a client: its identity, a delimiter, a signature, and the parts."""
        header = json.loads(parts[3])
        if channel == "control" and header["msg_type"] == "comm_msg":
            await self._send_in_pieces(parts[3:])
            return
        if header["msg_type"].endswith("_request"):
            self._clients[header["msg_id"]] = bytes(parts[0])
            if len(self._clients) > MAX_PENDING:
                del self._clients[next(iter(self._clients))]
            if channel == "shell":
                self._losses.asked(header["msg_id"])
        await self._send(wire.encode(channel, parts[3:]))

    async def _send_in_pieces(self, parts: list[bytearray]) -> None:
        whole = memoryview(b"".join(parts))
        for start in range(0, len(whole), PIECE_BYTES):
            piece = whole[start : start + PIECE_BYTES]
            self._pieces += 1
            sizes = list(map(len, parts)) if start + len(piece) == len(whole) else []
            _, data = self._message("control", "rlm_piece", {"number": self._pieces, "sizes": sizes}, piece)
            self._unacknowledged.append((self._pieces, data))
            await self._send(data)

    def _message(
        self, channel: str, kind: str, content: dict[str, Any], *buffers: Any, metadata: dict[str, Any] | None = None
    ) -> tuple[str, bytes]:
        """A message of our own: its id, and its bytes."""
        message = self._session.msg(kind, content, metadata=metadata)
        names = ("header", "parent_header", "metadata", "content")
        parts = [self._session.pack(message[name]) for name in names]
        return message["header"]["msg_id"], wire.encode(channel, [*parts, *buffers])

    async def _send(self, data: bytes) -> None:
        """Send a message, after a cut when there is a connection again.

        Raises:
            OSError: the kernel has ended.
        """
        while True:
            await self._connected.wait()
            if self._ended or self._socket is None:
                raise OSError(self.why or "the kernel has ended")
            try:
                return await self._socket.send_bytes(data)
            except (aiohttp.ClientError, ConnectionError):
                self._connected.clear()  # the reader connects again

    # -- from the kernel

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The kernel's messages as frames, until it ends."""
        reader = asyncio.create_task(self._read())
        try:
            while (frame := await self._incoming.get()) is not None:
                yield frame
        finally:
            reader.cancel()

    async def _read(self) -> None:
        """Read until the kernel has ended; after a cut, connect again."""
        while not self._ended and self._socket is not None:
            async for message in self._socket:
                acknowledge_at_once(self._socket)
                if message.type is not aiohttp.WSMsgType.ERROR:
                    try:
                        frame = self._take(*_decoded(message))
                    except KernelError as error:
                        self._end(str(error))
                        break
                    if frame is not None:
                        await self._incoming.put(frame)
                elif self._socket.close_code == TOO_BIG:
                    self._end(f"The kernel sent a message of more than {MAX_MESSAGE_BYTES:,} bytes.")
            if not self._ended:  # else a waiting `_send` is woken, and raises
                self._connected.clear()
                await self._reconnect()
        await self._incoming.put(None)

    async def _reconnect(self) -> None:
        """Connect again, and send what may not have arrived. Ends the kernel if that fails for long."""
        until = time.monotonic() + RECONNECT_SECONDS
        while not self._ended and not self._connected.is_set():
            try:
                await self._connect_again()
            except (GoneError, ConfigError) as error:
                self._end(str(error))
            except (KernelError, aiohttp.ClientError, ConnectionError) as error:
                if time.monotonic() > until:
                    self._end(str(error))
                await asyncio.sleep(AGAIN_SECONDS)

    async def _connect_again(self) -> None:
        self._socket = await self._server.connect(self._kernel, self._session.session)
        for _, data in list(self._unacknowledged):
            await self._socket.send_bytes(data)
        probe, data = self._message("shell", "kernel_info_request", {})
        self._losses.cut(probe)
        await self._socket.send_bytes(data)
        self._connected.set()

    def _take(self, channel: str, parts: list[bytes]) -> bytes | None:
        """A frame for the host; None if the message is not for a client."""
        kind = KINDS.get(channel)
        if kind is None or len(parts) < wire.MIN_PARTS:
            return None
        receiver = self._take_published(parts) if kind == remote_end.IOPUB else self._receiver(channel, parts)
        if receiver is None:
            return None
        signed = [receiver, DELIM, self._session.sign(parts[:4]), *parts]
        return b"".join(remote_end.encode(kind, signed))

    def _take_published(self, parts: list[bytes]) -> bytes:
        """Look at a message on IOPub. Returns its topic."""
        if _object(parts[0]).get("msg_type") == "status":
            state, parent = _object(parts[3]).get("execution_state"), _object(parts[1]).get("msg_id")
            if state in ("restarting", "dead") and parent is None:
                self._end(RESTARTED)
            elif state == "idle":
                self._losses.idle(parent)
        else:
            self._losses.published(_object(parts[2]).get(prelude.NUMBER))
        return TOPIC

    def _receiver(self, channel: str, parts: list[bytes]) -> bytes | None:
        """The identity of the client that gets a message; None: it is for this class, or for nobody."""
        kind, asked = _object(parts[0]).get("msg_type"), _object(parts[1]).get("msg_id")
        if kind == "rlm_piece_reply":
            self._acknowledge(_object(parts[3]).get("number"))
            return None
        if channel == "stdin":
            return self._clients.get(str(asked))
        self._losses.replied(asked)
        if asked == self._losses.probe:
            asyncio.get_running_loop().call_later(LATE_SECONDS, self._check_losses)
        return self._clients.pop(str(asked), None)

    def _acknowledge(self, number: Any) -> None:
        while self._unacknowledged and isinstance(number, int) and self._unacknowledged[0][0] <= number:
            self._unacknowledged.popleft()

    def _check_losses(self) -> None:
        if self._losses.found():
            self._end(LOST)

    # -- the end

    def _end(self, why: str) -> None:
        """The kernel has ended, or is given up."""
        if not self._ended:
            self.why, self._ended = why, True
            self._connected.set()
            if self._socket is not None:
                self._closing = asyncio.ensure_future(self._socket.close())

    async def close(self) -> None:
        """End the kernel and the connection. Idempotent."""
        if self._server.is_open:
            self._ended = True
            self._connected.set()
            await self._server.end_kernel(self._kernel)
            if self._closing is not None:
                await asyncio.wait({self._closing}, timeout=END_SECONDS)
            await self._server.close()


class Losses:
    """Finds out whether messages of the kernel were lost in a cut.

    Attributes:
        probe: the id of the request that was sent after the last cut; the kernel answers earlier ones before it.
    """

    def __init__(self) -> None:
        self.probe = ""
        self._waiting: dict[str, set[str]] = {}  # by the id of a request: what has not come
        self._before_probe: set[str] = set()
        self._seen: set[int] = set()
        self._highest = self._at_cut = 0

    def asked(self, request: str) -> None:
        """A request was sent to the shell."""
        self._waiting[request] = {"reply", "idle"}

    def replied(self, request: Any) -> None:
        """Its reply has come."""
        self._come(request, "reply")

    def idle(self, request: Any) -> None:
        """The kernel is idle after it."""
        self._come(request, "idle")

    def published(self, number: Any) -> None:
        """A message on IOPub has come."""
        if isinstance(number, int):
            self._highest = max(self._highest, number)
            if self.probe:
                self._seen.add(number)

    def cut(self, probe: str) -> None:
        """There is a new connection, on which this request is sent first."""
        self.probe = probe
        self._before_probe = set(self._waiting)
        self._seen.clear()
        self._at_cut = self._highest

    def found(self) -> bool:
        """Whether something has not come that must have been sent before the reply to the probe."""
        missing = self._highest - self._at_cut > len(self._seen)
        self.probe = ""
        return missing or not self._before_probe.isdisjoint(self._waiting)

    def _come(self, request: Any, what: str) -> None:
        waiting = self._waiting.get(str(request))
        if waiting is not None:
            waiting.discard(what)
            if not waiting:
                del self._waiting[str(request)]


def _decoded(message: aiohttp.WSMessage) -> tuple[str, list[bytes]]:
    """The channel and the parts of a message.

    Raises:
        KernelError: it is not one of the protocol.
    """
    try:
        return wire.decode(message.data if isinstance(message.data, bytes) else b"")
    except ValueError as error:
        raise KernelError(f"The Jupyter server sent {error}: is there a proxy in front of it?") from error


def _object(part: bytes) -> dict[str, Any]:
    """The JSON object in a part of a message; empty if it is large or something else: a kernel may send anything."""
    try:
        found = json.loads(part) if len(part) <= MAX_HEADER_BYTES else None
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
