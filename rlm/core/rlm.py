"""`RLM`, where the reference has it."""

from rlm_kernel.api import RLM
from rlm_kernel.clients.direct import get_client
from rlm_kernel.trajectory.log.logger import RLMLogger

__all__ = ["RLM", "RLMLogger", "get_client"]
