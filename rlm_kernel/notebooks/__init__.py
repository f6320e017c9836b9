"""Notebooks that papermill executes, with our host beside it: models and keys stay here, cells ask."""
