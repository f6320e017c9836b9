"""What the sides of the benchmark share: what is measured, and the line protocol with `overhead.py`.

Each side is a process of its own interpreter and uses its engine as its users do, so that one function measures all of
them. It says hello with one line of JSON (its versions), and then answers each line (a `Round`) with one line: the name
of a measure to its samples, in seconds or bytes. Standard library only, because it runs in every interpreter.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

QUESTION = "Do what the scenario says."
AT_ONCE = 8

Samples = dict[str, list[float]]
Complete = Callable[[str], str]
"""A completion over a context; returns the answer."""


@dataclass(frozen=True)
class Round:
    """What a side is asked to measure once.

    Attributes:
        environment: its own name of an environment.
        provider: the base URL of the loopback provider.
        completions: of two turns, one after the other.
        turns: of the long completion.
        queries: single `llm_query` in a cell.
        prompts: of the batches, each in a cell.
        megabytes: sizes of contexts.
        many: completions at `AT_ONCE` at once, and children of one batch; 0: neither, and no memory of kernels.
    """

    environment: str
    provider: str
    completions: int
    turns: int
    queries: int
    prompts: tuple[int, ...]
    megabytes: tuple[int, ...]
    many: int


@dataclass(frozen=True)
class Engine:
    """An engine as its users use it.

    Attributes:
        start: makes what completes, from the environment, the provider and the scenario.
        distributions: whose versions are shown.
        at_once: the environments in which several completions of a process may run at once.
        has_children: the environments in which `rlm_query_batched` starts children.
    """

    start: Callable[[str, str, str], Complete]
    distributions: tuple[str, ...]
    at_once: frozenset[str] = frozenset()
    has_children: frozenset[str] = frozenset()


def measure(engine: Engine, asked: Round) -> Samples:
    """One round."""

    def start(scenario: str) -> Complete:
        return engine.start(asked.environment, asked.provider, scenario)

    samples = {**_short(start("turns-2"), asked), **_long(start, asked), **_subcalls(start, asked)}
    base = min(samples["completion"])
    for size in asked.megabytes:
        complete, text = start("context-0"), "x" * (size * 1_000_000)
        began = time.monotonic()
        assert complete(text) == str(len(text))
        samples[f"context {size} MB"] = [max(time.monotonic() - began - base, 0.0)]
    if asked.many and asked.environment in engine.at_once:
        samples |= _scale(start, asked, has_children=asked.environment in engine.has_children)
    return samples


def _short(complete: Complete, asked: Round) -> Samples:
    """The first completion builds the model's client and is not counted."""
    samples: Samples = {"first cell": [], "completion": []}
    complete("a text")
    for _ in range(asked.completions):
        _arrivals(asked)
        began = time.monotonic()
        complete("a text")
        samples["completion"].append(time.monotonic() - began)
        samples["first cell"].append(_arrivals(asked)[1] - began)
    return samples


def _long(start: Callable[[str], Complete], asked: Round) -> Samples:
    """Times between two requests of a long completion: early ones, and the last."""
    complete = start(f"turns-{asked.turns}")
    _arrivals(asked)
    complete("a text")
    turns = [after - before for before, after in pairwise(_arrivals(asked))]
    early, late = max(1, min(5, asked.turns // 4)), max(1, asked.turns // 12)
    return {"turn": turns[early : early + 20], "late turn": turns[-late:]}


def _subcalls(start: Callable[[str], Complete], asked: Round) -> Samples:
    samples = {"query": list(json.loads(start(f"query-{asked.queries}")("a text")))}
    for prompts in asked.prompts:
        samples[f"batch {prompts}"] = list(json.loads(start(f"batch-{prompts}")("a text")))
    return samples


def _scale(start: Callable[[str], Complete], asked: Round, *, has_children: bool) -> Samples:
    samples = _kernels(start)
    began = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda _: start("turns-2")("a text"), range(asked.many)))
    samples["completions"] = [time.monotonic() - began]
    if has_children:
        samples["children"] = list(json.loads(start(f"children-{asked.many}")("a text")))
    return samples


def _kernels(start: Callable[[str], Complete]) -> Samples:
    """The memory and the processes of `AT_ONCE` kernels that sleep in a cell, each one's share of the peak."""
    before = dict(_processes())
    with ThreadPoolExecutor(AT_ONCE) as pool:
        running = [pool.submit(start("sleep-15"), "a text") for _ in range(AT_ONCE)]
        seen = [dict(before)]
        while not all(future.done() for future in running):
            seen.append(dict(_processes()))
            threading.Event().wait(0.1)
        for future in running:
            future.result()
    peak = max(seen, key=lambda found: sum(found.values()))
    of_us = os.getpid()
    grown = sum(size for pid, size in peak.items() if pid not in before and pid != of_us)
    count = len(peak.keys() - before.keys())
    if not count:  # containers are not children of ours
        return {}
    return {"memory": [grown / AT_ONCE], "processes": [count / AT_ONCE]}


def _processes() -> Iterator[tuple[int, int]]:
    """The process and those that it started, with their proportional share of memory (PSS) in bytes."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
    for pid in parents:
        above = pid
        while above not in {os.getpid(), 0, 1}:
            above = parents.get(above, 0)
        if above == os.getpid():
            try:
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            except OSError:
                continue
            yield pid, int(rollup.partition("\nPss:")[2].split()[0]) * 1024


def _arrivals(asked: Round) -> list[float]:
    """When requests of root models came to the provider since the last look."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(asked.provider.removesuffix("/v1") + "/arrivals") as reply:
        return list(json.loads(reply.read())["arrivals"])


def serve(engine: Engine) -> None:
    """Answer rounds until standard input ends; with arguments, make one completion. What it prints goes to stderr."""
    if len(sys.argv) > 1:
        engine.start(*sys.argv[1:4])("a text")
        return
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with answers:
        print(json.dumps(_versions(engine.distributions)), file=answers, flush=True)
        for line in sys.stdin:
            print(json.dumps(measure(engine, Round(**json.loads(line)))), file=answers, flush=True)


def _versions(distributions: Iterable[str]) -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in distributions}}
