"""Read a context from files: the text of one file, or the texts of a folder by their paths."""

from rlm_kernel.inputs import read

__all__ = ["read"]
