"""The MCP gateway: bounded reading of a repository by handles, with a trail of every byte that left.

`tree` opens files, `sessions` holds budgets and handles, `trail` is the record on disk, `tools` are the fourteen tools,
`server` and `web` are the protocol. Only the command `rlm gateway` imports this package; it needs the extra `mcp`.
"""
