"""A kernel in a Prime Sandbox, which contains nothing of this machine and needs no network."""

from __future__ import annotations

from traitlets import Bool, Float, Integer, Unicode

from rlm_kernel.provisioners.prime.sandbox import IDLE_MINUTES, PrimeRemote, require_prime, start_sandbox
from rlm_kernel.provisioners.relay.sandboxed import SandboxKernel, sandbox_name
from rlm_kernel.provisioners.traits import Gibibytes

USUAL_LIFE = 60
MAX_LIFE = 24 * 60
"""Minutes: Prime's own limit of a sandbox's life."""


class PrimeKernel(SandboxKernel):
    """The provisioner `rlm-prime`. Traits tagged `environment` are what `environment_kwargs` may set."""

    reach = "it runs in a sandbox of your Prime account, at your cost"

    name = Unicode("rlm-sandbox", help="The beginning of the sandboxes' names.").tag(environment=True, reaches_out=True)
    docker_image = Unicode("python:3.11-slim", help="A name in a registry, with Python and pip in it.").tag(
        environment=True, reaches_out=True, needed=True
    )
    timeout_minutes = Integer(USUAL_LIFE, min=1, max=MAX_LIFE, help="Minutes of the sandbox's life.").tag(
        environment=True, reaches_out=lambda timeout: timeout > USUAL_LIFE
    )
    network_access = Bool(default_value=False, help="Whether the kernel has a network.").tag(
        environment=True, reaches_out=True
    )
    cpu = Float(1.0, min=0.1, help="Cores.").tag(environment=True, reaches_out=True)
    memory = Gibibytes(default_value=2, help="Of the sandbox, e.g. '2g'; a number is GiB.").tag(
        environment=True, reaches_out=True
    )
    disk = Gibibytes(default_value=5, help="Of the sandbox, e.g. '10g'; a number is GiB.").tag(
        environment=True, reaches_out=True
    )

    @classmethod
    def check_installation(cls) -> None:
        """Check that Prime's client is installed.

        Raises:
            ConfigError: it is not.
        """
        require_prime()

    async def start_sandbox(self) -> PrimeRemote:
        """Make a sandbox and run the relay in it.

        Raises:
            ConfigError: Prime's client is missing or not authenticated, or Prime refuses an option.
            KernelError: Prime cannot be reached, cannot make the sandbox or has no capacity.
        """
        return await start_sandbox(
            self.packages,
            self.env,
            network=self.network_access,
            name=sandbox_name(self.name),
            docker_image=self.docker_image,
            timeout_minutes=self.timeout_minutes,
            idle_timeout_minutes=min(IDLE_MINUTES, self.timeout_minutes),
            cpu_cores=self.cpu,
            memory_gb=Gibibytes.of(self.memory),
            disk_size_gb=Gibibytes.of(self.disk),
        )
