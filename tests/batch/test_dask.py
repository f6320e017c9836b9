"""`RLM.map(engine=...)` on Dask: a LocalCluster, and a cluster of three processes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from distributed import Client, LocalCluster

from rlm_kernel import errors
from rlm_kernel.api import RLM
from rlm_kernel.clients.scripted import ScriptedLM
from rlm_kernel.types import Message, Reply, Usage

CELL = "```repl\nFINAL(context.upper())\n```"
WHERE = "```repl\nimport os\nFINAL(str(os.getppid()))\n```"


def shout(_: Sequence[Message]) -> str:
    return CELL


def dear(_: Sequence[Message]) -> Reply:
    return Reply(CELL, "scripted", Usage(10, 10, cost=0.25))


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with (
        LocalCluster(n_workers=2, threads_per_worker=4, dashboard_address=None, host="127.0.0.1") as cluster,
        Client(cluster) as client,
    ):
        yield client


def test_completions_on_a_cluster(client: Client, tmp_path: Path) -> None:
    tasks, out = [f"t{n}" for n in range(8)], tmp_path / "out.jsonl"
    results = list(RLM(ScriptedLM(shout)).map(tasks, "What?", out=out, engine=client, ordered=True))

    assert [result.answer for result in results] == [task.upper() for task in tasks], results[0].error
    assert all(Path(str(result.log)).is_file() for result in results)


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
        break

    assert client.run(_runs) == dict.fromkeys(client.run(_runs), 0)


def _runs() -> int:
    from rlm_kernel.batch.engines import worker

    return len(worker._workers)
