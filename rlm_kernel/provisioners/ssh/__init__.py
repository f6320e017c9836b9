"""Kernels on another machine, over OpenSSH."""
