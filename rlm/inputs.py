"""Read a context from files: the text of one file, or the texts of a folder by their paths."""

from rlm_kernel.inputs import load, read

__all__ = ["load", "read"]
