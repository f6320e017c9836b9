"""The prompts, where the reference has them."""

from rlm_kernel.reference.missing import PROMPTS, names_the_way
from rlm_kernel.reference.prompts import (
    ORCHESTRATOR_ADDENDUM,
    RLM_SYSTEM_PROMPT,
    USER_PROMPT,
    build_rlm_system_prompt,
    build_user_prompt,
)
from rlm_kernel.trajectory.log.iterations import QueryMetadata

__all__ = [
    "ORCHESTRATOR_ADDENDUM",
    "RLM_SYSTEM_PROMPT",
    "USER_PROMPT",
    "QueryMetadata",
    "build_rlm_system_prompt",
    "build_user_prompt",
]

_OLD = ["RLM_SYSTEM_PROMPT_OLD", "USER_PROMPT_OLD", "USER_PROMPT_WITH_ROOT_OLD"]
__getattr__ = names_the_way(__name__, dict.fromkeys(_OLD, PROMPTS))
