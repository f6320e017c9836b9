"""A kernel of somebody else's kernelspec on this machine: started as that says, with an environment without keys."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import IO, Any

from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from traitlets import Bool, Dict, TraitError, Unicode, validate

from rlm_kernel.provisioners.directories import private_directory
from rlm_kernel.provisioners.environ import private_directories, scrubbed
from rlm_kernel.provisioners.local import process_end

DIAGNOSIS_BYTES = 4_000


class InstalledKernel(LocalProvisioner):
    """The provisioner `rlm-installed`, in place of Jupyter's own local one: that gives a kernel all of our environment.

    The kernel ends with its host because ipykernel watches its parent, and with it the processes of its group.
    """

    env = Dict(key_trait=Unicode(), value_trait=Unicode(), help="Environment variables to add to the kernel's.").tag(
        environment=True
    )
    cwd = Unicode(None, allow_none=True, help="The kernel's working directory.").tag(environment=True)
    private_cwd = Bool(default_value=True, help="Start in an empty directory.")

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
        """Make the private directory and the environment."""
        directory = self.directory = self.directory or private_directory()
        work = directory / "work"
        work.mkdir(exist_ok=True)
        manager = self.parent
        if manager is not None and not manager.connection_file:
            manager.connection_file, manager.ip = str(directory / "kernel.json"), str(directory / "k")
        kwargs = await super().pre_launch(**kwargs)
        of_spec = {name: kwargs["env"][name] for name in self.kernel_spec.env}
        kwargs["env"] = {**scrubbed(os.environ), **private_directories(directory), **of_spec, **self.env}
        kwargs["cwd"] = self.cwd or str(work)
        return kwargs

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        """Start it; what it writes to its standard output and error is kept for `diagnosis`."""
        self._log = self._log or tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the kernel)
        cwd = self.cwd
        connection = await super().launch_kernel(cmd, **{"stdout": self._log, "stderr": self._log, **kwargs})
        self.cwd = cwd  # Jupyter's own writes the working directory there
        return connection

    async def kill(self, restart: bool = False) -> None:
        """End it and the processes of its group, and wait for its end."""
        await super().kill(restart)
        await self.wait()

    async def wait(self) -> int | None:
        """Wait for its end, without polling where the system can tell."""
        process = self.process
        if process is None:
            return 0
        await process_end(process)
        self.process = None
        return int(process.wait())

    async def cleanup(self, restart: bool = False) -> None:
        """Remove the private directory, unless the kernel is started again in it."""
        await super().cleanup(restart)
        if self.directory is not None and not restart:
            shutil.rmtree(self.directory, ignore_errors=True)
            self.directory = None
        if self._log is not None and not restart:
            self._log.close()
            self._log = None

    def diagnosis(self) -> str:
        """What the process wrote to its standard output and error."""
        if self._log is None:
            return ""
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, self._log.tell() - DIAGNOSIS_BYTES))
        return self._log.read().decode("utf-8", "replace").strip()
