"""Kernels in Prime Sandboxes."""
