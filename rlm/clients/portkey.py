"""`PortkeyClient`, where the reference has it."""

from rlm_kernel.clients.direct import PortkeyClient

__all__ = ["PortkeyClient"]
