"""Test doubles of Prime, Daytona and E2B on loopback. Their real clients talk to them; sandboxes are local processes.

    with PrimeEmulator() as prime:
        os.environ.update(prime.environment)

Each has the requests that our code and the client make, in the words of their HTTP interfaces; any other is answered
404. They prove the order, the sizes and the failures of the protocol, and nothing about isolation, images (nothing is
built: each has the Python of the tests), prices, capacity and distance. That is for `tests/live`.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import uuid
from pathlib import Path
from typing import Self

from aiohttp import web
from modal_proto import api_pb2
from sandboxes import Result, Sandbox

KEY = "key-emulated-0123456789"
MAX_BODY = 2**27
NO_PROJECT_OF_OURS = Path(__file__).parents[1] / "modal" / "no_project_of_ours"


class RefusedError(Exception):
    """An answer that is an error: its status and its text."""


class Cloud:
    """A server in a thread and a loop of its own. When it ends, killed or not, so do its sandboxes.

    Attributes:
        environment: the variables that send the real client here.
        sandboxes: all that were made, in order.
        orders: what the client asked for, in the same order.
        calls: the requests that came: method and path without identifiers.
        refusal: status and text with which a sandbox is refused, or None.
        deaf: whether standard input is refused.
    """

    network = api_pb2.NetworkAccess

    def __init__(self) -> None:
        self.environment: dict[str, str] = {}
        self.sandboxes: list[Sandbox] = []
        self.orders: list[dict] = []
        self.calls: list[str] = []
        self._behave()
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name=type(self).__name__, daemon=True)

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
        self.refusal: tuple[int, str] | None = None
        self.deaf = False

    # -- for tests

    def running(self) -> list[Sandbox]:
        return [sandbox for sandbox in self.sandboxes if not sandbox.result.done()]

    def limit(self, sandbox: Sandbox) -> int:
        """Seconds after which the cloud ends a sandbox whose host is gone."""
        return sandbox.definition.idle_timeout_secs

    def terminate(self, sandbox: Sandbox) -> None:
        self.loop.call_soon_threadsafe(sandbox.end, Result.GENERIC_STATUS_TERMINATED, 137)

    def expire(self, sandbox: Sandbox) -> None:
        self.loop.call_soon_threadsafe(sandbox.end, Result.GENERIC_STATUS_TIMEOUT, 124)

    def reset(self) -> None:
        self._behave()
        self._run(self._end_all())
        self.calls.clear()

    # -- for the services

    async def make(self, order: dict, *, life: int, idle: int, blocked: bool) -> Sandbox:
        """Start a sandbox. `life`, `idle`: seconds."""
        access = self.network.BLOCKED if blocked else self.network.OPEN
        definition = api_pb2.Sandbox(
            timeout_secs=life,
            idle_timeout_secs=idle,
            network_access=api_pb2.NetworkAccess(network_access_type=access),
        )
        sandbox = Sandbox(f"sb-{uuid.uuid4().hex}", definition, self.sandbox_environment())
        self.sandboxes.append(sandbox)
        self.orders.append(order)
        await sandbox.start()
        return sandbox

    def find(self, request: web.Request) -> Sandbox:
        wanted = request.match_info["sandbox"]
        for sandbox, order in zip(self.sandboxes, self.orders, strict=True):
            if wanted in {sandbox.id, order.get("name")}:
                return sandbox
        raise RefusedError(404, "Sandbox not found")

    def sandbox_environment(self) -> dict[str, str]:
        packages = [str(NO_PROJECT_OF_OURS), os.environ.get("PYTHONPATH", "")]
        return {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.defpath]),
            "PYTHONPATH": os.pathsep.join(filter(None, packages)),
            "LANG": "C.UTF-8",
        }

    def check(self, request: web.Request) -> None:
        """Refuse a request without the right key."""
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            raise RefusedError(401, "no such key")

    # -- start and stop

    def _run(self, work: object) -> None:
        asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    async def _start(self) -> None:
        app = web.Application(client_max_size=MAX_BODY, middlewares=[self._answer])
        app.add_routes(self.routes())
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
        self.environment.update(self.variables())

    @web.middleware
    async def _answer(self, request: web.Request, handler):
        template = request.match_info.route.resource
        self.calls.append(f"{request.method} {template.canonical if template else '?'}")
        try:
            return await handler(request)
        except RefusedError as refused:
            status, text = refused.args
            return web.json_response(self.error(status, text), status=status)

    async def _stop(self) -> None:
        await self._end_all()
        await self._runner.cleanup()

    async def _end_all(self) -> None:
        for sandbox in self.sandboxes:
            sandbox.end(Result.GENERIC_STATUS_TERMINATED, 137)
        ended, self.sandboxes[:] = list(self.sandboxes), []
        self.orders.clear()
        for sandbox in ended:
            await sandbox.gone()
