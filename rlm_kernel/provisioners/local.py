"""A kernel as a process of this machine, with scrubbed environment, private directories, watchdog and memory limit.

It is not a sandbox: the kernel runs as the same user and can read the user's files.
"""

from __future__ import annotations

import asyncio
import os
import signal
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from traitlets import Bool, Dict, Enum, Unicode, Union

from rlm_kernel.provisioners import forked
from rlm_kernel.provisioners.environ import scrub_environ
from rlm_kernel.provisioners.local_base import LocalProcess
from rlm_kernel.provisioners.mounts import mounts_of
from rlm_kernel.provisioners.sandbox.walls import Sandbox, choose, confined, in_environment
from rlm_kernel.provisioners.traits import Memory
from rlm_kernel.text import size_in_bytes
from rlm_kernel.zmtp.sockets import address, listen

WATCHDOG_SECONDS = 3.0

_LAUNCHER = ["-P", "-m", "rlm_kernel.provisioners.launcher"]
_CHANNELS = ("shell", "iopub", "stdin", "control", "hb")


class LocalKernel(LocalProcess):
    """The provisioner `rlm-local`."""

    memory = Memory("128m", allow_none=True, default_value=None, help="The most it may allocate, e.g. '2g'.").tag(
        environment=True,
        reaches_out=False,  # without it there is no bound
    )

    fork = Bool(
        default_value=True, help="Fork the engine's kernels from one process that has imported ipykernel (Linux)."
    ).tag(environment=True, reaches_out=False)

    sandbox = Union(
        [Bool(), Enum(["bwrap", "landlock"])],
        default_value=None,
        allow_none=True,
        help="'bwrap', 'landlock', or True: the best one; RLM_SANDBOX=1 makes True the default.",
    ).tag(environment=True, reaches_out=False)
    mounts = Dict(
        key_trait=Unicode(),
        value_trait=Unicode(),
        help="What a sandbox sees: path here to path there, read-only unless it ends with ':rw'.",
    ).tag(environment=True, reaches_out=True)

    is_forked = False
    """Whether the kernel gets its connection from us, so that no file need hold the key."""
    _sandbox: Sandbox | None = None
    _host_pipe: int | None = None
    process: Any  # a `Popen`, or what stands for one
    _forked: forked.ForkedProcess | None = None

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Decide how the kernel is started, and prepare that."""
        self._sandbox = choose(in_environment() if self.sandbox is None else self.sandbox)
        self.is_forked = self._can_be_forked()
        kwargs = await super().pre_launch(**kwargs)
        return kwargs if self.is_forked else self._with_options(kwargs)

    def _can_be_forked(self) -> bool:
        manager = self.parent
        if (
            self._sandbox is not None
            or manager is None
            or manager.transport != "ipc"
            or self.kernel_spec.argv[1:4] != _LAUNCHER
        ):
            return False
        return (
            self.private_cwd
            and self.fork
            and forked.can_fork(scrub_environ(os.environ), {**self.kernel_spec.env, **self.env})
        )

    def _with_options(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Put the launcher's options before those of ipykernel."""
        options = ["--host-pipe", "--remove", str(self.directory)]
        if self.memory is not None:
            options += ["--memory", str(size_in_bytes(self.memory))]
        at = kwargs["cmd"].index("-f")
        kwargs["cmd"][at:at] = options
        if self._sandbox is not None:
            assert self.directory is not None
            cwd, mounts = Path(kwargs["cwd"]), mounts_of(self.mounts)
            kwargs["cmd"] = confined(kwargs["cmd"], self._sandbox, self.directory, cwd, mounts)
        return kwargs

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        """Have the kernel forked, or start the watchdog, which starts it."""
        if not self.is_forked:
            return await self._launch(cmd, kwargs)
        try:
            self.process = self._forked = await self._fork(cmd, kwargs)
        except OSError as error:
            warnings.warn(f"Kernels are started one by one, which takes longer: {error}.", stacklevel=2)
            self.is_forked = False
            assert self.parent is not None
            self.parent.write_connection_file()
            return await self._launch(self._with_options({"cmd": cmd})["cmd"], kwargs)
        self.pid = self._forked.pid
        return self.connection_info

    async def _fork(self, cmd: list[str], kwargs: dict[str, Any]) -> forked.ForkedProcess:
        """Listen at the kernel's sockets, and hand them to a fork of the server. Clients can connect at once."""
        addresses = [address(self.connection_info, channel) for channel in _CHANNELS]
        key: Any = self.connection_info["key"]
        request = {
            "argv": cmd[cmd.index("-f") :],
            "env": kwargs["env"],
            "cwd": kwargs["cwd"],
            "memory": None if self.memory is None else size_in_bytes(self.memory),
            "directory": str(self.directory),
            "addresses": addresses,
            "connection": {**self.connection_info, "key": key.decode()},
        }
        with ExitStack() as opened:
            listening = [opened.enter_context(listen(one)) for one in addresses]
            return await forked.fork(cmd[0], request, self.open_log(), listening)

    def seal(self) -> None:
        """Remove the socket files of a forked kernel, so that no one else can connect to it."""
        if self.is_forked:
            for channel in _CHANNELS:
                Path(address(self.connection_info, channel).removeprefix("ipc://")).unlink(missing_ok=True)

    async def _launch(self, cmd: list[str], kwargs: dict[str, Any]) -> Any:
        """Start the watchdog. Its standard input is a pipe whose writing end is ours."""
        reading, self._host_pipe = os.pipe()
        try:
            return await super().launch_kernel(cmd, stdin=reading, **kwargs)
        finally:
            os.close(reading)

    async def kill(self, restart: bool = False) -> None:  # noqa: ARG002 (the signature is jupyter_client's)
        """Tell the watchdog to kill the kernel and all it started; kill the watchdog if it does not."""
        if self.process is None:
            return
        if self._forked is not None:
            await self._forked.kill()
            await self.wait()
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

    async def wait(self) -> int | None:
        """Wait for the end of the kernel, and of what it started."""
        if self._forked is None:
            return await super().wait()
        status = await self._forked.wait()
        if self.process is not None:
            self._forked.close()
            self.process = None
        return status

    async def terminate(self, restart: bool = False) -> None:
        """The same as `kill`: a kernel has nothing to save."""
        await self.kill(restart)

    async def cleanup(self, restart: bool = False) -> None:
        """Remove the private directory, unless the kernel is started again in it."""
        if self._host_pipe is not None:
            os.close(self._host_pipe)
            self._host_pipe = None
        await super().cleanup(restart)
