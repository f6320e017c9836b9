"""Runs the tasks of a batch through an executor."""

from __future__ import annotations

import asyncio
import os
import pickle
import secrets
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from rlm_kernel._async import Job, is_stop, run_in_thread
from rlm_kernel.batch.engines import sockets, worker
from rlm_kernel.batch.engines.admission import Admissions
from rlm_kernel.batch.engines.messages import Address, Link, LinkLostError
from rlm_kernel.batch.engines.records import Records, proof
from rlm_kernel.batch.results import TaskResult, failed
from rlm_kernel.batch.runs import Start
from rlm_kernel.batch.tasks import Task
from rlm_kernel.engine.shared_limits import Admission, SharedLimits
from rlm_kernel.errors import ConfigError, RLMError, check_extra, is_installed
from rlm_kernel.trajectory.log.redaction import MIN_SECRET_LENGTH, named_secrets, secrets_of, without_secrets

MAX_CONCURRENT = 16

MAX_LINKS = 3
"""Tries of a task whose link to its worker breaks."""

_HOLDS_KEY = (
    "The RLM holds {}, which would pass through the scheduler: leave it out, and set the variable of the provider, "
    "such as OPENAI_API_KEY, in the environment of the workers."
)

Listen = Callable[[Callable[[Link], Any], Callable[[], None]], AbstractAsyncContextManager[Address]]


@dataclass(frozen=True, slots=True)
class Engine:
    """Where the tasks of a batch run.

    Attributes:
        executor: runs calls.
        run: what it runs for each task.
        listen: a context in which its workers can connect to this process. It calls its second argument when the
            engine is lost.
        name: what the user calls it.
        max_concurrent: tasks in progress, unless the user says it.
        close: closes what was opened for the batch.
    """

    executor: Executor
    run: Callable[..., Any]
    listen: Listen
    name: str = "executor"
    max_concurrent: int = MAX_CONCURRENT
    close: Callable[[], object] = lambda: None


def engine_of(given: Any, scheduler: str | None = None) -> Engine:
    """The engine that `RLM.map` was given.

    Args:
        given: an executor, a Dask `Client`, or ``"dask"``.
        scheduler: the address of the scheduler for ``"dask"``.

    Raises:
        ConfigError: it is something else, or Dask is not installed or not there.
    """
    if isinstance(given, Executor):
        return Engine(given, worker.run, lambda serve, _: sockets.listen(serve))
    client = _dask_client(scheduler) if given == "dask" else given
    if not _is_client(client):
        raise ConfigError(f"engine={given!r} must be 'dask', a Client of Dask, or an Executor of concurrent.futures.")
    from rlm_kernel.batch.engines import on_dask

    threads = sum(client.nthreads().values())
    return Engine(
        client.get_executor(pure=False),
        worker.run_async,
        partial(on_dask.listen, client),
        f"scheduler {client.scheduler.address}",
        max(threads, MAX_CONCURRENT),
        (lambda: None) if client is given else client.close,
    )


def _dask_client(scheduler: str | None) -> Any:
    check_extra("engine='dask'", "distributed", "dask")
    from distributed import Client

    if not scheduler:
        raise ConfigError("engine='dask' needs the address of a scheduler: scheduler='tcp://host:8786'.")
    try:
        return Client(scheduler)
    except (OSError, ValueError) as error:
        raise ConfigError(f"The scheduler {scheduler} cannot be reached: {error}.") from None


def _is_client(given: Any) -> bool:
    dask = sys.modules.get("distributed")  # a client exists only if it was imported
    return dask is not None and isinstance(given, dask.Client)


def packed(make: Callable[[], Start], configuration: Mapping[str, Any], keys: AbstractSet[str]) -> bytes:
    """What makes an `RLM` on a worker, pickled.

    Args:
        make: makes it.
        configuration: its arguments as plain data.
        keys: known secrets.

    Raises:
        ConfigError: it holds a key, or cannot be pickled.
    """
    _check_holds_no_key(configuration)
    pickler: Any = pickle
    if is_installed("cloudpickle"):  # Dask has it; it also packs functions of a notebook or a script
        import cloudpickle

        pickler = cloudpickle
    try:
        content: bytes = pickler.dumps(make)
    except Exception as error:
        raise ConfigError(
            f"The arguments of the RLM cannot be sent to the workers: {error}. Functions of a module that is "
            "installed there can be; connections cannot."
        ) from error
    if any(key.encode() in content for key in keys | secrets_of(os.environ) if len(key) >= MIN_SECRET_LENGTH):
        raise ConfigError(_HOLDS_KEY.format("a key"))
    return content


def _check_holds_no_key(configuration: Mapping[str, Any]) -> None:
    """Check the names of the arguments.

    Raises:
        ConfigError: one is that of a key.
    """
    for name, value in configuration.items():
        if without_secrets({name: value}) != {name: value} or named_secrets({name: value}):
            raise ConfigError(_HOLDS_KEY.format(f"a key in {name}"))


class InProgress:
    """The tasks in progress. Of some, an engine that is lost never says that they have ended."""

    def __init__(self) -> None:
        self._futures: set[Future[Any]] = set()
        self._is_lost = False

    @contextmanager
    def holding(self, future: Future[Any]) -> Iterator[None]:
        """A context in which a task is in progress."""
        self._futures.add(future)
        if self._is_lost:
            future.cancel()
        try:
            yield
        finally:
            self._futures.discard(future)

    def lose(self) -> None:
        """Cancel the tasks: the engine is lost."""
        self._is_lost = True
        for future in list(self._futures):
            future.cancel()


@dataclass(slots=True)
class EngineRuns:
    """Runs tasks on workers.

    Attributes:
        engine: where.
        assignment: what each worker needs.
        admissions: admits the calls of the workers.
        in_progress: the tasks.
        stopped_by: the error after which no further task is worth a try, or None.
    """

    engine: Engine
    assignment: worker.Assignment
    admissions: Admissions
    in_progress: InProgress
    stopped_by: BaseException | None = field(default=None, init=False)

    async def __call__(self, task: Task, limits: Admission) -> TaskResult:
        """Run a task within these limits.

        If its worker is lost and the engine runs it again, no recorded call is repeated.
        """
        started, digest, has_ended = time.monotonic(), "", False
        self.admissions.limits[task.id] = limits
        try:
            digest = await run_in_thread(lambda: task.digest)
            sent = task if task.path is None else replace(task, path=task.path.absolute())
            (result, stopped_by), has_ended = await self._outcome(sent, digest), True
        except Exception as error:  # noqa: BLE001 (it is the result of the task)
            stopped_by = _hopeless(error)
            result = failed(task.id, digest, error, None, time.monotonic() - started)
        except BaseException as error:
            if not isinstance(error, asyncio.CancelledError) or is_stop(error):
                await Job(self.admissions.finish(task.id, has_ended=False)).wait_async()
                raise
            stopped_by = RLMError(
                f"The {self.engine.name} has cancelled the task: it was closed, or is lost. Call again with a new one, "
                "and the same out, to go on."
            )
            result = failed(task.id, digest, stopped_by, None, time.monotonic() - started)
        usage = await Job(self.admissions.finish(task.id, has_ended=has_ended)).wait_async()
        self.stopped_by = self.stopped_by or stopped_by
        return replace(result, usage=usage)

    async def _outcome(self, task: Task, digest: str) -> worker.Outcome:
        """Run a task on a worker, and again if its link breaks."""
        for _ in range(MAX_LINKS):
            future = self.engine.executor.submit(self.engine.run, self.assignment, task, digest)
            with suppress(LinkLostError), self.in_progress.holding(future):
                return await asyncio.wrap_future(future)
        raise RLMError(f"The link to the worker of {task.id!r} broke {MAX_LINKS} times: call again to go on.")


def _hopeless(error: Exception) -> Exception | None:
    """The error after which no further task is worth a try, or None."""
    if isinstance(error, BrokenExecutor):
        return RLMError(
            f"The executor lost a process and runs nothing more: {error} Call again with a new one to go on."
        )
    return error if isinstance(error, ConfigError) else None  # a worker cannot make the RLM


@asynccontextmanager
async def engine_runs(
    engine: Engine,
    make: bytes,
    configuration: Mapping[str, Any],
    log_dir: Path | None,
    logs_of: str,
    shared: SharedLimits,
) -> AsyncIterator[EngineRuns]:
    """A context for a batch on an engine. At its end all runs stop."""
    batch = secrets.token_hex(8)
    records = None if log_dir is None else Records(log_dir, configuration)
    admissions = Admissions(shared, records)
    in_progress = InProgress()

    def lose() -> None:
        admissions.lose()
        in_progress.lose()

    listening = engine.listen(admissions.serve, lose)
    address = await Job(listening.__aenter__()).wait_async()
    try:
        with nullcontext() if log_dir is None else proof(log_dir, batch):
            assignment = worker.Assignment(
                batch, logs_of, make, configuration, log_dir, shared.counts_dollars, shared.is_limited, address
            )
            yield EngineRuns(engine, assignment, admissions, in_progress)
    finally:
        await Job(_close(admissions, listening)).wait_async()
        await run_in_thread(engine.close)


async def _close(admissions: Admissions, listening: AbstractAsyncContextManager[Address]) -> None:
    await admissions.close()
    await listening.__aexit__(None, None, None)
