"""A folder of many logs, and how long the list of them takes.

python tests/viewer/many_logs.py FOLDER [COUNT]
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rlm_kernel import errors
from rlm_kernel.trajectory import events
from rlm_kernel.trajectory.log import jsonl
from rlm_kernel.trajectory.runs.index import INDEX, Index
from rlm_kernel.trajectory.runs.query import Query
from rlm_kernel.trajectory.runs.table import runs_in
from rlm_kernel.types import Reply, RLMChatCompletion, Usage, UsageMeter

MODELS = {"gpt-5": 3.0, "gpt-5-mini": 0.4, "claude-sonnet-4-5": 2.4, "qwen2.5-coder-1.5b": 0.0}
"""Relative prices; 0: unknown."""
SUBJECTS = ("contracts", "invoices", "support tickets", "lab reports", "court rulings", "log files", "tables", "mails")
QUESTIONS = (
    "Which of the {n} {subject} need an answer this week?",
    "How many {subject} mention a deadline, and which one is the earliest?",
    "Sum up the {n} {subject} in five points.",
    "Is there a contradiction between the {subject} of {year} and those of the year before?",
)
LAST = datetime(2026, 11, 30, 18, 0, tzinfo=UTC)


def make_folder(folder, count, seed=0):
    """Write `count` logs into a folder, the newest last. Their files have the times of their runs."""
    chance = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        began = LAST - timedelta(minutes=7 * (count - number) + chance.randrange(5))
        path = folder / f"rlm_{began:%Y-%m-%d_%H-%M-%S}_{number:05}.events.jsonl"
        lines, seconds = _run(chance, began)
        path.write_bytes(b"".join(jsonl.text_of(line).encode() + b"\n" for line in lines))
        ended = began.timestamp() + seconds
        os.utime(path, (ended, ended))
    return folder


def _run(chance, began):
    model = chance.choice(list(MODELS))
    price, turns = MODELS[model], chance.randint(1, 9)
    question = chance.choice(QUESTIONS).format(n=chance.randrange(50, 900), subject=chance.choice(SUBJECTS), year=2025)
    started = {"environment": "local", "context_type": "str", "context_length": chance.randrange(10**6)}
    happened = [events.RunStarted(model=model, sub_model=model, question=question, max_iterations=30, **started)]
    meter, passed = UsageMeter(), 0.3
    for turn in range(1, turns + 1):
        passed += chance.expovariate(1 / 6)
        cost = price * chance.lognormvariate(0, 0.7) / 100 if price else None
        usage = Usage(chance.randrange(2_000, 30_000), chance.randrange(50, 900), 0, cost)
        meter.add(model, usage)
        reply = Reply(f"```repl\nprint(len(context[{turn}]))\n```", model, usage)
        happened.append(events.ModelReplied(time=passed, iteration=turn, reply=reply, seconds=2.0))
        happened.append(events.IterationFinished(time=passed, iteration=turn, seconds=2.0))
    end = _end(chance, model, meter, passed)
    lines = [jsonl.line_of(event) for event in (*happened, *end)]
    lines[0] |= {"timestamp": began.isoformat(), "root_model": model, "log_schema": jsonl.SCHEMA}
    return lines, passed


def _end(chance, model, meter, passed):
    kind = chance.choices(("answered", "failed", "limit", "stopped", "lost"), (82, 6, 6, 4, 2))[0]
    if kind == "lost":
        return []
    if kind == "answered":
        answer = (
            f"{chance.randrange(2, 60)} of them. The earliest is {chance.choice(SUBJECTS)} {chance.randrange(900)}."
        )
        return [
            events.RunFinished(time=passed, completion=RLMChatCompletion(model, "", answer, meter.summary(), passed))
        ]
    failures = {
        "failed": errors.LMError("503: the provider is overloaded", backend="openai", model=model),
        "limit": errors.BudgetExceededError(spent=0.52, budget=0.5),
        "stopped": asyncio.CancelledError(),
    }
    return [events.RunFailed(time=passed, error=failures[kind])]


def _measured(words, work):
    began = time.perf_counter()
    result = work()
    print(f"{words}: {time.perf_counter() - began:.2f} s")
    return result


if __name__ == "__main__":
    where, many = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
    if not where.is_dir():
        _measured(f"{many:,} logs were written", lambda: make_folder(where, many))
    (where / INDEX).unlink(missing_ok=True)
    _measured("the list without an index", lambda: runs_in(where, Query()))
    _measured("the list with an index", lambda: runs_in(where, Query()))
    index = Index(where)
    index.summaries()
    _measured("the list once more, as `rlm view` makes it", index.summaries)
    query = Query.of({"search": "contracts earliest", "model": "gpt-5", "state": "answered", "sort": "cost"})
    found = _measured("a search with filters", lambda: runs_in(where, query))
    print(f"{len(found):,} runs were found; the index has {(where / INDEX).stat().st_size / 1e6:.1f} MB")
