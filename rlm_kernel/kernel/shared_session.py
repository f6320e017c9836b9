"""A session on a kernel whose cells another client runs, papermill for example: it answers their questions.

The other client runs the cells and collects their outputs. This session has sockets of its own on the same kernel,
installs the guest, gives it values, and follows on IOPub when a cell starts and ends, because questions are answered
only while a cell runs.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Self

from rlm_kernel.kernel.channels import Channels, Receiver
from rlm_kernel.kernel.comm import HostComm, Responder
from rlm_kernel.kernel.installation import install_guest
from rlm_kernel.kernel.process import Kernel
from rlm_kernel.kernel.session import Session
from rlm_kernel.provisioners.kernelspecs import Environment
from rlm_kernel.provisioners.zmq_context import zmq_context

if TYPE_CHECKING:
    from jupyter_client.connect import KernelConnectionInfo

FAREWELL_SECONDS = 0.5
"""For a cell to end whose questions were answered as cancelled."""

_PLAIN_NAMES = """
def _plain_names(shell):
    guest = shell.kernel.rlm_guest
    shell.events.unregister("post_run_cell", guest.cell_ended)
    guest.ours.clear()
    for name in ("answer", "history", "FINAL", "FINAL_VAR", "SHOW_VARS"):
        shell.user_ns.pop(name, None)
        shell.user_ns_hidden.pop(name, None)
_plain_names(get_ipython())
del _plain_names
"""


class ExternalKernel(Kernel):
    """A kernel that another client started and will end. Only the sockets are ours.

    Args:
        connection: the result of `KernelManager.get_connection_info()`.
        receiver: takes all messages of the kernel.
    """

    def __init__(self, connection: KernelConnectionInfo, receiver: Receiver) -> None:
        from jupyter_client.client import KernelClient

        client = KernelClient(context=zmq_context())
        client.load_connection_info(connection)
        self.channels = Channels(client, receiver)
        self.died = asyncio.ensure_future(self._end())

    def why(self) -> str:
        """Empty: only the client that started it knows."""
        return ""

    async def kill(self) -> None:
        """Close our sockets. The kernel continues."""
        self.channels.close()
        self.died.cancel()

    async def _end(self) -> None:
        """Never returns: the client that started it notices its end, and closes this session."""
        await asyncio.Event().wait()

    def _last_output(self, known: str = "") -> str:  # noqa: ARG002 (the base class has it)
        return ""

    def _seal(self) -> None:
        pass


class SharedSession(Session):
    """A session on a kernel whose cells another client runs. Make it with `join`."""

    _connection: KernelConnectionInfo
    _followed: str | None = None
    _between_cells: asyncio.Event

    @classmethod
    async def join(
        cls,
        connection: KernelConnectionInfo,
        environment: Environment,
        responder: Responder,
        *,
        seed: int | None = None,
    ) -> Self:
        """Put the guest into a running kernel.

        Args:
            connection: the addresses and the key of the kernel, from its manager.
            environment: where it runs.
            responder: answers `llm_query` and the other query functions.
            seed: of `random` in the kernel; None: random.

        Raises:
            KernelError: the kernel does not answer, or is not an IPython kernel.
        """
        session = cls(environment, responder, seed=seed)
        session._connection, session._between_cells = connection, asyncio.Event()
        session._between_cells.set()
        try:
            await session._start()
        except BaseException:
            await session.close()
            raise
        return session

    async def keep_plain_names(self) -> None:
        """Keep only the query functions: a user's notebook may have variables called `answer` or `FINAL`."""
        request = self._execute(_PLAIN_NAMES)
        await request.over

    async def leave(self) -> None:
        """Close, after answering the questions of a running cell as cancelled: else its kernel could not end."""
        if not self._between_cells.is_set():
            comm = self._live()[1]
            comm.interrupt()
            comm.answer_interrupted()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FAREWELL_SECONDS):
                    await self._between_cells.wait()
        await self.close()

    async def _new_kernel(self, receiver: Receiver) -> Kernel:
        self._kernel = ExternalKernel(self._connection, receiver)
        await install_guest(self._kernel, self._seed, receiver)
        return self._kernel

    def _receiver(self, comm: HostComm) -> Receiver:
        receiver = super()._receiver(comm)
        receiver.handlers["iopub", "execute_input", ""] = self._take_input
        return receiver

    def _take_input(self, message: dict[str, Any]) -> None:
        """A cell of the other client starts."""
        if self._comm is not None and self._is_of_other_client(message):
            self._followed = message["parent_header"]["msg_id"]
            self._between_cells.clear()
            self._comm.cell_starts()

    def _take_status(self, message: dict[str, Any]) -> None:
        """A cell of the other client ends, or one of ours."""
        is_end = message["content"]["execution_state"] == "idle" and self._is_of_other_client(message)
        if is_end and self._comm is not None and message["parent_header"]["msg_id"] == self._followed:
            self._between_cells.set()
            self._comm.cell_ended()
        super()._take_status(message)

    def _is_of_other_client(self, message: dict[str, Any]) -> bool:
        session = message["parent_header"].get("session")
        return self._kernel is not None and session not in (None, self._kernel.session_id)
