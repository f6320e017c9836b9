"""The process that `soak.py` watches: it runs batches until the time is over and enough questions have ended.

Writes each result as a line of `results.jsonl`, and what only the process itself sees as lines of `inside.jsonl`.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import json
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import psutil

from rlm import RLM
from rlm_kernel._async import engine_loop

TIMEOUT = 3.0
PRICE = 2.0**-20 * 1e6
SECONDS = 2.0


def main() -> None:
    """Run, and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("logs", type=Path)
    parser.add_argument("url")
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--completions", type=int)
    parser.add_argument("--round", type=int)
    parser.add_argument("--at-once", type=int)
    parser.add_argument("--scheduler")
    options = parser.parse_args()
    ended = threading.Event()
    looking = threading.Thread(target=_look, args=[options.folder / "inside.jsonl", ended])
    looking.start()
    try:
        with (options.folder / "results.jsonl").open("a", encoding="utf-8") as results, _rlm(options.url) as rlm:
            _run(rlm, results, options)
    finally:
        ended.set()
        looking.join()


def _rlm(url: str) -> RLM:
    kwargs = {
        "model_name": "soak-model",
        "base_url": url,
        "timeout": TIMEOUT,
        "context_window": 200_000,
        "prices": {"input": PRICE, "output": PRICE},
    }
    return RLM(backend="openai", backend_kwargs=kwargs, max_depth=2)


def _run(rlm: RLM, results: TextIO, options: argparse.Namespace) -> None:
    began, asked = time.monotonic(), 0
    client = None if options.scheduler is None else _dask(options.scheduler)
    stop = options.folder / "stop"
    while not stop.exists() and (asked < options.completions or time.monotonic() - began < options.seconds):
        tasks = [
            {"id": f"Q{n}", "question": f"Q{n}: how much?", "context": f"input of Q{n}"}
            for n in range(asked, asked + options.round)
        ]
        asked += len(tasks)
        out = options.folder / f"out-{asked}.jsonl"
        for result in rlm.map(tasks, out=out, log_dir=options.logs, max_concurrent=options.at_once, engine=client):
            total = result.usage.total
            line = {
                "id": result.id,
                "answer": result.answer,
                "error": result.error,
                "tokens": total.input_tokens + total.output_tokens,
                "estimated": total.estimated_tokens,
                "cost": result.cost,
                "seconds": result.seconds,
                "log": result.log,
                "at": time.time(),
            }
            print(json.dumps(line), file=results, flush=True)
        del result
        _trim()
        seen = inside()
        if client is not None:
            workers = client.run(_seen_in_worker, on_error="ignore").values()  # one may be killed meanwhile
            oldest = min((one for one in workers if isinstance(one, dict)), key=lambda one: one["began"], default={})
            seen |= {f"{name} of worker": value for name, value in oldest.items()}
        _rest(options.folder / "idle", seen)


def _trim() -> None:
    """Return free memory to the system."""
    gc.collect()
    time.sleep(0.5)
    ctypes.CDLL(None).malloc_trim(0)


def _seen_in_worker() -> dict[str, float]:
    """The same in a worker, and what is in its memory."""
    _trim()
    return {"began": psutil.Process().create_time(), "blocks": sys.getallocatedblocks(), "heap": heap()}


def _rest(mark: Path, seen: Mapping[str, float]) -> None:
    """Wait until `soak.py` has looked at this process while it has nothing to do."""
    part = mark.with_name("idle.part")
    part.write_text(json.dumps(seen), "utf-8")
    part.replace(mark)
    while mark.exists():
        time.sleep(0.05)


def _dask(scheduler: str) -> Any:
    from distributed import Client

    client = Client(scheduler)
    client.wait_for_workers(1)
    return client


def _look(path: Path, ended: threading.Event) -> None:
    with path.open("a", encoding="utf-8") as file:
        while not ended.wait(SECONDS):
            print(json.dumps({"at": time.time(), **inside()}), file=file, flush=True)


def inside() -> dict[str, float]:
    """Tasks of the engine's loop, blocks that Python has allocated, and MB that the C library has allocated."""
    return {"tasks": len(asyncio.all_tasks(engine_loop())), "blocks": sys.getallocatedblocks(), "heap": heap()}


def heap() -> float:
    """MB that the C library has allocated: `uordblks` and `hblkhd` of `struct mallinfo2`, in bytes."""
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = type(
        "Mallinfo", (ctypes.Structure,), {"_fields_": [(f"size_{n}", ctypes.c_size_t) for n in range(10)]}
    )
    info = mallinfo()
    return float(info.size_7 + info.size_4) / 1e6


if __name__ == "__main__":
    main()
