"""Ask a model directly, and write a client of your own."""

from rlm_kernel.clients.direct import BaseLM, get_client
from rlm_kernel.reference.names import ClientBackend

__all__ = ["BaseLM", "ClientBackend", "get_client"]
