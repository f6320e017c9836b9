"""Kernelspecs, and a provisioner for each place where a kernel can run, found by jupyter_client by entry point."""
