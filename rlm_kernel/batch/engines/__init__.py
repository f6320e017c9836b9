"""A batch on other processes: an executor runs its tasks, and this process admits their calls."""
