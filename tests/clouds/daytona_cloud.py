"""Daytona on loopback: its REST interface, and the sessions of a sandbox, whose logs are followed over a WebSocket."""

from __future__ import annotations

import asyncio

from aiohttp import web
from clouds import KEY, Cloud, RefusedError
from sandboxes import Result

MINUTE = 60
PREFIXES = {"stdout": b"\1\1\1", "stderr": b"\2\2\2"}
SESSION = "/toolbox/{sandbox}/process/session"


class DaytonaEmulator(Cloud):
    """Daytona.

    Attributes:
        build_failure: why no image can be built, or None.
    """

    def _behave(self) -> None:
        super()._behave()
        self.build_failure: str | None = None

    def variables(self) -> dict[str, str]:
        return {"DAYTONA_API_KEY": KEY, "DAYTONA_API_URL": f"{self.url}/api"}

    def error(self, status: int, text: str) -> dict:
        return {"statusCode": status, "message": text, "source": "DAYTONA_API"}

    def routes(self) -> list[web.RouteDef]:
        command = SESSION + "/{session}/command/{command}"
        return [
            web.post("/api/sandbox", self.create),
            web.get("/api/sandbox/{sandbox}", self.get),
            web.delete("/api/sandbox/{sandbox}", self.delete),
            web.get("/api/sandbox/{sandbox}/build-logs-url", self.build_log_url),
            web.get("/build-log/{sandbox}", self.build_log),
            web.post(SESSION, self.session),
            web.post(SESSION + "/{session}/exec", self.command),
            web.post(command + "/input", self.input),
            web.get(command + "/logs", self.logs),
        ]

    # -- the interface of sandboxes

    async def create(self, request: web.Request) -> web.Response:
        self.check(request)
        if self.refusal:
            raise RefusedError(*self.refusal)
        order = await request.json()
        life, idle = order["ttlMinutes"] * MINUTE, order["autoStopInterval"] * MINUTE
        sandbox = await self.make(order, life=life, idle=idle, blocked=order["networkBlockAll"])
        return web.json_response(self._fields(sandbox, order))

    async def get(self, request: web.Request) -> web.Response:
        self.check(request)
        sandbox = self.find(request)
        if sandbox.result.done():  # destroyed when it stops
            raise RefusedError(404, "Sandbox not found")
        return web.json_response(self._fields(sandbox, self.orders[self.sandboxes.index(sandbox)], asked=True))

    async def delete(self, request: web.Request) -> web.Response:
        self.check(request)
        sandbox = self.find(request)
        sandbox.end(Result.GENERIC_STATUS_TERMINATED, 137)
        return web.json_response(self._fields(sandbox, self.orders[self.sandboxes.index(sandbox)]))

    async def build_log_url(self, request: web.Request) -> web.Response:
        return web.json_response({"url": f"{self.url}/build-log/{request.match_info['sandbox']}"})

    async def build_log(self, request: web.Request) -> web.Response:
        return web.Response(text="Step 1\nERROR: no such package\n")

    def _fields(self, sandbox, order, *, asked=False) -> dict:
        state = "started"
        if self.build_failure:
            state = "build_failed" if asked else "pending_build"
        return {
            "id": sandbox.id, "organizationId": "org", "name": order["name"], "user": "daytona", "env": order["env"],
            "labels": {}, "public": False, "networkBlockAll": order["networkBlockAll"], "kvm": False, "target": "us",
            "cpu": order["cpu"], "gpu": 0, "memory": order["memory"], "disk": order["disk"], "state": state,
            "errorReason": self.build_failure, "toolboxProxyUrl": f"{self.url}/toolbox",
        }  # fmt: skip

    # -- the toolbox in a sandbox

    def _inside(self, request: web.Request):
        self.check(request)
        sandbox = self.find(request)
        if sandbox.result.done():
            raise RefusedError(404, "Sandbox not found")
        return sandbox

    async def session(self, request: web.Request) -> web.Response:
        self._inside(request)
        return web.json_response({}, status=201)

    async def command(self, request: web.Request) -> web.Response:
        sandbox = self._inside(request)
        asked = await request.json()
        assert asked["suppressInputEcho"], "what is sent would be in the output"
        assert asked["runAsync"]
        env = self.orders[self.sandboxes.index(sandbox)]["env"]
        await sandbox.exec("command", ["/bin/sh", "-c", asked["command"]], env, None)
        await sandbox.tell()
        return web.json_response({"cmdId": "command"}, status=202)

    async def input(self, request: web.Request) -> web.Response:
        sandbox = self._inside(request)
        command = sandbox.commands[request.match_info["command"]]
        if self.deaf or command.ended.done():
            raise RefusedError(410, "command has already completed")
        data = (await request.json())["data"].encode()
        data = data if data.endswith(b"\n") else data + b"\n"
        await command.write(command.written, data, eof=False)
        return web.Response(status=204)

    async def logs(self, request: web.Request) -> web.WebSocketResponse:
        """Follow the log of a command. The shell around it puts a prefix before each line."""
        sandbox = self._inside(request)
        command = sandbox.commands[request.match_info["command"]]
        socket = web.WebSocketResponse()
        await socket.prepare(request)

        async def copy(output, kind: str) -> None:
            begun = b""
            async for piece in output.read(0):
                *lines, begun = (begun + piece).split(b"\n")
                if lines:
                    await socket.send_bytes(b"".join(PREFIXES[kind] + line + b"\n" for line in lines))
            if begun:
                await socket.send_bytes(PREFIXES[kind] + begun + b"\n")

        async def follow() -> None:
            await asyncio.gather(copy(command.stdout, "stdout"), copy(command.stderr, "stderr"))

        tasks = {asyncio.create_task(follow()), asyncio.create_task(socket.receive())}
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await socket.close()
        return socket
