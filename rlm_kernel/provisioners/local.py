"""A kernel as a process of this machine, with scrubbed environment, private directories, watchdog and memory limit.

Without `sandbox` there is no wall: the kernel runs as the same user and can read the user's files.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from traitlets import Bool, Dict, Enum, Unicode, Union

from rlm_kernel._async import run_in_thread
from rlm_kernel.errors import ConfigError
from rlm_kernel.provisioners import cgroups, forked, launcher, strays
from rlm_kernel.provisioners.environ import scrub_environ
from rlm_kernel.provisioners.local_base import LocalProcess
from rlm_kernel.provisioners.mounts import mounts_of
from rlm_kernel.provisioners.sandbox.walls import Sandbox, confined, paths, wall_of
from rlm_kernel.provisioners.traits import Memory
from rlm_kernel.text import size_in_bytes
from rlm_kernel.zmtp.sockets import address, listen

WATCHDOG_SECONDS = 3.0
STRAY_SECONDS = 5.0

_LAUNCHER = ["-P", "-m", "rlm_kernel.provisioners.launcher"]
_CHANNELS = ("shell", "iopub", "stdin", "control", "hb")

HIDDEN = "RLM_HIDE_MEMORY"
"""Set to 1: other processes of this user may not read the memory of the host and of its kernels, where keys are."""


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

    attachable = Bool(default_value=False, help="Others connect to it: its connection file and its sockets stay.")

    is_handed_over = False
    """Whether the kernel gets its connection from us, so that no file need hold the key."""
    is_forked = False
    _sandbox: Sandbox | None = None
    _host_pipe: int | None = None
    process: Any  # a `Popen`, or what stands for one
    _forked: forked.ForkedProcess | None = None
    _kept: set[int] | None = None
    """The kernel, and the processes that its setup has started."""
    _group: list[str] = []  # noqa: RUF012 (replaced, never changed)

    @staticmethod
    def sees_host_files(options: Mapping[str, Any]) -> bool:
        """Whether a kernel with these options reads the files of this machine by the same paths."""
        return wall_of(options.get("sandbox")) is None

    @staticmethod
    def check_options(options: Mapping[str, Any]) -> None:
        """Check that mounts have a sandbox, and exist.

        Raises:
            ConfigError: they do not.
        """
        mounts = mounts_of(options.get("mounts") or {})
        if mounts and wall_of(options.get("sandbox")) is None:
            raise ConfigError("environment_kwargs['mounts'] needs a sandbox: add 'sandbox': True.")
        for mount in mounts:
            if not os.path.exists(mount.source):  # noqa: PTH110 (pathlib raises for some names)
                raise ConfigError(f"environment_kwargs['mounts']: {mount.source} does not exist.")

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Decide how the kernel is started, and prepare that."""
        self._sandbox = wall_of(self.sandbox)
        self.is_handed_over = self._can_be_handed_over()
        self.is_forked = self.is_handed_over and self._can_be_forked()
        if _is_hidden():
            launcher.hide_memory()
        kwargs = await super().pre_launch(**kwargs)
        return kwargs if self.is_forked else self._with_options(kwargs)

    def _can_be_forked(self) -> bool:
        fork = self.fork and self._sandbox != "bwrap"  # a fork of the server cannot move into a file tree of its own
        return fork and forked.can_fork(scrub_environ(os.environ), {**self.kernel_spec.env, **self.env})

    def _can_be_handed_over(self) -> bool:
        manager = self.parent
        return (
            manager is not None
            and manager.transport == "ipc"
            and self.kernel_spec.argv[1:4] == _LAUNCHER
            and self.private_cwd
            and not self.attachable
        )

    def _with_options(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Put the launcher's options before those of ipykernel."""
        options = ["--host-pipe", "--remove", str(self.directory)]
        if _is_hidden():
            options.append("--hidden")
        if self.memory is not None:
            options += ["--memory", str(size_in_bytes(self.memory))]
        at = kwargs["cmd"].index("-f")
        kwargs["cmd"][at:at] = options
        if self._sandbox is not None:
            assert self.directory is not None
            kwargs["cmd"] = confined(
                kwargs["cmd"], self._sandbox, self.directory, Path(kwargs["cwd"]), mounts_of(self.mounts)
            )
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
            return await self._launch(self._with_options({"cmd": cmd, "cwd": kwargs["cwd"]})["cmd"], kwargs)
        self.pid = self._forked.pid
        return self.connection_info

    async def _fork(self, cmd: list[str], kwargs: dict[str, Any]) -> forked.ForkedProcess:
        """Listen at the kernel's sockets, and hand them to a fork of the server. Clients can connect at once."""
        addresses = self._addresses()
        request = {
            "argv": cmd[cmd.index("-f") :],
            "env": kwargs["env"],
            "cwd": kwargs["cwd"],
            "memory": None if self.memory is None else size_in_bytes(self.memory),
            "directory": str(self.directory),
            "addresses": addresses,
            "connection": self._connection(),
            "hidden": _is_hidden(),
            "paths": self._paths(cmd[0], Path(kwargs["cwd"])),
        }
        with ExitStack() as opened:
            listening = [opened.enter_context(listen(one)) for one in addresses]
            return await forked.fork(cmd[0], request, self.open_log(), listening, self._new_group())

    def _paths(self, python: str, cwd: Path) -> dict[str, list[str]] | None:
        """What a forked kernel may read and write; None: there is no wall."""
        if self._sandbox is None:
            return None
        assert self.directory is not None
        return paths(python, self.directory, cwd, mounts_of(self.mounts))

    def _new_group(self) -> list[str]:
        """A control group for the kernel, in place of the one that it had before a restart."""
        cgroups.remove(self._group)
        self._kept = None
        self._group = cgroups.make(None if self.memory is None else size_in_bytes(self.memory))
        return self._group

    def seal(self) -> None:
        """Remove the socket files of a kernel that has no connection file, so that no one else can connect to it."""
        if self.is_handed_over:
            for name in self._addresses():
                Path(name.removeprefix("ipc://")).unlink(missing_ok=True)

    def _addresses(self) -> list[str]:
        return [address(self.connection_info, channel) for channel in _CHANNELS]

    def _connection(self) -> dict[str, Any]:
        """What a connection file would contain."""
        key: Any = self.connection_info["key"]
        return {**self.connection_info, "key": key.decode()}

    async def _launch(self, cmd: list[str], kwargs: dict[str, Any]) -> Any:
        """Start the watchdog. Its standard input is a pipe whose writing end is ours."""
        reading, self._host_pipe = os.pipe()
        at = cmd.index("-f")
        if group := self._new_group():
            cmd[at:at] = ["--group", json.dumps(group)]
        with ExitStack() as opened:
            opened.callback(os.close, reading)
            passed = self._hand_over(opened) if self.is_handed_over else []
            if passed:
                cmd[at:at] = ["--connection", str(passed[0])]
            return await super().launch_kernel(cmd, stdin=reading, pass_fds=passed, **kwargs)

    def _hand_over(self, opened: ExitStack) -> list[int]:
        """Descriptors for the watchdog: a pipe with the connection, and the sockets that this process listens at."""
        listening = {name: opened.enter_context(listen(name)).fileno() for name in self._addresses()}
        connection, writing = os.pipe()
        opened.callback(os.close, connection)
        with os.fdopen(writing, "w") as pipe:
            json.dump({"connection": self._connection(), "listening": listening}, pipe)
        return [connection, *listening.values()]

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
            status = await super().wait()
        else:
            status = await self._forked.wait()
            if self.process is not None:
                self._forked.close()
                self.process = None
            if self._forked.is_lost:
                self._forked.kill_lost()
                await run_in_thread(partial(strays.kill, str(self.directory), STRAY_SECONDS))
        if any(map(os.path.exists, self._group)):  # its watchdog was killed
            # Not in the loop's threads: pools are closed at exit, when those take no more work.
            await run_in_thread(partial(cgroups.end, self._group, STRAY_SECONDS))
        return status

    async def end_others(self) -> bool:
        """Kill what the kernel has started since the first call. Returns whether nothing is left."""
        if self._kept is None:
            self._kept = {*await asyncio.to_thread(self._others), *([self._forked.pid] if self._forked else [])}
            return True
        if not self._group:
            return await asyncio.to_thread(strays.kill, str(self.directory), STRAY_SECONDS, spared=self._kept)
        if not set(cgroups.processes(self._group)) - self._kept:
            return True
        return await asyncio.to_thread(cgroups.kill, self._group, STRAY_SECONDS, spared=self._kept)

    def _others(self) -> list[int]:
        return cgroups.processes(self._group) if self._group else strays.processes_of(str(self.directory))

    async def terminate(self, restart: bool = False) -> None:
        """The same as `kill`: a kernel has nothing to save."""
        await self.kill(restart)

    async def cleanup(self, restart: bool = False) -> None:
        """Remove the private directory, unless the kernel is started again in it."""
        if self._host_pipe is not None:
            os.close(self._host_pipe)
            self._host_pipe = None
        await super().cleanup(restart)


def _is_hidden() -> bool:
    return os.environ.get(HIDDEN, "") not in ("", "0")
