"""The prompt profiles of the library, by name; data files in `profiles/`. A user's own profile is a `PromptProfile`."""

from __future__ import annotations

import re
from functools import cache
from types import MappingProxyType

from rlm_kernel.prompts.layout import Layout
from rlm_kernel.prompts.profile import PromptProfile, fields_of
from rlm_kernel.prompts.trained import TrainedProfile

__all__ = ["LARGE", "PROFILES", "SMALL", "TRAINED", "trained_for", "trained_profile"]

LARGE = PromptProfile(**fields_of("large"))
SMALL = PromptProfile(**fields_of("small"))
PROFILES = MappingProxyType({profile.name: profile for profile in (LARGE, SMALL)})

TRAINED = MappingProxyType(
    {
        "rlm-qwen3-8b": re.compile(r"\brlm-qwen3-8b\b", re.IGNORECASE),
        "rlm-qwen3-30b-a3b": re.compile(r"\brlm-qwen3-30b-a3b\b", re.IGNORECASE),
    }
)
"""The profiles of models that were trained to be RLMs, and what is in the names of those models."""


@cache
def trained_profile(name: str) -> TrainedProfile:
    """One of `TRAINED`."""
    fields = fields_of(name)
    layout = fields.pop("layout")
    return TrainedProfile(**fields, layout=Layout(**{**layout, "names": tuple(layout["names"])}))


def trained_for(model: str) -> TrainedProfile | None:
    """The profile of a model that was trained to be an RLM; None: it is not one of those."""
    return next((trained_profile(name) for name, pattern in TRAINED.items() if pattern.search(model)), None)
