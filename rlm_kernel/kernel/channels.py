"""The sockets of a live kernel in one event loop, without loss of messages and without polling.

jupyter_client's asyncio client takes 3.3 ms for an empty cell, and libzmq holds everything that a kernel sends. Here
the loop reads the connections (`zmtp.sockets`), a part of a message at a time (`incoming.py`). A kernel keeps what is
not read yet, so a host that stalls loses nothing. jupyter_client's `Session` builds and signs the messages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from rlm_kernel.errors import KernelError
from rlm_kernel.kernel.incoming import Incoming
from rlm_kernel.kernel.protocol import COMM_ID
from rlm_kernel.zmtp.sockets import Line, address

if TYPE_CHECKING:
    from jupyter_client.connect import ConnectionFileMixin

ChannelName = Literal["shell", "control", "iopub"]
Handler = Callable[[dict[str, Any]], None]

FORGED = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""Errors of a handler for a message that breaks the protocol: a cell may have forged it."""

MAX_UNSENT_BYTES = 16_000_000
"""While more than that waits to be sent to the kernel, its questions are not read: each one adds an answer."""

_KINDS: dict[ChannelName, str] = {"shell": "DEALER", "control": "DEALER", "iopub": "SUB"}
_SUBSCRIBE_TO_ALL = (b"\x01",)


@dataclass(frozen=True, slots=True)
class Receiver:
    """The handlers of a kernel's messages.

    Attributes:
        handlers: by channel, type of the message, and its `op` for a message of our comm (otherwise empty). Messages
            without a handler are dropped.
        on_forged: called with the error when a handler raised one of `FORGED`, and its message was dropped.
    """

    handlers: dict[tuple[ChannelName, str, str], Handler] = field(default_factory=dict)
    on_forged: Callable[[Exception], None] = lambda _: None


class Channels:
    """Shell, control and IOPub of one kernel. Belongs to the event loop in which it was made.

    Args:
        connection: has the kernel's addresses and key.
        receiver: takes all messages, in the order of their channel.

    Attributes:
        heard: set when the first message on IOPub has arrived.
        cut: done when the kernel closed one of the connections, or broke its protocol; the result says how. Also after
            `give_up`.
        messages: how many have arrived on IOPub.

    Raises:
        KernelError: the kernel requires encryption.
    """

    def __init__(self, connection: ConnectionFileMixin, receiver: Receiver) -> None:
        if getattr(connection, "curve_publickey", None) is not None:
            raise KernelError("The kernel wants CurveZMQ: start it with transport_encryption='disabled'.")
        self._session = connection.session
        self._receiver = receiver
        self.heard = asyncio.Event()
        self.messages = 0
        self._loop = asyncio.get_running_loop()
        self.cut: asyncio.Future[str] = self._loop.create_future()
        self._lines = {name: self._line(connection, name) for name in _KINDS}
        self._lines["control"].on_drained = self._read_on

    @property
    def session_id(self) -> str:
        """The session of our messages; the kernel's answers name it in their parent header."""
        return str(self._session.session)

    def send(
        self,
        channel: Literal["shell", "control"],
        message_type: str,
        content: dict[str, Any],
        *,
        metadata: dict[str, Any] | None = None,
        buffers: Sequence[Any] = (),
    ) -> str:
        """Send a message and return its id. Buffers are not copied."""
        message = self._session.msg(message_type, content, metadata=metadata)
        if (line := self._lines.get(channel)) is not None:
            line.send([*self._session.serialize(message), *buffers])
            if channel == "control" and line.unsent > MAX_UNSENT_BYTES:
                self._lines["iopub"].pause()
        return str(message["header"]["msg_id"])

    @property
    def unanswered(self) -> int:
        """How often the kernel gave no sign of life; see `ask`."""
        return self._lines["shell"].unanswered if self._lines else 0

    def ask(self) -> None:
        """Ask libzmq in the kernel for a sign of life, which it gives whatever Python does there.

        On shell, where a queue of messages cannot keep it from reading.
        """
        if self._lines:
            self._lines["shell"].ask()

    def give_up(self, why: str) -> None:
        """Treat the connection as lost."""
        if not self.cut.done():
            self.cut.set_result(why)

    def listen(self, receiver: Receiver) -> None:
        """Pass the messages to this receiver from now on."""
        self._receiver = receiver

    def close(self) -> None:
        """Close the sockets. Idempotent."""
        lines, self._lines = self._lines, {}
        for line in lines.values():
            line.close()

    def _line(self, connection: ConnectionFileMixin, name: ChannelName) -> Line:
        line = Line(
            address(connection.get_connection_info(), name),
            lambda: Incoming(self._session.auth, partial(self._deliver, name), brief=name != "iopub"),
            _KINDS[name],
            identity=b"" if name == "iopub" else self._session.bsession,
            hello=_SUBSCRIBE_TO_ALL if name == "iopub" else None,
        )
        line.cut.add_done_callback(partial(self._cut, name))
        return line

    def _deliver(self, name: ChannelName, message: dict[str, Any]) -> None:
        if not self._lines:
            return  # closed while the message before it was handled
        if name == "iopub":
            self.heard.set()
            self.messages += 1
        try:
            kind, content = message["header"]["msg_type"], message["content"]
            op = content["data"]["op"] if kind == "comm_msg" and content["comm_id"] == COMM_ID else ""
            if (handle := self._receiver.handlers.get((name, kind, op))) is not None:
                handle(message)
        except FORGED as error:
            self._receiver.on_forged(error)
        except Exception as error:  # noqa: BLE001 (the next messages must be read)
            self._loop.call_exception_handler({"message": f"A message on {name} was not taken", "exception": error})

    def _read_on(self) -> None:
        if self._lines and self._lines["control"].unsent <= MAX_UNSENT_BYTES:
            self._lines["iopub"].resume()

    def _cut(self, name: ChannelName, why: asyncio.Future[str]) -> None:
        if self._lines and not self.cut.done():
            self.cut.set_result(f"its {name} connection was lost: {why.result()}")
