"""Kernels in Daytona Sandboxes."""
