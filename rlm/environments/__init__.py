"""REPLs without a run, and custom tools taken apart, where the reference has them."""

from rlm_kernel.reference.missing import KERNELS, names_the_way
from rlm_kernel.reference.repl import (
    E2BREPL,
    DaytonaREPL,
    DockerREPL,
    IPythonREPL,
    LocalREPL,
    ModalREPL,
    PrimeREPL,
    SupportsCustomTools,
    SupportsPersistence,
    get_environment,
)
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
    "E2BREPL",
    "RESERVED_TOOL_NAMES",
    "DaytonaREPL",
    "DockerREPL",
    "IPythonREPL",
    "LocalREPL",
    "ModalREPL",
    "PrimeREPL",
    "SupportsCustomTools",
    "SupportsPersistence",
    "ToolInfo",
    "extract_tool_value",
    "format_tools_for_prompt",
    "get_environment",
    "parse_custom_tools",
    "parse_tool_entry",
    "validate_custom_tools",
]

__getattr__ = names_the_way(__name__, {"BaseEnv": KERNELS})
