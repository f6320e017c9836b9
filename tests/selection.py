"""Which values of a parameter a test has in every run, and which with `--full` only."""

import pytest


def mostly_full(values, *often):
    """Parameters of which only `often` are run without `--full`."""
    return [value if value in often else pytest.param(value, marks=pytest.mark.full) for value in values]
