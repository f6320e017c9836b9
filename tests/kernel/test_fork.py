"""Local kernels are forked from one server, which watches all of them."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import psutil
import pytest

from rlm_kernel.kernel.process import Kernel
from rlm_kernel.kernel.session import Session
from rlm_kernel.provisioners import forked
from rlm_kernel.provisioners.kernelspecs import environment

pytestmark = pytest.mark.skipif(not forked.can_fork({}, {}), reason="kernels are forked on Linux only")


def local(echo, seed=None, **options):
    return Session.open(environment("local", options), echo, seed=seed)


async def value(session, code):
    return (await session.run(code)).value


async def parent(session):
    return psutil.Process(int(await value(session, "import os; os.getppid()")))


async def test_all_kernels_of_a_host_come_from_one_server_without_threads(echo):
    async with await local(echo) as one, await local(echo) as other:
        server = await parent(one)
        assert server == await parent(other)
        assert server.ppid() == os.getpid()
        assert "rlm_kernel.provisioners.fork_server" in server.cmdline()
        assert server.num_threads() == 1


async def test_no_file_says_how_to_connect_to_a_kernel(echo):
    async with await local(echo) as session:
        directory = Path((await value(session, "import os; os.getcwd()")).strip("'")).parent
        assert [path for path in directory.rglob("*") if path.is_socket() or path.suffix == ".json"] == []


async def test_a_kernel_has_the_signals_limits_and_streams_of_a_new_process(echo):
    seen = """(
        [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)] == [signal.SIG_DFL] * 3,
        signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN, os.getpgid(0) == os.getpid() == os.getsid(0),
        resource.getrlimit(resource.RLIMIT_DATA)[0], len(os.listdir('/proc/self/fd')) < 70)"""
    for fork in (True, False):
        async with await local(echo, fork=fork, memory="2g") as session:
            await session.run("import os, resource, signal")
            assert await value(session, seen) == "(True, True, True, 2147483648, True)"


async def test_the_hashes_of_a_kernel_follow_its_seed_and_random_numbers_do_not_follow_the_server(echo):
    hashes, numbers = {}, set()
    for seed in (1, 2, 1):
        async with await local(echo, seed=seed) as session:
            hashes.setdefault(seed, set()).add(await value(session, "hash('a word')"))
    assert len(hashes[1]) == len(hashes[2]) == 1
    assert hashes[1] != hashes[2]
    for _ in range(2):
        async with await local(echo) as session:
            numbers.add(await value(session, "import random, tempfile; random.random()"))
    assert len(numbers) == 2


async def test_a_kernel_is_started_by_itself_when_that_is_asked_or_needed(echo, tmp_path):
    for options in ({"fork": False}, {"env": {"PYTHONPATH": str(tmp_path)}}, {"attachable": True}):
        async with await local(echo, **options) as session:
            assert "rlm_kernel.provisioners.launcher" in (await parent(session)).cmdline()


async def test_without_a_server_kernels_are_started_by_themselves_with_a_notice(echo, monkeypatch):
    monkeypatch.setattr(forked, "_servers", {})
    monkeypatch.setattr(forked, "_SERVER", ("-c", "raise SystemExit(1)"))
    with pytest.warns(UserWarning, match="Kernels are started one by one"):
        session = await local(echo)
    async with session:
        assert await value(session, "1 + 1") == "2"
    forked._close_servers()


ROLLING = """
import os, subprocess, sys, time
for _ in range(8):
    subprocess.Popen([sys.executable, "-c", '''
import os
os.setsid()
while True:
    if os.fork():
        os._exit(0)
'''])
time.sleep(0.5)
"""


def descendants(marker):
    return [p for p in psutil.process_iter(["environ"]) if marker in (p.info["environ"] or {}).values()]


async def test_processes_that_fork_for_ever_end_with_their_kernel(echo):
    marker = f"rolling-{os.getpid()}"
    session = await local(echo, env={"MARK": marker})
    await session.run(ROLLING)
    await session.close()
    assert descendants(marker) == []


async def test_an_orphan_that_its_kernel_disowned_ends_with_it(echo):
    session = await local(echo)
    cell = await session.run(
        "import ctypes, os, subprocess, sys\n"
        "ctypes.CDLL(None).prctl(36, 0, 0, 0, 0)\n"
        "code = 'import os, time; os.fork() and os._exit(0); print(os.getpid(), flush=True); time.sleep(600)'\n"
        "print(subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE).stdout.readline().decode())"
    )
    orphan = psutil.Process(int(cell.stdout))
    await session.close()
    assert not orphan.is_running()


async def test_a_stopped_server_still_ends_its_kernels(echo):
    session = await local(echo)
    server = await parent(session)
    await session.run("import os, signal; os.kill(os.getppid(), signal.SIGSTOP)")
    await session.close()
    assert server.status() != psutil.STATUS_STOPPED
    async with await local(echo) as session:
        assert await value(session, "1 + 1") == "2"


async def test_a_killed_server_is_replaced(echo):
    async with await local(echo) as one, await local(echo) as other:
        server = await parent(one)
        kernels = server.children()
        server.kill()
        psutil.wait_procs(kernels, timeout=5)
        for session in (one, other):
            await session.restart()
            assert await value(session, "1 + 1") == "2"
            assert await parent(session) != server


async def test_sixteen_kernels_at_once(echo):
    sessions = await asyncio.gather(*(local(echo) for _ in range(16)))
    values = await asyncio.gather(*(value(session, "import os; os.getpid()") for session in sessions))
    assert len(set(values)) == 16
    await asyncio.gather(*(session.close() for session in sessions))
    assert not any(psutil.pid_exists(int(pid)) for pid in values)


async def test_a_kernel_that_is_killed_while_it_starts_is_started_again(echo, monkeypatch):
    start, killed = Kernel.start.__func__, []

    async def start_and_kill_once(cls, *arguments):
        kernel = await start(cls, *arguments)
        if not killed:
            killed.append(kernel)
            os.kill(kernel._manager.provisioner.pid, signal.SIGKILL)
        return kernel

    monkeypatch.setattr(Kernel, "start", classmethod(start_and_kill_once))
    async with await local(echo) as session:
        assert await value(session, "1 + 1") == "2"
    assert killed
