"""A kernel as a process on this machine: scrubbed environment, private directories, watchdog, memory limit.

It is not a sandbox: the kernel runs as the same user and can read the user's files.
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

from rlm_kernel.provisioners.local_base import LocalProcess
from rlm_kernel.provisioners.traits import Memory
from rlm_kernel.text import size_in_bytes

WATCHDOG_SECONDS = 3.0


class LocalKernel(LocalProcess):
    """The provisioner `rlm-local`."""

    memory = Memory("128m", allow_none=True, default_value=None, help="The most it may allocate, e.g. '2g'.").tag(
        environment=True,
        reaches_out=False,  # without it there is no bound
    )

    _host_pipe: int | None = None

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Put the launcher's options before those of ipykernel."""
        kwargs = await super().pre_launch(**kwargs)
        options = ["--host-pipe", "--remove", str(self.directory)]
        if self.memory is not None:
            options += ["--memory", str(size_in_bytes(self.memory))]
        at = kwargs["cmd"].index("-f")
        kwargs["cmd"][at:at] = options
        return kwargs

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        """Start the watchdog, which starts the kernel. Its standard input is a pipe whose writing end is ours."""
        reading, self._host_pipe = os.pipe()
        try:
            return await super().launch_kernel(cmd, stdin=reading, **kwargs)
        finally:
            os.close(reading)

    async def kill(self, restart: bool = False) -> None:  # noqa: ARG002 (the signature is jupyter_client's)
        """Tell the watchdog to kill the kernel and all it started; kill the watchdog if it does not."""
        if self.process is None:
            return
        # After SIGTERM the watchdog leaves the directory to us; after the end of the pipe it would remove that too.
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
