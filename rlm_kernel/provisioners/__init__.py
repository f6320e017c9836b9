"""Start a kernel somewhere: one provisioner for each place, found by jupyter_client through its entry point."""
