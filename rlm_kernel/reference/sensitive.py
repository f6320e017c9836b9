"""Arguments without keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlm_kernel.trajectory.log.redaction import is_secret_name


def filter_sensitive_keys(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments without those that have the name of a secret, such as `api_key`."""
    return {name: value for name, value in kwargs.items() if not is_secret_name(name)}
