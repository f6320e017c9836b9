"""A Jupyter server that answers with anything."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from aiohttp import web

from rlm_kernel.errors import KernelError
from rlm_kernel.provisioners.jupyter import wire
from rlm_kernel.provisioners.jupyter.remote import JupyterRemote
from rlm_kernel.provisioners.jupyter.server import Server

TOKEN = "s3cret-token"


@contextlib.asynccontextmanager
async def hostile(start=None, replies=()):
    """The `Server` of one that answers a start with `start`, and a message with `replies`."""

    async def connect(request):
        connected = web.WebSocketResponse(protocols=[wire.SUBPROTOCOL])
        await connected.prepare(request)
        async for message in connected:
            asked = wire.decode(message.data)[1][0]
            for reply in replies:
                data = reply(asked) if callable(reply) else reply
                await (connected.send_str(data) if isinstance(data, str) else connected.send_bytes(data))
        return connected

    async def started(request):
        return web.json_response({"id": "k"}) if start is None else start(request)

    app = web.Application()
    app.router.add_post("/api/kernels", started)
    app.router.add_delete("/api/kernels/k", started)
    app.router.add_get("/api/kernels/k/channels", connect)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server = Server(f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}", TOKEN, 10.0)
    try:
        yield server
    finally:
        await server.close()
        await runner.cleanup()


@pytest.mark.parametrize(
    "start",
    [
        lambda request: web.Response(text="[" * 100_000),
        lambda request: web.Response(text=" " * 2_000_000 + '{"id": "k"}'),
        lambda request: web.Response(status=500, text=str(request.headers)),
    ],
)
async def test_no_answer_to_the_start_breaks_the_host_or_repeats_the_token(start):
    async with hostile(start) as server:
        with pytest.raises(KernelError) as failure:
            await JupyterRemote.start(server, None, {}, private=True)
    assert TOKEN not in str(failure.value)


@pytest.mark.parametrize("reply", [b"\0\0\0", "text"])
async def test_a_message_of_another_protocol_is_an_error(reply):
    async with hostile(replies=[reply]) as server:
        with pytest.raises(KernelError, match="a message without offsets"):
            await JupyterRemote.start(server, None, {}, private=True)


async def test_a_message_of_another_protocol_ends_the_kernel_and_nobody_waits():
    def ok(asked):
        return wire.encode("shell", [b"{}", asked, b"{}", b'{"status": "ok"}'])

    async with hostile(replies=[ok, b"\0\0\0"]) as server:
        remote = await JupyterRemote.start(server, None, {}, private=True)
        async with asyncio.timeout(10):
            assert [frame async for frame in remote] == []
            with pytest.raises(OSError, match="without offsets"):
                await remote._send(b"")
        assert "a message without offsets" in remote.why
        await remote.close()
