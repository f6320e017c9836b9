from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from loopback import MODEL

COMMAND = [sys.executable, "-W", "always::ResourceWarning", "-m", "rlm_kernel.cli"]


class CommandLine:
    """Runs `rlm` as a person would: a process of its own, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Errors of the interpreter itself (an open file, say) shall be seen on stderr, a model never be fetched.
        self.environment = dict(os.environ) | {"RLM_CACHE_DIR": str(folder / "cache")}
        self.environment.pop("FORCE_COLOR", None)

    def __call__(self, *arguments, stdin=b""):
        return subprocess.run(
            [*COMMAND, *arguments],
            input=stdin,
            capture_output=True,
            cwd=self.folder,
            env=self.environment,
            timeout=100,
            check=False,
        )

    def start(self, *arguments, **options):
        """A process in a group of its own, which can be interrupted."""
        return subprocess.Popen(
            [*COMMAND, *arguments],
            **({"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options),
            cwd=self.folder,
            env=self.environment,
            start_new_session=True,
        )


@pytest.fixture
def rlm(tmp_path):
    """`rlm` on a machine without keys and models."""
    folder = tmp_path / "person"
    folder.mkdir()
    return CommandLine(folder)


@pytest.fixture
def asking(rlm, provider):
    """`rlm run --model ...` with the loopback provider behind it."""
    rlm.environment |= provider.environment

    def run(*arguments, **options):
        return rlm("run", "--model", MODEL, "--backend-kwarg", "max_retries=0", *arguments, **options)

    return run


@pytest.fixture
def ctrl_c():
    """Send to a process what the terminal sends to the group in its foreground."""
    return lambda process: os.killpg(process.pid, signal.SIGINT)
