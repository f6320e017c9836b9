"""`RLM.map(engine=...)` with an executor of the standard library: runs, limits and stops in other processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from loopback import LoopbackProvider, Says

from rlm_kernel import errors
from rlm_kernel.api import RLM
from rlm_kernel.batch.engines.messages import LinkLostError
from rlm_kernel.batch.engines.runs import MAX_LINKS
from rlm_kernel.clients.scripted import ScriptedLM
from rlm_kernel.types import Message, Reply, Usage

CELL = "```repl\nFINAL(context.upper())\n```"


def shout(_: Sequence[Message]) -> str:
    return CELL


def dear(_: Sequence[Message]) -> Reply:
    return Reply(f"FINAL({os.getpid()})", "scripted", Usage(10, 10, cost=0.25))


def wrong_key(_: Sequence[Message]) -> BaseException:
    return errors.LMError("no such key", backend="scripted", model="scripted", status=401)


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as executor:
        yield executor


def test_completions_in_a_process_pool(pool: ProcessPoolExecutor, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    results = list(RLM(ScriptedLM(shout)).map(["a", "b", "c"], "What?", out=out, engine=pool, ordered=True))

    assert [result.answer for result in results] == ["A", "B", "C"], results[0].error
    assert all(Path(str(result.log)).parent == tmp_path / "out_logs" for result in results)
    assert all(Path(str(result.log)).is_file() for result in results)
    assert sum(result.usage.total_calls for result in results) == 3


def test_one_budget_holds_over_all_processes(pool: ProcessPoolExecutor, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with pytest.raises(errors.BudgetExceededError):
        list(RLM(ScriptedLM(dear)).map([str(n) for n in range(50)], engine=pool, max_budget=1.0, out=out))

    seen = [json.loads(line) for line in out.read_text().splitlines()]
    assert sum(result["cost"] for result in seen) == pytest.approx(1.0)


def test_a_wrong_key_ends_the_batch(pool: ProcessPoolExecutor) -> None:
    with pytest.raises(errors.LMError, match="no such key"):
        list(RLM(ScriptedLM(wrong_key)).map([str(n) for n in range(100)], engine=pool, max_concurrent=2))


def test_any_executor_will_do() -> None:
    with ThreadPoolExecutor(2) as threads:
        results = list(RLM(ScriptedLM(shout)).map(["a", "b"], "What?", engine=threads, ordered=True))

    assert [result.answer for result in results] == ["A", "B"]


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # Python's own, from 3.12
def test_a_pool_that_forks_a_process_whose_engine_runs() -> None:
    with RLM(ScriptedLM(shout)) as rlm, ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as forks:
        assert rlm.completion("first").response == "FIRST"
        results = list(RLM(ScriptedLM(shout)).map(["a", "b"], "What?", engine=forks, ordered=True))

    assert [result.answer for result in results] == ["A", "B"], results[0].error


@pytest.mark.parametrize(
    "arguments",
    [
        {"backend_kwargs": {"api_key": "sk-very-secret", "model_name": "m"}},
        {"backend_kwargs": {"model_name": "m", "default_headers": {"Authorization": "Bearer very-secret"}}},
        {"backend_kwargs": {"model_name": "m"}, "environment_kwargs": {"env": {"OTHER_TOKEN": "very-secret"}}},
        {"backend_kwargs": {"model_name": "m", "base_url": "http://me:very-secret@localhost/v1"}},
        {"backend_kwargs": {"model_name": "m"}, "custom_tools": {"where": "key-of-the-environment"}},
        {"backend_kwargs": {"model_name": "m"}, "custom_system_prompt": "Say key-of-the-environment."},
    ],
)
def test_a_key_never_leaves_the_process(arguments: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-the-environment")
    with (
        ThreadPoolExecutor(1) as threads,
        RLM(backend="openai", **arguments) as rlm,
        pytest.raises(errors.ConfigError, match="in the environment of the workers") as refused,
    ):
        rlm.map(["a"], engine=threads)

    assert "secret" not in str(refused.value)


class Watched(Executor):
    """A process pool that keeps what it is given."""

    def __init__(self, pool: Executor) -> None:
        self._pool = pool
        self.sent: list[bytes] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.sent.append(pickle.dumps((fn, args, kwargs)))
        return self._pool.submit(fn, *args, **kwargs)


def test_a_worker_reads_the_key_from_its_own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-the-environment")
    with (
        LoopbackProvider(lambda _: Says(CELL)) as provider,
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool,  # its process has our environment
        RLM(backend_kwargs={"model_name": "m", "base_url": provider.base_url}) as rlm,
    ):
        watched = Watched(pool)
        results = list(rlm.map(["a", "b"], "What?", engine=watched, out=tmp_path / "out.jsonl"))

    assert {result.answer for result in results} == {"A", "B"}
    assert {request.headers["authorization"] for request in provider.requests} == {"Bearer key-of-the-environment"}
    assert len(watched.sent) == 2
    assert not any(b"key-of-the-environment" in sent for sent in watched.sent)


def test_a_worker_without_a_key_ends_the_batch_with_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "of-the-driver-only")
    with ThreadPoolExecutor(1) as threads, RLM(backend_kwargs={"model_name": "m"}) as rlm:
        results = rlm.map([str(n) for n in range(30)], "What?", engine=threads, max_concurrent=2)
        monkeypatch.delenv("OPENAI_API_KEY")
        taken: list[Any] = []
        with pytest.raises(
            errors.ConfigError, match=rf"A worker \(process {os.getpid()} on .* cannot make the RLM: No API key"
        ):
            taken.extend(results)
    assert len(taken) < 5


class Breaks(Executor):
    """An executor whose link breaks in the first try of each task."""

    def __init__(self, pool: Executor, times: int) -> None:
        self._pool, self._times = pool, times
        self.tries: Counter[str] = Counter()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        _, task, _ = args
        self.tries[task.id] += 1
        if self.tries[task.id] > self._times:
            return self._pool.submit(fn, *args, **kwargs)
        broken = Future[Any]()
        broken.set_exception(LinkLostError())
        return broken


def test_a_task_whose_link_breaks_runs_again_and_not_for_ever() -> None:
    with ThreadPoolExecutor(2) as threads:
        executor = Breaks(threads, 1)
        results = list(RLM(ScriptedLM(shout)).map(["a", "b"], "What?", engine=executor, ordered=True))
        (hopeless,) = RLM(ScriptedLM(shout)).map(["a"], "What?", engine=Breaks(threads, MAX_LINKS))

    assert [result.answer for result in results] == ["A", "B"]
    assert executor.tries == {"1": 2, "2": 2}
    assert "broke 3 times: call again to go on" in str(hopeless.error)


def die(_: Sequence[Message]) -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return ""


def test_a_pool_that_lost_a_process_ends_the_batch_and_a_new_one_continues_it(tmp_path: Path) -> None:
    out, tasks = tmp_path / "out.jsonl", [str(n) for n in range(20)]
    with (
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool,
        pytest.raises(errors.RLMError, match="lost a process"),
    ):
        list(RLM(ScriptedLM(die)).map(tasks, "What?", engine=pool, out=out, max_concurrent=2))
    assert len(out.read_text().splitlines()) < len(tasks)

    with ThreadPoolExecutor(4) as threads:
        results = list(RLM(ScriptedLM(shout)).map(tasks, "What?", engine=threads, out=out))

    assert [result.error for result in results] == [None] * len(tasks)


def test_what_is_no_engine_is_refused_with_the_choices() -> None:
    with pytest.raises(errors.ConfigError, match="an Executor of concurrent.futures"):
        RLM(ScriptedLM(shout)).map(["a"], engine="spark")
    with pytest.raises(errors.ConfigError, match="scheduler='tcp://host:8786'"):
        RLM(ScriptedLM(shout)).map(["a"], engine="dask")
    with pytest.raises(errors.ConfigError, match="engine='dask': give both"):
        RLM(ScriptedLM(shout)).map(["a"], scheduler="tcp://127.0.0.1:1")


def test_without_dask_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(errors.ConfigError, match=r"pip install .*\[dask\]"):
        RLM(ScriptedLM(shout)).map(["a"], engine="dask", scheduler="tcp://127.0.0.1:1")


def test_a_lock_or_a_connection_cannot_be_sent() -> None:
    lm = ScriptedLM(shout)
    lm.lock = threading.Lock()  # type: ignore[attr-defined]
    with ThreadPoolExecutor(1) as threads, pytest.raises(errors.ConfigError, match="cannot be sent to the workers"):
        RLM(lm).map(["a"], engine=threads)
