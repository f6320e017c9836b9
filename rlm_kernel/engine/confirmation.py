"""Ask a person about each cell and each call: the gates of `rlm run --confirm` and `%%rlm --confirm`."""

from __future__ import annotations

import threading
from collections.abc import Callable

from rlm_kernel.engine.gates import REFUSED, CellRequest, Decision, Refuse, Replace, ToolRequest
from rlm_kernel.text import clip

MAX_SHOWN = 20_000
"""Characters of a cell or a call."""

CHOICES = "[y]es, [a]ll from now on, [e]dit, or why not: "
CALL_CHOICES = "[y]es, [a]ll from now on, or why not: "
EDIT = "The code instead; an empty line ends it:"


class Confirmation:
    """Decides as a person says. Anything but a yes is a refusal, and its text the reason that the model reads.

    Args:
        ask: shows a text and returns a line of the person; empty if there is none. Called in a thread.
    """

    def __init__(self, ask: Callable[[str], str]) -> None:
        self._ask = ask
        self._all = False
        self._turn = threading.Lock()  # children and batches ask at the same time

    def on_cell(self, request: CellRequest) -> Decision:
        """Decide about a cell."""
        with self._turn:
            said = self._said(f"The model wants to run this cell:\n{clip(request.code, MAX_SHOWN)}\n{CHOICES}")
            return Replace(self._edited()) if said in ("e", "edit") else _decision(said)

    def on_tool(self, request: ToolRequest) -> Decision:
        """Decide about a call of a tool or a sub-call."""
        with self._turn:
            named = [f"{name}={value!r}" for name, value in request.kwargs.items()]
            call = f"{request.name}({', '.join([*map(repr, request.args), *named])})"
            return _decision(self._said(f"The model wants to call {clip(call, MAX_SHOWN)}\n{CALL_CHOICES}"))

    def _said(self, question: str) -> str:
        said = "y" if self._all else self._ask(question).strip()
        self._all |= said.lower() in ("a", "all")
        return said

    def _edited(self) -> str:
        lines = [self._ask(f"{EDIT}\n")]
        while lines[-1].strip():
            lines.append(self._ask(""))
        return "\n".join(lines[:-1])


def _decision(said: str) -> Decision:
    if said.lower() in ("y", "yes", "a", "all"):
        return True
    return Refuse(REFUSED if said.lower() in ("", "n", "no") else said)
