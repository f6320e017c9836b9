"""`AnthropicClient`, where the reference has it."""

from rlm_kernel.clients.direct import AnthropicClient

__all__ = ["AnthropicClient"]
