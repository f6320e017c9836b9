"""Ask a model directly, and write a client of your own."""

from rlm_kernel.clients.direct import BaseLM, get_client

__all__ = ["BaseLM", "get_client"]
