"""Stands before the real package on the path of an emulated sandbox, which has none."""

raise ImportError("a sandbox on Modal has no rlm_kernel")
