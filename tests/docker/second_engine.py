"""A Docker engine of its own on a small disk in memory: to be filled, stopped and started again. Needs root."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

DISK = "1500m"
START_SECONDS = 60


class SecondEngine:
    """Closing it ends the engine and its containers, and unmounts its disk."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="rlm-engine-", dir="/tmp"))
        self.disk = self.folder / "disk"
        self.disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", self.disk], check=True)
        self.host = f"unix://{self.folder}/docker.sock"
        self.log = (self.folder / "log").open("wb")
        self.process = None

    def start(self):
        folders = ["--data-root", self.disk / "data", "--exec-root", self.folder / "exec"]
        files = ["--pidfile", self.folder / "pid", "-H", self.host]
        apart = ["--bridge", "none", "--iptables=false", "--ip-forward=false", "--ip-masq=false"]
        # In this machine's network namespace it would remove the bridge of the first engine.
        command = ["unshare", "--net", "dockerd", *folders, *files, *apart]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def answers(self):
        return subprocess.run(["docker", "-H", self.host, "version"], capture_output=True, check=False).returncode == 0

    def stop(self):
        self.process.terminate()
        self.process.wait()

    def load(self, *images):
        with subprocess.Popen(["docker", "save", *images], stdout=subprocess.PIPE) as saved:
            subprocess.run(["docker", "-H", self.host, "load", "-q"], stdin=saved.stdout, check=True)

    def fill(self):
        with (self.disk / "full").open("wb") as file:
            try:
                while True:
                    file.write(bytes(2**20))
                    file.flush()
            except OSError:
                return

    def empty(self):
        (self.disk / "full").unlink()

    def close(self):
        if self.process is not None and self.process.poll() is None:
            self.stop()
        self.log.close()
        for mounted in sorted(self._mounts(), reverse=True):
            subprocess.run(["umount", "-l", mounted], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _mounts(self):
        with open("/proc/self/mounts") as mounts:
            return [line.split()[1] for line in mounts if line.split()[1].startswith(os.fspath(self.folder))]
