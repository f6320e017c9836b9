"""A kernel in a Daytona Sandbox, which contains nothing of this machine and needs no network."""

from __future__ import annotations

import asyncio
import math
from importlib import import_module

from traitlets import Bool, Integer, Unicode

from rlm_kernel.provisioners.daytona.sandbox import DaytonaRemote, require_daytona, start_sandbox
from rlm_kernel.provisioners.relay.sandboxed import SandboxKernel, sandbox_name
from rlm_kernel.provisioners.traits import Gibibytes, Secret

USUAL_LIFE = 3600
IDLE_MINUTES = 2
"""The messages that say that the host lives are more frequent."""


class DaytonaKernel(SandboxKernel):
    """The provisioner `rlm-daytona`. Traits tagged `environment` are what `environment_kwargs` may set."""

    reach = "it runs in a sandbox of your Daytona account, at your cost"
    text_only = True

    api_key = Secret(allow_none=True, default_value=None, help="DAYTONA_API_KEY when not given.").tag(
        environment=True, reaches_out=True
    )
    target = Unicode(None, allow_none=True, help="The region, e.g. 'us'; DAYTONA_TARGET when not given.").tag(
        environment=True, reaches_out=True
    )
    name = Unicode("rlm-sandbox", help="The beginning of the sandboxes' names.").tag(environment=True, reaches_out=True)
    timeout = Integer(USUAL_LIFE, min=1, help="Seconds of the sandbox's life, in whole minutes.").tag(
        environment=True, reaches_out=lambda timeout: timeout > USUAL_LIFE
    )
    auto_stop_interval = Integer(IDLE_MINUTES, min=0, help="Minutes without a message that end it; 0: never.").tag(
        environment=True, reaches_out=True
    )
    image = Unicode(None, allow_none=True, help="A name in a registry, with Python and pip in it.").tag(
        environment=True, reaches_out=True, needed=True
    )
    cpu = Integer(1, min=1, help="Cores.").tag(environment=True, reaches_out=True)
    memory = Gibibytes(default_value=2, help="Of the sandbox, e.g. '2g'; a number is GiB.").tag(
        environment=True, reaches_out=True
    )
    disk = Gibibytes(default_value=5, help="Of the sandbox, e.g. '10g'; a number is GiB.").tag(
        environment=True, reaches_out=True
    )
    network_block_all = Bool(default_value=True, help="Whether the kernel has no network.").tag(
        environment=True, reaches_out=lambda blocked: blocked is not True
    )

    @classmethod
    def check_installation(cls) -> None:
        """Check that Daytona's client is installed.

        Raises:
            ConfigError: it is not.
        """
        require_daytona()

    async def start_sandbox(self) -> DaytonaRemote:
        """Make a sandbox and run the relay in it.

        Raises:
            ConfigError: Daytona's client is missing or not authenticated, or Daytona refuses an option.
            KernelError: Daytona cannot be reached, cannot build the image or has no capacity.
        """
        require_daytona()
        # The package imports its client when it is asked for. That takes seconds, in which other runs go on.
        await asyncio.to_thread(getattr, import_module("daytona"), "AsyncDaytona")
        from daytona import Resources

        return await start_sandbox(
            {"api_key": self.api_key, "target": self.target},
            self.image,
            self.packages,
            name=sandbox_name(self.name),
            life=self.timeout,
            env_vars=self.env,
            auto_stop_interval=self.auto_stop_interval,
            auto_delete_interval=0,  # deleted when it stops
            network_block_all=self.network_block_all,
            resources=Resources(
                cpu=self.cpu, memory=math.ceil(Gibibytes.of(self.memory)), disk=math.ceil(Gibibytes.of(self.disk))
            ),
        )
