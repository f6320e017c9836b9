"""Kernels behind a real sshd on loopback."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import psutil
import pytest
from machines import Wire

from rlm import RLM, ScriptedLM
from rlm_kernel.errors import ConfigError, KernelError
from rlm_kernel.kernel.session import Session
from rlm_kernel.provisioners.kernelspecs import environment
from rlm_kernel.types import Answer

WHERE = "import os; print(os.getcwd(), os.getpid(), os.listdir())"


class Nobody:
    async def answer(self, query):
        return [Answer(prompt.upper()) for prompt in query.prompts]


@pytest.fixture
def open_session(sshd):
    return lambda **options: Session.open(environment("ssh", {**sshd.kernel_options, **options}), Nobody())


def through(sshd, wire, folder):
    """The configuration of ssh for a way over this wire."""
    config = folder / "config"
    config.write_text(sshd.config(wire.port))
    return str(config)


async def gone(directory, process):
    async with asyncio.timeout(10):
        while Path(directory).exists() or psutil.pid_exists(int(process)):
            await asyncio.sleep(0.02)
    return True


async def place(session):
    directory, process, files = (await session.run(WHERE)).stdout.split()
    assert files == "[]"
    return Path(directory).parent, process


async def test_a_kernel_answers_asks_and_leaves_nothing(open_session):
    async with await open_session() as session:
        directory, process = await place(session)
        assert (await session.run("llm_query('hello')")).value == "'HELLO'"
    assert await gone(directory, process)


async def test_nothing_is_left_when_the_connection_is_cut_in_a_cell(open_session, sshd, tmp_path):
    with Wire(sshd.port) as wire:
        async with await open_session(ssh_config=through(sshd, wire, tmp_path)) as session:
            directory, process = await place(session)
            running = asyncio.create_task(session.run("import time; time.sleep(60)"))
            await asyncio.sleep(0.3)
            wire.cut()
            assert (await running).status == "died"
            assert "lost the connection" in session.why_it_died
    assert await gone(directory, process)


def test_a_run_goes_on_after_a_cut_in_the_middle_of_a_cell(sshd, tmp_path):
    cells = ["```repl\nkept = llm_query('first')\n```", "FIRST", "```repl\nllm_query('cut')\n```"]
    script = iter([*cells, "CUT", "```repl\nFINAL(kept)\n```"])
    with Wire(sshd.port) as wire:

        def reply(messages):
            said = next(script)
            if said == "CUT":
                wire.cut()
            return said

        options = {**sshd.kernel_options, "ssh_config": through(sshd, wire, tmp_path)}
        with RLM(ScriptedLM(reply), environment="ssh", environment_kwargs=options) as rlm:
            assert rlm.completion("text", "q").response == "FIRST"


async def test_nothing_is_left_of_a_kernel_that_ended_itself(open_session):
    async with await open_session() as session:
        directory, process = await place(session)
        assert (await session.run("os._exit(3)")).status == "died"
        assert await gone(directory, process)


async def test_variables_of_the_kernel_are_on_no_command_line(open_session):
    odd = "a\"b'c $HOME \n é"
    async with await open_session(env={"ODD": odd}) as session:
        value = (await session.run("import os; os.environ['ODD']")).value
        lines = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    assert value == repr(odd)
    assert not any(odd[:5] in line for line in lines)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"host": "nowhere.invalid"}, r"could not connect.*try `ssh .*nowhere\.invalid true`"),
        ({"python": "/no/python"}, r"/no/python"),
    ],
)
async def test_a_failed_start_says_why(open_session, options, expected):
    with pytest.raises(KernelError) as caught:
        await open_session(**options)
    assert re.search(expected, str(caught.value), re.DOTALL)


@pytest.mark.parametrize("host", ["-oProxyCommand=touch /tmp/x", "a b", ""])
def test_a_host_is_no_option_of_ssh(host):
    with pytest.raises(ConfigError, match="host"):
        environment("ssh", {"host": host})
