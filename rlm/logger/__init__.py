"""Where the documents import the logger from."""

from rlm_kernel.reference.verbose import VerbosePrinter
from rlm_kernel.trajectory.log.logger import RLMLogger

__all__ = ["RLMLogger", "VerbosePrinter"]
