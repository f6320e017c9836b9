"""The emulator is held to what Modal's real client expects of Modal: a test double that lies would prove nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import modal
import psutil
import pytest
from modal.exception import SandboxTerminatedError, SandboxTimeoutError, UnimplementedError

ECHO = ("python", "-uc", "import os\nwhile data := os.read(0, 1 << 20): os.write(1, data)")


@pytest.fixture
async def app(modal_emulator):
    return await modal.App.lookup.aio("tests", create_if_missing=True)


@pytest.fixture
def create(app):
    async def created(*command, **options):
        return await modal.Sandbox.create.aio(*command, app=app, image=modal.Image.debian_slim("3.11"), **options)

    return created


async def printed(sandbox, *command, **options):
    process = await sandbox.exec.aio(*command, **options)
    return await process.stdout.read.aio()


async def test_any_bytes_go_through_a_command_and_back(create):
    process = await (await create()).exec.aio(*ECHO, text=False)
    sent = os.urandom(3 << 20)
    for start in range(0, len(sent), 1 << 20):
        process.stdin.write(sent[start : start + (1 << 20)])
        await process.stdin.drain.aio()
    process.stdin.write_eof()
    await process.stdin.drain.aio()
    assert await process.stdout.read.aio() == sent
    assert await process.wait.aio() == 0


async def test_what_was_written_already_is_not_written_again(create, modal_emulator):
    process = await (await create()).exec.aio(*ECHO, text=False)
    process.stdin.write(b"once")
    await process.stdin.drain.aio()
    command = next(command for name, command in modal_emulator.sandboxes[0].commands.items() if name)
    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(command.write(2, b"ce", eof=False), modal_emulator.loop))
    process.stdin.write_eof()
    await process.stdin.drain.aio()
    assert await process.stdout.read.aio() == b"once"


async def test_streams_and_statuses_of_commands_are_told_apart(create):
    process = await (await create()).exec.aio("sh", "-c", "echo out; echo err >&2; exit 3")
    assert (await process.stdout.read.aio(), await process.stderr.read.aio()) == ("out\n", "err\n")
    assert await process.wait.aio() == 3
    assert await (await (await create()).exec.aio("sh", "-c", "kill -9 $$")).wait.aio() == 128 + 9


async def test_an_environment_is_neither_the_hosts_nor_another_sandboxs(create, monkeypatch):
    monkeypatch.setenv("OF_THE_HOST", "1")
    first, second = await create(env={"OF_THE_SANDBOX": "1"}), await create()
    mine = await printed(first, "env", env={"OF_THE_COMMAND": "1"})
    assert "OF_THE_SANDBOX=1" in mine
    assert "OF_THE_COMMAND=1" in mine
    assert "OF_THE_HOST" not in mine
    assert "MODAL_TOKEN" not in mine
    assert "OF_THE_COMMAND" not in await printed(first, "env")
    assert "OF_THE" not in await printed(second, "env")
    homes = {await printed(sandbox, "sh", "-c", "echo $HOME; pwd") for sandbox in (first, second)}
    assert len(homes) == 2


async def test_our_package_is_not_in_a_sandbox(create):
    process = await (await create()).exec.aio("python", "-c", "import rlm_kernel")
    assert "a sandbox on Modal has no rlm_kernel" in await process.stderr.read.aio()


async def test_terminating_ends_everything_in_the_sandbox_with_137(create):
    sandbox = await create()
    daemon = "import os, time\nif os.fork(): os._exit(0)\nos.setsid()\nprint(os.getpid(), flush=True)\ntime.sleep(600)"
    process = await sandbox.exec.aio("python", "-c", daemon)
    pid = int(await anext(aiter(process.stdout)))
    assert await sandbox.terminate.aio(wait=True) == 137
    await gone(pid)


async def test_a_sandbox_that_is_terminated_says_so_and_a_finished_one_its_status(create):
    sandbox = await create()
    waiting = asyncio.ensure_future(sandbox.wait.aio())
    await sandbox.terminate.aio()
    with pytest.raises(SandboxTerminatedError):
        await waiting
    finished = await create("sh", "-c", "exit 4")
    await finished.wait.aio()
    assert finished.returncode == 4


async def test_the_timeout_ends_a_sandbox(create):
    sandbox = await create(timeout=1)
    with pytest.raises(SandboxTimeoutError):
        await sandbox.wait.aio()
    assert sandbox.returncode == 124


async def test_a_sandbox_in_which_nothing_runs_is_ended(create):
    sandbox = await create(idle_timeout=1)
    process = await sandbox.exec.aio("sleep", "1.5")
    assert await process.wait.aio() == 0
    assert await sandbox.poll.aio() is None
    with pytest.raises(SandboxTerminatedError):
        await sandbox.wait.aio()


async def test_a_blocked_network_is_none(create, modal_emulator):
    sandbox = await create(block_network=True)
    if not modal_emulator.sandboxes[0].isolated:
        pytest.skip("this machine does not let us make a network namespace")
    assert "lo" in await printed(sandbox, "sh", "-c", "cat /proc/net/dev")
    assert (await printed(sandbox, "cat", "/proc/net/route")).count("\n") <= 1


async def test_a_gpu_makes_a_sandbox_of_the_first_generation(create, modal_emulator):
    sandbox = await create(gpu="T4")
    assert await printed(sandbox, "echo", "hello") == "hello\n"
    assert "SandboxCreateRequest" in modal_emulator.calls
    assert modal_emulator.sandboxes[0].definition.resources.gpu_config.gpu_type == "T4"
    assert await sandbox.terminate.aio(wait=True) == 137


async def test_an_expired_token_of_the_router_is_renewed(create, modal_emulator):
    modal_emulator.router_token_seconds = 0.5
    sandbox = await create()
    process = await sandbox.exec.aio(*ECHO, text=False)
    await asyncio.sleep(0.7)
    process.stdin.write(b"still here")
    await process.stdin.drain.aio()
    assert await anext(aiter(process.stdout)) == b"still here"
    assert "SandboxGetCommandRouterAccessRequest" in modal_emulator.calls


async def test_what_is_not_emulated_says_so(create):
    sandbox = await create()
    with pytest.raises(UnimplementedError, match="the emulator has no"):
        await sandbox.set_tags.aio({"a": "b"})


def test_a_killed_emulator_leaves_no_sandbox(tmp_path):
    host = (
        "import asyncio, os\n"
        "from emulator import ModalEmulator\n"
        "async def main():\n"
        "    app = await modal.App.lookup.aio('a', create_if_missing=True)\n"
        "    sandbox = await modal.Sandbox.create.aio(app=app, image=modal.Image.debian_slim('3.11'))\n"
        "    process = await sandbox.exec.aio('sh', '-c', 'sleep 600 & echo $! $$ $HOME; wait')\n"
        "    print(await anext(aiter(process.stdout)), flush=True)\n"
        "    await process.wait.aio()\n"
        "with ModalEmulator() as emulator:\n"
        "    os.environ.update(emulator.environment)\n"
        "    import modal\n"
        "    asyncio.run(main())\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    process = subprocess.Popen([sys.executable, "-c", host], stdout=subprocess.PIPE, text=True, env=environ)
    *words, home = process.stdout.readline().split()
    pids = [int(pid) for pid in words]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(pids) == 2
    for pid in pids:
        psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=20)
    assert [pid for pid in pids if psutil.pid_exists(pid)] == []
    for _ in range(2000):
        if not Path(home).exists():
            break
        time.sleep(0.01)
    assert not Path(home).exists()


async def gone(pid):
    async with asyncio.timeout(20):
        while psutil.pid_exists(pid):
            await asyncio.sleep(0.01)
