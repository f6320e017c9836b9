"""The reference's server for the calls of cells, which does not exist here."""

from rlm_kernel.reference.missing import CALLS, names_the_way

__getattr__ = names_the_way(__name__, dict.fromkeys(["LMHandler", "LMRequestHandler", "ThreadingLMServer"], CALLS))
