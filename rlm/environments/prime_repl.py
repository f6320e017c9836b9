"""The REPL `PrimeREPL`, where the reference has it."""

from rlm_kernel.reference.calls import LMRequest, send_lm_request, send_lm_request_batched
from rlm_kernel.reference.missing import KERNELS, PACKAGES, names_the_way
from rlm_kernel.reference.repl import PrimeREPL
from rlm_kernel.trajectory.log.iterations import REPLResult
from rlm_kernel.types import RLMChatCompletion

__all__ = [
    "LMRequest",
    "PrimeREPL",
    "REPLResult",
    "RLMChatCompletion",
    "send_lm_request",
    "send_lm_request_batched",
]

__getattr__ = names_the_way(__name__, {"IsolatedEnv": KERNELS, "APT_PACKAGES": PACKAGES, "PIP_PACKAGES": PACKAGES})
