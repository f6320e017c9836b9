"""A terminal for `rlm chat`: a pseudo-terminal, and a screen that shows what a person would see.

with Terminal(["chat", "docs"], folder, environment) as terminal:
    terminal.wait_for("> ")
    terminal.type("How many files are there?\\r")
    terminal.wait_for("seven")
"""

from __future__ import annotations

import re
import sys
import time
from typing import Self

import pexpect
import pyte

COMMAND = ["-m", "rlm_kernel.cli"]
CTRL_C, CTRL_D, CTRL_O, CTRL_R, UP, ALT_ENTER, ENTER = "\x03", "\x04", "\x0f", "\x12", "\x1b[A", "\x1b\r", "\r"


class Terminal:
    """A process on a terminal of its own.

    Attributes:
        raw: every byte that it wrote.
    """

    def __init__(self, arguments, folder, environment, *, columns=100, lines=40, command=COMMAND) -> None:
        self.raw = b""
        self.screen = pyte.HistoryScreen(columns, lines, history=5_000, ratio=0.5)
        self._stream = pyte.ByteStream(self.screen)
        self.process = pexpect.spawn(
            sys.executable,
            [*command, *arguments],
            cwd=str(folder),
            env={**environment, "TERM": "xterm-256color"},
            dimensions=(lines, columns),
        )
        self.process.delaybeforesend = None
        self.screen.write_process_input = self.process.send  # answers to the terminal's questions

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.close(force=True)

    def type(self, text: str) -> None:
        self.process.send(text)

    def resize(self, columns: int, lines: int) -> None:
        self.screen.resize(lines, columns)
        self.process.setwinsize(lines, columns)

    @property
    def text(self) -> str:
        """The screen."""
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip()

    @property
    def whole(self) -> str:
        """The lines that scrolled away, and the screen."""
        width = self.screen.columns
        above = ["".join(line[x].data for x in range(width)).rstrip() for line in self.screen.history.top]
        return "\n".join([*above, self.text])

    def read(self, seconds: float = 0.1) -> bool:
        """Take what it writes. Returns false when it has ended."""
        try:
            data = self.process.read_nonblocking(65536, seconds)
        except pexpect.TIMEOUT:
            return True
        except pexpect.EOF:
            return False
        self.raw += data
        self._stream.feed(data)
        return True

    def wait_for(self, pattern: str, seconds: float = 60, *, times: int = 1) -> None:
        """Wait until the text holds a pattern so many times."""
        end = time.monotonic() + seconds
        while len(re.findall(pattern, self.whole)) < times:
            alive = self.read()
            found = len(re.findall(pattern, self.whole)) >= times
            assert found or (alive and time.monotonic() < end), f"no {pattern!r} in:\n{self.whole}"

    def wait_for_prompt(self, seconds: float = 60) -> None:
        """Wait until the last line above the toolbar is an empty prompt."""
        end = time.monotonic() + seconds
        while not self.is_at_prompt:
            assert self.read(), f"it has ended:\n{self.whole}"
            assert time.monotonic() < end, f"no prompt:\n{self.whole}"

    def turn(self, message: str) -> None:
        """Send a message, and wait for its end."""
        before = self.whole.count("▸")
        self.type(message + ENTER)
        self.wait_for("▸", times=before + 1)
        self.wait_for_prompt()

    def stop_turn(self, message: str, at: str) -> None:
        """Send a message, and press Ctrl-C when the screen shows `at`."""
        before = self.whole.count("✗ stopped")
        self.type(message + ENTER)
        self.wait_for(at)
        self.type(CTRL_C)
        self.wait_for("✗ stopped", times=before + 1)
        self.wait_for_prompt()

    def command(self, line: str, shows: str) -> None:
        """Run a command, and wait for what it shows."""
        before = len(re.findall(shows, self.whole))
        self.type(line + ENTER)
        self.wait_for(shows, times=before + 1)
        self.wait_for_prompt()

    @property
    def is_at_prompt(self) -> bool:
        return self.screen.cursor.x == 2 and self.screen.display[self.screen.cursor.y].rstrip() == ">"

    def wait_for_end(self, seconds: float = 60) -> int:
        """Wait until it has ended. Returns its exit code."""
        end = time.monotonic() + seconds
        while self.read():
            assert time.monotonic() < end, f"it goes on:\n{self.whole}"
        self.process.wait()
        return self.process.exitstatus
