"""`OpenAIClient`, where the reference has it."""

from rlm_kernel.clients.direct import BaseLM, OpenAIClient
from rlm_kernel.reference.missing import KEYS, names_the_way
from rlm_kernel.types import ModelUsageSummary, UsageSummary

__all__ = ["BaseLM", "ModelUsageSummary", "OpenAIClient", "UsageSummary"]

_NAMES = [
    "DEFAULT_OPENAI_API_KEY",
    "DEFAULT_OPENROUTER_API_KEY",
    "DEFAULT_PRIME_API_KEY",
    "DEFAULT_PRIME_INTELLECT_BASE_URL",
    "DEFAULT_VERCEL_API_KEY",
]
__getattr__ = names_the_way(__name__, dict.fromkeys(_NAMES, KEYS))
