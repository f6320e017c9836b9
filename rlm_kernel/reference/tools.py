"""Custom tools taken apart, as the reference's `rlm.environments` does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlm_kernel.engine.tools import tools_of
from rlm_kernel.kernel.guest.names import RESERVED

RESERVED_TOOL_NAMES = RESERVED
"""The names that a custom tool cannot have."""


@dataclass
class ToolInfo:
    """A custom tool: its name, its function or value, and its description."""

    name: str
    value: Any
    description: str | None = None

    @property
    def is_callable(self) -> bool:
        """Whether it is a function."""
        return callable(self.value)


def parse_tool_entry(name: str, entry: Any) -> ToolInfo:
    """One entry of `custom_tools`: a value, or `{"tool": value, "description": text}`."""
    described = isinstance(entry, dict) and "tool" in entry
    description = entry.get("description") if described else None
    return ToolInfo(name, extract_tool_value(entry), description if isinstance(description, str) else None)


def parse_custom_tools(custom_tools: Mapping[str, Any] | None) -> list[ToolInfo]:
    """All entries of `custom_tools`."""
    return [parse_tool_entry(name, entry) for name, entry in (custom_tools or {}).items()]


def extract_tool_value(entry: Any) -> Any:
    """The function or value of an entry."""
    return entry["tool"] if isinstance(entry, dict) and "tool" in entry else entry


def format_tools_for_prompt(custom_tools: Mapping[str, Any] | None) -> str | None:
    """The tools as a list for the system prompt, a line each; None without tools."""
    lines = [f"- `{tool.name}`: {tool.description or _default(tool)}" for tool in parse_custom_tools(custom_tools)]
    return "\n".join(lines) or None


def validate_custom_tools(custom_tools: Mapping[str, Any] | None) -> None:
    """Check the names and values of tools.

    Raises:
        ConfigError: a name is reserved, or a value cannot be sent to a kernel. It is also a ValueError.
    """
    tools_of(custom_tools)


def _default(tool: ToolInfo) -> str:
    return "A custom function" if tool.is_callable else f"A custom {type(tool.value).__name__} value"
