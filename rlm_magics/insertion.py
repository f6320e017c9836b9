"""The cells that an answer needs, for the person's own notebook.

A front end inserts one cell for a cell that ran, so `%rlm cells` separates them by comments. The button of our
JupyterLab extension inserts them one by one. What a model's REPL has and a notebook has not is defined first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rlm_kernel.trajectory.log.reader import Recording, earlier_recordings

if TYPE_CHECKING:
    from rlm_kernel.replay.minimise import Cleaning

_WORD = re.compile(r"\w+")
_QUERY = re.compile(r"\ba?(?:llm|rlm)_query")

_ANSWER = 'answer = {"content": "", "ready": False}'
_FINAL = """\

def FINAL(value):
    answer.update(content=value, ready=True)
    return value"""
_FINAL_VAR = """\

def FINAL_VAR(name):
    return FINAL(globals().get(name, name) if isinstance(name, str) else name)"""


CELLS = "application/vnd.rlm.cells+json"
"""For our JupyterLab extension: the log of a run, below which it shows a button, or the sources of its cells."""


def cell_sources(recording: Recording, cleaning: Cleaning, context: str, *, has_names: bool = False) -> tuple[str, ...]:
    """The sources of the cells. A run that goes on from others needs their cells, too.

    Args:
        recording: the run.
        cleaning: its notebook with the cells that its answer needs.
        context: the input as Python code; empty: the person assigns it.
        has_names: whether the notebook has `FINAL` and `answer`, as the RLM kernel.
    """
    codes = [cell.source for cell in cleaning.notebook.cells if cell.metadata["rlm"]["role"] == "code"]
    cells = [*_cells_before(recording), *map(_cell, cleaning.kept, codes)]
    head = [
        f"# The cells that the answer needs, from {recording.stem}.",
        *_names("\n".join(cells), context, has_names),
    ]
    return "\n".join(head), *cells


def _cells_before(recording: Recording) -> Iterator[str]:
    """The cells of the earlier runs in the same kernel. One about another input is only named."""
    for before in earlier_recordings(recording):
        if before.context is None or recording.context is None or before.context.sha256 != recording.context.sha256:
            yield f"# It goes on from a run about another input, whose cells come first: %rlm cells {before.path}"
            continue
        for cell in before.trajectory.cells:
            if cell.result is not None and cell.result.status == "ok":
                yield _cell(cell.number, cell.code)


def _cell(number: int, code: str) -> str:
    return f"# Cell {number}\n{code}"


def _names(code: str, context: str, has_names: bool) -> Iterator[str]:
    """The definitions of what the code uses."""
    if _QUERY.search(code):
        yield "# What it asks, the model of this notebook answers (%rlm model)."
    if context != "context" and _uses(code, "context"):
        if "rlm.inputs." in context:
            yield "import rlm.inputs"
        yield f"context = {context}" if context else "# First assign the input of the run to `context`."
    if has_names:
        return
    is_variable = _uses(code, "FINAL_VAR")
    is_final = is_variable or _uses(code, "FINAL")
    yield from [_ANSWER] * (is_final or _uses(code, "answer"))
    yield from [_FINAL] * is_final
    yield from [_FINAL_VAR] * is_variable


def _uses(code: str, name: str) -> bool:
    return name in _WORD.findall(code)
