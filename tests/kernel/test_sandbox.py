"""What the code of a local kernel cannot reach in a sandbox."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from rlm import RLM, ScriptedLM
from rlm_kernel import inputs
from rlm_kernel.errors import ConfigError
from rlm_kernel.kernel import pool
from rlm_kernel.kernel.session import Session
from rlm_kernel.provisioners import cgroups
from rlm_kernel.provisioners.kernelspecs import environment
from rlm_kernel.provisioners.sandbox import walls
from rlm_kernel.untrusted import landlock, seccomp

ATTACKS = {
    "reads a file of the user": "open({secret!r}).read()",
    "lists the user's home": "os.listdir(os.path.dirname({secret!r}))",
    "reads the users": "open('/etc/passwd').read()",
    "writes below /usr": "open('/usr/bin/evil', 'w')",
    "connects to this machine": "socket.create_connection(('127.0.0.1', {port}), timeout=5)",
    "connects to an abstract socket": "socket.socket(socket.AF_UNIX).connect({abstract!r})",
    "reads the host's environment": "open('/proc/{host}/environ').read()",
    "signals the host": "os.kill({host}, 0)",
    "reads the host's memory": "open('/proc/{host}/mem', 'rb')",
    "traces the host": "assert ctypes.CDLL(None).ptrace(16, {host}, 0, 0) == 0",
    "lists other kernels": "assert [n for n in os.listdir('/tmp') if n.startswith('rlm-') and n not in os.getcwd()]",
    "sets a program that the system runs": "open('/proc/sys/kernel/core_pattern', 'a')",
    "sets how the system counts memory": "open('/proc/sys/vm/overcommit_memory', 'a')",
    "renames the machine": "socket.sethostname(socket.gethostname())",
    "reads the network's packets": "socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3)",
    "makes a device": "os.mknod('disk', 0o60600, os.makedev(7, 0))",
    "reads the log of the system": "assert ctypes.CDLL(None).klogctl(3, ctypes.create_string_buffer(99), 99) >= 0",
    "leaves its control group": "[open(f, 'a') for f in {groups!r}][0]",
    "is another user": "os.setuid(1)",
    "mounts": "assert ctypes.CDLL(None).mount(b'x', os.getcwd().encode(), b'tmpfs', 0, None) == 0",
    "has a namespace of its own": "assert ctypes.CDLL(None).unshare(0x10000000) == 0",
    "reads a user's terminal": "[open(f) for f in {terminals!r}][0]",
    "writes what others execute": "open(sys.executable, 'a')",
    "sends a datagram": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('192.0.2.1', 53))",
    "connects by Multipath TCP": "socket.socket(proto=262).connect(('127.0.0.1', {port}))",
    "sends with the opening of a connection": "socket.socket().sendto(b'x', 1 << 29, ('127.0.0.1', {port}))",
    "talks to the hypervisor": "socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)",
    "limits the host": "resource.prlimit({host}, resource.RLIMIT_CORE)",
    "attaches memory of other programs": "assert ctypes.CDLL(None).shmget({memory}, 1, 0) >= 0",
    "reads the user's keyring": "assert (libc := ctypes.CDLL(None)).syscall({search}, 10, -4, b'user', b'rlm', 0) > 0",
    "watches a folder of the user": (
        "libc = ctypes.CDLL(None); assert libc.inotify_add_watch(libc.inotify_init(), {secret!r}.encode(), 4095) > 0"
    ),
    "extends a file of the user": "os.setxattr({secret!r}, 'user.rlm', b'x')",
}
OF_BWRAP = {
    "connects to a socket file": "socket.socket(socket.AF_UNIX).connect({file!r})",
    "reads shared memory": "open('/dev/shm/' + {shared!r}).read()",
    "sees that a file exists": "os.stat({secret!r})",
    "sees other processes": "assert len([n for n in os.listdir('/proc') if n.isdigit()]) > 10",
}


GROUP_FILES = ("cgroup.procs", "*/cgroup.procs")


@pytest.fixture(params=["bwrap", "landlock"])
def sandbox(request):
    request.getfixturevalue(request.param)
    return request.param


KEY = (
    "libc, key = ctypes.CDLL(None), ctypes.create_string_buffer(99)\n"
    "assert libc.syscall(250, 11, libc.syscall(250, 10, -3, b'user', b'rlm-test', 0), key, 99) > 0"
)
"""Reads a key of the session's keyring (x86_64)."""
KEYED_HOST = f"""
import asyncio, ctypes, sys
from rlm_kernel.kernel.session import Session
from rlm_kernel.provisioners.kernelspecs import environment
libc = ctypes.CDLL(None)
libc.syscall(250, 1, None)
if libc.syscall(248, b"user", b"rlm-test", b"s3cret", 6, -3) < 0: sys.exit("no keyrings here")
async def main():
    for sandbox in (False, sys.argv[1]):
        async with await Session.open(environment("local", {{"sandbox": sandbox}}), None) as session:
            print((await session.run({"import ctypes" + chr(10) + KEY!r})).status)
asyncio.run(main())
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="names system calls by their numbers")
def test_the_keyring_of_the_session_stays_outside(sandbox):
    done = subprocess.run([sys.executable, "-c", KEYED_HOST, sandbox], capture_output=True, text=True, check=False)
    if "no keyrings" in done.stderr:
        pytest.skip(done.stderr)
    assert done.stdout.split() == ["ok", "error"], done.stderr


@pytest.fixture
def targets(tmp_path):
    """What the attacks aim at; each can be reached from here."""
    secret = tmp_path / "secret"
    secret.write_text("s3cret")
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as name,
        socket.socket(socket.AF_UNIX) as file,
        tempfile.NamedTemporaryFile(dir="/dev/shm") as shared,
        open_terminal() as terminal,
    ):
        name.bind("\0rlm-test")
        file.bind(str(tmp_path / "s"))
        name.listen()
        file.listen()
        memory = ctypes.CDLL(None).shmget(os.getpid(), 1, 0o1600)
        yield {
            "memory": os.getpid(),
            "search": seccomp.MISSING["keyctl"][os.uname().machine != "x86_64"],
            "secret": str(secret),
            "port": tcp.getsockname()[1],
            "abstract": "\0rlm-test",
            "file": str(tmp_path / "s"),
            "host": os.getpid(),
            "shared": Path(shared.name).name,
            "groups": [str(file) for name in GROUP_FILES for file in Path("/sys/fs/cgroup").glob(name)],
            "terminals": [terminal],
        }
        ctypes.CDLL(None).shmctl(memory, 0, None)


@contextlib.contextmanager
def open_terminal():
    ours, theirs = os.openpty()
    yield os.ttyname(theirs)
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize("fork", [True, False])
async def test_no_attack_reaches_anything(sandbox, targets, echo, fork):
    attacks = ATTACKS | (OF_BWRAP if sandbox == "bwrap" else {})
    got_through = []
    async with await Session.open(environment("local", {"sandbox": sandbox, "fork": fork}), echo) as session:
        await session.run("import ctypes, os, resource, socket, sys")
        for name, code in attacks.items():
            if (await session.run(code.format(**targets))).status == "ok":
                got_through.append(name)
        assert (await session.run("llm_query('still here')")).value == "'STILL HERE'"
    assert got_through == []


async def test_without_a_sandbox_the_attacks_reach_something(targets, echo):
    """The attacks are real ones."""
    async with await Session.open(environment("local", None), echo) as session:
        await session.run("import ctypes, os, socket")
        read = await session.run(ATTACKS["reads a file of the user"].format(**targets))
        connected = await session.run(ATTACKS["connects to this machine"].format(**targets))
    assert (read.value, connected.status) == ("'s3cret'", "ok")


@pytest.mark.usefixtures("landlock")
async def test_landlock_leaves_open_what_the_documents_say(targets, echo):
    open_doors = [name for name in OF_BWRAP if name != "sees other processes"]
    async with await Session.open(environment("local", {"sandbox": "landlock"}), echo) as session:
        await session.run("import ctypes, os, socket")
        for name in open_doors:
            assert (await session.run(OF_BWRAP[name].format(**targets))).status == "ok", name


@pytest.mark.usefixtures("landlock")
async def test_modes_and_owners_of_files_do_not_change_but_files_and_copies_can_be_made(tmp_path, echo):
    secret = tmp_path / "secret"
    secret.write_text("s3cret")
    secret.chmod(0o600)
    before = secret.stat()
    changes = f"os.chmod({str(secret)!r}, 0o666); os.chown({str(secret)!r}, 65534, 65534)"
    copies = "import shutil; open('a', 'w').write('text'); shutil.copy2('a', 'b'); open('b').read()"
    touch = "import pathlib; pathlib.Path('new').touch(); os.path.exists('new')"
    async with await Session.open(environment("local", {"sandbox": "landlock"}), echo) as session:
        await session.run(f"import os; {changes}")
        assert (await session.run(copies)).value == "'text'"
        assert (await session.run(touch)).value == "True"
        listening = await session.run("import socket; socket.socket().listen()")
    assert secret.stat() == before
    assert listening.error.name == "PermissionError"


def test_landlock_without_scopes_is_no_sandbox(monkeypatch):
    monkeypatch.setattr(landlock, "abi", lambda: 5)  # a cell could end the host by a signal
    assert "Linux 6.12" in walls.trouble.__wrapped__("landlock")


@pytest.mark.parametrize("sandbox", ["bwrap", "landlock"])
def test_without_seccomp_there_is_no_sandbox(sandbox):
    code = f"""
import ctypes, errno
from rlm_kernel.provisioners.sandbox import walls
from rlm_kernel.untrusted import seccomp
prctl = {{"x86_64": 157}}.get({os.uname().machine!r}, 167)
refuse = [
    (seccomp.LOAD, seccomp.NUMBER_AT),
    (seccomp.EQUAL, prctl, 0, 1),
    (seccomp.RETURN, seccomp.FAILS | errno.EINVAL),
    (seccomp.RETURN, seccomp.ALLOWED),
]
seccomp._steps = lambda *_, **__: [seccomp._step(*step) for step in refuse]
assert seccomp.is_available()
ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)  # no new privileges: it need not be root
seccomp.confine(alone=True)
print(walls.trouble({sandbox!r}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "seccomp" in done.stdout


async def test_what_is_mounted_is_there(sandbox, tmp_path, echo):
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    there = {str(tmp_path / "in"): str(tmp_path / "in"), str(tmp_path / "out"): f"{tmp_path / 'out'}:rw"}
    async with await Session.open(environment("local", {"sandbox": sandbox, "mounts": there}), echo) as session:
        cell = await session.run(f"open({str(tmp_path / 'in' / 'file')!r}).read()")
        assert cell.value == "'in'"
        assert (await session.run(f"open({str(tmp_path / 'in' / 'new')!r}, 'w')")).status == "error"
        assert (await session.run(f"open({str(tmp_path / 'out' / 'new')!r}, 'w').write('x')")).status == "ok"
    assert (tmp_path / "out" / "new").read_text() == "x"


@pytest.mark.usefixtures("bwrap")
async def test_a_mount_has_another_name_with_bwrap_only(tmp_path, echo):
    (tmp_path / "file").write_text("text")
    options = {"sandbox": "bwrap", "mounts": {str(tmp_path): "/data"}}
    async with await Session.open(environment("local", options), echo) as session:
        assert (await session.run("open('/data/file').read()")).value == "'text'"
    with pytest.raises(ConfigError, match="under its own name"):
        await Session.open(environment("local", {**options, "sandbox": "landlock"}), echo)


@pytest.mark.usefixtures("bwrap")
async def test_a_mount_below_a_writable_one_is_read_only_in_any_order(tmp_path, echo):
    (tmp_path / "in").mkdir()
    mounts = {str(tmp_path / "in"): str(tmp_path / "in"), str(tmp_path): f"{tmp_path}:rw"}
    async with await Session.open(environment("local", {"sandbox": "bwrap", "mounts": mounts}), echo) as session:
        assert (await session.run(f"open({str(tmp_path / 'in' / 'new')!r}, 'w')")).status == "error"


async def test_kernels_in_a_sandbox_come_from_the_pool_and_leave_nothing(sandbox, echo):
    async with await Session.open(environment("local", {"sandbox": sandbox, "pool": 1}), echo) as session:
        directory = Path((await session.run("import os; print(os.getcwd())")).stdout.strip()).parent
        assert directory.is_dir()
    assert not directory.exists()
    await pool.close()


@pytest.mark.usefixtures("landlock")
async def test_a_kernel_behind_landlock_is_forked_and_its_server_is_outside(echo):
    async with await Session.open(environment("local", {"sandbox": "landlock"}), echo) as session:
        assert session._kernel._manager.provisioner.is_forked
        assert (await session.run("import os; os.kill(os.getppid(), 0)")).error.name == "PermissionError"


@pytest.mark.usefixtures("landlock")
def test_the_variable_makes_it_the_default(monkeypatch):
    monkeypatch.setenv("RLM_SANDBOX", "landlock")
    script = [
        "```repl\ntry: print(open('/etc/passwd').read())\nexcept OSError as error: FINAL(type(error).__name__)\n```"
    ]
    with RLM(ScriptedLM(script)) as rlm:
        assert rlm.completion("q").response == "PermissionError"


@pytest.mark.parametrize("asked", ["bwrap", True])
def test_a_sandbox_that_is_not_there_is_an_error_and_no_silence(monkeypatch, asked):
    monkeypatch.setattr(walls, "trouble", lambda name: f"there is no {name}: install it")
    refused = pytest.raises(ConfigError, match=r"not possible on this machine.*there is no bwrap: install it")
    with RLM(ScriptedLM(["FINAL(1)"]), environment_kwargs={"sandbox": asked}) as rlm, refused:
        rlm.completion("q")


def test_an_unknown_sandbox_is_refused(monkeypatch):
    with pytest.raises(ConfigError, match="sandbox"):
        environment("local", {"sandbox": "jail"})
    monkeypatch.setenv("RLM_SANDBOX", "jail")
    with pytest.raises(ConfigError, match="RLM_SANDBOX is 1, 0, bwrap or landlock"):
        walls.in_environment()


def test_the_doctor_says_what_there_is():
    said = subprocess.run(
        [sys.executable, "-m", "rlm_kernel.cli", "doctor"], capture_output=True, text=True, check=False
    )
    assert "sandbox='bwrap'" in said.stdout
    assert "sandbox='landlock'" in said.stdout


@pytest.mark.parametrize(
    "options", [None, {"kernel_mode": "subprocess", "startup_timeout": 60, "subcall_timeout": None}]
)
def test_the_reference_s_ipython_is_local(options):
    assert environment("ipython", options) == environment("local", None)


async def test_no_file_and_no_argument_holds_the_key(sandbox, echo):
    async with await Session.open(environment("local", {"sandbox": sandbox}), echo) as session:
        provisioner = session._kernel._manager.provisioner
        key = bytes(provisioner.connection_info["key"])
        mine = [process for process in psutil.Process().children(recursive=True) if process.status() != "zombie"]
        commands = [" ".join(process.cmdline()) for process in mine]
        files = [file for file in provisioner.directory.rglob("*") if not file.is_dir()]
        assert len(commands) >= 2
        assert not any(key.decode() in command for command in commands)
        assert not any(file.is_socket() or key in file.read_bytes() for file in files)


async def test_the_end_of_a_question_ends_what_has_left_its_parents(sandbox, echo):
    async with await Session.open(environment("local", {"sandbox": sandbox}), echo) as session:
        assert await session.end_question() == ""
        mark = f"sleep 60{os.getpid()}"
        await session.run(f"import subprocess; x = 42; subprocess.run('setsid {mark} &', shell=True)")
        async with asyncio.timeout(10):
            while not running(mark):
                await asyncio.sleep(0.01)
        assert await session.end_question() == ""
        assert not running(mark)
        assert (await session.run("x")).value == "42"


async def test_the_kernel_is_in_its_control_group(sandbox, echo):
    async with await Session.open(environment("local", {"sandbox": sandbox}), echo) as session:
        provisioner = session._kernel._manager.provisioner
        if not provisioner._group:
            pytest.skip("this machine gives no control group")
        below = psutil.Process(provisioner.process.pid).children(recursive=True)
        assert {process.pid for process in below} <= set(cgroups.processes(provisioner._group))
    assert not Path(provisioner._group[0]).exists()


def running(mark):
    return [p.pid for p in psutil.process_iter(["cmdline"]) if " ".join(p.info["cmdline"] or []) == mark]


def test_a_context_given_as_a_path_is_read_by_the_host(sandbox, tmp_path):
    (tmp_path / "text").write_text("text" * inputs.SMALL_BYTES)  # a plain local kernel would read it itself
    with RLM(ScriptedLM(["```repl\nFINAL(context[:4])\n```"]), environment_kwargs={"sandbox": sandbox}) as rlm:
        assert rlm.completion(tmp_path / "text").response == "text"
