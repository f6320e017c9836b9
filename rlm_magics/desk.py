"""Questions of a run to the person in front of the notebook: they are asked in the thread that runs the cell."""

from __future__ import annotations

import queue
from concurrent.futures import Future
from typing import Self

from rlm_kernel.text import plain


class Desk:
    """Passes questions from the threads of a run to the cell that waits for it. Open within a `with` block."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[tuple[str, Future[str]]] = queue.SimpleQueue()
        self._open = False

    def ask(self, question: str) -> str:
        """The line that the person types; empty after the run was stopped. Called in a thread of the run."""
        answer: Future[str] = Future()
        if not self._open:
            return ""
        self._waiting.put((question, answer))
        return answer.result()

    def __enter__(self) -> Self:
        self._open = True
        return self

    def serve(self) -> None:
        """Ask what is waiting. Called in the thread of the cell."""
        while not self._waiting.empty():
            question, answer = self._waiting.get()
            try:
                answer.set_result(input(plain(question)))
            finally:
                if not answer.done():
                    answer.set_result("")

    def __exit__(self, *_: object) -> None:
        self._open = False
        while not self._waiting.empty():
            self._waiting.get()[1].set_result("")
