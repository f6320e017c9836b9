"""Kernels in E2B Sandboxes."""
