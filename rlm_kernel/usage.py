"""Add up what the calls of a run cost."""

from __future__ import annotations

from rlm_kernel.records import ModelUsageSummary, Usage, UsageSummary


class UsageMeter:
    """The usage of one run by model. All calls of a run end in one event loop, so there is nothing to lock."""

    def __init__(self) -> None:
        self._models: dict[str, ModelUsageSummary] = {}

    def add(self, model: str, usage: Usage) -> None:
        """Count one call of a model."""
        self._models[model] = self._models.get(model, ModelUsageSummary()).plus(usage)

    def summary(self) -> UsageSummary:
        """The sums until now."""
        return UsageSummary(dict(self._models))
