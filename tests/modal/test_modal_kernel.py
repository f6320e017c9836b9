"""A kernel in a sandbox: what the sandbox is like, what it does not get, how both end, and what the wire bears."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from rlm import RLM, RecordingError, ScriptedLM
from rlm.logger import RLMLogger
from rlm_kernel.engine.config import Models, RunConfig
from rlm_kernel.engine.loop import Engine
from rlm_kernel.kernel.process import manager_of
from rlm_kernel.prompts import LARGE
from rlm_kernel.provisioners.kernelspecs import Environment
from rlm_kernel.trajectory.events import Notice


def relay_of(sandbox):
    """The command of a sandbox that is the relay."""
    return next(command for name, command in sandbox.commands.items() if name)


def processes_of(sandbox):
    """The kernel, its launcher and the relay: what runs in a sandbox with its home for a directory."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("MODAL_SANDBOX_ID") == sandbox.id:
                found.append(process)
        except psutil.Error:
            continue
    return found


def recipe_of(modal_emulator):
    return " ".join(line for commands in modal_emulator.images.values() for line in commands)


async def ended(modal_emulator, count=0):
    async with asyncio.timeout(30):
        while len(modal_emulator.running()) > count:
            await asyncio.sleep(0.01)


# -- what the sandbox is like


async def test_a_sandbox_is_locked_and_ends_by_itself_unless_asked_otherwise(modal_session, modal_emulator):
    async with await modal_session():
        definition = modal_emulator.sandboxes[0].definition
        recipe = recipe_of(modal_emulator)
    assert definition.network_access.network_access_type == definition.network_access.BLOCKED
    assert (definition.timeout_secs, definition.idle_timeout_secs) == (3600, 60)
    assert not definition.resources.gpu_config.gpu_type
    assert f"python:{sys.version_info.major}.{sys.version_info.minor}" in recipe
    assert "ipykernel>=6.29" in recipe


async def test_every_option_reaches_modal(modal_session, modal_emulator):
    options = {
        "app_name": "my-app",
        "timeout": 600,
        "image": "python:3.12-slim",
        "packages": ["numpy", "pandas>=2"],
        "cpu": 1.5,
        "memory": "2g",
        "gpu": "A100:2",
        "block_network": False,
        "env": {"GREETING": "hello"},
    }
    async with await modal_session(**options) as session:
        definition = modal_emulator.sandboxes[0].definition
        recipe = recipe_of(modal_emulator)
        assert (await session.run("import os; os.environ['GREETING']")).value == "'hello'"
    resources = definition.resources
    assert definition.network_access.network_access_type == definition.network_access.OPEN
    assert (definition.timeout_secs, resources.milli_cpu) == (600, 1500)
    assert (resources.memory_mb, resources.memory_mb_max) == (2048, 2048)
    assert (resources.gpu_config.gpu_type, resources.gpu_config.count) == ("A100", 2)
    assert "FROM python:3.12-slim" in recipe
    assert "numpy 'pandas>=2'" in recipe


async def test_an_image_of_the_user_is_extended(modal_session, modal_emulator):
    import modal

    image = modal.Image.debian_slim("3.12").pip_install("polars").run_commands("echo of the user")
    async with await modal_session(image=image) as session:
        assert (await session.run("6 * 7")).value == "42"
    recipe = recipe_of(modal_emulator)
    assert "echo of the user" in recipe
    assert "polars" in recipe
    assert "ipykernel>=6.29" in recipe


def test_an_image_of_the_user_is_no_plain_data_and_has_to_be_given_again(modal_emulator, tmp_path):
    import modal

    options = {"image": modal.Image.debian_slim("3.12")}
    logger = RLMLogger(str(tmp_path))
    with RLM(ScriptedLM(["```repl\nFINAL(6 * 7)\n```"]), None, "modal", options, logger=logger) as rlm:
        assert rlm.completion("x", "q").response == "42"
    with pytest.raises(RecordingError, match="environment_kwargs held objects"):
        RLM.resume(logger.log_file_path, backend=ScriptedLM([]))


async def test_an_image_is_built_once(modal_session, modal_emulator):
    async with await modal_session(packages=["once"]):
        assert "ImageJoinStreamingRequest" in modal_emulator.calls
    modal_emulator.calls.clear()
    async with await modal_session(packages=["once"]):
        assert "ImageJoinStreamingRequest" not in modal_emulator.calls


async def test_a_long_build_is_told_about(modal_session, modal_emulator, monkeypatch, capsys):
    monkeypatch.setattr("rlm_kernel.provisioners.modal.sandbox.QUIET_SECONDS", 0.01)
    modal_emulator.build_seconds = 0.1
    async with await modal_session(packages=["never-built-before"]):
        told = capsys.readouterr()
    assert told.out == ""
    assert told.err == "Modal builds the image: this takes a minute or so, once.\n"


# -- what it does not get


async def test_nothing_of_the_host_is_in_the_sandbox(modal_session, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-1")
    monkeypatch.setenv("DATABASE_URL", "postgres://u:sk-secret-2@h/db")
    async with await modal_session() as session:
        cell = await session.run(
            "import glob, os, sys\n"
            "print([name for name in sys.modules if name.startswith('rlm_kernel')])\n"
            "print(dict(os.environ))\n"
            "pid = os.getpid()\n"
            "while pid > 1:\n"
            "    if f'MODAL_SANDBOX_ID={os.environ[\"MODAL_SANDBOX_ID\"]}' in open(f'/proc/{pid}/environ').read():\n"
            "        print(open(f'/proc/{pid}/environ').read(), open(f'/proc/{pid}/cmdline').read())\n"
            "    pid = int(open(f'/proc/{pid}/stat').read().rpartition(')')[2].split()[1])\n"
            "try: import rlm_kernel\n"
            "except ImportError: print('no rlm_kernel')"
        )
    assert cell.status == "ok"
    assert cell.stdout.startswith("[]\n")
    assert cell.stdout.endswith("\nno rlm_kernel\n")
    for secret in ("sk-secret", "as-emulated", "ak-emulated"):
        assert secret not in cell.stdout


async def test_two_sandboxes_know_nothing_of_each_other(modal_session):
    async with await modal_session(env={"MINE": "first"}) as first, await modal_session() as second:
        await first.run("x = 1; open('file', 'w').write('first')")
        cell = await second.run("import os\nos.environ.get('MINE'), 'x' in globals(), os.path.exists('file')")
        assert cell.value == "(None, False, False)"


async def test_there_is_no_network_and_the_kernel_works(modal_session, modal_emulator):
    async with await modal_session() as session:
        if not modal_emulator.sandboxes[0].isolated:
            pytest.skip("this machine does not let us make a network namespace")
        cell = await session.run("import socket\nsocket.create_connection(('127.0.0.1', 22), 1)")
        assert cell.error.name == "OSError"
        assert "unreachable" in cell.error.message
        assert (await session.run("llm_query('still answered')")).value == "'STILL ANSWERED'"


# -- how it ends


async def test_closing_terminates_the_sandbox(modal_session, modal_emulator):
    session = await modal_session()
    sandbox = modal_emulator.sandboxes[0]
    assert processes_of(sandbox)
    await session.close()
    await session.close()
    await ended(modal_emulator)
    psutil.wait_procs(processes_of(sandbox), timeout=20)
    assert processes_of(sandbox) == []


async def test_a_start_that_is_cancelled_leaves_no_sandbox(modal_session, modal_emulator):
    modal_emulator.latency = 0.1
    starting = asyncio.create_task(modal_session())
    async with asyncio.timeout(20):
        while "SandboxCreateV2Request" not in modal_emulator.calls:
            await asyncio.sleep(0.001)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    async with asyncio.timeout(20):
        while "SandboxTerminateRequest" not in modal_emulator.calls:
            await asyncio.sleep(0.01)
    await ended(modal_emulator)
    assert len(modal_emulator.sandboxes) == 1


async def test_a_restart_is_another_sandbox(modal_session, modal_emulator):
    async with await modal_session() as session:
        await session.run("x = 1")
        await session.restart()
        assert (await session.run("'x' in globals()")).value == "False"
        assert len(modal_emulator.sandboxes) == 2
        await ended(modal_emulator, 1)


HOST = textwrap.dedent(
    """
    import asyncio, sys
    from rlm_kernel.provisioners.kernelspecs import Environment
    from rlm_kernel.provisioners.modal import sandbox as modal_sandbox
    from rlm_kernel.provisioners.relay import sandboxed
    from rlm_kernel.kernel.session import Session

    sandboxed.PATIENCE_SECONDS, modal_sandbox.IDLE_SECONDS = 2.0, 1

    async def main():
        session = await Session.open(Environment("modal", "rlm-modal", {}), None)
        cell = await session.run("import time; time.sleep(2.5); 'longer than the patience'")
        print(cell.value, flush=True)
        if sys.argv[1] == "stay":
            await session.run("while True: print('x' * 1000)")

    asyncio.run(main())
    """
)


def test_a_host_that_ends_without_closing_terminates_its_sandbox(modal_emulator):
    command = [sys.executable, "-c", HOST, "end"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("'longer than the patience'\n", "", 0)
    assert [sandbox.result.result().exitcode for sandbox in modal_emulator.sandboxes] == [137]
    assert modal_emulator.calls.count("SandboxTerminateRequest") == 1


async def test_the_sandbox_of_a_killed_host_ends_when_it_has_been_silent_for_long(modal_emulator):
    host = subprocess.Popen([sys.executable, "-c", HOST, "stay"], stdout=subprocess.PIPE, text=True)
    assert host.stdout.readline() == "'longer than the patience'\n"
    host.send_signal(signal.SIGKILL)
    host.communicate()
    assert len(modal_emulator.running()) == 1
    await ended(modal_emulator)
    assert "SandboxTerminateRequest" not in modal_emulator.calls


@pytest.mark.parametrize("end", ["expire", "terminate"])
async def test_a_sandbox_that_ends_in_a_cell_is_a_kernel_that_died(modal_session, modal_emulator, end):
    async with await modal_session(timeout=600) as session:
        running = asyncio.create_task(session.run("print('begun', flush=True)\nwhile True: pass"))
        await asyncio.sleep(0.2)
        getattr(modal_emulator, end)(modal_emulator.sandboxes[0])
        cell = await asyncio.wait_for(running, 20)
        assert (cell.status, cell.kernel_alive) == ("died", False)
        await session.restart()
        assert (await session.run("1 + 1")).value == "2"


async def test_it_is_told_which_option_gives_a_sandbox_more_time(modal_emulator):
    manager = manager_of(Environment("modal", "rlm-modal", {"timeout": 600}).load())
    try:
        await manager.start_kernel()
        modal_emulator.expire(modal_emulator.sandboxes[0])
        await manager.provisioner.wait()
        words = manager.provisioner.diagnosis()
        assert "reached its timeout of 600 s: give it more with environment_kwargs={'timeout'" in words
    finally:
        await manager.shutdown_kernel(now=True)


async def test_a_sandbox_that_takes_no_input_any_more_is_a_kernel_that_died(modal_session, modal_emulator, monkeypatch):
    monkeypatch.setattr("rlm_kernel.provisioners.relay.host_end.LAST_FRAMES_SECONDS", 0.1)
    monkeypatch.setattr("rlm_kernel.provisioners.relay.sandboxed.PATIENCE_SECONDS", 2.0)
    async with await modal_session() as session:
        running = asyncio.create_task(session.run("print('begun', flush=True)\nllm_query('never heard')"))
        modal_emulator.deaf = True
        assert (await asyncio.wait_for(running, 20)).status == "died"


async def test_modal_may_fail_to_say_whether_a_sandbox_lives(modal_emulator, monkeypatch):
    monkeypatch.setattr("rlm_kernel.provisioners.relay.sandboxed.ASK_AGAIN_SECONDS", 0.01)
    modal_emulator.failing = 20
    manager = manager_of(Environment("modal", "rlm-modal", {}).load())
    try:
        await manager.start_kernel()
        async with asyncio.timeout(60):
            while modal_emulator.failing:
                await asyncio.sleep(0.01)
        assert await manager.is_alive()
        modal_emulator.terminate(modal_emulator.sandboxes[0])
        await manager.provisioner.wait()
        assert "was terminated from elsewhere" in manager.provisioner.diagnosis()
    finally:
        await manager.shutdown_kernel(now=True)


async def test_a_run_goes_on_in_a_new_sandbox_when_its_time_is_over(modal_emulator):
    def reply(messages):
        turn = sum(message["role"] == "assistant" for message in messages)
        if turn == 1:
            modal_emulator.expire(modal_emulator.sandboxes[0])
        return ["```repl\nx = llm_query('one')\n```", "```repl\nwhile True: pass\n```", "```repl\nFINAL(x)\n```"][turn]

    sub = ScriptedLM(lambda messages: messages[-1]["content"].upper(), model="sub")
    root = ScriptedLM(reply)
    config = RunConfig(Models(root, (sub,)), Environment("modal", "rlm-modal", {"timeout": 600}), profile=LARGE)
    events = []
    completion = await Engine(config, events.append).run("some context", "a question")
    assert completion.response == "ONE"
    assert len(sub.calls) == 1
    notices = [event.message for event in events if isinstance(event, Notice)]
    assert any("reached its timeout of 600 s: give it more with environment_kwargs" in notice for notice in notices)
    assert len(modal_emulator.sandboxes) == 2
    await ended(modal_emulator)


@pytest.mark.parametrize("which", ["relay", "kernel"])
async def test_an_end_in_the_middle_of_a_message_is_a_kernel_that_died(modal_session, modal_emulator, which):
    async with await modal_session() as session:
        flood = "while True: print('x' * 1_000_000, flush=True)"
        running = asyncio.create_task(session.run(f"import os; print(os.getpid(), flush=True)\n{flood}"))
        sandbox = modal_emulator.sandboxes[0]
        processes = sorted(processes_of(sandbox), key=lambda process: process.create_time())
        relay = next(process for process in processes if "relay" in " ".join(process.cmdline()))
        victims = {"relay": [relay], "kernel": relay.children(recursive=True)}[which]
        await asyncio.sleep(0.3)
        for victim in victims:
            victim.kill()
        cell = await asyncio.wait_for(running, 30)
        assert (cell.status, cell.kernel_alive) == ("died", False)
        await session.restart()
        assert (await session.run("1 + 1")).value == "2"


async def test_a_sandbox_that_dies_while_it_receives_a_large_value_says_so(modal_session, modal_emulator):
    from rlm_kernel.errors import KernelError

    async with await modal_session() as session:
        giving = asyncio.create_task(session.set("context", "x" * 100_000_000))
        async with asyncio.timeout(20):
            while relay_of(modal_emulator.sandboxes[0]).written < 10_000_000:
                await asyncio.sleep(0.001)
        modal_emulator.terminate(modal_emulator.sandboxes[0])
        with pytest.raises(KernelError, match="died while it received context"):
            await asyncio.wait_for(giving, 20)
        await session.restart()
        assert (await session.run("1 + 1")).value == "2"


# -- what the wire bears


async def test_a_hundred_megabytes_travel_both_ways_in_pieces_of_one(modal_session, modal_emulator):
    async with await modal_session() as session:
        await session.set("context", "ä" * 50_000_000)
        assert (await session.run("len(context), set(context)")).value == "(50000000, {'ä'})"
        assert relay_of(modal_emulator.sandboxes[0]).largest <= 1 << 20
        cell = await session.run("answer_ = llm_query('x' * 19_000_000)\nlen(answer_), set(answer_)")
        assert cell.value == "(19000000, {'X'})"


async def test_many_messages_travel_together_when_modal_is_far_away(modal_session, modal_emulator):
    async with await modal_session() as session:
        modal_emulator.latency = 0.05
        before = modal_emulator.calls.count("TaskExecStdinWriteRequest")
        cell = await session.run(
            "from concurrent.futures import ThreadPoolExecutor\n"
            "with ThreadPoolExecutor(32) as pool: answers = list(pool.map(llm_query, map(str, range(320))))\n"
            "answers == list(map(str, range(320)))"
        )
        assert cell.value == "True"
        # Each question is answered by a message of its own; one by one they would be more than 320 writes.
        assert modal_emulator.calls.count("TaskExecStdinWriteRequest") - before < 160


async def test_the_session_outlives_the_tokens_of_modals_router(modal_session, modal_emulator):
    modal_emulator.router_token_seconds = 1
    async with await modal_session() as session:
        assert (await session.run("import time; time.sleep(1.5); llm_query('later')")).value == "'LATER'"


async def test_sandboxes_run_side_by_side(modal_session, modal_emulator):
    sessions = await asyncio.gather(*(modal_session(env={"NUMBER": str(number)}) for number in range(4)))
    try:
        cells = [session.run("import os; llm_query('n' + os.environ['NUMBER'])") for session in sessions]
        assert [cell.value for cell in await asyncio.gather(*cells)] == ["'N0'", "'N1'", "'N2'", "'N3'"]
        assert len(modal_emulator.running()) == 4
    finally:
        await asyncio.gather(*(session.close() for session in sessions))
    await ended(modal_emulator)


async def test_an_interrupt_crosses_the_wire(modal_session):
    async with await modal_session() as session:
        cell = await session.run("x = 1\nwhile True: pass", timeout=0.5)
        assert (cell.status, cell.kernel_alive, cell.error.name) == ("timeout", True, "KeyboardInterrupt")
        assert (await session.run("x")).value == "1"


async def test_the_sockets_of_the_host_are_in_a_private_directory_and_removed(modal_emulator):
    manager = manager_of(Environment("modal", "rlm-modal", {}).load())
    await manager.start_kernel()
    directory = Path(manager.connection_file).parent
    assert directory.stat().st_mode & 0o777 == 0o700
    assert len([file for file in directory.iterdir() if file.is_socket()]) == 5
    await manager.shutdown_kernel(now=True)
    assert not directory.exists()
