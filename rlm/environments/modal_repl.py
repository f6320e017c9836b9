"""The REPL `ModalREPL`, where the reference has it."""

from rlm_kernel.reference.repl import ModalREPL

__all__ = ["ModalREPL"]
