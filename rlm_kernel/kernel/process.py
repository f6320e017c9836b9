"""One kernel process and its channels, started through jupyter_client from a kernelspec."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any, Literal

from rlm_kernel._async import shielded
from rlm_kernel.errors import KernelError
from rlm_kernel.kernel import connection_files
from rlm_kernel.kernel.channels import Channels, Receiver
from rlm_kernel.kernel.open_files import check_open_files
from rlm_kernel.provisioners import kernelspecs
from rlm_kernel.provisioners.environ import scrub_environ
from rlm_kernel.provisioners.local_base import LocalProcess
from rlm_kernel.provisioners.zmq_context import zmq_context

if TYPE_CHECKING:
    from pathlib import Path

    from jupyter_client.client import KernelClient
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

START_SECONDS = 60.0
LISTEN_AGAIN_SECONDS = 0.05
_KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)
"""Exit statuses after SIGKILL: of a child process, and as a shell reports them."""
BROKEN = 79
"""The exit status with which the guest ends a kernel that cannot reply any more."""
WHY_BROKEN = "What it ran has broken what the kernel needs to reply."
CUT_SECONDS = 1.0
"""For a process to end that has closed its connections."""


class Kernel:
    """A live kernel. Made by `start`, used in one event loop, ended by `kill`.

    Attributes:
        channels: its sockets.
        died: done when the process has ended, for any reason.
        was_killed: whether it has ended by SIGKILL.
        python: the version of its Python, once the guest is installed; empty if it is unknown.
    """

    def __init__(self, manager: AsyncKernelManager, receiver: Receiver) -> None:
        self._manager = manager
        self._listed: Path | None = None
        self._cut_off = ""
        self.was_killed = False
        self.python = ""
        self.channels = Channels(_client(manager), receiver)
        self.died = asyncio.ensure_future(self._end())

    @classmethod
    async def start(cls, spec: KernelSpec, receiver: Receiver) -> Kernel:
        """Start the process. It is usable after `ready`.

        Raises:
            KernelError: the process could not be started, or the limit of open files is too low.
        """
        check_open_files()
        manager = manager_of(spec)
        try:
            await manager.start_kernel(env=scrub_environ(os.environ))
            return cls(manager, receiver)
        except BaseException as error:
            await shielded(_shut_down(manager))
            if isinstance(error, OSError):
                raise KernelError(f"The kernel {spec.display_name!r} could not be started: {error}") from error
            raise

    @property
    def session_id(self) -> str:
        """The session id in the parent header of messages that answer ours."""
        return self.channels.session_id

    async def ready(self, replied: asyncio.Future[Any]) -> None:
        """Wait until the kernel has replied to a first request and a message on IOPub has arrived.

        jupyter_client's own check ends with a pause of 0.2 s. The subscription to IOPub may come too late for the first
        messages, so requests are sent until one arrives.

        Raises:
            KernelError: the process ended, or nothing arrived within `START_SECONDS`.
        """
        try:
            async with asyncio.timeout(START_SECONDS):
                await asyncio.wait({replied, self.died}, return_when=asyncio.FIRST_COMPLETED)
                while not self.channels.heard.is_set() and not self.died.done():
                    self.channels.send("control", "kernel_info_request", {})
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(LISTEN_AGAIN_SECONDS):
                            await self.channels.heard.wait()
        except TimeoutError as error:
            raise KernelError(
                f"The kernel did not answer within {START_SECONDS:.0f} s.{self._last_output()}"
            ) from error
        if self.died.done():
            why = self.why() or "Is ipykernel installed in its Python?"
            raise KernelError(f"The kernel ended while it started. {why}{self._last_output(known=why)}")
        self._seal()
        self.channels.ask()

    def _seal(self) -> None:
        """We are connected: no one else has to be able to connect."""
        if (seal := getattr(self._manager.provisioner, "seal", None)) is not None:
            seal()

    def why(self) -> str:
        """Why the kernel ended, if its provisioner knows (a time limit, for example); else an empty string."""
        return self._explanation("why") or self._cut_off

    @property
    def sandbox_id(self) -> str | None:
        """The name of the sandbox or container in which it runs, or None."""
        return getattr(self._manager.provisioner, "sandbox_id", None)

    def cpu_seconds(self) -> float | None:
        """CPU time of the process and its children; None: it is not on this machine, or has ended."""
        import psutil

        provisioner = self._manager.provisioner
        if not isinstance(provisioner, LocalProcess) or provisioner.pid is None:
            return None
        with contextlib.suppress(psutil.Error):
            kernel = psutil.Process(provisioner.pid)
            times = [process.cpu_times() for process in (kernel, *kernel.children(recursive=True))]
            return float(sum(time.user + time.system for time in times))
        return None

    def interrupt(self) -> None:
        """Send KeyboardInterrupt to the running cell and to the processes it started."""
        self.channels.send("control", "interrupt_request", {})

    async def end_others(self) -> bool:
        """Kill what the kernel has started since the first call, where its provisioner can. Whether nothing is left."""
        end = getattr(self._manager.provisioner, "end_others", None)
        return end is None or bool(await end())

    def announce(self, environment: str) -> None:
        """List it in `connection_files` until it is killed, so that the user can attach to it.

        Raises:
            ConfigError: the folder of connection files is not safe.
        """
        self._listed = connection_files.announce(self._manager.get_connection_info(), environment)

    async def kill(self) -> None:
        """End the process and its children, close the sockets, remove its files. Idempotent."""
        if self._listed is not None:
            connection_files.withdraw(self._listed)
        self.channels.close()
        self.died.cancel()
        await shielded(_shut_down(self._manager))

    async def _end(self) -> None:
        """Return when the process has ended, or has closed a connection, so that it cannot be reached."""
        provisioner = self._manager.provisioner
        if provisioner is None:
            return
        ended: asyncio.Future[Any] = asyncio.ensure_future(provisioner.wait())
        try:
            await asyncio.wait([ended, self.channels.cut], return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({ended}, timeout=CUT_SECONDS)
            if ended.done():
                self.was_killed = ended.result() in _KILLED
                self._cut_off = WHY_BROKEN if ended.result() == BROKEN else ""
            else:
                self._cut_off = f"Its process was still there, but {self.channels.cut.result()}."
        finally:
            ended.cancel()

    def _last_output(self, known: str = "") -> str:
        output = self._explanation("diagnosis").removeprefix(known).strip()
        return f"\nIts last output:\n{output}" if output else ""

    def _explanation(self, method: Literal["why", "diagnosis"]) -> str:
        """Why the kernel ended, or did not start, from a provisioner that has this method; else an empty string."""
        return str(getattr(self._manager.provisioner, method, str)())


def manager_of(spec: KernelSpec) -> AsyncKernelManager:
    """A manager for one kernel of this kernelspec. Our own provisioners use ipc."""
    import zmq.asyncio
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager

    class OneSpec(KernelSpecManager):
        """Returns the kernelspec that was resolved already."""

        def get_kernel_spec(self, kernel_name: str) -> KernelSpec:  # noqa: ARG002
            return spec

    class OwnManager(AsyncKernelManager):
        """Has no connection of its own to the kernel: it is not needed, and the kernel could fill our memory by it."""

        def _connect_control_socket(self) -> None:
            pass

        def write_connection_file(self, **kwargs: Any) -> None:
            """A kernel that gets its connection from its provisioner needs no file that holds its key."""
            if getattr(self.provisioner, "is_handed_over", False):
                for number, name in enumerate(("shell", "iopub", "stdin", "control", "hb"), 1):
                    setattr(self, f"{name}_port", number)
            else:
                super().write_connection_file(**kwargs)

    return OwnManager(
        kernel_name="rlm",
        kernel_spec_manager=OneSpec(),
        transport="ipc" if kernelspecs.provisioner_name(spec.to_dict()) in kernelspecs.OUR_PROVISIONERS else "tcp",
        context=zmq.asyncio.Context.shadow(zmq_context()),
    )


def _client(manager: AsyncKernelManager) -> KernelClient:
    """A client with the manager's connection info, on the plain zmq context instead of zmq's asyncio one."""
    from jupyter_client.client import KernelClient

    client = KernelClient(context=zmq_context())
    client.load_connection_info(manager.get_connection_info())
    return client


async def _shut_down(manager: AsyncKernelManager) -> None:
    if manager.provisioner is not None and manager.provisioner.has_process:
        await manager.provisioner.kill()
    await manager.cleanup_resources()
