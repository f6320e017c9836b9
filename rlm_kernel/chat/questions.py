"""Questions to the person while a turn goes on: whether a cell may run, or a tool be called."""

from __future__ import annotations

import json
import threading
from concurrent.futures import Future
from typing import Protocol

from rlm_kernel.engine.gates import REFUSED, CellRequest, Decision, Refuse
from rlm_kernel.mcp.approval import ToolCall
from rlm_kernel.text import clip

MAX_SHOWN = 2_000
"""Characters of the arguments of a call."""


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
        self._approved: set[tuple[str, str]] = set()
        self._turn = threading.Lock()  # children and batches ask at the same time

    def ask(self, question: str, text: str = "") -> bool:
        """Ask, and wait for the answer. Called in a thread of the engine."""
        with self._turn:
            if self.desk is None:
                return False
            answer = Future[bool]()
            self.desk.show(text, question, answer)
            return answer.result()

    def approve(self, call: ToolCall) -> bool:
        """Decide about a call of a tool of a server. What changes nothing may happen; others are asked about once."""
        name = call.server, call.tool
        if call.is_read_only or name in self._approved:
            return True
        shown = json.dumps(call.arguments, indent=1, ensure_ascii=False, default=str)
        if self.ask(f"Let {call.server} run {call.title or call.tool}?", clip(shown, MAX_SHOWN)):
            self._approved.add(name)
        return name in self._approved

    def on_cell(self, request: CellRequest) -> Decision:
        """Decide about a cell, as the person says."""
        return True if self.ask("Run this cell?", request.code) else Refuse(REFUSED)
