"""A kernel as a process on this machine: scrubbed environment, private directories, watchdog, memory limit.

It is not a sandbox: the kernel runs as the same user and can read the user's files.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

from traitlets import Bool

from rlm_kernel.provisioners.environ import private_directories, scrub_environ
from rlm_kernel.provisioners.local_base import LocalProcess, private_directory
from rlm_kernel.provisioners.traits import Memory
from rlm_kernel.text import size_in_bytes

WATCHDOG_SECONDS = 3.0


class LocalKernel(LocalProcess):
    """The provisioner `rlm-local`. Traits tagged `environment` are what `environment_kwargs` may set.

    jupyter_client calls `pre_launch` and `launch_kernel` from `KernelManager.start_kernel`, `kill`, `wait` and
    `cleanup` from its shutdown, and `poll` whenever it wants to know whether the kernel lives.
    """

    memory = Memory("128m", allow_none=True, default_value=None, help="The most it may allocate, e.g. '2g'.").tag(
        environment=True,
        reaches_out=False,  # without it there is no bound
    )

    private_cwd = Bool(
        default_value=False, help="Start in an empty directory, not in the client's: what our engine's kernels do."
    )

    _host_pipe: int | None = None

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Make the private directory and everything that `Popen` is given."""
        if self.directory is None:
            self.directory = private_directory()
        self._keep_sockets_private(self.directory)
        kwargs = await super().pre_launch(**kwargs)
        kwargs["cmd"] = self._with_our_options(kwargs["cmd"])
        kwargs["env"] = {**scrub_environ(os.environ), **private_directories(self.directory), **self.env}
        kwargs["cwd"] = self.cwd or self._start_directory(self.directory, kwargs.get("cwd"))
        return kwargs

    def _start_directory(self, private: Path, of_client: str | None) -> str:
        """Where the kernel starts when no directory is given."""
        if not self.private_cwd:
            return of_client or str(Path.cwd())
        work = private / "work"
        work.mkdir(exist_ok=True)
        return str(work)

    def _keep_sockets_private(self, directory: Path) -> None:
        """Ipc sockets and the connection file go into the 0700 directory: who cannot enter it cannot connect."""
        manager = self.parent
        if manager is not None and manager.transport == "ipc" and not manager.connection_file:
            manager.connection_file = str(directory / "kernel.json")
            manager.ip = str(directory / "k")

    def _with_our_options(self, cmd: list[str]) -> list[str]:
        """The command with the launcher's options before those of ipykernel."""
        options = ["--host-pipe", "--remove", str(self.directory)]
        if self.memory is not None:
            options += ["--memory", str(size_in_bytes(self.memory))]
        place = cmd.index("-f")
        return [*cmd[:place], *options, *cmd[place:]]

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        """Start the watchdog, which starts the kernel. It holds the reading end of a pipe whose writing end is ours."""
        reading, self._host_pipe = os.pipe()
        try:
            return await super().launch_kernel(cmd, stdin=reading, **{**self._output(), **kwargs})
        finally:
            os.close(reading)

    async def kill(self, restart: bool = False) -> None:  # noqa: ARG002 (the signature is jupyter_client's)
        """Tell the watchdog to kill the kernel and all it started; kill the watchdog if it does not."""
        if self.process is None:
            return
        # Asked to end, the watchdog leaves the directory to us; at the end of the pipe it would remove that too.
        self.process.terminate()
        self.process.send_signal(signal.SIGCONT)  # a cell may have stopped it
        try:
            async with asyncio.timeout(WATCHDOG_SECONDS):
                await self.wait()
        except TimeoutError:
            await super().kill()  # the kernel dies with its watchdog
            await self.wait()

    async def terminate(self, restart: bool = False) -> None:
        """The same as `kill`: a kernel has nothing to save."""
        await self.kill(restart)

    async def cleanup(self, restart: bool = False) -> None:
        """Remove the private directory, unless the kernel is started again in it."""
        if self._host_pipe is not None:
            os.close(self._host_pipe)
            self._host_pipe = None
        await super().cleanup(restart)
