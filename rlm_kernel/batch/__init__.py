"""Many questions: tasks, a pool of runs, one budget and one rate over all, and a file of results."""
