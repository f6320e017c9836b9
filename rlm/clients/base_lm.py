"""The base class of clients, where the reference has it."""

from rlm_kernel.clients.direct import DEFAULT_TIMEOUT, BaseLM
from rlm_kernel.types import ModelUsageSummary, UsageSummary

__all__ = ["DEFAULT_TIMEOUT", "BaseLM", "ModelUsageSummary", "UsageSummary"]
