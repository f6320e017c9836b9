"""`RLMLogger`, and the records that it receives, where the reference has them."""

from rlm_kernel.trajectory.log.iterations import RLMIteration, RLMMetadata
from rlm_kernel.trajectory.log.logger import RLMLogger

__all__ = ["RLMIteration", "RLMLogger", "RLMMetadata"]
