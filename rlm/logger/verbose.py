"""`VerbosePrinter`, where the reference has it."""

from rlm_kernel.reference.verbose import VerbosePrinter

__all__ = ["VerbosePrinter"]
