"""What the code that a model writes may try from inside of its kernel."""

from __future__ import annotations

import asyncio

import pytest

from rlm import RLM, ScriptedLM
from rlm_kernel.kernelspecs import environment
from rlm_kernel.records import Answer
from rlm_kernel.session import Session

TRANSPORTS = pytest.mark.parametrize("transport", ["ipc", "relay"])

EVERY_SIGNAL = (
    "import os, signal, subprocess, time\n"
    "for number in sorted(signal.valid_signals()):\n"
    "    os.kill(1, number)\n"
    "    time.sleep(0.02)\n"
    "other = subprocess.Popen(['sleep', '600'])\n"
    "os.kill(-1, signal.SIGTERM)  # to all but the sender and the first process\n"
    "other.wait()\n"
    "print('still here')"
)


class Echo:
    async def answer(self, query):
        return [Answer(prompt.upper()) for prompt in query.prompts]


def in_docker(**options):
    return Session.open(environment("docker", options), Echo())


def container_of(session):
    return session._kernel._manager.provisioner._container.id


@pytest.mark.elsewhere
@TRANSPORTS
async def test_no_signal_from_inside_ends_the_first_process_of_a_container(docker_engine, transport):
    async with await in_docker(transport=transport) as session:
        cell = await session.run(EVERY_SIGNAL)
        assert (cell.status, cell.stdout) == ("ok", "still here\n")
        assert docker_engine.inspect_container(container_of(session))["State"]["Running"]
        assert (await session.run("llm_query('a')")).value == "'A'"


@pytest.mark.elsewhere
@TRANSPORTS
async def test_a_container_is_still_ended_from_outside(docker_engine, transport):
    async with await in_docker(transport=transport) as session:
        running = asyncio.create_task(session.run("import os, time\nos.kill(1, 15)\ntime.sleep(600)"))
        await asyncio.sleep(1)
        # Long enough that it is the signal which ends it, and not the engine's patience.
        await asyncio.to_thread(docker_engine.stop, container_of(session), timeout=90)
        assert (await running).status == "died"
        await session.restart()
        assert (await session.run("1 + 1")).value == "2"


@pytest.mark.elsewhere
@TRANSPORTS
@pytest.mark.usefixtures("docker_engine")
def test_killing_everything_in_the_container_costs_the_kernel_and_not_the_run(transport):
    kill = "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'import os; os.kill(-1, 9)'])"
    cells = ["kept = 41", kill, "FINAL(kept + 1)"]
    seen = []

    def reply(messages):
        seen.append(str(messages[-1]))
        return f"```repl\n{cells[len(seen) - 1]}\n```"

    with RLM(ScriptedLM(reply), environment="docker", environment_kwargs={"transport": transport}) as rlm:
        assert rlm.completion("x").response == "42"
    assert "The kernel died" in seen[-1]


@pytest.mark.parametrize("number", ["SIGINT", "SIGHUP", "SIGTERM", "SIGQUIT", "SIGUSR1", "SIGALRM", "SIGKILL"])
def test_a_signal_to_the_watchdog_costs_the_local_kernel_at_most(number):
    replies = [
        "```repl\nkept = 41\n```",
        f"```repl\nimport os, signal, time\nos.kill(os.getppid(), signal.{number})\ntime.sleep(0.5)\n```",
        "```repl\nFINAL(kept + 1)\n```",
    ]
    with RLM(ScriptedLM(replies)) as rlm:
        assert rlm.completion("x").response == "42"
