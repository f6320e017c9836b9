"""A long batch under faults: does it leak, does each question end, and is each call counted once?

    python benchmarks/soak.py [--minutes 30] [--completions 2000] [--engine process|dask] [--seed 1]

Completions with sub-calls and a child each run on local kernels, against a provider on loopback that keeps its own
account (`soak_provider.py`). Kernels, their fork server and workers are killed meanwhile, requests fail, and the disk
for the logs is filled. It prints what grew, what became of the questions under each fault, and both sums. It ends with
1 if something grows, a question has no end or a wrong answer, or the sums differ. SIGTERM ends it after the round.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import psutil
from soak_faults import Fault, Injector, sample, small_disk

HERE = Path(__file__).parent
SECONDS = 2.0
"""Between two samples."""

WORKERS = 2
"""Of the cluster."""

SHORT_LOGS = {"DASK_DISTRIBUTED__ADMIN__LOW_LEVEL_LOG_LENGTH": "10", "DASK_DISTRIBUTED__ADMIN__LOG_LENGTH": "10"}
"""Dask keeps the last 1,000 events of its processes in memory. It takes longer than a soak until they are that many."""

WARM_UP = 0.2
"""Share of the time before growth is judged, in the pauses between two rounds of questions."""

MAX_GROWTH = {
    "rss": (0.05, 6.0),
    "uss": (0.05, 6.0),
    "fork server": (0.05, 6.0),
    "descriptors": (0.05, 6.0),
    "threads": (0.05, 4.0),
    "children": (0.05, 4.0),
    "files": (0.05, 8.0),
    "tasks": (0.05, 8.0),
    "blocks": (0.05, 50_000.0),
    "heap": (0.05, 6.0),
}
"""What may be added from the end of the warm-up to the end: a share of the value, or an amount, the larger of both."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """How long, how much and how fast."""

    seconds: float
    completions: int
    engine: str
    seed: int
    at_once: int
    share: float
    delay: float
    pace: float


def main() -> None:
    """Run, print, and end with 1 if something is wrong."""
    parser = argparse.ArgumentParser(description="Run a batch for long, under faults.")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--completions", type=int, default=2000)
    parser.add_argument("--engine", choices=("process", "dask"), default="process")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=8, help="completions in progress (8)")
    parser.add_argument("--share", type=float, default=0.02, help="of requests that fail (0.02)")
    parser.add_argument("--delay", type=float, default=0.1, help="seconds of a reply (0.1)")
    parser.add_argument("--pace", type=float, default=1.0, help="1: a kernel is killed every 8 seconds (1)")
    parser.add_argument("--json", type=Path, help="write the numbers there, for soak_report.py")
    given = parser.parse_args()
    values = vars(given) | {"seconds": 60 * given.minutes}
    sizes = Sizes(**{field.name: values[field.name] for field in fields(Sizes)})
    found = run(sizes)
    print(describe(found))
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    sys.exit(bool(found["wrong"]))


def run(sizes: Sizes) -> Row:
    """Run once, and return the numbers and what is wrong."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        disk = stack.enter_context(small_disk(folder / "logs"))
        signal.signal(signal.SIGTERM, lambda *_: (folder / "stop").touch())
        ask = stack.enter_context(_provider(sizes))
        environment = _environment(folder)
        workers = stack.enter_context(closing(Cluster(environment, folder))) if sizes.engine == "dask" else None
        began = time.time()
        host = stack.enter_context(
            _host(sizes, folder, ask.url, None if workers is None else workers.scheduler, environment)
        )
        injector = Injector(
            psutil.Process(host.pid), None if workers is None else workers.processes, disk, sizes.seed, sizes.pace
        )
        samples = list(_watch(host, injector, folder, began + 2 * sizes.seconds + 300))
        injector.free()
        found = summarise(sizes, folder, samples, injector.faults, ask(), host.returncode)
        left = sorted(
            str(path.relative_to(folder)) for name in ("tmp", "runtime") for path in (folder / name).rglob("*")
        )
        return {**found, "left": left[:100]}


class Provider:
    """The provider's process: its URL, and its account when it is called."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.url = self._line().strip()

    def __call__(self) -> Row:
        """Ask for the account."""
        assert self._process.stdin, "a pipe"
        print(file=self._process.stdin, flush=True)
        account: Row = json.loads(self._line())
        return account

    def _line(self) -> str:
        assert self._process.stdout, "a pipe"
        return self._process.stdout.readline()


@contextmanager
def _provider(sizes: Sizes) -> Iterator[Provider]:
    command = [sys.executable, HERE / "soak_provider.py", str(sizes.seed), str(sizes.share), str(sizes.delay)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Provider(process)
        finally:
            assert process.stdin, "a pipe"
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _environment(folder: Path) -> dict[str, str]:
    """An environment whose temporary files and sockets are in folders of their own."""
    for name in ("tmp", "runtime"):
        (folder / name).mkdir()
    own = {"TMPDIR": str(folder / "tmp"), "JUPYTER_RUNTIME_DIR": str(folder / "runtime"), "OPENAI_API_KEY": "soak-key"}
    return {**os.environ, **own}


class Cluster:
    """A scheduler of Dask and its workers. A worker that was lost is started again, as a cluster does.

    Args:
        environment: of all processes.
        folder: of the scheduler's file and the log.

    Attributes:
        scheduler: its address.
    """

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self._environment, self._folder = {**environment, **SHORT_LOGS}, folder
        file = folder / "scheduler.json"
        self._scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", 0, "--scheduler-file", file)
        while not (file.is_file() and file.read_text("utf-8").endswith("}")):
            time.sleep(0.1)
        self.scheduler: str = json.loads(file.read_text("utf-8"))["address"]
        self._workers = [self._start_worker() for _ in range(WORKERS)]

    def processes(self) -> list[psutil.Process]:
        """The workers."""
        self._workers = [self._start_worker() if worker.poll() is not None else worker for worker in self._workers]
        return [psutil.Process(worker.pid) for worker in self._workers]

    def close(self) -> None:
        """End all processes."""
        for process in (*self._workers, self._scheduler):
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _start_worker(self) -> subprocess.Popen[bytes]:
        return self._start("worker", self.scheduler, "--no-nanny", "--nthreads", 4, "--host", "127.0.0.1")

    def _start(self, kind: str, *words: object) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *map(str, words), "--no-dashboard"]
        with (self._folder / "dask.log").open("ab") as log:
            return subprocess.Popen(command, env=self._environment, cwd=self._folder, stdout=log, stderr=log)


@contextmanager
def _host(
    sizes: Sizes, folder: Path, url: str, scheduler: str | None, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    each = max(10, sizes.completions // 20)
    options = {"seconds": sizes.seconds, "completions": sizes.completions, "round": each, "at-once": sizes.at_once}
    command = [sys.executable, HERE / "soak_host.py", folder, folder / "logs", url]
    command += [word for name, value in options.items() for word in (f"--{name}", value)]
    command += [] if scheduler is None else ["--scheduler", scheduler]
    process = subprocess.Popen([str(word) for word in command], env=environment, cwd=folder)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def _watch(host: subprocess.Popen[bytes], injector: Injector, folder: Path, deadline: float) -> Iterator[Row]:
    """Samples until the host ends. Faults are injected meanwhile."""
    due, mark = time.time() + SECONDS, folder / "idle"
    while host.poll() is None and time.time() < deadline:
        idle = mark.exists()
        if idle or time.time() >= due:
            due = time.time() + SECONDS
            engines = [injector.host] if injector.workers is None else [injector.host, injector.workers()[0]]
            inside = json.loads(mark.read_text("utf-8")) if idle else {}
            yield {"at": time.time(), "idle": idle, **inside, **sample(engines, [folder / "tmp", folder / "runtime"])}
            mark.unlink(missing_ok=True)
        injector.step()
        time.sleep(0.1)


def summarise(
    sizes: Sizes, folder: Path, samples: Sequence[Row], faults: Sequence[Fault], account: Row, ended: int | None
) -> Row:
    """The numbers of a run, and what is wrong."""
    results = _lines(folder / "results.jsonl")
    rows = _with_inside(samples, _lines(folder / "inside.jsonl"))
    growth = {name: _growth(rows, name) for name in MAX_GROWTH}
    sums = {
        "provider": {"calls": account["calls"], "tokens": account["tokens"]},
        "results": {
            "tokens": sum(line["tokens"] for line in results),
            "estimated": sum(line["estimated"] for line in results),
            "cost": sum(line["cost"] or 0.0 for line in results),
        },
    }
    asked = max((int(line["id"][1:]) + 1 for line in results), default=0)
    outcomes = Counter(_outcome(line) for line in results)
    differ = _differences(results, account["tasks"])
    # A call that was stopped after it was sent is counted, although the provider may have refused it. One whose worker
    # was lost is counted, although it may not have been sent.
    unsent = [one for one in differ if 0 < one[1] <= one[3]]
    differ = [one for one in differ if one not in unsent]
    wrong = [f"{name} grows: {row['added']:+.1f} to {row['last']:.1f}" for name, row in growth.items() if row["grows"]]
    wrong += [f"the host ended with {ended}"] if ended else []
    wrong += [f"{asked - len(results)} questions have no result"] if len(results) < asked else []
    wrong += [f"{len(differ)} tasks were counted wrongly: {differ[:5]}"] if differ else []
    wrong += [f"{n} answers are wrong" for name, n in outcomes.items() if name == "wrong answer"]
    tokens = sums["results"]["tokens"] - sum(more for _, more, *_ in unsent)
    wrong += [] if tokens == account["tokens"] else [f"results {tokens:,}, provider {account['tokens']:,} tokens"]
    return {
        "sizes": asdict(sizes),
        "date": time.strftime("%Y-%m-%d"),
        "seconds": samples[-1]["at"] - samples[0]["at"] if samples else 0.0,
        "outcomes": dict(outcomes),
        "sums": sums,
        "differences": differ + unsent,
        "unsent": {"tasks": len(unsent), "tokens": sum(more for _, more, *_ in unsent)},
        "growth": growth,
        "matrix": _matrix(results, faults, account),
        "samples": rows,
        "ends": [line["at"] - samples[0]["at"] for line in results] if samples else [],
        "wrong": wrong,
    }


def _lines(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def _with_inside(samples: Sequence[Row], inside: Sequence[Row]) -> list[Row]:
    """The samples with what the host saw of itself next to that time."""
    rows = []
    for row in samples:
        near = min(inside, key=lambda line: abs(line["at"] - row["at"]), default={"tasks": 0, "blocks": 0, "heap": 0.0})
        rows.append({**near, **row, "at": row["at"] - samples[0]["at"]})
    return rows


def _growth(rows: Sequence[Row], name: str) -> Row:
    """What a line through the samples of the pauses adds after the warm-up, and whether that is too much."""
    late = [row for row in rows if row["idle"] and row["at"] >= WARM_UP * rows[-1]["at"]]
    if len(late) < 3:  # noqa: PLR2004 (a line needs two points, and something to be wrong about)
        return {"first": 0.0, "last": 0.0, "added": 0.0, "grows": False}
    times, values = [row["at"] for row in late], [row[name] for row in late]
    line = statistics.linear_regression(times, values)
    added = line.slope * (times[-1] - times[0])
    share, amount = MAX_GROWTH[name]
    middle = statistics.median(values)
    first, last = (line.intercept + line.slope * times[place] for place in (0, -1))
    return {"first": first, "last": last, "added": added, "grows": added > max(share * middle, amount)}


def _outcome(line: Row) -> str:
    if line["error"] is not None:
        return str(line["error"].partition(":")[0])
    return "answer" if line["answer"] == f"{line['id']}: 4 42 42" else "wrong answer"


def _differences(results: Sequence[Row], charged: Mapping[str, int]) -> list[tuple[str, int, str | None, int]]:
    """Tasks whose tokens are not what the provider charged: the difference, the error, and the tokens estimated."""
    return [
        (
            line["id"],
            line["tokens"] - charged.get(line["id"], 0),
            line["error"] and line["error"][:300],
            line["estimated"],
        )
        for line in results
        if line["tokens"] != charged.get(line["id"], 0)
    ]


def _matrix(results: Sequence[Row], faults: Sequence[Fault], account: Row) -> dict[str, Row]:
    """For each kind of fault: how often, the tokens of the replies that it lost, and how its questions ended."""
    by_id = {line["id"]: line for line in results}
    injected = {kind: [task for task, _ in found] for kind, found in account["faults"].items()}
    rows = {
        kind: _row(len(tasks), sum(tokens for _, tokens in account["faults"][kind]), tasks, by_id)
        for kind, tasks in injected.items()
    }
    lost = Counter[str]()
    for found in account["faults"].values():
        for task, tokens in found:
            lost[task] += tokens
    for kind in dict.fromkeys(fault.kind for fault in faults):
        same = [fault for fault in faults if fault.kind == kind]
        met = {name for fault in same for name in _met(fault, results, account["kernels"])}
        cost = sum(by_id[name]["estimated"] - lost[name] for name in met if name in by_id)
        rows[kind] = _row(len(same), cost, met, by_id)
    return rows


def _met(fault: Fault, results: Sequence[Row], kernels: Mapping[str, str]) -> Iterator[str]:
    """The questions that met a fault: those of its kernels; of a full disk, all in progress."""
    if fault.kind == "disk full":
        yield from (
            one["id"] for one in results if one["at"] >= fault.begin and one["at"] - one["seconds"] <= fault.end
        )
    else:
        yield from (kernels[str(pid)] for pid in fault.pids if str(pid) in kernels)


def _row(count: int, tokens: int, tasks: Any, by_id: Mapping[str, Row]) -> Row:
    ended = Counter(_outcome(by_id[name]) if name in by_id else "no end" for name in set(tasks))
    return {"faults": count, "tokens": tokens, "questions": len(set(tasks)), "ended": dict(ended)}


def describe(found: Row) -> str:
    """The tables and the verdict."""
    lines = [
        f"{sum(found['outcomes'].values()):,} questions in {found['seconds'] / 60:.1f} minutes: {found['outcomes']}"
    ]
    lines += [f"{name:20} {row}" for name, row in found["matrix"].items()]
    lines += [
        f"{name:12} {row['first']:10,.1f} {row['last']:10,.1f} {row['added']:+8.1f} {'GROWS' if row['grows'] else ''}"
        for name, row in found["growth"].items()
    ]
    lines += [json.dumps(found["sums"]), *(f"WRONG: {what}" for what in found["wrong"])]
    return "\n".join([*lines, "failed" if found["wrong"] else "passed"])


if __name__ == "__main__":
    main()
