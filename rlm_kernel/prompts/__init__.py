"""The prompt profiles of the library, by name. A user's own profile is a `PromptProfile`."""

from __future__ import annotations

from types import MappingProxyType

from rlm_kernel.prompts.large import LARGE
from rlm_kernel.prompts.small import SMALL

__all__ = ["LARGE", "PROFILES", "SMALL"]

PROFILES = MappingProxyType({profile.name: profile for profile in (LARGE, SMALL)})
