"""Kernels in Modal Sandboxes."""
