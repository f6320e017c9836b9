"""The REPL `IPythonREPL`, where the reference has it."""

from rlm_kernel.reference.calls import LMRequest, send_lm_request, send_lm_request_batched
from rlm_kernel.reference.missing import KERNELS, names_the_way
from rlm_kernel.reference.repl import IPythonREPL
from rlm_kernel.reference.tools import RESERVED_TOOL_NAMES, extract_tool_value, validate_custom_tools
from rlm_kernel.trajectory.log.iterations import REPLResult
from rlm_kernel.types import RLMChatCompletion

__all__ = [
    "RESERVED_TOOL_NAMES",
    "IPythonREPL",
    "LMRequest",
    "REPLResult",
    "RLMChatCompletion",
    "extract_tool_value",
    "send_lm_request",
    "send_lm_request_batched",
    "validate_custom_tools",
]

__getattr__ = names_the_way(__name__, {"NonIsolatedEnv": KERNELS})
