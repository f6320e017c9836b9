"""What kernels that are processes of this machine share: a private directory, a log, the end of the process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import IO, Any

from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from traitlets import TraitError, Unicode, validate

from rlm_kernel.provisioners.traits import Variables

MAX_BASE_LENGTH = 80

DIAGNOSIS_BYTES = 4_000


def private_directory() -> Path:
    """A new 0700 directory with a short path: an ipc path ends at 107 bytes on Linux, at 103 on macOS."""
    base = tempfile.gettempdir()
    if len(os.fsencode(base)) > MAX_BASE_LENGTH and os.access("/tmp", os.W_OK):  # noqa: S108 (mkdtemp makes it safe)
        base = "/tmp"  # noqa: S108
    return Path(tempfile.mkdtemp(prefix="rlm-", dir=base))


class LocalProcess(LocalProvisioner):
    """The base of provisioners that start a process of ours. Traits tagged `environment` are a user's options."""

    reach = "its code runs on this machine as you, without a wall"

    env = Variables(help="Environment variables to add to the kernel's.").tag(environment=True, reaches_out=True)
    cwd = Unicode(None, allow_none=True, help="The kernel's working directory.").tag(environment=True, reaches_out=True)

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

    def diagnosis(self) -> str:
        """What the process wrote to its standard output and error before ipykernel took those over."""
        if self._log is None:
            return ""
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, self._log.tell() - DIAGNOSIS_BYTES))
        return self._log.read().decode("utf-8", "replace").strip()

    def _output(self) -> dict[str, IO[bytes]]:
        """Where the process writes: to a file that lives as long as the kernel."""
        self._log = self._log or tempfile.TemporaryFile()  # noqa: SIM115 (closed by `cleanup`)
        return {"stdout": self._log, "stderr": self._log}

    async def wait(self) -> int | None:
        """Wait for the end of the process, without polling where the system can tell, and end what it leaves behind."""
        process = self.process
        if process is None:
            return 0
        with contextlib.suppress(ProcessLookupError):
            await _end_of(process)
        # Where the system can tell it is not reaped yet, so this number cannot be that of anybody else's group.
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
