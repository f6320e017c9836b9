"""Questions to the person while a turn goes on: whether a cell may run, or a tool be called."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Protocol

from rlm_kernel.engine.gates import REFUSED, CellRequest, Decision, Refuse


class Desk(Protocol):
    """Shows a question. `text`: what it is about, in lines; the answer is set when a key is pressed."""

    def show(self, text: str, question: str, answer: Future[bool]) -> None: ...  # noqa: D102 (documented above)


class Questions:
    """Asks yes or no, one question at a time. Without a desk, where nobody can be asked, the answer is no.

    Attributes:
        desk: where the questions are shown.
    """

    def __init__(self) -> None:
        self.desk: Desk | None = None
        self._turn = threading.Lock()  # children and batches ask at the same time

    def ask(self, question: str, text: str = "") -> bool:
        """Ask, and wait for the answer. Called in a thread of the engine."""
        with self._turn:
            if self.desk is None:
                return False
            answer = Future[bool]()
            self.desk.show(text, question, answer)
            return answer.result()

    def on_cell(self, request: CellRequest) -> Decision:
        """Decide about a cell, as the person says."""
        return True if self.ask("Run this cell?", request.code) else Refuse(REFUSED)
