"""`AnthropicClient`, where the reference has it."""

from rlm_kernel.clients.direct import AnthropicClient, BaseLM
from rlm_kernel.types import ModelUsageSummary, UsageSummary

__all__ = ["AnthropicClient", "BaseLM", "ModelUsageSummary", "UsageSummary"]
