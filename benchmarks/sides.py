"""What the two sides of the overhead benchmark share: the cells they run, and the line protocol with `overhead.py`.

Each side is a process of its own interpreter. It says hello with one line of JSON (its versions), and then answers
each line (a `Round`) with one line: the name of a measure to its samples in seconds. Standard library only, because it
runs in both interpreters.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

FIRST_CELL = "print(6 * 7)"
EMPTY_CELL = "1"
LENGTH_CELL = "print(len(context))"

# Statements only: one of the environments runs a cell with separate globals, where functions do not see imports.
QUERIES_CELL = """
import json, time
samples = []
for _ in range({times}):
    began = time.perf_counter()
    said = llm_query("What is six times seven?")
    samples.append(time.perf_counter() - began)
    assert said == "42", said
print(json.dumps(samples))
"""
BATCH_CELL = """
import json, time
prompts = ["What is six times seven?"] * {prompts}
samples = []
for _ in range({times}):
    began = time.perf_counter()
    answers = llm_query_batched(prompts)
    samples.append((time.perf_counter() - began) / len(prompts))
assert answers == ["42"] * len(prompts), answers[:3]
print(json.dumps(samples))
"""

MODEL = "loopback-model"
MOCK_ANSWER = "42"
QUESTION = "How many characters are there?"
CONTEXT = "All work and no play makes Jack a dull boy. " * 1000

Samples = dict[str, list[float]]


@dataclass(frozen=True)
class Round:
    """What a side is asked to measure once.

    Attributes:
        environment: its own name of an environment.
        provider: the base URL of the loopback provider.
        cells: how many empty cells.
        queries: how many single `llm_query`.
        batches: how many batches.
        prompts: how many prompts in a batch.
        megabytes: sizes of contexts.
        completions: how many completions of one RLM.
    """

    environment: str
    provider: str
    cells: int
    queries: int
    batches: int
    prompts: int
    megabytes: tuple[int, ...]
    completions: int

    def contexts(self) -> Iterable[tuple[str, str]]:
        """The name of the measure and the context, for each size."""
        for size in self.megabytes:
            yield f"context {size} MB", "x" * (size * 1_000_000)

    @property
    def backend_kwargs(self) -> dict[str, Any]:
        """What both engines' `openai` backend needs to ask the loopback provider."""
        return {"model_name": MODEL, "api_key": "loopback", "base_url": self.provider}


def serve(measure: Callable[[Round], Samples], distributions: Iterable[str]) -> None:
    """Answer rounds until standard input ends. What an engine prints goes to stderr.

    Args:
        measure: measures one round.
        distributions: what the hello tells the versions of.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with answers:
        versions = {"python": platform.python_version(), **{name: version(name) for name in distributions}}
        print(json.dumps(versions), file=answers, flush=True)
        for line in sys.stdin:
            print(json.dumps(measure(Round(**json.loads(line)))), file=answers, flush=True)
