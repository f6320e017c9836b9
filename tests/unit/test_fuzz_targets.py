"""The targets of the fuzzing command hold for a few inputs; `python -m tests.fuzz` tries many."""

from __future__ import annotations

import pytest
from fuzz import targets
from hypothesis import HealthCheck, settings


@pytest.mark.parametrize("target", targets.TARGETS, ids=lambda target: target.__name__)
def test_a_target_holds(target):
    few = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    few(target)()
