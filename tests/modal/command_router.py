"""The emulated command router: Modal's service on the worker, by which a client runs commands in a sandbox."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from grpclib import GRPCError, Status
from modal_proto import task_command_router_pb2 as pb
from modal_proto.task_command_router_grpc import TaskCommandRouterBase
from partial_service import answering_the_rest_with_unimplemented

if TYPE_CHECKING:
    from emulator import ModalEmulator
    from sandboxes import Command, Sandbox


class CommandRouter(answering_the_rest_with_unimplemented(TaskCommandRouterBase)):
    def __init__(self, emulator: ModalEmulator) -> None:
        self._emulator = emulator

    async def TaskExecStart(self, stream: Any) -> None:  # noqa: N802
        request = await self._request(stream)
        sandbox = self._sandbox(request)
        environ: dict[str, str] = {}
        for source in request.secret_sources:
            environ.update(source.env.contents)
        if request.exec_id not in sandbox.commands:
            await sandbox.exec(request.exec_id, request.command_args, environ, request.workdir)
            await sandbox.tell()
        await stream.send_message(pb.TaskExecStartResponse())

    async def TaskExecStdinWrite(self, stream: Any) -> None:  # noqa: N802
        request = await self._request(stream)
        command = self._command(request)
        if self._emulator.deaf:
            raise GRPCError(Status.FAILED_PRECONDITION, "stdin is closed")
        try:
            await command.write(request.offset, request.data, eof=request.eof)
        except ConnectionError as error:
            raise GRPCError(Status.FAILED_PRECONDITION, "stdin is closed") from error
        await stream.send_message(pb.TaskExecStdinWriteResponse())

    async def TaskExecStdinStatus(self, stream: Any) -> None:  # noqa: N802
        command = self._command(await self._request(stream))
        await stream.send_message(
            pb.TaskExecStdinStatusResponse(num_bytes_written=command.written, closed=command.stdin.is_closing())
        )

    async def TaskExecStdinWriteStream(self, stream: Any) -> None:  # noqa: N802
        start = (await self._request(stream)).start
        command, offset = self._command(start), start.offset
        async for message in stream:
            if message.HasField("end"):
                command.stdin.close()
                break
            await command.write(offset, message.data, eof=False)
            offset += len(message.data)
        await stream.send_message(pb.TaskExecStdinWriteStreamResponse())

    async def TaskExecStdioRead(self, stream: Any) -> None:  # noqa: N802
        request = await self._request(stream)
        command = self._command(request)
        is_stdout = request.file_descriptor == pb.TASK_EXEC_STDIO_FILE_DESCRIPTOR_STDOUT
        async for chunk in (command.stdout if is_stdout else command.stderr).read(request.offset):
            await stream.send_message(pb.TaskExecStdioReadResponse(data=chunk))

    async def TaskExecWait(self, stream: Any) -> None:  # noqa: N802
        status = await asyncio.shield(self._command(await self._request(stream)).ended)
        await stream.send_message(pb.TaskExecWaitResponse(**ending(status)))

    async def TaskExecPoll(self, stream: Any) -> None:  # noqa: N802
        ended = self._command(await self._request(stream)).ended
        await stream.send_message(pb.TaskExecPollResponse(**(ending(ended.result()) if ended.done() else {})))

    async def _request(self, stream: Any) -> Any:
        request = await stream.recv_message()
        self._emulator.calls.append(type(request).__name__)
        await asyncio.sleep(self._emulator.latency)
        if stream.metadata.get("authorization") not in self._emulator.bearers():
            raise GRPCError(Status.UNAUTHENTICATED, "the token is unknown or has expired")
        return request

    def _sandbox(self, request: Any) -> Sandbox:
        sandbox = self._emulator.sandbox(request.task_id)
        if sandbox is None or sandbox.result.done():
            raise GRPCError(Status.NOT_FOUND, "the task is gone")
        return sandbox

    def _command(self, request: Any) -> Command:
        command = self._sandbox(request).commands.get(request.exec_id)
        if command is None:
            raise GRPCError(Status.NOT_FOUND, "no such command")
        return command


def ending(status: int) -> dict[str, int]:
    return {"code": status} if status >= 0 else {"signal": -status}
