"""The emulated control plane: Modal's own service, as far as apps, images and sandboxes need it."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from google.protobuf.timestamp_pb2 import Timestamp
from grpclib import GRPCError, Status
from modal_proto import api_pb2 as pb
from modal_proto.api_grpc import ModalClientBase
from partial_service import answering_the_rest_with_unimplemented
from sandboxes import Result, Sandbox

if TYPE_CHECKING:
    from emulator import ModalEmulator

SUCCESS = Result(status=Result.GENERIC_STATUS_SUCCESS)
FAILURE = Result(status=Result.GENERIC_STATUS_FAILURE)


class ControlPlane(answering_the_rest_with_unimplemented(ModalClientBase)):
    def __init__(self, emulator: ModalEmulator) -> None:
        self._emulator = emulator
        self._apps: dict[str, str] = {}
        self._image_ids: dict[bytes, str] = {}
        self._secrets: dict[str, dict[str, str]] = {}

    # -- who is there

    async def ClientHello(self, stream: Any) -> None:  # noqa: N802
        await self._request(stream)
        await stream.send_message(pb.ClientHelloResponse())

    async def AuthTokenGet(self, stream: Any) -> None:  # noqa: N802
        await self._request(stream)
        await stream.send_message(pb.AuthTokenGetResponse(token=self._emulator.token(3600)))

    async def TokenFlowCreate(self, stream: Any) -> None:  # noqa: N802
        await self._request(stream, anonymous=True)
        await stream.send_message(pb.TokenFlowCreateResponse(token_flow_id="tf-1", web_url="http://127.0.0.1:1/"))

    async def TokenFlowWait(self, stream: Any) -> None:  # noqa: N802
        """The user has said yes in the browser."""
        await self._request(stream, anonymous=True)
        token_id, secret = self._emulator.credentials
        await stream.send_message(pb.TokenFlowWaitResponse(token_id=token_id, token_secret=secret))

    async def WorkspaceNameLookup(self, stream: Any) -> None:  # noqa: N802
        await self._request(stream)
        await stream.send_message(pb.WorkspaceNameLookupResponse(username="emulated"))

    async def EnvironmentGetOrCreate(self, stream: Any) -> None:  # noqa: N802
        request = await self._request(stream)
        name = request.deployment_name or "main"
        if name != "main":
            raise GRPCError(Status.NOT_FOUND, f"Environment '{name}' not found")
        settings = pb.EnvironmentSettings(image_builder_version="2025.06")
        metadata = pb.EnvironmentMetadata(name=name, settings=settings)
        await stream.send_message(pb.EnvironmentGetOrCreateResponse(environment_id="en-1", metadata=metadata))

    async def AppGetOrCreate(self, stream: Any) -> None:  # noqa: N802
        request = await self._request(stream)
        if request.environment_name not in ("", "main"):
            raise GRPCError(Status.NOT_FOUND, f"Environment '{request.environment_name}' not found")
        if request.app_name in self._emulator.forbidden_apps:
            raise GRPCError(Status.PERMISSION_DENIED, f"you may not use the App {request.app_name!r}")
        app = self._apps.setdefault(request.app_name, identifier("ap"))
        await stream.send_message(pb.AppGetOrCreateResponse(app_id=app))

    # -- images

    async def ImageGetOrCreate(self, stream: Any) -> None:  # noqa: N802
        request = await self._request(stream)
        recipe = request.image.SerializeToString(deterministic=True)
        known = recipe in self._image_ids
        image = self._image_ids.setdefault(recipe, identifier("im"))
        commands = list(request.image.dockerfile_commands)
        self._emulator.images[image] = commands
        metadata = pb.ImageMetadata(image_builder_version=request.builder_version)
        built = SUCCESS if known and not self._failure(image) else None
        await stream.send_message(pb.ImageGetOrCreateResponse(image_id=image, result=built, metadata=metadata))

    async def ImageJoinStreaming(self, stream: Any) -> None:  # noqa: N802
        request = await self._request(stream)
        await asyncio.sleep(self._emulator.build_seconds)
        failure = self._failure(request.image_id)
        await stream.send_message(pb.ImageJoinStreamingResponse(result=FAILURE if failure else SUCCESS, eof=True))

    async def ImageBuildChainGet(self, stream: Any) -> None:  # noqa: N802
        image = (await self._request(stream)).image_id
        since, until = Timestamp(seconds=int(time.time()) - 60), Timestamp(seconds=int(time.time()) + 60)
        step = pb.ImageBuildStep(
            image_id=image, started_at=since, finished_at=until, builder_app_id="ap-builder", builder_task_id=image
        )
        await stream.send_message(pb.ImageBuildChainGetResponse(build_steps=[step]))

    async def AppFetchLogs(self, stream: Any) -> None:  # noqa: N802
        request = await self._request(stream)
        lines = [f"{line}\n" for line in self._failure(request.task_id)]
        items = [pb.TaskLogs(data=line, timestamp=time.time()) for line in lines[-request.limit :]]
        await stream.send_message(pb.AppFetchLogsResponse(batches=[pb.TaskLogsBatch(items=items)]))

    def _failure(self, image: str) -> Sequence[str]:
        """The log of a build that fails, as it does when it wants what is not there; else nothing."""
        words = " ".join(self._emulator.images.get(image, ())).split()
        return next((log for name, log in self._emulator.build_failures.items() if name in words), ())

    # -- sandboxes, of both generations: a GPU makes one of the first

    async def SandboxCreateV2(self, stream: Any) -> None:  # noqa: N802
        request = await self._request(stream)
        environ: dict[str, str] = {}
        for source in request.secret_sources:
            environ.update(self._secrets.get(source.secret_id, {}) | dict(source.env.contents))
        sandbox = await self._create(f"sb-V2-{uuid.uuid4().hex}", request.definition, environ)
        await stream.send_message(
            pb.SandboxCreateV2Response(
                sandbox_id=sandbox.id,
                task_id=sandbox.task_id,
                metadata=pb.SandboxHandleMetadata(app_id=request.app_id),
                command_router_access=pb.CommandRouterAccess(**self._emulator.access()),
            )
        )

    async def SandboxCreate(self, stream: Any) -> None:  # noqa: N802
        request = await self._request(stream)
        environ: dict[str, str] = {}
        for secret in request.definition.secret_ids:
            environ.update(self._secrets[secret])
        sandbox = await self._create(identifier("sb"), request.definition, environ)
        metadata = pb.SandboxHandleMetadata(app_id=request.app_id)
        await stream.send_message(pb.SandboxCreateResponse(sandbox_id=sandbox.id, metadata=metadata))

    async def SecretGetOrCreate(self, stream: Any) -> None:  # noqa: N802
        request, secret = await self._request(stream), identifier("st")
        self._secrets[secret] = dict(request.env_dict)
        await stream.send_message(pb.SecretGetOrCreateResponse(secret_id=secret))

    async def SandboxGetTaskId(self, stream: Any) -> None:  # noqa: N802
        sandbox = self._sandbox(await self._request(stream))
        await stream.send_message(pb.SandboxGetTaskIdResponse(task_id=sandbox.task_id))

    SandboxGetTaskIdV2 = SandboxGetTaskId

    async def SandboxWait(self, stream: Any) -> None:  # noqa: N802
        request = await self._request(stream)
        if self._emulator.failing:
            self._emulator.failing -= 1
            raise GRPCError(Status.INTERNAL, "something is wrong for a while")
        result = self._sandbox(request).result
        await asyncio.wait({asyncio.shield(result)}, timeout=request.timeout)
        await stream.send_message(pb.SandboxWaitResponse(result=result.result() if result.done() else None))

    SandboxWaitV2 = SandboxWait

    async def SandboxTerminate(self, stream: Any) -> None:  # noqa: N802
        sandbox = self._sandbox(await self._request(stream))
        sandbox.end(Result.GENERIC_STATUS_TERMINATED, 137)
        await stream.send_message(pb.SandboxTerminateResponse())

    SandboxTerminateV2 = SandboxTerminate

    async def SandboxGetCommandRouterAccess(self, stream: Any) -> None:  # noqa: N802
        await self._request(stream)
        await stream.send_message(pb.SandboxGetCommandRouterAccessResponse(**self._emulator.access()))

    async def TaskGetCommandRouterAccess(self, stream: Any) -> None:  # noqa: N802
        await self._request(stream)
        await stream.send_message(pb.TaskGetCommandRouterAccessResponse(**self._emulator.access()))

    # -- what all of them do

    async def _create(self, sandbox_id: str, definition: pb.Sandbox, environ: dict[str, str]) -> Sandbox:
        if self._emulator.no_capacity:
            raise GRPCError(Status.RESOURCE_EXHAUSTED, "no capacity")
        sandbox = Sandbox(sandbox_id, definition, {**self._emulator.sandbox_environment(), **environ})
        self._emulator.sandboxes.append(sandbox)
        await sandbox.start()
        return sandbox

    def _sandbox(self, request: Any) -> Sandbox:
        sandbox = self._emulator.sandbox(request.sandbox_id)
        if sandbox is None:
            raise GRPCError(Status.NOT_FOUND, "no such sandbox")
        return sandbox

    async def _request(self, stream: Any, *, anonymous: bool = False) -> Any:
        request = await stream.recv_message()
        self._emulator.calls.append(type(request).__name__)
        await asyncio.sleep(self._emulator.latency)
        names = ("x-modal-token-id", "x-modal-token-secret")
        known = tuple(stream.metadata.get(name) for name in names) == self._emulator.credentials
        if not (known or anonymous):
            raise GRPCError(Status.UNAUTHENTICATED, "Token validation failed: no such token")
        return request


def identifier(kind: str) -> str:
    """An id as Modal's: the kind and 22 letters and digits, which is how a client knows the first generation."""
    return f"{kind}-{uuid.uuid4().hex[:22]}"
