"""A kernel in an E2B Sandbox, which contains nothing of this machine and needs no network."""

from __future__ import annotations

from traitlets import Bool, Integer, Unicode

from rlm_kernel.provisioners.e2b.sandbox import E2BRemote, require_e2b, start_sandbox
from rlm_kernel.provisioners.relay.sandboxed import SandboxKernel
from rlm_kernel.provisioners.traits import Secret

USUAL_LIFE = 3600
"""Seconds: the longest that a free account may have."""


class E2BKernel(SandboxKernel):
    """The provisioner `rlm-e2b`. Traits tagged `environment` are what `environment_kwargs` may set."""

    reach = "it runs in a sandbox of your E2B account, at your cost"
    text_only = True

    api_key = Secret(allow_none=True, default_value=None, help="E2B_API_KEY when not given.").tag(
        environment=True, reaches_out=True
    )
    template = Unicode("code-interpreter-v1", help="The name of a template, with Python and pip in it.").tag(
        environment=True, reaches_out=True, needed=True
    )
    timeout = Integer(USUAL_LIFE, min=1, help="Seconds of the sandbox's life.").tag(
        environment=True, reaches_out=lambda timeout: timeout > USUAL_LIFE
    )
    allow_internet_access = Bool(default_value=False, help="Whether the kernel has a network.").tag(
        environment=True, reaches_out=True
    )

    @classmethod
    def check_installation(cls) -> None:
        """Check that E2B's client is installed.

        Raises:
            ConfigError: it is not.
        """
        require_e2b()

    async def start_sandbox(self) -> E2BRemote:
        """Make a sandbox and run the relay in it.

        Raises:
            ConfigError: E2B's client is missing or not authenticated, or E2B refuses an option.
            KernelError: E2B cannot be reached, cannot make the sandbox or has no capacity.
        """
        return await start_sandbox(
            self.packages,
            self.env,
            api_key=self.api_key,
            template=self.template,
            life=self.timeout,
            network=self.allow_internet_access,
        )
