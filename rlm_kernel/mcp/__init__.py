"""Servers of the Model Context Protocol as tools of the REPL.

`config` says what a server is, and reads the configuration files of other programs. `server` is one that a run uses:
it is started by `connection` over one of the `transports`, its tools become functions (`functions`), and what they
return becomes values (`results`). `approval` decides which calls may happen. The SDK, which is the extra `mcp`, is
imported when the first server is started.
"""
