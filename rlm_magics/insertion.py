"""The cells that an answer needs, as the source of one cell for the person's own notebook.

A front end inserts one cell for a cell that ran, so they are separated by comments. What a model's REPL has and a
notebook has not is defined first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlm_kernel.replay.minimise import Cleaning

_ANSWER = 'answer = {"content": "", "ready": False}'
_FINAL = """\

def FINAL(value):
    answer.update(content=value, ready=True)
    return value"""
_FINAL_VAR = """\

def FINAL_VAR(name):
    return FINAL(globals().get(name, name) if isinstance(name, str) else name)"""


def cell_source(cleaning: Cleaning, context: str, *, has_names: bool = False) -> str:
    """The source of the cell.

    Args:
        cleaning: the notebook of the run with the cells that its answer needs.
        context: the input as Python code; empty: the person assigns it.
        has_names: whether the notebook has `FINAL` and `answer`, as the RLM kernel.
    """
    about = cleaning.notebook.metadata["rlm"]
    codes = [cell.source for cell in cleaning.notebook.cells if cell.metadata["rlm"]["role"] == "code"]
    cells = [f"# Cell {number}\n{code}" for number, code in zip(cleaning.kept, codes, strict=True)]
    head = [
        f"# The cells that the answer needs, from {about['run']}.",
        "# llm_query asks the model of this notebook (%rlm model).",
        *_names("\n".join(codes), context, has_names),
    ]
    return "\n\n".join(["\n".join(head), *cells])


def _names(code: str, context: str, has_names: bool) -> Iterator[str]:
    """The definitions of what the code uses."""
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
    return re.search(rf"\b{name}\b", code) is not None
