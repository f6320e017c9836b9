"""The REPL `IPythonREPL`, where the reference has it."""

from rlm_kernel.reference.repl import IPythonREPL

__all__ = ["IPythonREPL"]
