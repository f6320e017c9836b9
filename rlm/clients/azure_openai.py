"""`AzureOpenAIClient`, where the reference has it."""

from rlm_kernel.clients.direct import AzureOpenAIClient

__all__ = ["AzureOpenAIClient"]
