"""A kernel of any other kernelspec on this machine, started as the kernelspec says, without the user's keys."""

from __future__ import annotations

import os
from typing import Any

from traitlets import Bool

from rlm_kernel.provisioners.environ import private_directories, scrub_environ
from rlm_kernel.provisioners.local_base import LocalProcess, private_directory


class InstalledKernel(LocalProcess):
    """The provisioner `rlm-installed`, in place of Jupyter's own local one: that gives a kernel all of our environment.

    What the cells started ends with the kernel, but for what has left its group of processes. Of a host that was killed
    only ipykernel learns, which watches its parent: the kernel ends then, and what its cells started lives on.
    """

    private_cwd = Bool(default_value=True, help="Start in an empty directory.")

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
        kwargs["env"] = {**scrub_environ(os.environ), **private_directories(directory), **of_spec, **self.env}
        kwargs["cwd"] = self.cwd or str(work)
        return kwargs

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        """Start it; what it writes to its standard output and error is kept for `diagnosis`."""
        cwd = self.cwd
        connection = await super().launch_kernel(cmd, **{**self._output(), **kwargs})
        self.cwd = cwd  # Jupyter's own writes the working directory there
        return connection

    async def kill(self, restart: bool = False) -> None:
        """End it and the processes of its group, and wait for its end."""
        await super().kill(restart)
        await self.wait()
