"""A wall around local kernels: bubblewrap's namespaces, or Landlock."""
