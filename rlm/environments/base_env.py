"""Custom tools taken apart, where the reference has it."""

from rlm_kernel.reference.missing import KERNELS, names_the_way
from rlm_kernel.reference.repl import SupportsCustomTools, SupportsPersistence
from rlm_kernel.reference.tools import (
    RESERVED_TOOL_NAMES,
    ToolInfo,
    extract_tool_value,
    format_tools_for_prompt,
    parse_custom_tools,
    parse_tool_entry,
    validate_custom_tools,
)

__all__ = [
    "RESERVED_TOOL_NAMES",
    "SupportsCustomTools",
    "SupportsPersistence",
    "ToolInfo",
    "extract_tool_value",
    "format_tools_for_prompt",
    "parse_custom_tools",
    "parse_tool_entry",
    "validate_custom_tools",
]

__getattr__ = names_the_way(__name__, dict.fromkeys(["BaseEnv", "IsolatedEnv", "NonIsolatedEnv"], KERNELS))
