"""How large a model is, as far as its name or its server says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

Size = Literal["small", "large", "unknown"]

MAX_SMALL = 5e9
"""Parameters of a small model at most."""

_IN_NAME = re.compile(r"(?<![a-z0-9.])(\d{1,4}(?:\.\d{1,3})?)b(?![a-z0-9])", re.IGNORECASE)
"""The parameters in a name, in billions: not the experts of `8x7b`, nor the active ones of `30b-a3b`."""

_MILLIONS = re.compile(r"(?<![a-z0-9.])([1-9]\d{2}|[2-9]\d)m(?![a-z0-9])", re.IGNORECASE)
"""The parameters in a name, in millions. Smaller numbers, as in `1m` and `10m`, are context windows."""

_NAMES = ("id", "root")  # vLLM has an alias in `id`, and the model in `root`


def parameters_in_name(name: str) -> float | None:
    """The number of parameters that a model's name gives, or None."""
    billions = (float(number) * 1e9 for number in _IN_NAME.findall(name))
    return max(billions, default=max((float(number) * 1e6 for number in _MILLIONS.findall(name)), default=None))


def parameters_in_entry(entry: Mapping[str, Any]) -> float | None:
    """The number of parameters that an entry of a server's list of models gives, or None."""
    meta = entry.get("meta")
    counted = meta.get("n_params") if isinstance(meta, Mapping) else None  # llama.cpp
    if isinstance(counted, int) and counted > 1:
        return float(counted)
    names = (entry.get(field) for field in _NAMES)
    found = (parameters_in_name(name) for name in names if isinstance(name, str))
    return next((number for number in found if number), None)


def size_of(parameters: float) -> Size:
    """The size of a model with so many parameters."""
    return "small" if parameters <= MAX_SMALL else "large"
