"""Magics for notebooks: `%load_ext rlm_magics` adds `%%rlm`, `%rlm`, `llm_query`, `rlm_query` and their variants.

    %load_ext rlm_magics
    %rlm model gpt-5-mini

    %%rlm -c report -o answer
    What changed since last year?

`%%rlm?` shows the options, `%rlm` the commands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def load_ipython_extension(ipython: InteractiveShell) -> None:
    """Called by `%load_ext rlm_magics`. Magics that are loaded already, as in the RLM kernel, are kept."""
    from rlm_magics.magics import load, loaded_magics

    if loaded_magics(ipython) is None:
        load(ipython)


def unload_ipython_extension(ipython: InteractiveShell) -> None:
    """Called by `%unload_ext rlm_magics`. Closes connections and a persistent kernel, and removes the names."""
    from rlm_magics.magics import unload

    unload(ipython)
