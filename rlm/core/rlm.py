"""`RLM`, where the reference has it."""

from rlm_kernel.api import RLM
from rlm_kernel.clients.direct import BaseLM, get_client
from rlm_kernel.errors import (
    BudgetExceededError,
    CancellationError,
    ErrorThresholdExceededError,
    TimeoutExceededError,
    TokenLimitExceededError,
)
from rlm_kernel.reference.calls import LMHandler
from rlm_kernel.reference.missing import KERNELS, names_the_way
from rlm_kernel.reference.names import ClientBackend, EnvironmentType
from rlm_kernel.reference.parsing import find_code_blocks, format_iteration
from rlm_kernel.reference.prompts import RLM_SYSTEM_PROMPT, build_rlm_system_prompt, build_user_prompt
from rlm_kernel.reference.repl import SupportsPersistence, get_environment
from rlm_kernel.reference.sensitive import filter_sensitive_keys
from rlm_kernel.reference.tokens import count_tokens, get_context_limit
from rlm_kernel.reference.verbose import VerbosePrinter
from rlm_kernel.trajectory.log.iterations import CodeBlock, QueryMetadata, REPLResult, RLMIteration, RLMMetadata
from rlm_kernel.trajectory.log.logger import RLMLogger
from rlm_kernel.types import ModelUsageSummary, RLMChatCompletion, UsageSummary

__all__ = [
    "RLM",
    "RLM_SYSTEM_PROMPT",
    "BaseLM",
    "BudgetExceededError",
    "CancellationError",
    "ClientBackend",
    "CodeBlock",
    "EnvironmentType",
    "ErrorThresholdExceededError",
    "LMHandler",
    "ModelUsageSummary",
    "QueryMetadata",
    "REPLResult",
    "RLMChatCompletion",
    "RLMIteration",
    "RLMLogger",
    "RLMMetadata",
    "SupportsPersistence",
    "TimeoutExceededError",
    "TokenLimitExceededError",
    "UsageSummary",
    "VerbosePrinter",
    "build_rlm_system_prompt",
    "build_user_prompt",
    "count_tokens",
    "filter_sensitive_keys",
    "find_code_blocks",
    "format_iteration",
    "get_client",
    "get_context_limit",
    "get_environment",
]

__getattr__ = names_the_way(__name__, {"BaseEnv": KERNELS})
