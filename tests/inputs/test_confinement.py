"""A hole in a parser: code of an attacker runs in the child process that reads documents, and reaches nothing."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from real_files import picture

from rlm_kernel import inputs
from rlm_kernel.documents import confinement
from rlm_kernel.untrusted import landlock, seccomp

pytestmark = pytest.mark.skipif(
    not (sys.platform == "linux" and landlock.abi() and seccomp.is_available()), reason="needs Landlock and seccomp"
)

HOSTILE = """
import ctypes, json, mmap, os, socket, subprocess, sys, tempfile, threading
from rlm_kernel.documents import formats

targets = json.loads({targets!r})

def connect(family, address):
    with socket.socket(family) as client:
        client.connect(address)

def other_socket(*kind):
    socket.socket(*kind).close()

def system_call(*arguments):
    if ctypes.CDLL(None, use_errno=True).syscall(*arguments) < 0:
        raise OSError(ctypes.get_errno(), "refused")

def thread():
    threading.Thread(target=print).start()

attacks = {{
    "read a file beside": lambda: open(targets["secret"]).read(),
    "list the folder": lambda: os.listdir(os.path.dirname(targets["secret"])),
    "read the environment of the host": lambda: open(f"/proc/{{targets['host']}}/environ").read(),
    "read the memory of the host": lambda: open(f"/proc/{{targets['host']}}/mem", "rb"),
    "read users": lambda: open("/etc/passwd").read(),
    "read a folder of PYTHONPATH": lambda: open(__file__).read(),
    "open the document again to write": lambda: open(targets["document"], "r+b"),
    "write beside": lambda: open(targets["secret"] + ".new", "w"),
    "remove": lambda: os.unlink(targets["secret"]),
    "write into a temporary folder": lambda: tempfile.TemporaryFile(dir="/tmp"),
    "write into its own package": lambda: open(formats.__file__, "a"),
    "connect to TCP": lambda: connect(socket.AF_INET, ("127.0.0.1", targets["port"])),
    "connect to a socket file": lambda: connect(socket.AF_UNIX, targets["socket"]),
    "send UDP": lambda: other_socket(socket.AF_INET, socket.SOCK_DGRAM),
    "raw sockets": lambda: other_socket(socket.AF_PACKET, socket.SOCK_RAW),
    "ask the kernel": lambda: other_socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "start a program": lambda: subprocess.run(["/bin/true"]),
    "start a shell": lambda: os.posix_spawn("/bin/sh", ["sh"], {{}}),
    "become a program": lambda: os.execv("/bin/true", ["true"]),
    "fork": lambda: os.fork() or os._exit(0),
    "signal the host": lambda: os.kill(targets["host"], 0),
    "signal all": lambda: os.kill(-1, 0),
    "trace the host": lambda: system_call({ptrace}, 16, targets["host"], 0, 0),
    "change the limit of another process": lambda: __import__("resource").prlimit(targets["host"], 7),
    "raise its memory": lambda: __import__("resource").setrlimit(2, (1 << 40, 1 << 40)),
    "new namespaces": lambda: system_call({unshare}, 0x10000000),
    "change its root": lambda: os.chroot("/tmp"),
}}

def hostile(file, lines):
    results = {{}}
    for name, attack in attacks.items():
        try:
            attack()
        except (OSError, ValueError) as error:
            results[name] = type(error).__name__
        else:
            results[name] = "done"
    thread()
    lines.add(json.dumps(results))
    return ""

formats.KINDS["image"] = (hostile, ())
"""


def machine(numbers):
    return numbers[os.uname().machine != "x86_64"]


@pytest.fixture
def targets(tmp_path, monkeypatch):
    """A folder with a document, a secret, and servers; the reader of images is the attacker's."""
    given, code = tmp_path / "given", tmp_path / "code"
    given.mkdir()
    code.mkdir()
    (given / "secret.txt").write_text("the secret")
    (given / "photo.png").write_bytes(picture("PNG"))
    path = str(given / "socket")
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(path)
        unix.listen()
        found = {
            "secret": str(given / "secret.txt"),
            "document": str(given / "photo.png"),
            "socket": path,
            "port": tcp.getsockname()[1],
            "host": os.getpid(),
        }
        calls = {"ptrace": seccomp.OTHER_PROCESSES["ptrace"], "unshare": seccomp.OTHER_PROCESSES["unshare"]}
        numbers = {name: machine(number) for name, number in calls.items()}
        (code / "sitecustomize.py").write_text(HOSTILE.format(targets=json.dumps(found), **numbers))
        monkeypatch.setenv("PYTHONPATH", str(code))
        yield found


def test_a_hostile_reader_reaches_no_file_no_network_and_no_process(targets):
    results = json.loads(inputs.load(targets["document"]))
    reached = {name for name, result in results.items() if result == "done"}
    assert reached == set()
    assert len(results) > 20
    assert Path(targets["secret"]).read_text() == "the secret"


def test_the_same_reader_reaches_them_without_confinement(targets, tmp_path):
    harmless = {"read a file beside", "connect to TCP", "connect to a socket file", "start a program"}
    code = tmp_path / "code" / "sitecustomize.py"
    no_walls = "from rlm_kernel.documents import confinement\nconfinement.confine = lambda: None\n"
    code.write_text(f"{code.read_text()}attacks = {{name: attacks[name] for name in {harmless}}}\n{no_walls}")
    assert json.loads(inputs.load(targets["document"])) == dict.fromkeys(harmless, "done")


def test_a_folder_of_pythonpath_is_readable_if_packages_were_installed_there(tmp_path, monkeypatch):
    (tmp_path / "project").mkdir()
    (tmp_path / "target" / "six-1.0.dist-info").mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "project"), str(tmp_path / "target"), "/no/such.zip"])
    readable = confinement.libraries()
    assert str(tmp_path / "target") in readable
    assert str(tmp_path / "project") not in readable
    assert "/" not in readable


@pytest.mark.parametrize("version", [1, 2, 3, 4, 5])
def test_a_system_with_an_older_landlock_confines_files_too(version, tmp_path):
    (tmp_path / "secret").write_text("x")
    code = f"""
from rlm_kernel.untrusted import landlock
landlock.abi = lambda: {version}
landlock.confine(["/usr"], [])
open({str(tmp_path / "secret")!r})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.rstrip().endswith(f"Permission denied: '{tmp_path / 'secret'}'")
