"""E2B on loopback: its REST interface, and the processes of a sandbox over Connect RPC with JSON."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import struct

from aiohttp import web
from clouds import KEY, Cloud, RefusedError
from sandboxes import Result

from rlm_kernel.provisioners.relay.sandboxed import HAS_KERNEL

NOW = "2026-01-01T00:00:00Z"
NO_LIFE, NO_IDLE = 0, 0
RPC = "/process.Process/"
END_OF_STREAM = 2


class E2BEmulator(Cloud):
    """E2B.

    Attributes:
        pip: exit status and standard error of `pip install`, which is not run.
        bare: whether ipykernel is not in the template.
        installed: the commands of pip that came.
        networks: whether the network was open, after each change.
        times: the seconds that the last sandbox was given, each from then on.
    """

    def _behave(self) -> None:
        super()._behave()
        self.pip = (0, "")
        self.bare = False
        self.installed: list[str] = []
        self.networks: list[bool] = []
        self.times: list[int] = []
        self._ends: dict[str, asyncio.TimerHandle] = {}

    def limit(self, sandbox) -> int:
        return self.times[-1]

    def variables(self) -> dict[str, str]:
        return {"E2B_API_KEY": KEY, "E2B_API_URL": self.url, "E2B_SANDBOX_URL": self.url}

    def error(self, status: int, text: str) -> dict:
        return {"code": status, "message": text}

    def check(self, request: web.Request) -> None:
        if request.headers.get("X-API-KEY") != KEY:
            raise RefusedError(401, "no such key")

    def routes(self) -> list[web.RouteDef]:
        api = "/sandboxes/{sandbox}"
        return [
            web.post("/v2/sandboxes", self.create),
            web.get(api, self.get),
            web.delete(api, self.delete),
            web.post(f"{api}/timeout", self.timeout),
            web.put(f"{api}/network", self.network_of),
            web.get("/health", self.health),
            web.post(RPC + "Start", self.command),
            web.post(RPC + "SendInput", self.input),
        ]

    # -- REST

    async def create(self, request: web.Request) -> web.Response:
        self.check(request)
        if self.refusal:
            raise RefusedError(*self.refusal)
        order = await request.json()
        sandbox = await self.make(order, life=NO_LIFE, idle=NO_IDLE, blocked=not order["allow_internet_access"])
        self._give(sandbox, order["timeout"])
        fields = {"envdAccessToken": f"token-of-{sandbox.id}", "domain": None, **self._fields(sandbox, order)}
        return web.json_response(fields, status=201)

    async def get(self, request: web.Request) -> web.Response:
        sandbox = self._running(request)
        order = self.orders[self.sandboxes.index(sandbox)]
        size = {"cpuCount": 2, "memoryMB": 512, "diskSizeMB": 512}
        times = {"startedAt": NOW, "endAt": NOW, "state": "running"}
        return web.json_response({**self._fields(sandbox, order), **size, **times})

    async def delete(self, request: web.Request) -> web.Response:
        self._running(request).end(Result.GENERIC_STATUS_TERMINATED, 137)
        return web.Response(status=204)

    async def timeout(self, request: web.Request) -> web.Response:
        self._give(self._running(request), (await request.json())["timeout"])
        return web.Response(status=204)

    async def network_of(self, request: web.Request) -> web.Response:
        self._running(request)
        self.networks.append((await request.json())["allow_internet_access"])
        return web.Response(status=204)

    def _running(self, request: web.Request):
        self.check(request)
        sandbox = self.find(request)
        if sandbox.result.done():
            raise RefusedError(404, f"sandbox {sandbox.id} not found")
        return sandbox

    def _give(self, sandbox, seconds: int) -> None:
        """The sandbox ends so many seconds from now."""
        self.times.append(seconds)
        if sandbox.id in self._ends:
            self._ends[sandbox.id].cancel()
        end = Result.GENERIC_STATUS_TIMEOUT, 124
        self._ends[sandbox.id] = self.loop.call_later(seconds, sandbox.end, *end)

    def _fields(self, sandbox, order) -> dict:
        return {"templateID": order["templateID"], "sandboxID": sandbox.id, "clientID": "", "envdVersion": "0.6.4"}

    # -- the daemon in a sandbox

    def _inside(self, request: web.Request):
        wanted = request.headers.get("E2b-Sandbox-Id")
        for sandbox in self.sandboxes:
            if sandbox.id == wanted and not sandbox.result.done():
                if request.headers.get("X-Access-Token") != f"token-of-{wanted}":
                    raise RefusedError(401, "no such token")
                return sandbox
        raise RefusedError(502, "The sandbox was not found")

    async def health(self, request: web.Request) -> web.Response:
        self._inside(request)
        return web.Response(status=204)

    async def command(self, request: web.Request) -> web.StreamResponse:
        """Run a command: a stream of its events, each behind a flag and its length."""
        sandbox = self._inside(request)
        start = json.loads((await request.read())[5:])
        stream = web.StreamResponse(headers={"Content-Type": "application/connect+json"})
        await stream.prepare(request)
        lock = asyncio.Lock()

        async def send(flag: int = 0, **event) -> None:
            data = json.dumps({"event": event} if event else {}).encode()
            async with lock:
                await stream.write(struct.pack("!BI", flag, len(data)) + data)

        words = start["process"]["args"][-1]
        status = await (
            self._pip(words, request, send) if "-m pip install" in words else self._run_in(sandbox, start, send)
        )
        if status is not None:
            await send(end={"exitCode": status, "exited": True, "status": f"exit status {status}"})
            await send(END_OF_STREAM)
        return stream

    async def _pip(self, words: str, request: web.Request, send) -> int:
        self.installed.append(words)
        status, said = self.pip
        assert request.headers["Authorization"] == f"Basic {base64.b64encode(b'root:').decode()}"
        await send(start={"pid": 1})
        await send(data={"stderr": base64.b64encode(said.encode()).decode()})
        return status

    async def _run_in(self, sandbox, start, send) -> int | None:
        """The exit status, or None when the sandbox has ended."""
        pid = len(sandbox.commands)
        process = start["process"]
        # Without -l: the login files here are this machine's.
        argv = [process["cmd"], *(word for word in process["args"] if word != "-l")]
        if self.bare and HAS_KERNEL in argv:
            argv = ["false"]
        await sandbox.exec(str(pid), argv, process.get("envs", {}), None)
        command = sandbox.commands[str(pid)]
        if not start.get("stdin"):
            command.stdin.close()
        await send(start={"pid": pid})

        async def copy(output, kind: str) -> None:
            async for piece in output.read(0):
                await send(data={kind: base64.b64encode(piece).decode()})

        with contextlib.suppress(ConnectionResetError):  # the client has gone
            await asyncio.gather(copy(command.stdout, "stdout"), copy(command.stderr, "stderr"))
        status = await command.ended
        return None if sandbox.result.done() else max(status, 0)

    async def input(self, request: web.Request) -> web.Response:
        sandbox = self._inside(request)
        asked = await request.json()
        command = sandbox.commands.get(str(asked["process"]["pid"]))
        if self.deaf or command is None or command.ended.done():
            return web.json_response({"code": "not_found", "message": "no such process"}, status=404)
        await command.write(command.written, base64.b64decode(asked["input"]["stdin"]), eof=False)
        return web.json_response({})
