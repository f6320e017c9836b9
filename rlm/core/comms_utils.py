"""Questions to an `LMHandler`, where the reference has them. They do not leave the process."""

from rlm_kernel.reference.calls import LMRequest, LMResponse, send_lm_request, send_lm_request_batched
from rlm_kernel.reference.missing import CALLS, names_the_way
from rlm_kernel.types import RLMChatCompletion

__all__ = ["LMRequest", "LMResponse", "RLMChatCompletion", "send_lm_request", "send_lm_request_batched"]

__getattr__ = names_the_way(__name__, dict.fromkeys(["socket_recv", "socket_request", "socket_send"], CALLS))
