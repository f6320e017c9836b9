"""`GeminiClient`, where the reference has it."""

from rlm_kernel.clients.direct import GeminiClient

__all__ = ["GeminiClient"]
