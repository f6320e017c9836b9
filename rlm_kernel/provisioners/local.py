"""A kernel as a process on this machine: scrubbed environment, private directories, a watchdog, a memory limit.

It is not a sandbox: the kernel runs as the same user and can read the user's files (README, "What local does not
contain").
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import IO, Any

from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from traitlets import Bool, Dict, Integer, TraitError, Unicode, Union, validate

from rlm_kernel.provisioners.directories import private_directory
from rlm_kernel.provisioners.environ import private_directories, scrubbed

WATCHDOG_SECONDS = 3.0
DIAGNOSIS_BYTES = 4_000
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", re.IGNORECASE)
_FACTORS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def size_in_bytes(size: str | int) -> int:
    """``"2g"``, ``"512m"``, ``"1.5 GiB"`` or a number of bytes, as bytes.

    Raises:
        ValueError: not a size.
    """
    match = _SIZE.fullmatch(str(size).strip())
    if match is None:
        raise ValueError(f"{size!r} is not a size: write it like '2g', '512m' or as a number of bytes.")
    return int(float(match[1]) * _FACTORS[match[2].lower()])


class LocalKernel(LocalProvisioner):
    """The provisioner `rlm-local`. Traits tagged `environment` are what `environment_kwargs` may set.

    jupyter_client calls `pre_launch` and `launch_kernel` from `KernelManager.start_kernel`, `kill`, `wait` and
    `cleanup` from its shutdown, and `poll` whenever it wants to know whether the kernel lives.
    """

    env = Dict(key_trait=Unicode(), value_trait=Unicode(), help="Environment variables to add to the kernel's.").tag(
        environment=True
    )
    cwd = Unicode(None, allow_none=True, help="The kernel's working directory.").tag(environment=True)
    memory = Union(
        [Unicode(), Integer()],
        allow_none=True,
        default_value=None,
        help="The most it may allocate, e.g. '2g'.",
    ).tag(environment=True)

    private_cwd = Bool(
        default_value=False, help="Start in an empty directory, not in the client's: what our engine's kernels do."
    )

    directory: Path | None = None
    _host_pipe: int | None = None
    _log: IO[bytes] | None = None

    @validate("memory")
    def _memory_is_a_size(self, proposal: Any) -> Any:
        try:
            size_in_bytes(proposal["value"])
        except ValueError as error:
            raise TraitError(str(error)) from error
        return proposal["value"]

    @validate("cwd")
    def _cwd_exists(self, proposal: Any) -> Any:
        if proposal["value"] is None:
            return None
        cwd = Path(proposal["value"]).expanduser()
        if not cwd.is_dir():
            raise TraitError(f"{proposal['value']!r} is not a directory.")
        return str(cwd)

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Make the private directory and everything that `Popen` is given."""
        if self.directory is None:
            self.directory = private_directory()
        self._keep_sockets_private(self.directory)
        kwargs = await super().pre_launch(**kwargs)
        kwargs["cmd"] = self._with_our_options(kwargs["cmd"])
        kwargs["env"] = {**scrubbed(os.environ), **private_directories(self.directory), **self.env}
        kwargs["cwd"] = self.cwd or self._start_directory(self.directory, kwargs.get("cwd"))
        return kwargs

    def _start_directory(self, private: Path, of_client: str | None) -> str:
        """Where the kernel starts when nobody says where."""
        if not self.private_cwd:
            return of_client or str(Path.cwd())
        work = private / "work"
        work.mkdir(exist_ok=True)
        return str(work)

    def diagnosis(self) -> str:
        """What the process wrote to its standard error before ipykernel took that over, or after it failed to."""
        if self._log is None:
            return ""
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, self._log.tell() - DIAGNOSIS_BYTES))
        return self._log.read().decode("utf-8", "replace").strip()

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
        self._log = self._log or tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the kernel)
        reading, self._host_pipe = os.pipe()
        try:
            output = {"stdout": self._log, "stderr": self._log}
            return await super().launch_kernel(cmd, stdin=reading, **{**output, **kwargs})
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
            await asyncio.wait_for(self.wait(), WATCHDOG_SECONDS)
        except TimeoutError:
            await super().kill()  # the kernel dies with its watchdog
            await self.wait()

    async def terminate(self, restart: bool = False) -> None:
        """The same as `kill`: a kernel has nothing to save."""
        await self.kill(restart)

    async def wait(self) -> int | None:
        """Wait for the end of the watchdog, and so of the kernel, without polling where the system can tell."""
        process = self.process
        if process is None:
            return 0
        with contextlib.suppress(ProcessLookupError):
            await process_end(process)
        self.process = None
        return int(process.wait())

    async def cleanup(self, restart: bool = False) -> None:
        """Remove the private directory, unless the kernel is started again in it."""
        self._close_pipe()
        if self.directory is not None and not restart:
            shutil.rmtree(self.directory, ignore_errors=True)
            self.directory = None
        if self._log is not None and not restart:
            self._log.close()
            self._log = None
        await super().cleanup(restart)

    def _close_pipe(self) -> None:
        if self._host_pipe is not None:
            os.close(self._host_pipe)
            self._host_pipe = None


async def process_end(process: subprocess.Popen[bytes]) -> None:
    """Return when the process has ended; it is not reaped."""
    if not hasattr(os, "pidfd_open"):
        await asyncio.to_thread(process.wait)
        return
    ended = asyncio.Event()
    fd = os.pidfd_open(process.pid)
    asyncio.get_running_loop().add_reader(fd, ended.set)
    try:
        await ended.wait()
    finally:
        asyncio.get_running_loop().remove_reader(fd)
        os.close(fd)
