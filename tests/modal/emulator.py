"""A test double of Modal on loopback: the real `modal` client talks to it, and sandboxes are processes of this machine.

    with ModalEmulator() as modal:
        os.environ.update(modal.environment)

It speaks Modal's own gRPC protocol, on the service bases that the client's package brings, so a client that calls what
is not here is told UNIMPLEMENTED. It proves that our code and the client's work together, in the order, the sizes and
the failures of the protocol. It proves nothing about Modal's isolation (gVisor), images (nothing is built: every image
has the Python of the tests), prices, capacity and distance. That is for `tests/live`.

The protocol is an internal one of Modal and may change with a version of its client.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Self

import grpclib.server
from command_router import CommandRouter
from control_plane import ControlPlane
from sandboxes import Result, Sandbox

NO_PROJECT_OF_OURS = Path(__file__).with_name("no_project_of_ours")
"""On the path of every sandbox: importing `rlm_kernel` there fails, as it does on Modal."""


class Server(grpclib.server.Server):
    """A server that hangs up at its end, which the client would otherwise have to do."""

    def _protocol_factory(self):
        protocol = super()._protocol_factory()
        self.__dict__.setdefault("protocols", []).append(protocol)
        return protocol

    def hang_up(self) -> None:
        for protocol in self.__dict__.get("protocols", []):
            if hasattr(protocol, "processor"):
                protocol.processor.close()


class ModalEmulator:
    """Both services, in a thread and a loop of their own. When it ends, killed or not, so do its sandboxes.

    Attributes:
        environment: the variables that send the real client here.
        sandboxes: all that were made, in order.
        images: what they were built from, by id.
        calls: the types of the requests that came, in order.
        credentials: the token that is known.
        forbidden_apps: names of apps that the token may not use.
        build_failures: words of a recipe that make its build fail, and the log it leaves.
        build_seconds: how long a build takes.
        no_capacity: whether a sandbox is refused.
        deaf: whether standard input is refused.
        failing: how many of the next questions how a sandbox ended are answered with an error.
        latency: seconds before each answer, as if it came from far away.
        router_token_seconds: how long a token for the command router is good.
        loop: in which all of it lives.
    """

    def __init__(self) -> None:
        self.environment: dict[str, str] = {}
        self.sandboxes: list[Sandbox] = []
        self.images: dict[str, list[str]] = {}
        self.calls: list[str] = []
        self.credentials = ("ak-emulated", "as-emulated")
        self._behave()
        self._router_tokens: dict[str, float] = {}
        self._router_url = ""
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="modal-emulator", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def _behave(self) -> None:
        self.forbidden_apps = {"somebody-elses"}
        self.build_failures: dict[str, list[str]] = {}
        self.build_seconds = 0.0
        self.no_capacity = False
        self.deaf = False
        self.failing = 0
        self.latency = 0.0
        self.router_token_seconds = 3600.0

    # -- for tests

    def running(self) -> list[Sandbox]:
        return [sandbox for sandbox in self.sandboxes if not sandbox.result.done()]

    def terminate(self, sandbox: Sandbox) -> None:
        """End it as its owner would on Modal's pages."""
        self.loop.call_soon_threadsafe(sandbox.end, Result.GENERIC_STATUS_TERMINATED, 137)

    def expire(self, sandbox: Sandbox) -> None:
        """Its timeout has come."""
        self.loop.call_soon_threadsafe(sandbox.end, Result.GENERIC_STATUS_TIMEOUT, 124)

    def reset(self) -> None:
        """End what a test left, and forget what it asked for."""
        self._behave()
        self._run(self._end_all())
        self.images.clear()
        self.calls.clear()

    # -- for the services

    def sandbox(self, identifier: str) -> Sandbox | None:
        return next((sandbox for sandbox in self.sandboxes if identifier in (sandbox.id, sandbox.task_id)), None)

    def token(self, seconds: float) -> str:
        """A JWT that nobody signed: the client reads only when it expires."""
        parts = [{"alg": "none"}, {"exp": int(time.time() + seconds), "id": os.urandom(8).hex()}]
        encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
        return ".".join([*encoded, "x"])

    def access(self) -> dict[str, str]:
        """The address of the command router, and a new token for it."""
        token = self.token(self.router_token_seconds)
        self._router_tokens[token] = time.monotonic() + self.router_token_seconds
        return {"url": self._router_url, "jwt": token}

    def bearers(self) -> set[str]:
        return {f"Bearer {token}" for token, until in self._router_tokens.items() if time.monotonic() < until}

    def sandbox_environment(self) -> dict[str, str]:
        """The environment of every image: the Python of the tests and its packages, and nothing else of here."""
        packages = [str(NO_PROJECT_OF_OURS), os.environ.get("PYTHONPATH", "")]
        return {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.defpath]),
            "PYTHONPATH": os.pathsep.join(filter(None, packages)),
            "LANG": "C.UTF-8",
            "MODAL_IS_REMOTE": "1",
        }

    # -- start and stop

    def _run(self, work: object) -> None:
        asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    async def _start(self) -> None:
        self._servers = [Server([service(self)]) for service in (ControlPlane, CommandRouter)]
        urls = []
        for server in self._servers:
            await server.start("127.0.0.1", 0)
            urls.append(f"http://127.0.0.1:{server._server.sockets[0].getsockname()[1]}")
        server_url, self._router_url = urls
        token_id, secret = self.credentials
        self.environment.update(
            MODAL_SERVER_URL=server_url,
            MODAL_TOKEN_ID=token_id,
            MODAL_TOKEN_SECRET=secret,
            MODAL_CONFIG_PATH=os.devnull,
        )

    async def _stop(self) -> None:
        await self._end_all()
        for server in self._servers:
            server.close()
            server.hang_up()
            await server.wait_closed()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0)

    async def _end_all(self) -> None:
        for sandbox in self.sandboxes:
            sandbox.end(Result.GENERIC_STATUS_TERMINATED, 137)
        ended, self.sandboxes[:] = list(self.sandboxes), []
        for sandbox in ended:
            await sandbox.gone()
