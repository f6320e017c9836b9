"""Model calls of cells, where the reference has them. There is no server behind them."""

from rlm_kernel.reference.calls import LMHandler
from rlm_kernel.reference.missing import CALLS, names_the_way

__all__ = ["LMHandler"]

__getattr__ = names_the_way(__name__, dict.fromkeys(["LMRequestHandler", "ThreadingLMServer"], CALLS))
