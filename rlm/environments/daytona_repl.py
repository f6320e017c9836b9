"""The REPL `DaytonaREPL`, where the reference has it."""

from rlm_kernel.reference.repl import DaytonaREPL

__all__ = ["DaytonaREPL"]
