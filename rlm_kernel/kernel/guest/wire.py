"""A question on its way to the host, and what whoever asks must have."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

WIRE = 1
PROCESS = os.getpid()
MAX_QUESTION_BYTES = 20_000_000


if TYPE_CHECKING:
    from collections import deque
    from typing import Protocol

    class Asker(Protocol):
        """Whose query functions and tools ask: the guest, or a notebook with its own models (`rlm_magics`).

        Attributes:
            figures: what cells have shown, each with the execution count of its cell.
        """

        shell: Any
        figures: deque[tuple[int, bytes]]

        def ask(self, payload: dict[str, Any], images: Iterable[bytes] = ()) -> list[dict[str, str]]:
            """Ask and wait."""

        async def ask_async(self, payload: dict[str, Any], images: Iterable[bytes] = ()) -> list[dict[str, str]]:
            """Ask and await."""


class Call:
    """A question in flight: sent until the host acknowledges it, then waited for until it is answered."""

    _numbers = itertools.count(1)

    def __init__(self, payload: dict[str, Any], notify: Callable[[], object], images: Iterable[bytes] = ()) -> None:
        __tracebackhide__ = True
        if os.getpid() != PROCESS:  # a fork has no control thread to receive the answer
            raise RuntimeError("Only the REPL's own process can ask: use threads or llm_query_batched.")
        self.id = f"q{next(self._numbers)}"
        self.buffers = [as_bytes(payload), *images]
        if len(self.buffers[0]) > MAX_QUESTION_BYTES:
            what = f"this {'call' if payload['kind'] == 'tool' else 'prompt'} has {len(self.buffers[0]):,} bytes"
            raise ValueError(f"{what}; a question may have at most {MAX_QUESTION_BYTES:,}. Ask about a part of it.")
        self.notify = notify
        self.acknowledged = False
        self.answers: list[dict[str, str]] | None = None


def as_bytes(value: Any) -> bytes:
    """JSON in UTF-8; lone surrogates are kept."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
