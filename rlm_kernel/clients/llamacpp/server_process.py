"""The server of the local model: a child process, shared by all clients of this process.

llama.cpp runs in a child for three measured reasons: loading a model holds the GIL for seconds, the library replaces
the handlers of SIGINT and SIGTERM, and a process that is forked while it runs hangs at exit. The child starts at the
first use and ends with this process, because it watches a pipe.
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
    """The settings of a server. Calls with equal settings share one.

    Attributes:
        model_path: the GGUF file.
        alias: the name of the model.
        n_ctx: tokens of prompt and reply together, for each call.
        n_parallel: the number of calls that it answers at a time.
    """

    model_path: str
    alias: str
    n_ctx: int
    n_parallel: int


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """The address and the key of a server."""

    base_url: str
    api_key: str = field(repr=False)


class Server:
    """One child process. The constructor starts it and returns at once.

    Args:
        settings: its model and its sizes.

    Attributes:
        address: done when the model is loaded; fails with `LMError` if that fails.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.address: Future[ServerAddress] = Future()
        self._settings = settings
        self._turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()
        self._api_key = secrets.token_urlsafe(32)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (open until the process ends)
        self._process = self._launch()
        self._start = threading.Thread(target=self._await_address, name="rlm-llamacpp-start", daemon=True)
        self._start.start()

    @property
    def alive(self) -> bool:
        """Whether it can answer calls, now or after its start."""
        failed = self.address.done() and self.address.exception() is not None
        return not failed and self._process.poll() is None

    async def ended(self) -> bool:
        """Whether the process has ended. Waits a moment for it: a connection breaks before the exit is known."""
        for _ in range(ENDING_CHECKS):
            if not self.alive:
                return True
            await asyncio.sleep(ENDING_SECONDS / ENDING_CHECKS)
        return False

    def turn(self) -> asyncio.Semaphore:
        """The semaphore of the calls. A waiting call is not sent yet: its timeout does not run; it can be cancelled."""
        return self._turns.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(self._settings.n_parallel))

    def stop(self) -> None:
        """End the process. It has no state to save."""
        self._process.kill()
        self._process.wait()
        self._start.join()
        self._close()

    def disown(self) -> None:
        """Release this copy in a forked child: the process belongs to the parent."""
        self._process.returncode = 0
        self._close()

    def _launch(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(  # noqa: S603 (a program of this package)
            # -P: its imports must not find the modules in its folder, such as client.py.
            [sys.executable, "-P", str(PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            start_new_session=True,  # Ctrl-C in the terminal must not reach it
        )
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # a child that has already ended is noticed when its address is awaited
            process.stdin.write(json.dumps(asdict(self._settings) | {"api_key": self._api_key}).encode() + b"\n")
        return process

    def _await_address(self) -> None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        report: dict[str, Any] = json.loads(line) if line.endswith(b"\n") else {}
        if "address" in report:
            self.address.set_result(ServerAddress(f"{report['address']}/v1", self._api_key))
        else:
            self.address.set_exception(self._failure(report.get("error") or "the process ended"))

    def _failure(self, message: str) -> LMError:
        alias, path = self._settings.alias, self._settings.model_path
        return LMError(
            f"llamacpp, model {alias!r}: the local server did not start ({self._first_error() or message}). Is {path} "
            "a complete GGUF file, and is there enough memory? A smaller n_ctx or n_parallel needs less.",
            backend="llamacpp",
            model=alias,
            requests=0,
        )

    def _first_error(self) -> str:
        with suppress(subprocess.TimeoutExpired):  # llama.cpp writes in a thread that ends with the process
            self._process.wait(LAST_WORDS_SECONDS)
        self._errors.seek(0)
        first, _, _ = self._errors.read().decode(errors="replace").strip().partition("\n")
        return first.rpartition(" E ")[2]  # without llama.cpp's time and log level

    def _close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            if pipe is not None:
                pipe.close()


_servers: dict[ServerSettings, Server] = {}
_lock = threading.Lock()


def shared_server(settings: ServerSettings) -> Server:
    """The server of this process with these settings; started if there is none, or if it has died."""
    with _lock:
        server = _servers.get(settings)
        if server is None or not server.alive:
            if server is not None:
                server.stop()
            server = _servers[settings] = Server(settings)
        return server


def stop_all() -> None:
    """End all servers of this process. Called at exit; the next call of a client starts one again."""
    with _lock:
        while _servers:
            _servers.popitem()[1].stop()


def _forget() -> None:
    # Another thread of the parent may hold the lock.
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()
    while _servers:
        _servers.popitem()[1].disown()


atexit.register(stop_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
