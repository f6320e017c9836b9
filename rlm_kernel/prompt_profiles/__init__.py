"""The prompt profiles that come with the library, by name. A user's own is a `PromptProfile` of theirs."""

from __future__ import annotations

from types import MappingProxyType

from rlm_kernel.prompt_profiles.large import LARGE
from rlm_kernel.prompt_profiles.small import SMALL

__all__ = ["LARGE", "PROFILES", "SMALL"]

PROFILES = MappingProxyType({profile.name: profile for profile in (LARGE, SMALL)})
