"""The MCP servers that a client names, as tools of the REPL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from acp import schema

from rlm_kernel.errors import ConfigError

Server = schema.HttpMcpServer | schema.SseMcpServer | schema.AcpMcpServer | schema.McpServerStdio


def tools_of_servers(servers: Sequence[Server]) -> dict[str, Any]:
    """The servers by name, for `custom_tools`.

    Raises:
        ConfigError: one speaks a transport that we do not.
    """
    if servers:
        raise ConfigError("MCP servers of a client are not used yet.")
    return {}
