"""Names of the reference that do not exist here: importing one says what to use instead."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NoReturn

PAGE = "docs/migration.md"

KERNELS = (
    "a REPL is a Jupyter kernel that the engine starts: RLM(environment=..., environment_kwargs=...) chooses it, "
    "`rlm attach` opens it, and a new place for kernels is a kernel provisioner with a kernelspec"
)
CALLS = (
    "no socket serves the calls of cells, which are Jupyter messages: on_subcall_start, on_subcall_complete and "
    "RLM.stream() show them, and on_tool decides about them"
)

KEYS = "a client takes its key from backend_kwargs or the environment when it is made"
PACKAGES = "the packages of a sandbox are environment_kwargs={'packages': [...]}"
STYLES = "the view of a run takes its colours from the terminal: RLM(verbose=True)"
PROMPTS = "the one prompt is RLM_SYSTEM_PROMPT"


def names_the_way(module: str, ways: Mapping[str, str]) -> Callable[[str], NoReturn]:
    """The `__getattr__` of a module.

    Args:
        module: its name.
        ways: the missing names, each with what to use instead.
    """

    def find(name: str) -> NoReturn:
        if name in ways:
            raise ImportError(f"{module}.{name} does not exist in rlm-kernel: {ways[name]}. See {PAGE}.", name=module)
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return find
