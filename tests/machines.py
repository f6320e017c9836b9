"""Other machines, played by servers on loopback: a Jupyter server, an OpenSSH server, and a wire that can be cut."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

TOKEN = "a-token-of-the-tests-0123456789"
START_SECONDS = 60.0


def free_port():
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


def wait_until(is_ready, process, log):
    """Wait for a server."""
    until = time.monotonic() + START_SECONDS
    while not is_ready():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.02)


class Server:
    """A process that listens on a port, with a log."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.port = free_port()
        self.log = self.folder / "server.log"

    def __enter__(self):
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, cwd=self.folder, env=self.env())
        wait_until(self.answers, self.process, self.log)
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait(10)

    def env(self):
        return dict(os.environ)


class JupyterServer(Server):
    """A Jupyter Server, or with `command` one of its gateways."""

    def command(self):
        options = (f"--ServerApp.port={self.port}", f"--IdentityProvider.token={TOKEN}", "--allow-root", "--no-browser")
        return [sys.executable, "-m", "jupyter_server", "--ServerApp.port_retries=0", *options]

    def answers(self):
        with contextlib.suppress(OSError):
            return bool(self.get("/api/kernelspecs"))
        return False

    def get(self, path):
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"token {TOKEN}"})
        with urllib.request.urlopen(request) as answer:
            return answer.read()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def kernel_options(self):
        return {"url": self.url, "token": TOKEN}


class SSHServer(Server):
    """An sshd of this user, with keys of its own."""

    def __init__(self, folder):
        super().__init__(folder)
        for name in ("host", "user"):
            self.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / name)
        (self.folder / "config").write_text(self.config(self.port))
        (self.folder / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1:{self.port}\nHostKey {self.folder}/host\nPidFile none\nStrictModes no\n"
            f"AuthorizedKeysFile {self.folder}/user.pub\nPasswordAuthentication no\nMaxStartups 100\n"
        )
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)

    def config(self, port):
        options = {
            "HostName": "127.0.0.1",
            "Port": port,
            "User": getpass.getuser(),
            "IdentityFile": self.folder / "user",
            "IdentitiesOnly": "yes",
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": self.folder / "known",
            "LogLevel": "ERROR",
        }
        return "Host there\n" + "".join(f" {name} {value}\n" for name, value in options.items())

    def run(self, *command):
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)

    def command(self):
        return [find_sshd(), "-D", "-e", "-f", str(self.folder / "sshd_config")]

    def answers(self):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
            return True
        return False

    @property
    def kernel_options(self):
        return {"host": "there", "python": sys.executable, "ssh_config": str(self.folder / "config")}


def find_sshd():
    return shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")


def has_sshd():
    return bool(find_sshd() and shutil.which("ssh"))


class Wire:
    """A TCP connection to a port of this machine that can be cut."""

    def __init__(self, port):
        self._target = port
        self._ends = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.is_down = False
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._listener.close()
        self.cut()

    def cut(self):
        """Cut all connections, as a router that forgets them: both ends see a reset."""
        ends, self._ends = self._ends, []
        for end in ends:
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                here, _ = self._listener.accept()
                if self.is_down:
                    here.close()
                    continue
                there = socket.create_connection(("127.0.0.1", self._target))
                self._ends += [here, there]
                for one, other in ((here, there), (there, here)):
                    threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one, other):
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_WR)
