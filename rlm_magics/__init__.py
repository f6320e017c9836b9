"""At home in the notebook: `%load_ext rlm_magics` brings `%%rlm`, `%rlm`, `llm_query` and its relatives.

    %load_ext rlm_magics
    %rlm model gpt-5-mini

    %%rlm -c report -o answer
    What changed since last year?

`%%rlm?` tells the options, `%rlm` the commands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def load_ipython_extension(ipython: InteractiveShell) -> None:
    """Called by `%load_ext rlm_magics`. Magics that are there already, as in the RLM kernel, stay as they are."""
    from rlm_magics.magics import load, loaded_magics

    if loaded_magics(ipython) is None:
        load(ipython)


def unload_ipython_extension(ipython: InteractiveShell) -> None:
    """Called by `%unload_ext rlm_magics`: connections, a persistent kernel and the names are given up."""
    from rlm_magics.magics import unload

    unload(ipython)
