"""Notebooks that papermill executes with our host: models and keys stay here, cells ask."""
