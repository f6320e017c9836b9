"""Model calls of cells, where the reference has them. There is no server behind them."""

from rlm_kernel.clients.direct import BaseLM
from rlm_kernel.reference.calls import LMHandler, LMRequest, LMResponse
from rlm_kernel.reference.missing import CALLS, names_the_way
from rlm_kernel.types import RLMChatCompletion, UsageSummary

__all__ = ["BaseLM", "LMHandler", "LMRequest", "LMResponse", "RLMChatCompletion", "UsageSummary"]

_NAMES = ["LMRequestHandler", "ThreadingLMServer", "socket_recv", "socket_send"]
__getattr__ = names_the_way(__name__, dict.fromkeys(_NAMES, CALLS))
