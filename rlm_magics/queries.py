"""`llm_query` and its relatives in the notebook itself, answered in this process by the configured models.

They are the functions that a model has in its REPL, made by the same code, so prompts, schemas, images, failed slots
and errors are the same. The notebook's user has the place of the root model's caller: `rlm_query` starts an RLM as
`%%rlm` does.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from rlm_kernel._async import Job
from rlm_kernel.api import RLM
from rlm_kernel.engine.journal import Journal
from rlm_kernel.kernel.comm import answer_entry, query_of
from rlm_kernel.kernel.guest import query_names
from rlm_kernel.replay.live_models import LiveResponder
from rlm_kernel.types import Query, Usage, UsageSummary
from rlm_magics.arguments import fingerprint

MAX_CONCURRENT = 16
"""Calls of cells that ask at the same time; the prompts of a batch count within it."""

Arguments = Callable[[], Mapping[str, Any]]


class Asker:
    """Stands where the guest stands in a kernel of ours: the functions hand it what they were given.

    Args:
        shell: of the notebook.
        arguments: those of an `RLM`, as they are configured when something is asked.

    Attributes:
        figures: what cells have shown; only the guest keeps that.
        names: the functions by name.
    """

    def __init__(self, shell: Any, arguments: Arguments) -> None:
        self.shell = shell
        self.figures: deque[tuple[int, bytes]] = deque()
        self._arguments = arguments
        self._rlm: tuple[str, RLM] | None = None
        self._lock = threading.Lock()
        self._turns: asyncio.Semaphore | None = None
        self._numbers = itertools.count(1)
        self._spent: list[UsageSummary] = []
        guest: Any = self
        self.names: dict[str, Any] = {
            **query_names(guest, "llm_query", "Ask a language model."),
            **query_names(guest, "rlm_query", "Ask a recursive language model, which has a REPL of its own."),
        }

    def ask(self, payload: dict[str, Any], images: Iterable[bytes] = ()) -> list[dict[str, str]]:
        """Ask and wait."""
        __tracebackhide__ = True
        return Job(self._answers(self._ready(), self._query(payload, images))).wait()

    async def ask_async(self, payload: dict[str, Any], images: Iterable[bytes] = ()) -> list[dict[str, str]]:
        """Ask and await."""
        __tracebackhide__ = True
        return await Job(self._answers(self._ready(), self._query(payload, images))).wait_async()

    def usage(self) -> list[UsageSummary]:
        """What the calls cost, call by call."""
        return list(self._spent)

    def close(self) -> None:
        """Give up the connections."""
        with self._lock:
            known, self._rlm = self._rlm, None
        if known is not None:
            known[1].close()

    def _query(self, payload: dict[str, Any], images: Iterable[bytes]) -> Query:
        return query_of(f"n{next(self._numbers)}", payload, list(images))

    def _ready(self) -> RLM:
        """The RLM of the settings and keys as they are now. One before it closes when its last question is answered."""
        arguments = self._arguments()
        key = fingerprint(arguments)
        with self._lock:
            if self._rlm is None or self._rlm[0] != key:
                self._rlm = key, RLM(**arguments)
            return self._rlm[1]

    async def _answers(self, rlm: RLM, query: Query) -> list[dict[str, str]]:
        self._turns = self._turns or asyncio.Semaphore(MAX_CONCURRENT)
        live_responder = LiveResponder(rlm)  # the limits of the settings are those of one call
        async with self._turns:
            try:
                question = replace(query, slots=Journal().slots(0, query))
                return [answer_entry(answer) for answer in await live_responder.answer(question)]
            finally:
                self._spent.append(live_responder.usage)


def add_usage(summaries: Iterable[UsageSummary]) -> dict[str, tuple[int, Usage]]:
    """The calls and the usage of several summaries, by model."""
    sums: dict[str, tuple[int, Usage]] = {}
    for summary in summaries:
        for model, one in summary.model_usage_summaries.items():
            calls, before = sums.get(model, (0, Usage(cost=0.0)))
            sums[model] = calls + one.total_calls, before.plus(one.usage)
    return sums
