"""The base of provisioners that reach their kernel through the relay.

A subclass has traits for its options and one method, `start_remote`, which starts a remote process that runs
`relay/remote_end.py`. jupyter_client calls a provisioner in the event loop of its caller, which may stop between two
calls (that of a blocking client does). So the link to the kernel runs in the engine's loop.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
from abc import abstractmethod
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Protocol, TypeVar

from jupyter_client.provisioning.provisioner_base import KernelProvisionerBase
from traitlets import Bool

from rlm_kernel._async import Job, engine_loop
from rlm_kernel.provisioners.local_base import private_directory
from rlm_kernel.provisioners.relay.host_end import LOST, RelayHost, Remote, interrupt
from rlm_kernel.provisioners.traits import Variables

T = TypeVar("T")


async def in_engine_loop(work: Coroutine[Any, Any, T]) -> T:
    """Await `work` in the engine's loop, from any loop."""
    if asyncio.get_running_loop() is engine_loop():
        return await work
    return await Job(work).wait_async()


class Link(Protocol):
    """The connection to a remote kernel: a `RelayHost`, or a more direct one.

    Attributes:
        ended: done when the kernel or the link has ended: the exit status, or `LOST`.
        log: the end of the standard output and error of the kernel's process.
    """

    ended: asyncio.Future[int]
    log: bytes

    async def close(self) -> None:
        """End the kernel and remove what was made for it. Idempotent."""
        ...


class RelayedKernel(KernelProvisionerBase):
    """A provisioner for a remote kernel. Traits tagged `environment` are what `environment_kwargs` may set.

    jupyter_client calls `pre_launch` and `launch_kernel` from `KernelManager.start_kernel`, `kill`, `wait` and
    `cleanup` from its shutdown, and `poll` whenever it wants to know whether the kernel lives.
    """

    env = Variables(help="Environment variables of the kernel.").tag(environment=True, reaches_out=True)
    private_cwd = Bool(
        default_value=False, help="Start in an empty directory, not in the client's: what our engine's kernels do."
    )

    text_only = False
    """Whether the streams carry lines of text only."""
    directory: Path | None = None
    launch_directory: Path | None = None
    link: Link | None = None
    _status: int | None = None
    _log: bytes = b""

    # -- for subclasses

    @classmethod
    def check_installation(cls) -> None:
        """Check that the packages that it needs are installed. Called before the start.

        Raises:
            ConfigError: they are not; the message says how to install them.
        """

    @abstractmethod
    async def start_remote(self) -> Remote:
        """Start a remote process that runs `relay/remote_end.py` (`host_end.source` reads its source).

        Called in the engine's loop for each start of the kernel. Of this process's environment, the remote one may see
        `self.env` only. If this raises, it removes what it made; later `Remote.close` does.

        Raises:
            KernelError: it cannot be started; the message says what to do.
        """

    @property
    def launcher_options(self) -> list[str]:
        """Options of `launcher.py`, e.g. a memory limit."""
        return ["--contained"]

    @property
    def patience(self) -> float | None:
        """Seconds of silence that end the kernel, if the end of this process does not end its input; or None."""
        return None

    def why(self) -> str:
        """Why the kernel ended, if it is known (a time limit, for example), or an empty string."""
        return ""

    async def open_link(self) -> Link:
        """Start the kernel. Called in the engine's loop. Subclasses with a more direct link override it."""
        return await self.open_relay()

    async def open_relay(self) -> RelayHost:
        """Start the kernel behind a relay that listens at the addresses of `connection_info`."""
        remote = await self.start_remote()
        return await RelayHost.open(
            self.connection_info,
            remote,
            text=self.text_only,
            launcher_options=self.launcher_options,
            patience=self.patience,
        )

    # -- for jupyter_client

    @property
    def has_process(self) -> bool:
        """Whether there is a kernel that has not been ended."""
        return self.link is not None

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Make the private directory of the sockets and the connection file."""
        self.directory = self.directory or private_directory()
        self.launch_directory = None if self.private_cwd else _absolute(kwargs.get("cwd"))
        manager = self.parent
        if manager is not None:
            self._keep_sockets_private(manager, self.directory)
            manager.write_connection_file()
            self.connection_info = manager.get_connection_info()
        return await super().pre_launch(**{**kwargs, "cmd": []})

    def _keep_sockets_private(self, manager: Any, directory: Path) -> None:
        """Make clients connect over ipc in our directory, also those that use tcp for other kernels."""
        if manager.transport != "ipc" or not manager.connection_file:
            manager.transport = "ipc"
            manager.ip = str(directory / "k")
        if not manager.connection_file:
            manager.connection_file = str(directory / "kernel.json")

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:  # noqa: ARG002 (the signature is jupyter_client's)
        """Start the kernel and the link to it."""
        self._status, self._log = None, b""
        await in_engine_loop(self._open())
        return self.connection_info

    async def _open(self) -> None:
        # Set here, not by the caller: a caller that is cancelled meanwhile can still close it.
        self.link = await self.open_link()

    async def poll(self) -> int | None:
        """The exit status of the kernel, or None while it runs."""
        if self.link is None:
            return 0 if self._status is None else self._status
        return self.link.ended.result() if self.link.ended.done() else None

    async def wait(self) -> int | None:
        """Wait for the end of the kernel."""
        return await in_engine_loop(self._wait())

    async def _wait(self) -> int | None:
        if self.link is not None:
            self._status = await asyncio.shield(self.link.ended)
        return self._status

    async def send_signal(self, signum: int) -> None:
        """SIGINT interrupts the running cell; other signals are not sent to a remote kernel."""
        if signum == signal.SIGINT:
            interrupt(self.connection_info)

    async def kill(self, restart: bool = False) -> None:  # noqa: ARG002
        """End the kernel and its container or sandbox."""
        link, self.link = self.link, None
        if link is not None:
            await in_engine_loop(link.close())
            self._status, self._log = link.ended.result() if link.ended.done() else LOST, link.log

    async def terminate(self, restart: bool = False) -> None:
        """The same as `kill`: a kernel has nothing to save."""
        await self.kill(restart)

    async def cleanup(self, restart: bool = False) -> None:
        """Remove the private directory, unless the kernel is started again."""
        await self.kill(restart)
        if self.directory is not None and not restart:
            shutil.rmtree(self.directory, ignore_errors=True)
            self.directory = None

    def diagnosis(self) -> str:
        """Why it ended, and the last output of the kernel and its launcher."""
        return "\n".join(part for part in (self.why(), self.last_output().strip()) if part)

    def last_output(self) -> str:
        """The end of the standard output and error of the kernel and its launcher."""
        return (self.link.log if self.link is not None else self._log).decode("utf-8", "replace")


def _absolute(directory: str | None) -> Path:
    return Path(directory or "").absolute()
