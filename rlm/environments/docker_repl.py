"""The REPL `DockerREPL`, where the reference has it."""

from rlm_kernel.reference.repl import DockerREPL

__all__ = ["DockerREPL"]
