"""What a batch may cost, before a model is asked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from rlm_kernel.batch.tasks import Task, Tasks
from rlm_kernel.clients.base import BaseLM

CHARACTERS_PER_TOKEN = 4
"""Of English text."""

TURNS = 5
"""Of a usual run."""

TURN_TOKENS = (4_000, 400)
"""Prompt and reply of a usual turn of the root model."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Tokens and cost of a batch, roughly.

    Attributes:
        tasks: how many.
        context_tokens: of all inputs together.
        root_tokens: prompts and replies of the root model, if each run takes `TURNS` turns.
        root_cost: of these, in US dollars; None: the price is unknown.
        reading_cost: if sub-calls read each input once; None: the price is unknown.
    """

    tasks: int
    context_tokens: int
    root_tokens: int
    root_cost: float | None
    reading_cost: float | None

    def __str__(self) -> str:
        """A sentence for each part."""
        return "\n".join([
            f"{self.tasks:,} task{'s' * (self.tasks != 1)} with about {self.context_tokens:,} tokens of input.",
            f"Root model: about {self.root_tokens:,} tokens{_dollars(self.root_cost)}, at {TURNS} turns a task.",
            f"Sub-calls: {self.context_tokens:,} tokens{_dollars(self.reading_cost)}, if they read each input once.",
        ])  # fmt: skip


def estimate(tasks: Tasks, root: BaseLM, sub: BaseLM) -> Estimate:
    """Estimate a batch. Reads the sizes of files, not the files.

    Args:
        tasks: the tasks.
        root: leads the runs.
        sub: answers sub-calls.
    """
    context = sum(map(_characters, tasks)) // CHARACTERS_PER_TOKEN
    read, wrote = (len(tasks) * TURNS * count for count in TURN_TOKENS)
    return Estimate(len(tasks), context, read + wrote, root.price(read, wrote), sub.price(context, 0))


def _characters(task: Task) -> int:
    if task.path is not None:
        return _size(task.path)
    context = task.context if task.context is not None else task.question
    return len(context if isinstance(context, str) else json.dumps(context, default=str))


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else (path,)
    return sum(file.stat().st_size for file in files if file.is_file())


def _dollars(cost: float | None) -> str:
    return ", price unknown" if cost is None else f", ${cost:,.2f}"
