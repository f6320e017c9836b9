"""The prompt profiles of the library, by name; data files in `profiles/`. A user's own profile is a `PromptProfile`."""

from __future__ import annotations

from types import MappingProxyType

from rlm_kernel.prompts.profile import load_profile

__all__ = ["LARGE", "PROFILES", "SMALL"]

LARGE = load_profile("large")
SMALL = load_profile("small")
PROFILES = MappingProxyType({profile.name: profile for profile in (LARGE, SMALL)})
