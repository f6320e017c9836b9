"""The MCP servers that a client names, as tools of the REPL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from acp import schema

from rlm_kernel.errors import ConfigError, check_extra
from rlm_kernel.mcp.config import MCPServer
from rlm_kernel.mcp.naming import identifier

Server = schema.HttpMcpServer | schema.SseMcpServer | schema.AcpMcpServer | schema.McpServerStdio


def tools_of_servers(servers: Sequence[Server], cwd: str, taken: Mapping[str, Any]) -> dict[str, MCPServer]:
    """The servers by name, for `custom_tools`.

    Args:
        servers: as the client names them.
        cwd: the working directory of those that are started.
        taken: names of other tools.

    Raises:
        ConfigError: one speaks a transport that we do not, or the extra `mcp` is missing.
    """
    if servers:
        check_extra("An MCP server of the editor", "mcp", "mcp")
    tools: dict[str, MCPServer] = {}
    for server in servers:
        name = identifier(server.name, {*taken, *tools}, "server")
        match server:
            case schema.McpServerStdio():
                env = {variable.name: variable.value for variable in server.env}
                tools[name] = MCPServer(command=server.command, args=server.args, env=env, cwd=cwd)
            case schema.HttpMcpServer():
                headers = {header.name: header.value for header in server.headers}
                tools[name] = MCPServer(url=server.url, headers=headers)
            case _:
                raise ConfigError(f"The MCP server {server.name!r} must speak stdio or HTTP, not {server.type}.")
    return tools
