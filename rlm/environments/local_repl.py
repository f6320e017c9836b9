"""The REPL `LocalREPL`, where the reference has it."""

from rlm_kernel.reference.repl import LocalREPL

__all__ = ["LocalREPL"]
