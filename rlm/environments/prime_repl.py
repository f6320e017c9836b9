"""The REPL `PrimeREPL`, where the reference has it."""

from rlm_kernel.reference.repl import PrimeREPL

__all__ = ["PrimeREPL"]
