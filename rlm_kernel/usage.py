"""Add up what the calls of a run cost."""

from __future__ import annotations

from rlm_kernel.records import ModelUsageSummary, Usage, UsageSummary


class UsageMeter:
    """The usage of one run by model. All calls of a run end in one event loop, so there is nothing to lock.

    Args:
        parent: the meter of the run that started this one; it counts the same calls.
    """

    def __init__(self, parent: UsageMeter | None = None) -> None:
        self._parent = parent
        self._models: dict[str, ModelUsageSummary] = {}

    def add(self, model: str, usage: Usage) -> None:
        """Count one call of a model."""
        self._models[model] = self._models.get(model, ModelUsageSummary()).plus(usage)
        if self._parent is not None:
            self._parent.add(model, usage)

    def summary(self) -> UsageSummary:
        """The sums until now."""
        return UsageSummary(dict(self._models))
