"""What a local kernel of an ordinary user can reach: root passes every wall."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from rlm_kernel.provisioners import forked

pytestmark = pytest.mark.skipif(not forked.can_fork({}, {}), reason="what /proc shows is read on Linux only")

NOBODY = 65534

START = """
import asyncio, os, sys
from rlm_kernel.kernel import pool
from rlm_kernel.kernel.session import Session
from rlm_kernel.provisioners.kernelspecs import environment

async def value(session, code):
    cell = await session.run(code)
    assert cell.status == "ok", cell
    return cell.stdout.strip()

async def main():
"""

READ = """
def readable(pid):
    yield f'/proc/{pid}/environ'
    try:
        yield from (f'/proc/{pid}/fd/{fd}' for fd in os.listdir(f'/proc/{pid}/fd'))
    except OSError:
        pass

import os, stat
mine = [f'{d}/{name}' for d, _, names in os.walk(TEMPORARY) for name in names]
theirs = [path for pid in os.listdir('/proc') if pid.isdigit() and int(pid) != os.getpid() for path in readable(pid)]
found = []
for path in mine + theirs:
    try:
        if path.startswith('/proc/') and '/fd/' in path and not stat.S_ISREG(os.stat(path).st_mode):
            continue
        with open(path, 'rb') as file:
            text = file.read(1_000_000)
    except OSError:
        continue
    if any(key in text for key in KEYS):
        found.append(path)
print(len(mine + theirs) > 20, found)
"""


BEHIND_A_WALL = """
set -e
mkdir -p "$1$3"
mount --bind "$3" "$1$3"
mount --rbind "$1$2" "$2"
shift 3
exec setpriv --reuid 65534 --regid 65534 --clear-groups "$@"
"""
"""Run a command as another user, to whom a folder shows nothing but one below it: this Python may be in /root."""


@pytest.fixture
def tmp_path():
    """A folder of everybody: the folders above those of pytest are its user's."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        yield folder


def as_ordinary_user(tmp_path, body, **variables):
    """What a program prints that an ordinary user runs; root becomes one."""
    where = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "RLM_RUNTIME_DIR": str(tmp_path / "run")}
    as_user = as_another(tmp_path / "shown") if os.getuid() == 0 else []

    def run(*arguments):
        command, environ = [*as_user, sys.executable, *arguments], {**os.environ, **where, **variables}
        return subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path, env=environ)

    if as_user and run("-c", "import rlm_kernel").returncode:
        pytest.skip("no other user can run this Python")
    ended = run("-W", "ignore", "-c", f"{START}{body}\nasyncio.run(main())\n")
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.split("\n")[:-1]


def as_another(shown):
    """The beginning of a command that another user runs."""
    prefix = Path(sys.base_prefix)
    closed = [folder for folder in prefix.parents if not folder.stat().st_mode & 0o001]
    if not closed:
        return ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
    shown.mkdir()
    return ["unshare", "--mount", "sh", "-c", BEHIND_A_WALL, "sh", str(shown), str(closed[-1]), str(prefix)]


@pytest.mark.parametrize("fork", [True, False])
def test_a_cell_finds_no_key_of_another_kernel(tmp_path, fork):
    body = f"""
    async with (
        await Session.open(environment("local", {{"fork": {fork}, "pool": 1}}), None) as one,
        await Session.open(environment("local", {{"fork": {fork}}}), None) as other,
    ):
        await pool.fill(environment("local", {{"fork": {fork}, "pool": 1}}), None)
        kernels = [one._kernel, other._kernel]
        for waiting in pool._pools.values():
            kernels += [task.result() for task in waiting._starting]
        keys = [kernel._manager.session.key[8:] for kernel in kernels]
        assert len(keys) == 3
        # Parts of the keys, so that the cell does not find itself.
        halves = [(bytes(key[:10]), bytes(key[10:])) for key in keys]
        code = f"TEMPORARY, KEYS = {{os.environ['TMPDIR']!r}}, [a + b for a, b in {{halves!r}}]\\n" + {READ!r}
        print(os.getuid(), await value(other, code))
    await pool.close()
"""
    user, *found = " ".join(as_ordinary_user(tmp_path, body)).split()
    assert user != "0"
    assert found == ["True", "[]"]


@pytest.mark.parametrize(("hidden", "read"), [("1", "refused"), ("0", "read")])
def test_the_memory_of_the_host_and_of_other_kernels_can_be_hidden(tmp_path, hidden, read):
    body = """
    async with (
        await Session.open(environment("local", None), None) as one,
        await Session.open(environment("local", {"fork": False}), None) as other,
    ):
        pids = [os.getpid(), int(await value(one, "import os; print(os.getpid())"))]
        code = f'''
for pid in {pids}:
    try:
        open(f"/proc/{{pid}}/mem", "rb").close()
        print("read")
    except PermissionError:
        print("refused")
'''
        print(await value(other, code))
        print(await value(one, "import os; print(len(os.listdir('/proc/self/fd')) > 3)"))
"""
    assert as_ordinary_user(tmp_path, body, RLM_HIDE_MEMORY=hidden) == [read, read, "True"]
