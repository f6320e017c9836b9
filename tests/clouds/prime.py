"""Prime on loopback: its REST interface, and the command sessions of a sandbox over Connect RPC."""

from __future__ import annotations

import asyncio
import contextlib
import struct

from aiohttp import web
from clouds import KEY, Cloud, RefusedError
from prime_sandboxes._proto.command_session import command_session_pb2 as rpc
from sandboxes import Result

MINUTE = 60
NOW, LATER = "2026-01-01T00:00:00Z", "2099-01-01T00:00:00Z"
RPC = "/gateway/ns/{sandbox}/command_session.CommandSession/"


class PrimeEmulator(Cloud):
    """Prime.

    Attributes:
        pip: exit status and standard error of `pip install`, which is not run.
        installed: the commands of pip that came.
        policies: the network policies that were asked for.
        unapplied: how often a policy is said not to hold yet.
    """

    def _behave(self) -> None:
        super()._behave()
        self.pip = (0, "")
        self.installed: list[str] = []
        self.policies: list[dict] = []
        self.unapplied = 0

    def variables(self) -> dict[str, str]:
        return {"PRIME_API_KEY": KEY, "PRIME_API_BASE_URL": self.url}

    def error(self, status: int, text: str) -> dict:
        return {"detail": text, "code": "not_found" if status == 404 else "internal", "message": text}

    def routes(self) -> list[web.RouteDef]:
        api = "/api/v1/sandbox"
        return [
            web.post(api, self.create),
            web.post(f"{api}/status:batchGet", self.statuses),
            web.get(api + "/{sandbox}", self.get),
            web.delete(api + "/{sandbox}", self.delete),
            web.post(api + "/{sandbox}/auth", self.auth),
            web.route("*", api + "/{sandbox}/egress-policy", self.policy),
            web.post(RPC + "Start", self.command),
            web.post(RPC + "SendInput", self.input),
            web.post(RPC + "SendSignal", self.signal),
        ]

    # -- REST

    async def create(self, request: web.Request) -> web.Response:
        self.check(request)
        if self.refusal:
            raise RefusedError(*self.refusal)
        order = await request.json()
        life, idle = order["timeout_minutes"] * MINUTE, order["idle_timeout_minutes"] * MINUTE
        sandbox = await self.make(order, life=life, idle=idle, blocked=False)
        return web.json_response(self._fields(sandbox, order))

    async def statuses(self, request: web.Request) -> web.Response:
        wanted = (await request.json())["sandbox_ids"]
        found = [s for s in self.sandboxes if s.id in wanted]
        return web.json_response(
            {"statuses": [{"sandbox_id": s.id, "status": self._status(s)} for s in found], "errors": []}
        )

    async def get(self, request: web.Request) -> web.Response:
        self.check(request)
        sandbox = self.find(request)
        return web.json_response(self._fields(sandbox, self.orders[self.sandboxes.index(sandbox)]))

    async def delete(self, request: web.Request) -> web.Response:
        self.check(request)
        self.find(request).end(Result.GENERIC_STATUS_TERMINATED, 137)
        return web.json_response({})

    async def auth(self, request: web.Request) -> web.Response:
        self.check(request)
        sandbox = self.find(request)
        fields = {"gateway_url": f"{self.url}/gateway", "user_ns": "ns", "job_id": sandbox.id}
        return web.json_response({**fields, "token": f"token-of-{sandbox.id}", "expires_at": LATER})

    async def policy(self, request: web.Request) -> web.Response:
        self.check(request)
        if request.method == "PUT":
            self.policies.append(await request.json())
        applied, self.unapplied = self.unapplied <= 0, self.unapplied - 1
        return web.json_response(
            {"policy": self.policies[-1], "generation": 2, "applied_generation": 1 + applied, "applied": applied}
        )

    def _status(self, sandbox) -> str:
        if not sandbox.result.done():
            return "RUNNING"
        return "TIMEOUT" if sandbox.result.result().status == Result.GENERIC_STATUS_TIMEOUT else "TERMINATED"

    def _fields(self, sandbox, order) -> dict:
        return {
            "id": sandbox.id, "name": order["name"], "dockerImage": order["docker_image"],
            "status": self._status(sandbox),
            "cpuCores": order["cpu_cores"], "memoryGB": order["memory_gb"], "diskSizeGB": order["disk_size_gb"],
            "diskMountPath": "/", "gpuCount": 0, "timeoutMinutes": order["timeout_minutes"],
            "createdAt": NOW, "updatedAt": NOW,
        }  # fmt: skip

    # -- command sessions

    def _inside(self, request: web.Request):
        sandbox = self.find(request)
        if request.headers.get("Authorization") != f"Bearer token-of-{sandbox.id}" or sandbox.result.done():
            raise RefusedError(404, "the sandbox is not there")
        return sandbox

    async def command(self, request: web.Request) -> web.StreamResponse:
        """Run a command: a stream of its events, each behind a flag and its length."""
        sandbox = self._inside(request)
        start = rpc.StartRequest.FromString((await request.read())[5:])
        stream = web.StreamResponse(headers={"Content-Type": "application/connect+proto"})
        await stream.prepare(request)
        lock = asyncio.Lock()

        async def send(**event) -> None:
            data = rpc.StartResponse(event=rpc.CommandSessionEvent(**event)).SerializeToString()
            async with lock:
                await stream.write(struct.pack("!BI", 0, len(data)) + data)

        argv = [start.command.cmd, *start.command.args]
        await send(start=rpc.CommandSessionEvent.StartEvent(pid=1))
        status = (
            await self._pip(argv[-1], send)
            if "-m pip install" in argv[-1]
            else await self._run_in(sandbox, start, send)
        )
        if status is not None:
            await send(end=rpc.CommandSessionEvent.EndEvent(exit_code=status, exited=True))
            await stream.write(struct.pack("!BI", 2, 2) + b"{}")
        return stream

    async def _pip(self, command: str, send) -> int:
        self.installed.append(command)
        status, said = self.pip
        await send(data=rpc.CommandSessionEvent.DataEvent(stderr=said.encode()))
        return status

    async def _run_in(self, sandbox, start, send) -> int | None:
        """The exit status, or None when the sandbox has ended."""
        name = start.session_uuid or f"once-{len(sandbox.commands)}"
        await sandbox.exec(name, [start.command.cmd, *start.command.args], dict(start.command.envs), None)
        await sandbox.tell()
        command = sandbox.commands[name]

        async def copy(output, kind: str) -> None:
            async for piece in output.read(0):
                await send(data=rpc.CommandSessionEvent.DataEvent(**{kind: piece}))

        with contextlib.suppress(ConnectionResetError):  # the client has gone
            await asyncio.gather(copy(command.stdout, "stdout"), copy(command.stderr, "stderr"))
        status = await command.ended
        return None if sandbox.result.done() else max(status, 0)

    async def input(self, request: web.Request) -> web.Response:
        sandbox = self._inside(request)
        asked = rpc.SendInputRequest.FromString(await request.read())
        command = sandbox.commands.get(asked.session.session_uuid)
        if self.deaf or command is None or command.ended.done():
            raise RefusedError(404, "no such session")
        await command.write(command.written, asked.input.stdin, eof=False)
        return web.Response(body=rpc.SendInputResponse().SerializeToString(), content_type="application/proto")

    async def signal(self, request: web.Request) -> web.Response:
        return web.Response(body=rpc.SendSignalResponse().SerializeToString(), content_type="application/proto")
