"""The documented API with kernels in containers that have no network: everything that works locally works there."""

from __future__ import annotations

import ast
import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from rlm import RLM, ScriptedLM, TimeoutExceededError

RELAY = {"transport": "relay"}
BOTH = pytest.mark.parametrize("options", [{}, RELAY], ids=["ipc", "relay"])


def cell(code):
    return f"```repl\n{code}\n```"


@BOTH
def test_a_persistent_rlm_keeps_its_container(options):
    root = ScriptedLM([cell("x = len(context)\nFINAL(x)"), cell("FINAL([x, context_0[:2], context])")])
    with RLM(root, environment="docker", environment_kwargs=options, persistent=True) as rlm:
        assert rlm.completion("one").response == "3"
        assert rlm.completion("two").response == "[3, 'on', 'two']"


@pytest.mark.full
@BOTH
async def test_the_timeout_holds_inside_a_cell(options):
    root = ScriptedLM([cell("answer['content'] = 'so far'"), cell("import time\nwhile True: time.sleep(1)")])
    rlm = RLM(root, environment="docker", environment_kwargs=options, max_timeout=8)
    with pytest.raises(TimeoutExceededError) as caught:
        await rlm.acompletion("x")
    assert caught.value.partial_answer == "so far"


@BOTH
async def test_children_have_containers_of_their_own(options):
    def solve(messages):
        asks = "rlm_query" if "the parent" in str(messages) else "socket.gethostname"
        return cell(
            "import socket\nFINAL([socket.gethostname(), *rlm_query_batched(['child a', 'child b'])])"
            if asks == "rlm_query"
            else "import socket\nFINAL(socket.gethostname())"
        )

    rlm = RLM(ScriptedLM(solve), environment="docker", environment_kwargs=options, max_depth=2)
    completion = await rlm.acompletion("the parent", root_prompt="the parent")
    assert len(set(ast.literal_eval(completion.response))) == 3


async def test_ten_million_characters_and_a_thousand_questions_cross_without_a_network():
    code = (
        "import os\n"
        "assert os.listdir('/sys/class/net') == ['lo']\n"
        "answers = llm_query_batched([context[i:i + 3] for i in range(1000)])\n"
        "FINAL([len(context), len(answers), answers[0]])"
    )
    root = ScriptedLM([cell(code)])
    sub = ScriptedLM(lambda messages: messages[-1]["content"].upper(), model="sub")
    rlm = RLM(root, environment="docker", other_backends=[sub])
    assert (await rlm.acompletion("abc" * 3_333_334)).response == "[10000002, 1000, 'ABC']"


async def test_cancelling_removes_the_container(docker_engine):
    root = ScriptedLM([cell("llm_query('wait')")])
    sub = ScriptedLM(lambda _: "late", model="sub", delay=600)
    running = asyncio.create_task(RLM(root, environment="docker", other_backends=[sub]).acompletion("x"))
    async with asyncio.timeout(60):
        while not sub.calls:
            await asyncio.sleep(0.05)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    async with asyncio.timeout(20):
        while docker_engine.containers(all=True, filters={"label": _owner()}):
            await asyncio.sleep(0.05)


def _owner():
    from rlm_kernel.provisioners.docker.daemon import owner

    return f"rlm-kernel.host={owner()}"


@pytest.mark.full
def test_the_benchmark_measures_containers():
    overhead = Path(__file__).parents[2] / "benchmarks" / "overhead.py"
    command = [sys.executable, str(overhead), "--tiny", "--rounds", "1", "--environment", "docker"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    head = done.stdout.splitlines()[0]
    labels = ["ours: docker", "ours: docker, relay", "ours: docker, pool"]
    assert [cell.strip() for cell in head.split("|")[2:-1]] == labels
