"""Local kernels are forked from one server, which watches all of them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from rlm_kernel.kernel.process import Kernel
from rlm_kernel.kernel.session import Session
from rlm_kernel.provisioners import cgroups, forked
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


@pytest.mark.parametrize("fork", [True, False])
async def test_no_file_says_how_to_connect_to_a_kernel(echo, fork):
    async with await local(echo, fork=fork) as session:
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


DISOWNED = """
import ctypes, os, subprocess
ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)
print(subprocess.Popen(["env", "-i", "sleep", "600"], start_new_session=True).pid, os.getpid(), flush=True)
"""


@pytest.mark.parametrize("has_group", [True, False])
async def test_a_kernel_that_disowned_and_killed_its_server_ends_with_its_run(echo, monkeypatch, has_group):
    if not has_group:
        monkeypatch.setattr(cgroups, "make", lambda _: [])
    session = await local(echo)
    cell = await session.run(DISOWNED)
    left = [psutil.Process(int(pid)) for pid in cell.stdout.split()]
    await session.run("import os, signal; os.kill(os.getppid(), signal.SIGKILL)")
    await session.close()
    _, alive = psutil.wait_procs(left, timeout=5)
    assert alive == []


@pytest.fixture(scope="module")
def _has_groups():
    made = cgroups.make(None)
    cgroups.remove(made)
    if not made:
        pytest.skip("this machine lets this user make no control group")


@pytest.mark.usefixtures("_has_groups")
async def test_a_kernel_has_a_control_group_that_goes_with_it(echo):
    async with await local(echo) as session:
        made = session._kernel._manager.provisioner._group
        shown = await value(session, "open('/proc/self/cgroup').read()")
        assert made
        assert all(f"/{Path(group).name}\\n" in shown for group in made)
    assert not any(map(os.path.exists, made))


@pytest.mark.usefixtures("_has_groups")
async def test_a_group_of_a_killed_host_is_ended_by_the_next_start(echo):
    host = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    mine = cgroups._of_host(os.getpid())
    (made,) = cgroups.make(None)
    stale = Path(made).with_name(f"{cgroups._of_host(host.pid)}-0")
    Path(made).rmdir()
    stale.mkdir()
    with subprocess.Popen(["sleep", "600"]) as left:
        cgroups.add([str(stale)], left.pid)
        async with await local(echo):
            assert left.poll() is None
        host.kill()
        host.wait()
        async with await local(echo):
            assert left.wait(5) == -signal.SIGKILL
    assert not stale.exists()
    assert mine in made


@pytest.mark.usefixtures("_has_groups")
async def test_shared_memory_counts_as_memory(echo):
    async with await local(echo, memory="256m") as session:
        if "memory" not in " ".join(session._kernel._manager.provisioner._group):
            pytest.skip("this machine does not limit the memory of a control group")
        cell = await session.run(
            "import mmap\nshared = mmap.mmap(-1, 2**29)\nfor at in range(0, 2**29, 4096): shared[at] = 1"
        )
        assert not cell.kernel_alive


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


STOPPER = """
import os, subprocess, sys, time
code = f"import os\\nwhile True: os.kill({os.getppid()}, 19)"
subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
time.sleep(0.5)
"""


async def test_a_server_that_is_stopped_again_and_again_ends_its_kernel(echo):
    session = await local(echo)
    server = await parent(session)
    await session.run(STOPPER)
    below = server.children(recursive=True)
    await session.close()
    _, alive = psutil.wait_procs(below, timeout=5)
    assert alive == []
    async with await local(echo) as session:
        assert await value(session, "1 + 1") == "2"


async def test_a_stopped_server_keeps_no_other_kernel_waiting(echo):
    async with await local(echo) as one:
        await one.run("import os, signal; os.kill(os.getppid(), signal.SIGSTOP)")
        async with await local(echo) as other:
            assert await value(other, "1 + 1") == "2"


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


@pytest.mark.parametrize("fork", [True, False])
async def test_a_kernel_that_is_killed_while_it_starts_is_started_again(echo, monkeypatch, fork):
    start, killed = Kernel.start.__func__, []

    async def start_and_kill_once(cls, *arguments):
        kernel = await start(cls, *arguments)
        if not killed:
            killed.append(kernel)
            os.kill(kernel._manager.provisioner.pid, signal.SIGKILL)
        return kernel

    monkeypatch.setattr(Kernel, "start", classmethod(start_and_kill_once))
    async with await local(echo, fork=fork) as session:
        assert await value(session, "1 + 1") == "2"
    assert killed


async def test_a_locale_that_is_not_installed_is_done_without(echo, monkeypatch):
    monkeypatch.setenv("LC_ALL", "xx_YY.UTF-8")
    async with await local(echo) as session:
        assert await value(session, "1 + 1") == "2"
        assert "fork_server" in " ".join((await parent(session)).cmdline())


async def test_an_environment_of_megabytes_arrives(echo):
    many = {f"NAME{n}": "x" * 100_000 for n in range(30)}
    async with await local(echo, env=many) as session:
        assert await value(session, "import os; len(os.environ['NAME29'])") == "100000"
        assert "fork_server" in " ".join((await parent(session)).cmdline())


async def test_more_seeds_than_servers_are_forked_in_turn(echo):
    for seed in range(6):
        async with await local(echo, seed=seed) as session:
            assert "fork_server" in " ".join((await parent(session)).cmdline())
    assert len(forked._servers) <= forked._MAX_SERVERS


async def test_a_daemon_is_reaped_while_its_kernel_lives_and_no_socket_is_inherited(echo):
    async with await local(echo) as session:
        await session.run("import os, subprocess, time\nsubprocess.run('(sleep 0.1)&', shell=True)\ntime.sleep(0.5)")
        assert await value(session, "open(f'/proc/self/task/{os.getpid()}/children').read()") == "''"
        listed = (
            "[fd for fd in map(int, os.listdir('/proc/self/fd')) if fd > 2 and os.path.exists(f'/proc/self/fd/{fd}')"
        )
        assert await value(session, f"{listed} and os.get_inheritable(fd)]") == "[]"


KILLED_HOST = """
import asyncio, os, signal
from rlm_kernel.kernel.session import Session
from rlm_kernel.provisioners.kernelspecs import environment

async def main():
    sessions = [await Session.open(environment("local", None), None) for _ in range(3)]
    code = "import os, subprocess; print(subprocess.Popen(['sleep', '600'], start_new_session=True).pid, os.getcwd())"
    for session in sessions:
        print((await session.run(code)).stdout.strip(), flush=True)
    os.{kill}

asyncio.run(main())
"""


@pytest.mark.parametrize(
    "kill", ["kill(os.getpid(), signal.SIGKILL)", "killpg(0, signal.SIGKILL)"], ids=["one", "group"]
)
def test_a_killed_host_of_many_kernels_leaves_nothing(kill):
    command = [sys.executable, "-c", KILLED_HOST.format(kill=kill)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, start_new_session=True)
    assert ended.returncode == -signal.SIGKILL
    sleepers, directories = zip(*(line.split() for line in ended.stdout.splitlines()), strict=True)
    deadline = time.monotonic() + 10
    while left := [pid for pid in sleepers if psutil.pid_exists(int(pid))]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    while left := [name for name in directories if Path(name).parent.exists()]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def test_a_stopped_server_ends_with_its_killed_host():
    command = [sys.executable, "-c", KILLED_HOST.format(kill="kill(os.getpid(), signal.SIGKILL)")]
    command[-1] = command[-1].replace("import os, subprocess; ", "import os, subprocess; os.kill(os.getppid(), 19); ")
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    sleepers = [psutil.Process(int(line.split()[0])) for line in ended.stdout.splitlines()]
    assert len(sleepers) == 3
    _, alive = psutil.wait_procs(sleepers, timeout=10)
    assert alive == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_a_host_that_gives_up_its_rights_starts_no_kernel_with_them():
    code = """
import asyncio, os, sys
from rlm_kernel.errors import KernelError
from rlm_kernel.kernel.session import Session
from rlm_kernel.provisioners.kernelspecs import environment

async def main():
    async with await Session.open(environment("local", None), None) as session:
        print((await session.run("import os; os.getuid()")).value)
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
    try:
        async with await Session.open(environment("local", None), None) as session:
            print((await session.run("import os; os.getuid()")).value)
    except (KernelError, OSError):  # this Python may be out of reach for anybody else
        print(65534)

asyncio.run(main())
"""
    ended = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert ended.stdout.split() == ["0", "65534"], ended.stderr


async def test_a_forked_kernel_runs_the_guest_that_the_server_compiled(echo):
    code = (
        "import sys, types; server = sys.modules['rlm_kernel.provisioners.launcher']\n"
        "compiled = {id(part) for code in server.compiled.values() for part in code.co_consts}\n"
        "guest = [module for name, module in sys.modules.items() if name.partition('.')[0] == 'rlm_guest']\n"
        "made = [made.__code__ for m in guest for made in vars(m).values() if isinstance(made, types.FunctionType)]\n"
        "{id(code) in compiled for code in made if code.co_filename == 'rlm_guest.py'}"
    )
    async with await local(echo) as session:
        assert await value(session, code) == "{True}"


@pytest.mark.parametrize("fork", [True, False])
async def test_the_kernel_logs_nothing_below_the_level_that_is_shown(echo, fork):
    code = "(app := __import__('ipykernel').kernelapp.IPKernelApp.instance()).log.isEnabledFor(app.log_level - 1)"
    async with await local(echo, fork=fork) as session:
        await session.run("import ipykernel.kernelapp")
        assert await value(session, code) == "False"


@pytest.mark.parametrize("fork", [True, False])
async def test_our_arguments_are_not_parsed_and_hold(echo, fork):
    code = """
app = get_ipython().parent.parent
print(app.config.HistoryManager.enabled, get_ipython().history_manager.enabled, app.kernel._execute_sleep)
print(app.cli_config, len(app.connection_file) > 0)
"""
    async with await local(echo, fork=fork) as session:
        assert (await session.run(code)).stdout == "False False 0.0\n{} True\n"


def check_that_nothing_is_left(code, folder):
    """Run a host that kills itself, and wait until its folder for temporary files is empty."""
    environment = {**os.environ, "TMPDIR": str(folder)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False, timeout=60).returncode == -9
    deadline = time.monotonic() + 30
    while left := list(folder.iterdir()):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


KILLED_WHILE_IT_CLEANS_UP = """
import os
from rlm import RLM, ScriptedLM
from rlm_kernel.provisioners import local_base

local_base.shutil.rmtree = lambda *_, **__: os.kill(os.getpid(), 9)
RLM(ScriptedLM("```repl\\nFINAL(1)\\n```")).completion("a", "What?")
"""


def test_the_directory_of_a_kernel_goes_also_if_its_host_is_killed_before_it_removes_it(tmp_path):
    check_that_nothing_is_left(KILLED_WHILE_IT_CLEANS_UP, tmp_path)


KILLED_BEFORE_A_KERNEL_IS_FORKED = """
import os
from rlm import RLM, ScriptedLM
from rlm_kernel.provisioners import local
from rlm_kernel.provisioners.local_base import private_directory

RLM(ScriptedLM("```repl\\nFINAL(1)\\n```")).completion("a", "What?")
(private_directory() / "of something else").touch()
local.LocalKernel.launch_kernel = lambda *_, **__: os.kill(os.getpid(), 9)
RLM(ScriptedLM("```repl\\nFINAL(1)\\n```")).completion("a", "What?")
"""


def test_the_directories_of_a_killed_host_go_also_without_a_kernel(tmp_path):
    check_that_nothing_is_left(KILLED_BEFORE_A_KERNEL_IS_FORKED, tmp_path)


KILLED_WHILE_THE_SERVER_IMPORTS = """
import os
from rlm_kernel.provisioners import forked
from rlm_kernel.provisioners.local_base import private_directory

private_directory()
forked._Server(os.sys.executable, {})
os.kill(os.getpid(), 9)
"""


def test_the_directories_of_a_host_go_also_if_it_is_killed_while_its_server_imports(tmp_path):
    check_that_nothing_is_left(KILLED_WHILE_THE_SERVER_IMPORTS, tmp_path)


async def test_a_kernel_has_no_descriptor_of_its_host(echo):
    async with await local(echo) as session:
        await session.run("from pathlib import Path")
        files = await value(
            session, "[str(file.readlink()) for file in Path('/proc/self/fd').iterdir() if file.exists()]"
        )
    assert "pidfd" not in files
    assert "socket" in files
