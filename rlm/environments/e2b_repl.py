"""The REPL `E2BREPL`, where the reference has it."""

from rlm_kernel.reference.repl import E2BREPL

__all__ = ["E2BREPL"]
