"""The local model's server, seen from the process that uses it: one child process, shared by all clients.

llama.cpp lives in a child for three measured reasons: loading a model holds the GIL for seconds, the library takes over
SIGINT and SIGTERM, and a process that was forked while it runs hangs at its end. The child starts at the first use and
ends with this process, because it watches a pipe.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from rlm_kernel.errors import LMError

PROGRAM = Path(__file__).with_name("server_main.py")

LAST_WORDS_SECONDS = 5.0
ENDING_SECONDS = 0.5
ENDING_CHECKS = 50


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What makes one server different from another.

    Attributes:
        model_path: the GGUF file.
        alias: the name it answers by.
        n_ctx: tokens of prompt and reply together, for each call.
        n_parallel: how many calls it answers at a time.
    """

    model_path: str
    alias: str
    n_ctx: int
    n_parallel: int


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where a server listens, and the key it wants."""

    base_url: str
    api_key: str = field(repr=False)


class Server:
    """One child process. The constructor starts it and returns at once.

    Args:
        settings: what it serves, and how.

    Attributes:
        address: done when the model is loaded; fails with `LMError` when it cannot be.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.address: Future[ServerAddress] = Future()
        self._settings = settings
        self._turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()
        self._api_key = secrets.token_urlsafe(32)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the process lives)
        self._process = self._launch()
        self._start = threading.Thread(target=self._await_address, name="rlm-llamacpp-start", daemon=True)
        self._start.start()

    @property
    def alive(self) -> bool:
        """Whether it can be asked, now or as soon as it has started."""
        failed = self.address.done() and self.address.exception() is not None
        return not failed and self._process.poll() is None

    async def ended(self) -> bool:
        """Whether the process is gone. To be asked after a failure: connections break a moment before that is known."""
        for _ in range(ENDING_CHECKS):
            if not self.alive:
                return True
            await asyncio.sleep(ENDING_SECONDS / ENDING_CHECKS)
        return False

    @property
    def pid(self) -> int:
        """The id of the child process."""
        return self._process.pid

    def turn(self) -> asyncio.Semaphore:
        """What a call enters. Those that wait have not been sent: no timeout runs, and they can be cancelled."""
        return self._turns.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(self._settings.n_parallel))

    def stop(self) -> None:
        """End the process. It holds nothing that would have to be saved."""
        self._process.kill()
        self._process.wait()
        self._start.join()
        self._close()

    def disown(self) -> None:
        """To be called in a forked child, where this object is a copy: the process belongs to the parent."""
        self._process.returncode = 0
        self._close()

    def _launch(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(  # noqa: S603 (a program of this package)
            # -P: its imports must not find what lies beside it, such as openai.py.
            [sys.executable, "-P", str(PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            start_new_session=True,  # Ctrl-C in the terminal is for the program that uses the model
        )
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # a child that is gone already is noticed where its address is awaited
            process.stdin.write(json.dumps(asdict(self._settings) | {"api_key": self._api_key}).encode() + b"\n")
        return process

    def _await_address(self) -> None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        said: dict[str, Any] = json.loads(line) if line.endswith(b"\n") else {}
        if "address" in said:
            self.address.set_result(ServerAddress(f"{said['address']}/v1", self._api_key))
        else:
            self.address.set_exception(self._failure(said.get("error") or "the process ended"))

    def _failure(self, said: str) -> LMError:
        alias, path = self._settings.alias, self._settings.model_path
        return LMError(
            f"llamacpp, model {alias!r}: the local server did not start ({self._first_error() or said}). Is {path} "
            "a whole GGUF file, and is there memory for it? A smaller n_ctx or n_parallel needs less.",
            backend="llamacpp",
            model=alias,
            requests=0,
        )

    def _first_error(self) -> str:
        with suppress(subprocess.TimeoutExpired):  # the thread in which llama.cpp writes ends with the process
            self._process.wait(LAST_WORDS_SECONDS)
        self._errors.seek(0)
        first, _, _ = self._errors.read().decode(errors="replace").strip().partition("\n")
        return first.rpartition(" E ")[2]  # after llama.cpp's clock and level

    def _close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            if pipe is not None:
                pipe.close()


_servers: dict[ServerSettings, Server] = {}
_lock = threading.Lock()


def shared_server(settings: ServerSettings) -> Server:
    """The server of this process with these settings; started when there is none, or when it has died."""
    with _lock:
        server = _servers.get(settings)
        if server is None or not server.alive:
            if server is not None:
                server.stop()
            server = _servers[settings] = Server(settings)
        return server


def stop_all() -> None:
    """End all servers of this process. Called when it ends; the next call of a client starts one again."""
    with _lock:
        while _servers:
            _servers.popitem()[1].stop()


def _forget() -> None:
    # The lock may have been held by another thread of the parent.
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()
    while _servers:
        _servers.popitem()[1].disown()


atexit.register(stop_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
