"""The `%%rlm` cell magic. Not built yet: it comes with the issue “At home in the notebook”."""

from __future__ import annotations


def load_ipython_extension(ipython: object) -> None:
    """Called by `%load_ext rlm_magics`.

    Raises:
        NotImplementedError: the magics are not built yet.
    """
    raise NotImplementedError(
        "%load_ext rlm_magics is not built yet: it comes with the issue “At home in the notebook”. "
        "Until then: `from rlm import RLM`."
    )
