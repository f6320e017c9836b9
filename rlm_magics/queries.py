"""`llm_query` and the other query functions in the notebook, answered in this process by the configured models.

They are the functions that a model has in its REPL, made by the same code, so prompts, schemas, images, failed slots
and errors are the same. `rlm_query` starts an RLM as `%%rlm` does.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rlm_kernel._async import Job
from rlm_kernel.api import RLM
from rlm_kernel.engine.journal import Journal
from rlm_kernel.kernel.comm import answer_entry, question_of
from rlm_kernel.kernel.guest.names import budget_name
from rlm_kernel.kernel.guest.questions import query_names
from rlm_kernel.replay.live_models import LiveResponder
from rlm_kernel.types import Query, ToolCall, UsageSummary
from rlm_magics.arguments import fingerprint

MAX_CONCURRENT = 16
"""Calls of cells that ask at the same time; the prompts of a batch count within it."""

Arguments = Callable[[], Mapping[str, Any]]


class Asker:
    """Answers the query functions in the notebook, in place of the guest of an RLM kernel.

    Args:
        shell: of the notebook.
        arguments: those of an `RLM`, as configured at the time of a call.

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
        self.names: dict[str, Any] = {
            **query_names(self, "llm_query", "Ask a language model."),
            **query_names(self, "rlm_query", "Ask a recursive language model, which has a REPL of its own."),
            **budget_name(self),
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
        """The usage of the calls, one summary each."""
        return list(self._spent)

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            known, self._rlm = self._rlm, None
        if known is not None:
            known[1].close()

    def _query(self, payload: dict[str, Any], images: Iterable[bytes]) -> Query | ToolCall:
        return question_of(f"n{next(self._numbers)}", payload, list(images))

    def _ready(self) -> RLM:
        """The RLM for the current settings and keys. An earlier one closes after its last answer."""
        arguments = self._arguments()
        key = fingerprint(arguments)
        with self._lock:
            if self._rlm is None or self._rlm[0] != key:
                self._rlm = key, RLM(**arguments)
            return self._rlm[1]

    async def _answers(self, rlm: RLM, query: Query | ToolCall) -> list[dict[str, str]]:
        self._turns = self._turns or asyncio.Semaphore(MAX_CONCURRENT)
        live_responder = LiveResponder(rlm)  # the configured limits hold for each call
        async with self._turns:
            try:
                question = replace(query, slots=Journal().slots(0, query))
                return [answer_entry(answer) for answer in await live_responder.answer(question)]
            finally:
                self._spent.append(live_responder.usage)


@dataclass(frozen=True, slots=True)
class Spent:
    """Calls of a session, added up.

    Attributes:
        calls: how many.
        input_tokens, output_tokens: of all of them.
        cost: US dollars of those whose cost is known; None if that of none is.
        unpriced: how many calls are in sums whose cost is unknown.
    """

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = None
    unpriced: int = 0

    def plus(self, other: Spent) -> Spent:
        """Both together. An unknown cost does not hide a known one."""
        known = [cost for cost in (self.cost, other.cost) if cost is not None]
        return Spent(
            self.calls + other.calls,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            sum(known) if known else None,
            self.unpriced + other.unpriced,
        )


def add_usage(summaries: Iterable[UsageSummary]) -> dict[str, Spent]:
    """The sums of several summaries, by model."""
    sums: dict[str, Spent] = {}
    for summary in summaries:
        for model, one in summary.model_usage_summaries.items():
            calls, used = one.total_calls, one.usage
            unpriced = calls if used.cost is None else 0
            spent = Spent(calls, used.input_tokens, used.output_tokens, used.cost, unpriced)
            sums[model] = sums.get(model, Spent()).plus(spent)
    return sums
