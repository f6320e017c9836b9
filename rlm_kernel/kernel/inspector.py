"""Evaluate expressions in a live REPL without side effects on it, while the model's cells run.

Expressions are evaluated silently in a subshell of the kernel: no cell is counted, `Out` is unchanged, no cell hook
runs, and a running cell is not waited for. Before ipykernel 7 there are no subshells, and an expression is evaluated
between two cells.
"""

from __future__ import annotations

import contextlib
import functools
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import zmq
from traitlets import TraitError

from rlm_kernel.errors import KernelError
from rlm_kernel.text import plain
from rlm_kernel.untrusted import json_text

if TYPE_CHECKING:
    from jupyter_client.connect import KernelConnectionInfo

START_SECONDS = 5.0
ANSWER_SECONDS = 60.0
FAREWELL_SECONDS = 1.0
MAX_REPLY_BYTES = 20_000_000
MAX_REPLIES = 10

_QUIET = """
import threading
def rlm_quiet(events):
    trigger, looking = events.trigger, set()
    def trigger_for_cells(event, *args, **kwargs):
        if threading.get_ident() not in looking:
            trigger(event, *args, **kwargs)
    trigger_for_cells.looking = looking
    events.trigger = trigger_for_cells
events = get_ipython().events
hasattr(events.trigger, "looking") or rlm_quiet(events)
events.trigger.looking.add(threading.get_ident())
"""
"""Runs in the kernel. IPython runs hooks after silent requests too; one of them closes the figures of all cells."""


class KernelInspector:
    """A client of a live kernel that only reads. A context manager.

    Args:
        file: the connection file.

    Raises:
        KernelError: the kernel does not answer.
    """

    def __init__(self, file: Path) -> None:
        from jupyter_client.client import KernelClient

        client = KernelClient(context=_bounded_context(), connection_file=str(file))
        try:
            client.load_connection_info(cast("KernelConnectionInfo", _checked(json_text.load(file))))
        except (OSError, ValueError, TypeError, TraitError) as error:
            raise KernelError(f"{file} is not the connection file of a kernel: {error}.") from error
        self._session = client.session
        self._shell, self._control = client.connect_shell(), client.connect_control()
        self._subshell: str | None = None
        try:
            features = self._ask(self._control, "kernel_info_request", {}).get("supported_features", [])
            if "kernel subshells" in features:
                self._subshell = self._ask(self._control, "create_subshell_request", {})["subshell_id"]
        except BaseException:
            self._close_sockets()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, expression: str) -> str:
        """The value of an expression as the REPL displays it, or its error.

        Raises:
            KernelError: the kernel does not answer.
        """
        return self.evaluate(expression)[1]

    def evaluate(self, expression: str) -> tuple[bool, str]:
        """Whether an expression has a value, and that value or the error, as `read` returns it.

        Raises:
            KernelError: the kernel does not answer.
        """
        quiet = (
            ""
            if self._subshell is None
            else f"exec({_QUIET!r}, {{'get_ipython': get_ipython, '__name__': 'rlm_guest'}})"
        )
        content = {
            "code": quiet,
            "silent": True,
            "store_history": False,
            "user_expressions": {"value": expression.strip()},
            "allow_stdin": False,
            "stop_on_error": False,
        }
        reply = self._ask(self._shell, "execute_request", content, ANSWER_SECONDS)
        match reply.get("user_expressions"):
            case {"value": {"status": "ok", "data": {"text/plain": text}}}:
                return True, plain(str(text))
            case {"value": {"ename": name, "evalue": value}}:
                return False, plain(f"{name}: {value}")
        return False, "The kernel refused to evaluate it."

    def variables(self) -> str:
        """The variables of the model with their types, as the `repr` of a dict."""
        return self.read("get_ipython().kernel.rlm_guest.variables()")

    def close(self) -> None:
        """Delete the subshell and close the sockets. Idempotent; raises nothing if the kernel has ended."""
        subshell, self._subshell = self._subshell, None
        try:
            if subshell is not None:
                with contextlib.suppress(KernelError):
                    self._ask(self._control, "delete_subshell_request", {"subshell_id": subshell}, FAREWELL_SECONDS)
        finally:
            self._close_sockets()

    def _close_sockets(self) -> None:
        for socket in (self._shell, self._control):
            socket.close(0)

    def _ask(self, socket: Any, kind: str, content: dict[str, Any], seconds: float = START_SECONDS) -> dict[str, Any]:
        message = self._session.msg(kind, content)
        if socket is self._shell and self._subshell is not None:
            message["header"]["subshell_id"] = self._subshell
        self._session.send(socket, message)
        until = time.monotonic() + seconds
        while socket.poll(max(0, int((until - time.monotonic()) * 1000))):
            found = self._reply(socket, message["header"]["msg_id"])
            if found is not None:
                return found
        raise KernelError(f"The kernel did not answer within {seconds:.0f} s: it has ended, or a cell keeps it busy.")

    def _reply(self, socket: Any, request: str) -> dict[str, Any] | None:
        """The content of the next message, or None if it replies to another request.

        Raises:
            KernelError: it breaks the protocol.
        """
        try:
            _, reply = self._session.recv(socket)
            content = reply["content"] if reply["parent_header"].get("msg_id") == request else None
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            raise KernelError(f"The kernel broke the protocol: {type(error).__name__}: {error}.") from error
        if not isinstance(content, dict | None):
            raise KernelError(f"The kernel broke the protocol: its reply is of type {type(content).__name__}.")
        return content


def _checked(connection: Any) -> dict[str, Any]:
    """Check the fields of a connection file that are used here.

    Raises:
        ValueError: one is missing.
    """
    known = ("transport", "ip", "key", "signature_scheme", "shell_port", "control_port")
    if not isinstance(connection, dict) or any(not isinstance(connection.get(name), str | int) for name in known):
        raise ValueError(f"it does not hold {', '.join(known)}")
    return connection


@functools.cache
def _bounded_context() -> zmq.Context[zmq.Socket[bytes]]:
    """A context whose sockets hold few messages of a kernel; a larger reply ends the connection, and the wait."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    for option, value in ((zmq.RCVHWM, MAX_REPLIES), (zmq.MAXMSGSIZE, MAX_REPLY_BYTES), (zmq.LINGER, 0)):
        context.setsockopt(option, value)
    return context
