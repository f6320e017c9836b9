"""Notebooks that papermill executes with our host, which holds the models and keys and answers the cells."""
