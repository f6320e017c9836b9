"""The base class of clients, where the reference has it."""

from rlm_kernel.clients.direct import DEFAULT_TIMEOUT, BaseLM

__all__ = ["DEFAULT_TIMEOUT", "BaseLM"]
