"""The records of results, turns and usage, where the reference has them."""

from rlm_kernel.reference.names import ClientBackend, EnvironmentType
from rlm_kernel.trajectory.log.iterations import (
    CodeBlock,
    QueryMetadata,
    REPLResult,
    RLMIteration,
    RLMMetadata,
)
from rlm_kernel.trajectory.log.iterations import (
    serialize as _serialize_value,
)
from rlm_kernel.types import ModelUsageSummary, RLMChatCompletion, UsageSummary

__all__ = [
    "ClientBackend",
    "CodeBlock",
    "EnvironmentType",
    "ModelUsageSummary",
    "QueryMetadata",
    "REPLResult",
    "RLMChatCompletion",
    "RLMIteration",
    "RLMMetadata",
    "UsageSummary",
    "_serialize_value",
]
