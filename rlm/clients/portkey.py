"""`PortkeyClient`, where the reference has it."""

from rlm_kernel.clients.direct import BaseLM, PortkeyClient
from rlm_kernel.types import ModelUsageSummary, UsageSummary

__all__ = ["BaseLM", "ModelUsageSummary", "PortkeyClient", "UsageSummary"]
