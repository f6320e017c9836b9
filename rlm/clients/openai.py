"""`OpenAIClient`, where the reference has it."""

from rlm_kernel.clients.direct import OpenAIClient

__all__ = ["OpenAIClient"]
