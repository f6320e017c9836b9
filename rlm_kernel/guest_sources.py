"""The modules of the guest as text: they run in kernels that may lack this package (`kernel/guest/`)."""

from __future__ import annotations

import importlib.resources
from functools import cache

GUEST_MODULE = "rlm_guest"
"""The package in a kernel, and the file in all its tracebacks."""
_MODULES = "wire values decoding questions tools names health leftovers repl hooks __init__".split()


@cache
def guest_sources() -> dict[str, str]:
    """The source of each module by its name in a kernel. A module stands after those that it imports."""
    folder = importlib.resources.files("rlm_kernel.kernel") / "guest"
    return {
        f"{GUEST_MODULE}.{name}".removesuffix(".__init__"): (folder / f"{name}.py").read_text("utf-8")
        for name in _MODULES
    }
