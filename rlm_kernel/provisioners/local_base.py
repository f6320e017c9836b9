"""The base of kernels that are processes of this machine: private directory, environment, log, end of the process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import IO, Any

from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from traitlets import Bool, TraitError, Unicode, validate

from rlm_kernel._async import run_in_thread
from rlm_kernel.provisioners.environ import private_directories, scrub_environ
from rlm_kernel.provisioners.traits import Variables

MAX_BASE_LENGTH = 78
DIAGNOSIS_BYTES = 4_000

_host = ""


def _name_host() -> None:
    """Name this process, and each fork of it."""
    global _host  # noqa: PLW0603 (a fork has a name of its own)
    _host = secrets.token_urlsafe(4)


_name_host()
os.register_at_fork(after_in_child=_name_host)


def private_prefix() -> Path:
    """How the paths of this process's private directories begin: if it is killed, its fork server removes them all."""
    base = tempfile.gettempdir()
    if len(os.fsencode(base)) > MAX_BASE_LENGTH and os.access("/tmp", os.W_OK):  # noqa: S108 (mkdtemp makes it safe)
        base = "/tmp"  # noqa: S108
    return Path(base, f"rlm-{_host}-")


def private_directory() -> Path:
    """Make a 0700 directory with a short path: an ipc path has at most 107 bytes on Linux, and 103 on macOS."""
    prefix = private_prefix()
    return Path(tempfile.mkdtemp(prefix=prefix.name, dir=prefix.parent))


class LocalProcess(LocalProvisioner):
    """The base of provisioners that start a process of this machine. Traits tagged `environment` are a user's options.

    jupyter_client calls `pre_launch` and `launch_kernel` from `KernelManager.start_kernel`, `kill`, `wait` and
    `cleanup` from its shutdown, and `poll` whenever it wants to know whether the kernel lives.
    """

    reach = "its code runs on this machine as you, without a wall"

    env = Variables(help="Environment variables to add to the kernel's.").tag(environment=True, reaches_out=True)
    cwd = Unicode(None, allow_none=True, help="The kernel's working directory.").tag(environment=True, reaches_out=True)
    private_cwd = Bool(
        default_value=False, help="Start in an empty directory, not in the client's: what our engine's kernels do."
    )

    directory: Path | None = None
    _log: IO[bytes] | None = None

    @validate("cwd")
    def _cwd_exists(self, proposal: Any) -> Any:
        if proposal["value"] is None:
            return None
        cwd = Path(proposal["value"]).expanduser()
        if not cwd.is_dir():
            raise TraitError(f"{proposal['value']!r} is not a directory.")
        return str(cwd)

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Make the private directory, and what `Popen` is given."""
        directory = self.directory = self.directory or private_directory()
        manager = self.parent
        # Ipc sockets and the connection file are in the 0700 directory: other users cannot connect.
        if manager is not None and manager.transport == "ipc" and not manager.connection_file:
            manager.connection_file, manager.ip = str(directory / "kernel.json"), str(directory / "k")
        kwargs = await super().pre_launch(**kwargs)
        of_spec = {name: kwargs["env"][name] for name in self.kernel_spec.env}
        kwargs["env"] = {**scrub_environ(os.environ), **private_directories(directory), **of_spec, **self.env}
        kwargs["cwd"] = self.cwd or self._start_directory(directory, kwargs.get("cwd"))
        return kwargs

    def _start_directory(self, private: Path, of_client: str | os.PathLike[str] | None) -> str:
        """The working directory when no `cwd` is given. `jupyter execute` gives a path, most clients a text."""
        if not self.private_cwd:
            return os.fspath(of_client or Path.cwd())
        work = private / "work"
        work.mkdir(exist_ok=True)
        return str(work)

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        """Start the process."""
        log = self.open_log()
        return await super().launch_kernel(cmd, **{"stdout": log, "stderr": log, **kwargs})

    def open_log(self) -> IO[bytes]:
        """The file of the process's standard output and error. It lives as long as the kernel."""
        self._log = self._log or tempfile.TemporaryFile()  # noqa: SIM115 (closed by `cleanup`)
        return self._log

    def diagnosis(self) -> str:
        """What the process wrote to its standard output and error before ipykernel took those over."""
        if self._log is None:
            return ""
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, self._log.tell() - DIAGNOSIS_BYTES))
        return self._log.read().decode("utf-8", "replace").strip()

    async def wait(self) -> int | None:
        """Wait for the end of the process, without polling where pidfds exist, and end what is left of its group."""
        process = self.process
        if process is None:
            return 0
        with contextlib.suppress(ProcessLookupError):
            await _end_of(process)
        # With a pidfd it is not reaped yet, so no other group can have this number.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        self.process = None
        return int(process.wait())

    async def cleanup(self, restart: bool = False) -> None:
        """Remove the private directory, unless the kernel is started again in it."""
        if self.directory is not None and not restart:
            shutil.rmtree(self.directory, ignore_errors=True)
            self.directory = None
        if self._log is not None and not restart:
            self._log.close()
            self._log = None
        await super().cleanup(restart)


async def _end_of(process: subprocess.Popen[bytes]) -> None:
    """Return when the process has ended; it is not reaped."""
    if not hasattr(os, "pidfd_open"):
        await run_in_thread(process.wait)
        return
    ended = asyncio.Event()
    fd = os.pidfd_open(process.pid)
    asyncio.get_running_loop().add_reader(fd, ended.set)
    try:
        await ended.wait()
    finally:
        asyncio.get_running_loop().remove_reader(fd)
        os.close(fd)
