"""`GeminiClient`, where the reference has it."""

from rlm_kernel.clients.direct import BaseLM, GeminiClient
from rlm_kernel.reference.missing import KEYS, names_the_way
from rlm_kernel.types import ModelUsageSummary, UsageSummary

__all__ = ["BaseLM", "GeminiClient", "ModelUsageSummary", "UsageSummary"]

__getattr__ = names_the_way(__name__, dict.fromkeys(["DEFAULT_GEMINI_API_KEY"], KEYS))
