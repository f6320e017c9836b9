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

_ANSWER = 'answer = {"content": "", "ready": False}\n'
_FINAL = """\
def FINAL(value):
    answer.update(content=value, ready=True)
    return value
"""
_FINAL_VAR = """\
def FINAL_VAR(name):
    return FINAL(globals().get(name, name) if isinstance(name, str) else name)
"""


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
    head = f"# What the answer of {about['run']} needs. Models are asked again (%rlm model).\n"
    return "\n\n".join([head + "".join(_names("\n".join(codes), context, has_names)), *cells])


def _names(code: str, context: str, has_names: bool) -> Iterator[str]:
    """The definitions of what the code uses."""
    if context != "context" and _uses(code, "context"):
        yield "import rlm.inputs\n" if "rlm.inputs." in context else ""
        yield f"context = {context}\n" if context else "# First assign the input of the run to `context`.\n"
    if has_names:
        return
    is_final, is_variable = _uses(code, "FINAL"), _uses(code, "FINAL_VAR")
    if is_final or is_variable or _uses(code, "answer"):
        yield _ANSWER
    yield _FINAL if is_final or is_variable else ""
    yield _FINAL_VAR if is_variable else ""


def _uses(code: str, name: str) -> bool:
    return re.search(rf"\b{name}\b", code) is not None
