"""A kernel in a Modal Sandbox, which contains nothing of this machine and needs no network."""

from __future__ import annotations

from typing import Any

from traitlets import Any as AnyTrait
from traitlets import Bool, Float, Integer, TraitError, Unicode, validate

from rlm_kernel.provisioners.modal.exec import ModalRemote
from rlm_kernel.provisioners.modal.sandbox import MAX_LIFETIME, create_sandbox, require_modal, translate_errors
from rlm_kernel.provisioners.relay.sandboxed import SandboxKernel
from rlm_kernel.provisioners.traits import Memory
from rlm_kernel.text import size_in_bytes

MIB = 2**20
USUAL_LIFE = 3600


class ModalKernel(SandboxKernel):
    """The provisioner `rlm-modal`. Traits tagged `environment` are what `environment_kwargs` may set."""

    reach = "it runs in a sandbox of your Modal account, at your cost"

    app_name = Unicode("rlm-kernel", help="The Modal App of the sandboxes; created if it does not exist.").tag(
        environment=True, reaches_out=True
    )
    timeout = Integer(USUAL_LIFE, min=1, max=MAX_LIFETIME, help="Seconds of the sandbox's life.").tag(
        environment=True, reaches_out=lambda timeout: timeout > USUAL_LIFE
    )
    image = AnyTrait(help="A name in a registry, or a modal.Image, with Python and pip in it.").tag(
        environment=True, reaches_out=True, needed=True
    )
    cpu = Float(None, allow_none=True, help="Cores.").tag(environment=True, reaches_out=True)
    memory = Memory("1m", allow_none=True, default_value=None, help="The most it may use, e.g. '2g'.").tag(
        environment=True, reaches_out=True
    )
    gpu = Unicode(None, allow_none=True, help="E.g. 'T4' or 'A100:2'.").tag(environment=True, reaches_out=True)
    block_network = Bool(True, help="Whether the kernel has no network.").tag(
        environment=True, reaches_out=lambda blocked: blocked is not True
    )

    @validate("cpu")
    def _cpu_is_positive(self, proposal: Any) -> Any:
        if not proposal["value"] > 0:
            raise TraitError(f"cpu is a number of cores greater than 0, not {proposal['value']!r}.")
        return proposal["value"]

    @validate("image")
    def _image_is_a_name_or_an_image(self, proposal: Any) -> Any:
        image = proposal["value"]
        if not isinstance(image, str | None) and not hasattr(image, "pip_install"):
            raise TraitError(f"image is a name in a registry or a modal.Image, not {image!r}.")
        return image

    @classmethod
    def check_installation(cls) -> None:
        """Check that Modal's client is installed.

        Raises:
            ConfigError: it is not.
        """
        require_modal()

    async def start_sandbox(self) -> ModalRemote:
        """Make a sandbox and run the relay in it.

        Raises:
            ConfigError: Modal's client is missing or not authenticated, or Modal refuses an option.
            KernelError: Modal cannot be reached, cannot build the image or has no capacity.
        """
        sandbox = await create_sandbox(
            self.app_name,
            self.image,
            self.packages,
            lifetime=self.timeout,
            cpu=self.cpu,
            memory=None if self.memory is None else (size_in_bytes(self.memory) // MIB,) * 2,  # requested, and the most
            gpu=self.gpu,
            block_network=self.block_network,
        )
        with translate_errors(self.app_name):
            return await ModalRemote.start(sandbox, self.env, self.timeout)
