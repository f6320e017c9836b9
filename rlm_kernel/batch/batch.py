"""A batch: its options, and the iterator over its results."""

from __future__ import annotations

import asyncio
import atexit
import math
import os
import sys
import warnings
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

from rlm_kernel import terminal
from rlm_kernel._async import Job
from rlm_kernel.batch.pool import run_tasks
from rlm_kernel.batch.progress import BatchProgress
from rlm_kernel.batch.results import ResultFile, TaskResult
from rlm_kernel.batch.runs import LocalRuns, Runs, Start, batch_name
from rlm_kernel.batch.tasks import Task, Tasks, tasks_of
from rlm_kernel.engine.budget import Limits
from rlm_kernel.engine.shared_limits import RatePerMinute, SharedLimits, TaskLimits
from rlm_kernel.errors import ConfigError
from rlm_kernel.text import suggestion
from rlm_kernel.trajectory.log.redaction import without_secrets
from rlm_kernel.types import UsageSummary

MAX_CONCURRENT = 16

_unfinished: set[Path] = set()
"""The files of the batches that have not reached their end."""


class BatchOptions(TypedDict, total=False):
    """The options of `RLM.map` and `RLM.amap`.

    Attributes:
        context: the input of all tasks that have none. Then an input in the list is a question.
        out: the file of results, JSONL. A second call with the same file asks only what has no answer yet.
        log_dir: the folder of the logs; None: a folder beside `out`, or no logs without it.
        max_concurrent: completions in progress, 16 by default; on Dask the threads of the cluster, if they are more.
        engine: where the completions run: an `Executor` of `concurrent.futures`, a Dask `Client`, or ``"dask"``; None:
            in this process. A result from elsewhere has no `completion`.
        scheduler: the address of Dask's scheduler, for ``"dask"``.
        ordered: results in the order of the tasks; by default as they come.
        max_budget: US dollars that all tasks together may cost, those of earlier calls with the same `out` included.
        max_tokens: input and output tokens of all tasks together.
        requests_per_minute: calls of each model. A lower limit that the provider reports is followed, too.
        tokens_per_minute: tokens of each model.
        sample: run only so many tasks, chosen at random.
        seed: of the choice.
        progress: show a progress bar on stderr.
    """

    context: Any
    out: str | os.PathLike[str] | None
    log_dir: str | os.PathLike[str] | None
    max_concurrent: int
    engine: Any
    scheduler: str | None
    ordered: bool
    max_budget: float | None
    max_tokens: int | None
    requests_per_minute: float | None
    tokens_per_minute: float | None
    sample: int | None
    seed: int
    progress: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """Tasks, ready to run.

    Attributes:
        tasks: all of them.
        runs: a context with what runs one task, with the limits that they share.
        shared: makes these limits.
        out: the file of results, or None.
        max_concurrent: completions in progress.
        ordered: whether results keep the order of the tasks.
        progress: whether there is a progress bar.
    """

    tasks: Tasks
    runs: Callable[[SharedLimits], AbstractAsyncContextManager[Runs]]
    shared: Callable[[], SharedLimits]
    out: Path | None
    max_concurrent: int
    ordered: bool
    progress: bool

    async def results(self) -> AsyncGenerator[TaskResult]:
        """The results of all tasks, those that `out` holds first.

        Raises:
            ConfigError: `out` cannot be used.
            LimitError: a limit of the batch was reached. What was in progress has results; call again to go on.
            LMError: the provider refuses the key or does not know the model.
        """
        file = None if self.out is None else await asyncio.to_thread(ResultFile, self.out)
        if self.out is not None:
            _unfinished.add(self.out)
        try:
            if file is not None:
                self._note_other_tasks(file)
            shared = self.shared()
            done = {} if file is None else file.answers
            with BatchProgress(len(self.tasks)) if self.progress else nullcontext() as bar:
                async with aclosing(self._run(shared, done, file)) as results:
                    async for result in results:
                        if bar is not None:
                            bar.add(result, is_known=result is done.get(result.id))
                        yield result
            if self.out is not None:
                _unfinished.discard(self.out)
        finally:
            if file is not None:
                await asyncio.to_thread(file.close, self.tasks.ids)

    def _note_other_tasks(self, file: ResultFile) -> None:
        """Say that the file holds results of tasks that are not in this batch: the user may have meant another."""
        if others := file.spent.keys() - self.tasks.ids - self.tasks.left_out:
            message = f"{file.path} also holds {len(others):,} results of other tasks. They are kept."
            with suppress(UserWarning):  # where warnings are errors
                warnings.warn(message, stacklevel=2)

    async def _run(
        self, shared: SharedLimits, done: dict[str, TaskResult], file: ResultFile | None
    ) -> AsyncGenerator[TaskResult]:
        for usage in () if file is None else file.spent.values():
            for model, summary in usage.model_usage_summaries.items():
                shared.count(model, summary.usage)
        async with self.runs(shared) as runs, aclosing(self._results_of(runs, shared, done, file)) as results:
            async for result in results:
                yield result
            if (error := runs.stopped_by or shared.broken) is not None:
                raise error

    def _results_of(
        self, runs: Runs, shared: SharedLimits, done: dict[str, TaskResult], file: ResultFile | None
    ) -> AsyncGenerator[TaskResult]:
        async def run(task: Task) -> TaskResult:
            known = done.get(task.id)
            if known is not None and known.digest == task.digest:
                return known
            spent = file.spent.get(task.id) if file is not None else None
            limits = TaskLimits(shared, spent or UsageSummary())
            result = await runs(task, limits)
            result = replace(result, usage=result.usage.plus(limits.unrecorded()))
            if file is not None:  # at once, and not when the caller takes it
                file.add(result)
            return result

        def admitted() -> Iterator[Task]:
            for task in self.tasks:
                if shared.broken is not None or runs.stopped_by is not None:
                    return
                yield task

        max_concurrent = min(self.max_concurrent, len(self.tasks))
        return run_tasks(admitted(), run, max_concurrent=max_concurrent, ordered=self.ordered)


@dataclass(frozen=True, slots=True)
class Asking:
    """The `RLM` of a batch.

    Attributes:
        start: starts one completion in this process.
        make: makes the `RLM` in another process, and returns the same.
        configuration: its arguments, for its logs.
        keys: its secrets.
    """

    start: Start
    make: Callable[[], Start]
    configuration: Mapping[str, Any]
    keys: AbstractSet[str]


def batch_of(tasks: Any, question: str | None, options: BatchOptions, rlm: Asking) -> Batch:
    """The batch of an `RLM`.

    Args:
        tasks: the first argument of `RLM.map`.
        question: its `root_prompt`.
        options: its options.
        rlm: asks the model.

    Raises:
        ConfigError: a task or an option is wrong.
    """
    if unknown := sorted(options.keys() - BatchOptions.__annotations__.keys()):
        raise ConfigError(f"map has no option {unknown[0]!r}{suggestion(unknown[0], BatchOptions.__annotations__)}")
    check_options(options)
    out = None if options.get("out") is None else Path(options["out"] or "")
    log_dir = log_dir_of(out, options.get("log_dir"))
    chosen = tasks_of(tasks, question, options.get("context"))
    for written in (out, log_dir):
        if written is not None:
            chosen.check_outside(written)
    if (sample := options.get("sample")) is not None:
        chosen = chosen.sample(sample, options.get("seed", 0))
    runs, max_concurrent = _runs_of(options, rlm, log_dir)
    return Batch(
        chosen,
        runs,
        lambda: shared_limits_of(options),
        out,
        options.get("max_concurrent", max_concurrent),
        options.get("ordered", False),
        options.get("progress", False),
    )


def log_dir_of(out: str | os.PathLike[str] | None, log_dir: str | os.PathLike[str] | None) -> Path | None:
    """The folder of the logs: the one that is given, or one beside the results."""
    if log_dir:
        return Path(log_dir)
    return None if out is None else Path(out).with_name(f"{Path(out).stem}_logs")


def shared_limits_of(options: BatchOptions) -> SharedLimits:
    """The limits of a batch."""
    rate = RatePerMinute(options.get("requests_per_minute") or math.inf, options.get("tokens_per_minute") or math.inf)
    return SharedLimits(Limits(options.get("max_budget"), max_tokens=options.get("max_tokens")), rate)


@asynccontextmanager
async def _local(
    start: Start, configuration: Mapping[str, Any], log_dir: Path | None, logs_of: str
) -> AsyncGenerator[Runs]:
    names = None if log_dir is None else await asyncio.to_thread(_names, log_dir)
    yield LocalRuns(start, configuration, log_dir, logs_of, listing=names)


def _names(folder: Path) -> list[str]:
    """The sorted names in a folder. It is read once: for each task, that takes longer the more logs it has."""
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def _runs_of(
    options: BatchOptions, rlm: Asking, log_dir: Path | None
) -> tuple[Callable[[SharedLimits], AbstractAsyncContextManager[Runs]], int]:
    """What runs the tasks, in this process or on an engine; and how many at a time, unless the user says it."""
    configuration = without_secrets(rlm.configuration)
    engine, scheduler = options.get("engine"), options.get("scheduler")
    if scheduler is not None and engine != "dask":
        raise ConfigError(f"scheduler={scheduler!r} is that of engine='dask': give both.")
    logs_of = batch_name(options.get("out"), log_dir)
    if engine is None:
        return lambda _: _local(rlm.start, configuration, log_dir, logs_of), MAX_CONCURRENT
    from rlm_kernel.batch.engines.runs import engine_of, engine_runs, packed

    where, make = engine_of(engine, scheduler), packed(rlm.make, rlm.configuration, rlm.keys)
    _note_missing_workers(engine)
    return partial(
        engine_runs, where, make, configuration, log_dir and log_dir.absolute(), logs_of
    ), where.max_concurrent


def _note_missing_workers(engine: Any) -> None:
    """Say that a Dask cluster has no workers: the batch waits for one."""
    if (dask := sys.modules.get("distributed")) is None:
        return
    client = dask.default_client() if engine == "dask" else engine
    if isinstance(client, dask.Client) and not client.nthreads():
        address = client.scheduler.address
        message = (
            f"The scheduler {address} has no workers, and the batch waits for one. Start some, with the keys of the "
            f"models in their environment: dask worker {address} --nthreads 16"
        )
        with suppress(RuntimeWarning):  # where warnings are errors
            warnings.warn(message, RuntimeWarning, stacklevel=2)


def check_options(options: BatchOptions) -> None:
    """Check the file and the numbers of a batch.

    Raises:
        ConfigError: one is wrong.
    """
    out = options.get("out")
    if out is not None and not (isinstance(out, str | os.PathLike) and Path(out).name):
        raise ConfigError(f"out={out!r} must be the name of a file, or None for no file.")
    if out is not None and Path(out).suffix != ".jsonl":
        raise ConfigError(f"out={str(out)!r} must end in .jsonl. `rlm batch --out` also takes a name with .parquet.")
    if options.get("seed") is not None and options.get("sample") is None:
        raise ConfigError(f"seed={options['seed']!r} is that of the sample: give sample, too.")
    count = options.get("max_concurrent", MAX_CONCURRENT)
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ConfigError(f"max_concurrent={count!r} must be a whole number from 1.")
    for name in ("requests_per_minute", "tokens_per_minute", "max_budget", "max_tokens"):
        value = options.get(name)
        if value is not None and (not isinstance(value, int | float) or isinstance(value, bool) or not value > 0):
            raise ConfigError(f"{name}={value!r} must be a positive number, or None for no limit.")


def iterate(results: AsyncGenerator[TaskResult]) -> Generator[TaskResult]:
    """The results for a synchronous caller. The batch runs in the engine's loop; Ctrl-C stops it."""

    async def following() -> TaskResult | None:
        return await anext(results, None)

    try:
        while (result := Job(following()).wait()) is not None:
            yield result
    except KeyboardInterrupt:  # the wait has stopped the batch, and has given it the time for that
        raise
    except BaseException:
        Job(_closed(results)).wait()
        raise


async def _closed(results: AsyncGenerator[TaskResult]) -> None:
    await results.aclose()


@atexit.register
def _say_how_to_go_on() -> None:
    """If Ctrl-C ends the program. Wherever it was, a program that catches it decides by itself what to say."""
    if getattr(sys, "last_type", None) is KeyboardInterrupt:
        for out in sorted(_unfinished):
            terminal.print_note(f"rlm: the answers so far are in {out}. To go on, run the same program again.")
