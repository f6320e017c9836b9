"""`rlm chat` in a folder of its own, with the loopback provider behind it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from chat_terminal import COMMAND, Terminal
from loopback import MODEL


class Chats:
    """Starts chats of one person."""

    def __init__(self, folder, provider) -> None:
        self.folder, self.provider = folder, provider
        self.environment = os.environ | dict(provider.environment) | {"XDG_STATE_HOME": str(folder / "state")}
        for name in ("FORCE_COLOR", "NO_COLOR"):
            self.environment.pop(name, None)

    def arguments(self, *more):
        return ["chat", "--model", MODEL, "--backend-kwarg", "max_retries=0", *more]

    def terminal(self, *more, **options) -> Terminal:
        return Terminal(self.arguments(*more), self.folder, self.environment, **options)

    def lines(self, *more, stdin: bytes):
        """Without a terminal."""
        command = [sys.executable, *COMMAND, *self.arguments(*more)]
        return subprocess.run(
            command, input=stdin, capture_output=True, cwd=self.folder, env=self.environment, timeout=100, check=False
        )


@pytest.fixture
def chats(tmp_path, provider):
    folder = tmp_path / "person"
    folder.mkdir()
    return Chats(folder, provider)
