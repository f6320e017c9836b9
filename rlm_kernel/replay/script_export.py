"""A recorded run as a Python script: its cells, which run again with the recorded answers.

    python answer.py

The script begins with a call of `run_script` from the file beside the log, which runs the cells below in a kernel, as a
notebook does. The cells are marked as editors know them (`# %%`). One that is no plain Python, with a magic or an
`await`, is in comments.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rlm_kernel.replay.report import Outcome
from rlm_kernel.trajectory.log import archive
from rlm_kernel.trajectory.notebook.build import SETUP_TAG
from rlm_kernel.trajectory.notebook.cells import RAISES
from rlm_kernel.trajectory.notebook.setup_cell import replay_code

if TYPE_CHECKING:
    from nbformat import NotebookNode

_HEAD = """\
# Runs the cells of a recorded run again with the recorded answers: no key, no network.
# It needs ipykernel, {code} beside it, and in rlm_dir or beside it the log, contexts/ and prompts/.
"""
_CELL = "# %%"


def script(notebook: NotebookNode, outcome: Outcome) -> str:
    """The notebook of a run as a script.

    Args:
        notebook: of the run.
        outcome: of the run; an answer that no cell gave is given at the end.
    """
    name, _ = replay_code()
    parts = [_HEAD.format(code=name)]
    for cell in notebook.cells:
        parts += _part(cell, name)
    if answer := _answer(outcome):
        parts.append(f"{_CELL}\n{answer}\n")
    return "\n".join(parts)


def _part(cell: NotebookNode, code: str) -> Iterator[str]:
    tags = cell.metadata.get("tags", [])
    if archive.TAG in tags:
        return
    if cell.cell_type != "code":
        yield f"{_CELL} [markdown]\n{_commented(cell.source)}\n"
    elif SETUP_TAG in tags:
        module = code.removesuffix(".py")
        yield f"{_CELL} [rlm-setup]\nfrom {module} import run_script\n\nrun_script(__file__)\n"
    else:
        marks = " [raises-exception]" if RAISES in tags else ""
        if not _is_python(cell.source):
            yield f"{_CELL} [ipython]{marks}\n{_commented(cell.source)}\n"
        else:
            yield f"{_CELL}{marks}\n{cell.source}\n"


def _is_python(source: str) -> bool:
    """Whether Python can read it in the middle of a file, and it holds no mark of a cell."""
    if any(line.startswith(_CELL) for line in source.split("\n")) or "__future__" in source:
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            compile(source, "cell", "exec", dont_inherit=True)
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            return False
    return True


def _commented(source: Any) -> str:
    return "\n".join(f"# {line}" if line else "#" for line in str(source).split("\n"))


def _answer(outcome: Outcome) -> str:
    """The code that gives an answer which the model gave in its words."""
    match outcome.way:
        case "variable":
            return f"FINAL_VAR({outcome.name!r})"
        case "words":
            return f"FINAL({outcome.text!r})"
        case "draft":
            return "FINAL(answer['content'])"
    return ""
