"""Tokens and context windows, where the reference has them."""

from rlm_kernel.reference.missing import names_the_way
from rlm_kernel.reference.tokens import CHARS_PER_TOKEN_ESTIMATE, DEFAULT_CONTEXT_LIMIT, count_tokens, get_context_limit

__all__ = ["CHARS_PER_TOKEN_ESTIMATE", "DEFAULT_CONTEXT_LIMIT", "count_tokens", "get_context_limit"]

_TABLE = "get_context_limit(model) looks into a price table"
__getattr__ = names_the_way(__name__, {"MODEL_CONTEXT_LIMITS": _TABLE})
