"""`RLM.map(engine=...)` on Dask: a LocalCluster, and a cluster of three processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cloudpickle
import dask
import nbformat
import psutil
import pytest
from distributed import Client, LocalCluster, Scheduler
from loopback import Hangs, LoopbackProvider, Request, Says
from selection import mostly_full

from rlm_kernel import errors
from rlm_kernel._async import start_in_thread
from rlm_kernel.api import RLM
from rlm_kernel.batch.engines import sockets
from rlm_kernel.cli import main
from rlm_kernel.clients.scripted import ScriptedLM
from rlm_kernel.trajectory.log.reader import read_log
from rlm_kernel.types import Message, Reply, Usage

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the workers have no tests

LISTEN = sockets.listen
CELL = "```repl\nFINAL(context.upper())\n```"


def shout(_: Sequence[Message]) -> str:
    return CELL


def dear(_: Sequence[Message]) -> Reply:
    return Reply(CELL, "scripted", Usage(10, 10, cost=0.25))


@dataclass
class Cluster:
    """A scheduler and workers as processes of their own. The workers have another key of a user, as on other machines,
    and so do not write into the driver's folder of logs.
    """

    folder: Path
    address: str = ""
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    scheduler: subprocess.Popen[bytes] | None = None

    def start(self, kind: str, *options: str, **variables: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *options, "--dashboard-address", "127.0.0.1:0"]
        with (self.folder / f"{kind}.log").open("ab") as log:
            return subprocess.Popen(command, env=os.environ | variables, cwd=self.folder, stdout=log, stderr=log)

    def add_worker(self) -> None:
        data = str(self.folder / f"jupyter-{len(self.workers)}")
        options = [self.address, "--nthreads", "4", "--no-nanny", "--host", "127.0.0.1"]
        self.workers.append(self.start("worker", *options, JUPYTER_DATA_DIR=data, OPENAI_API_KEY="key-of-the-workers"))


@contextlib.contextmanager
def own_processes(folder: Path, workers: int = 2) -> Iterator[Cluster]:
    file, made = folder / "scheduler.json", Cluster(folder)
    scheduler = made.scheduler = made.start(
        "scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file)
    )
    try:
        while not (file.is_file() and file.read_text().endswith("}")):
            assert scheduler.poll() is None, (folder / "scheduler.log").read_text()
            time.sleep(0.05)
        made.address = json.loads(file.read_text())["address"]
        for _ in range(workers):
            made.add_worker()
        yield made
    finally:
        for process in (*made.workers, scheduler):  # in this order: a worker that loses its scheduler waits for it
            process.terminate()
            process.wait(60)


@contextlib.contextmanager
def local_cluster(folder: Path) -> Iterator[Cluster]:
    with LocalCluster(n_workers=2, threads_per_worker=4, dashboard_address="127.0.0.1:0", host="127.0.0.1") as made:
        yield Cluster(folder, made.scheduler_address)


@pytest.fixture(scope="module", params=mostly_full([own_processes, local_cluster], own_processes))
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with request.param(tmp_path_factory.mktemp("cluster")) as made, pytest.MonkeyPatch.context() as patch:
        if made.workers:
            patch.setattr(sockets, "listen", listen_elsewhere)
        yield made


@contextlib.asynccontextmanager
async def listen_elsewhere(_: object) -> AsyncIterator[sockets.SocketAddress]:
    """The socket of a driver on another machine."""
    yield sockets.SocketAddress(Path("/of another machine"), b"")


@pytest.fixture(scope="module")
def client(cluster: Cluster) -> Iterator[Client]:
    with Client(cluster.address) as client:
        client.wait_for_workers(2)
        yield client


def test_completions_on_a_cluster(client: Client, tmp_path: Path) -> None:
    tasks, out = [f"t{n}" for n in range(8)], tmp_path / "out.jsonl"
    results = list(RLM(ScriptedLM(shout)).map(tasks, "What?", out=out, engine=client, ordered=True))

    assert [result.answer for result in results] == [task.upper() for task in tasks], results[0].error
    assert all(Path(str(result.log)).is_file() for result in results)
    wait_for_no_queues(client)


def test_workers_on_the_machine_of_the_driver_send_nothing_over_the_scheduler(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "listen", LISTEN)
    for result in RLM(ScriptedLM(shout)).map([f"t{n}" for n in range(4)], engine=client):
        assert result.answer is not None, result.error
        assert len(client.run_on_scheduler(_queues)) == 1  # the driver's, for others

    wait_for_no_queues(client)


async def test_a_batch_on_a_cluster_for_asynchronous_callers(client: Client) -> None:
    found = [one.answer async for one in RLM(ScriptedLM(shout)).amap(["a", "b"], engine=client, ordered=True)]

    assert found == ["A", "B"]


def test_one_budget_holds_over_the_cluster(client: Client, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with pytest.raises(errors.BudgetExceededError):
        list(RLM(ScriptedLM(dear)).map([str(n) for n in range(50)], engine=client, max_budget=1.0, out=out))

    seen = [json.loads(line) for line in out.read_text().splitlines()]
    assert sum(result["cost"] for result in seen) == pytest.approx(1.0)
    assert sum(result["answer"] is not None for result in seen) == 4


def test_leaving_the_loop_stops_the_runs_on_the_cluster(client: Client) -> None:
    lm = ScriptedLM(shout, delay=0.1)
    for result in RLM(lm).map([str(n) for n in range(1000)], engine=client):
        assert result.answer is not None, result.error
        wait_for_kernels(client, some=True)
        break

    wait_for_kernels(client, some=False)
    wait_for_no_queues(client)


DRIVER = """
import sys
from distributed import Client
from rlm import RLM, ScriptedLM

with Client(sys.argv[1]) as client:
    rlm = RLM(ScriptedLM(lambda _: "```repl\\nimport time; time.sleep(600)\\n```"))
    list(rlm.map(["a", "b"], engine=client, out="out.jsonl"))
"""


def test_ctrl_c_ends_the_driver_and_the_kernels_and_says_how_to_go_on(
    cluster: Cluster, client: Client, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", DRIVER, cluster.address]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, start_new_session=True) as driver:
        try:
            wait_for_kernels(client, some=True)
            driver.send_signal(signal.SIGINT)
            _, shown = driver.communicate(timeout=60)
        finally:
            driver.kill()

    assert shown.decode().splitlines()[-2:] == [
        "KeyboardInterrupt",
        "rlm: the answers so far are in out.jsonl. To go on, run the same program again.",
    ]
    wait_for_kernels(client, some=False)


@pytest.mark.full
def test_the_kernels_of_a_driver_that_was_killed_end(cluster: Cluster, client: Client, tmp_path: Path) -> None:
    client.run(_give_up_after, 5)
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, cluster.address], cwd=tmp_path)
    try:
        wait_for_kernels(client, some=True)
    finally:
        driver.kill()
        driver.wait()
    wait_for_kernels(client, some=False)
    wait_for_no_queues(client)
    client.run(_give_up_after, 60)


def _give_up_after(seconds: int) -> None:
    from rlm_kernel.batch.engines import on_dask

    on_dask.SILENCE_SECONDS = seconds


def wait_for_kernels(client: Client, *, some: bool) -> None:
    deadline = time.monotonic() + 90
    while any((found := client.run(_kernels)).values()) != some:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def wait_for_no_queues(client: Client) -> None:
    """The cluster is the user's: a batch leaves nothing there, however it ends."""
    deadline = time.monotonic() + 30
    while found := client.run_on_scheduler(_queues):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def _queues(dask_scheduler: Scheduler) -> list[str]:
    return list(dask_scheduler.extensions["queues"].queues)


def test_a_lost_scheduler_ends_the_batch_and_the_error_says_how_to_go_on(tmp_path: Path) -> None:
    lm, tasks, out = ScriptedLM(shout, delay=0.1), [str(n) for n in range(1000)], tmp_path / "out.jsonl"
    quickly = dask.config.set({"distributed.comm.timeouts.connect": "1s"})  # Dask tries to connect again for so long
    with own_processes(tmp_path) as own, quickly, Client(own.address) as client:
        client.wait_for_workers(1)
        results = RLM(lm).map(tasks, engine=client, out=out)
        assert next(results).answer is not None
        assert own.scheduler is not None
        own.scheduler.kill()
        with pytest.raises(errors.RLMError, match=f"scheduler {own.address} .* the same out, to go on"):
            list(results)
        for worker in own.workers:
            worker.kill()  # without a scheduler it takes 30 s to end


def ask(request: Request) -> Says | Hangs:
    """Three sub-calls for each task. The third hangs."""
    if request.prompt.startswith("about"):
        return Hangs(then=Says("word")) if request.prompt.endswith("3") else Says("word")
    if "word3" in request.prompt:
        return Says("FINAL_VAR(found)")
    return Says("```repl\nfor n in 1, 2, 3:\n    found = llm_query(f'about {context} {n}') + str(n)\nprint(found)\n```")


def test_a_lost_worker_costs_no_recorded_call(
    cluster: Cluster, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not cluster.workers:
        pytest.skip("a LocalCluster would start a new worker in the place of this one")
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-the-driver")
    out, tasks = tmp_path / "out.jsonl", ["a", "b", "c", "d"]
    with (
        LoopbackProvider(ask) as provider,
        RLM(backend_kwargs={"model_name": "m", "base_url": provider.base_url}, sampling_args={"seed": 1}) as rlm,
    ):
        results = rlm.map(tasks, "What?", out=out, engine=client, ordered=True)
        first = start_in_thread(lambda: list(results))
        provider.wait_for_requests(4 * len(tasks), timeout=90)
        cluster.workers[0].kill()
        provider.release()
        answers = [result.answer for result in first.result(90)]
    cluster.add_worker()
    wait_for_no_queues(client)

    counted = Counter(request.prompt for request in provider.requests)
    about = {text: times for text, times in counted.items() if text.startswith("about")}
    assert answers == ["word3"] * 4
    assert {text: times for text, times in about.items() if not text.endswith("3")} == {
        f"about {task} {n}": 1 for task in tasks for n in (1, 2)
    }
    assert 4 < sum(times for text, times in about.items() if text.endswith("3")) <= 8
    assert sum(counted.values()) - sum(about.values()) == 2 * 4
    assert {request.headers["authorization"] for request in provider.requests} == {"Bearer key-of-the-workers"}
    check_logs(tmp_path / "out_logs", [result.log for result in first.result()])


def test_the_command_line_names_the_scheduler(
    cluster: Cluster,
    client: Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if not cluster.workers:
        pytest.skip("its workers have no key")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)  # the driver asks nothing
    tasks, out = tmp_path / "tasks.csv", tmp_path / "out.jsonl"
    tasks.write_text("id,question,context\na,What?,first\nb,What?,second\n")
    with LoopbackProvider(lambda _: Says(CELL)) as provider:
        options = ["--engine", "dask", "--scheduler", cluster.address, "--base-url", provider.base_url, "--model", "m"]
        code = main(["batch", str(tasks), "--out", str(out), "--quiet", *options])

    assert code == 0, capsys.readouterr().err
    assert [json.loads(line)["answer"] for line in out.read_text().splitlines()] == ["FIRST", "SECOND"]
    assert {request.headers["authorization"] for request in provider.requests} == {"Bearer key-of-the-workers"}


def test_a_cluster_without_workers_is_reported_at_once(tmp_path: Path) -> None:
    with (
        own_processes(tmp_path, workers=0) as empty,
        Client(empty.address) as client,
        pytest.warns(RuntimeWarning, match=f"no workers, and the batch waits .*: dask worker {empty.address}"),
    ):
        RLM(ScriptedLM(shout)).map(["a"], "What?", engine=client)


def check_logs(folder: Path, logs: Sequence[str | None]) -> None:
    """The logs that came home are those of the driver: signed with its key, with all that belongs to them."""
    for log in map(Path, filter(None, logs)):
        assert log.parent == folder
        found = read_log(log)
        assert found.flaw is None
        assert found.context is not None
        assert found.trajectory.completion is not None
        assert nbformat.read(log.with_suffix(".ipynb"), 4).cells
    assert not list(folder.glob(".*"))


def _kernels() -> int:
    """The kernels of a worker: children of the process that all kernels are forked from."""
    return sum(len(server.children()) for server in psutil.Process().children())
