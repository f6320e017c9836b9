"""Code blocks and turns as texts, where the reference has them."""

from rlm_kernel.reference.missing import names_the_way
from rlm_kernel.reference.parsing import (
    convert_context_for_repl,
    find_code_blocks,
    format_execution_result,
    format_iteration,
)
from rlm_kernel.trajectory.log.iterations import REPLResult, RLMIteration

__all__ = [
    "REPLResult",
    "RLMIteration",
    "convert_context_for_repl",
    "find_code_blocks",
    "format_execution_result",
    "format_iteration",
]

_FINAL = (
    "FINAL(...) and FINAL_VAR(...) in a reply are found by the engine, and by rlm_kernel.parsing.parse(text).answer"
)
__getattr__ = names_the_way(__name__, dict.fromkeys(["check_for_final_answer", "find_final_answer"], _FINAL))
