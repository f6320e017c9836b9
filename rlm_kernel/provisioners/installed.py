"""A kernel of any other kernelspec on this machine, started as the kernelspec says, without the user's keys."""

from __future__ import annotations

from typing import Any

from rlm_kernel.provisioners.local_base import LocalProcess


class InstalledKernel(LocalProcess):
    """The provisioner `rlm-installed`, which replaces Jupyter's own: that one passes our whole environment to a kernel.

    Processes of the cells end with the kernel, unless they have left its process group. When the host is killed, only
    ipykernel notices, which watches its parent: the kernel ends, and processes of its cells live on.
    """

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        """Start the kernel."""
        cwd = self.cwd
        connection = await super().launch_kernel(cmd, **kwargs)
        self.cwd = cwd  # Jupyter's own writes the working directory there
        return connection

    async def kill(self, restart: bool = False) -> None:
        """End it and the processes of its group, and wait for its end."""
        await super().kill(restart)
        await self.wait()
