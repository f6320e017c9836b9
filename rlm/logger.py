"""Where the documents import the logger from."""

from rlm_kernel.trajectory.logger import RLMLogger

__all__ = ["RLMLogger"]
