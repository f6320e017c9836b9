"""Kernels in Docker containers."""
