"""What a local kernel does not get, and that it does not outlive its host."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from rlm_kernel.kernel.session import Session
from rlm_kernel.provisioners.kernelspecs import environment

SECRETS = {
    "OPENAI_API_KEY": "sk-secret-1",
    "ANTHROPIC_API_KEY": "sk-secret-2",
    "AWS_SECRET_ACCESS_KEY": "sk-secret-3",
    "MY_OWN_THING": "sk-secret-4",
    "DATABASE_URL": "postgres://u:sk-secret-5@h/db",
    "HTTPS_PROXY": "http://user:sk-secret-6@proxy.example:3128",
}


@pytest.fixture
def _secrets(monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("_secrets")
async def test_no_key_of_the_host_is_in_the_kernel_or_its_children(echo):
    async with await Session.open(environment("local", None), echo) as session:
        cell = await session.run(
            "import os, subprocess, sys\n"
            "print(dict(os.environ))\n"
            "print(open('/proc/self/environ').read())\n"
            "print(open(f'/proc/{os.getppid()}/environ').read())\n"
            "print(subprocess.run(['env'], capture_output=True, text=True).stdout)\n"
            "print(os.environ['HTTPS_PROXY'])"
        )
    assert cell.status == "ok"
    assert "sk-secret" not in cell.stdout
    assert cell.stdout.endswith("http://proxy.example:3128\n")


async def test_the_directories_of_jupyter_and_ipython_are_private_and_removed(session):
    cell = await session.run(
        "import os\n"
        "from IPython.paths import get_ipython_dir\n"
        "from jupyter_core.paths import jupyter_config_dir, jupyter_data_dir, jupyter_runtime_dir\n"
        "[os.getcwd(), get_ipython_dir(), jupyter_config_dir(), jupyter_data_dir(), jupyter_runtime_dir()]"
    )
    directories = [Path(name) for name in ast.literal_eval(cell.value)]
    base = directories[0].parent
    assert all(directory.parent == base for directory in directories)
    assert base.stat().st_mode & 0o777 == 0o700
    await session.close()
    assert not base.exists()


async def test_no_startup_file_of_the_user_is_run(echo, monkeypatch, tmp_path):
    startup = tmp_path / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00.py").write_text("planted = 1")
    (tmp_path / "start.py").write_text("planted = 1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setenv("PYTHONSTARTUP", str(tmp_path / "start.py"))
    async with await Session.open(environment("local", None), echo) as session:
        assert (await session.run("'planted' in globals()")).value == "False"


async def test_a_kernelspec_of_the_same_name_cannot_stand_in(echo, monkeypatch, tmp_path):
    planted = tmp_path / "kernels" / "rlm-local"
    planted.mkdir(parents=True)
    (planted / "kernel.json").write_text('{"argv": ["false"], "display_name": "planted", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    async with await Session.open(environment("local", None), echo) as session:
        assert (await session.run("1 + 1")).value == "2"


async def test_closing_ends_what_the_cells_started(session):
    cell = await session.run(
        "import subprocess, sys\n"
        "plain = subprocess.Popen(['sleep', '600'])\n"
        "loner = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        "daemon = subprocess.run([sys.executable, '-c', '''\n"
        "import os, time\n"
        "if os.fork(): os._exit(0)\n"
        "os.setsid()\n"
        "child = os.fork()\n"
        "if child: print(child, flush=True); os._exit(0)\n"
        "for fd in range(3): os.close(fd)\n"
        "time.sleep(600)\n"
        "'''], capture_output=True, text=True)\n"
        "print(plain.pid, loner.pid, daemon.stdout)"
    )
    pids = [int(pid) for pid in cell.stdout.split()]
    assert len(pids) == 3
    assert all(psutil.pid_exists(pid) for pid in pids)
    await session.close()
    assert [pid for pid in pids if psutil.pid_exists(pid)] == []


HOST = textwrap.dedent(
    """
    import asyncio, sys
    from rlm_kernel.provisioners.kernelspecs import environment
    from rlm_kernel.kernel.session import Session

    async def main():
        session = await Session.open(environment("local", None), None)
        cell = await session.run(
            "import os, subprocess; print(os.getpid(), subprocess.Popen(['sleep', '600'], start_new_session=True).pid)"
        )
        where = await session.run("print(os.getcwd())")
        print(cell.stdout.strip(), where.stdout.strip(), flush=True)
        await session.run("while True: pass")

    asyncio.run(main())
    """
)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_host_leaves_no_kernel_and_no_directory(number):
    with subprocess.Popen([sys.executable, "-c", HOST], stdout=subprocess.PIPE, text=True) as host:
        kernel, child, directory = host.stdout.readline().split()
        watchdog = psutil.Process(int(kernel)).parent()
        victims = [psutil.Process(int(kernel)), psutil.Process(int(child)), watchdog]
        os.kill(host.pid, number)
        host.wait()
    _, alive = psutil.wait_procs(victims, timeout=5)
    assert alive == []
    assert not Path(directory).parent.exists()


async def test_a_killed_watchdog_takes_the_kernel_with_it(session):
    cell = await session.run("import os; print(os.getpid(), os.getppid())")
    kernel, watchdog = (psutil.Process(int(pid)) for pid in cell.stdout.split())
    watchdog.kill()
    psutil.wait_procs([kernel], timeout=5)
    assert not kernel.is_running()
    assert (await session.restart()) is None
    assert (await session.run("1 + 1")).value == "2"
