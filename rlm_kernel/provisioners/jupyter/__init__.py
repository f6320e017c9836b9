"""Kernels of a Jupyter Server, Kernel Gateway, JupyterHub or Enterprise Gateway."""
