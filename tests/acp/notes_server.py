"""An MCP server over stdio with one tool that changes something: it keeps notes in its working directory."""

from pathlib import Path

from mcp.server.mcpserver import MCPServer

server = MCPServer("notes")


@server.tool()
def add(text: str) -> str:
    """Keep a note."""
    with Path("notes.txt").open("a") as file:
        file.write(f"{text}\n")
    return f"kept {text}"


server.run("stdio")
