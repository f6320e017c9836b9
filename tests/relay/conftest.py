from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from jupyter_client.asynchronous import AsyncKernelClient

from rlm_kernel.provisioners.local_base import private_directory
from rlm_kernel.provisioners.relay.host_end import RelayHost, source

KEY = b"a-key-of-the-test"


class Piped:
    """A `Remote`: a process on this machine with pipes, as `docker run -i` or a cloud's `exec` has them."""

    def __init__(self, process):
        self.process = process

    @classmethod
    async def start(cls, *command):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        return cls(await asyncio.create_subprocess_exec(*command, **pipes, limit=2**20))

    async def write(self, data):
        self.process.stdin.write(data)
        await self.process.stdin.drain()

    async def __aiter__(self):
        while data := await self.process.stdout.read(2**18):
            yield data

    async def close(self):
        self.process.stdin.close()
        await self.process.wait()


@dataclass
class Relayed:
    """A kernel behind a relay, and a stock Jupyter client that knows its connection file only."""

    host: RelayHost
    remote: Any
    client: AsyncKernelClient
    connection: dict[str, Any]

    async def execute(self, code, timeout=60):
        """The reply and what was printed."""
        said = []
        reply = await self.client.execute_interactive(code, timeout=timeout, output_hook=said.append)
        text = "".join(m["content"]["text"] for m in said if m["msg_type"] == "stream")
        return reply["content"], text


async def answers(client):
    """Wait for a kernel that takes longer to start than this client would have a heart pause."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(RuntimeError):
                return await client.wait_for_ready(60)


def addresses(directory):
    ports = {f"{name}_port": number for number, name in enumerate(("shell", "iopub", "stdin", "control", "hb"), 1)}
    return {"transport": "ipc", "ip": f"{directory}/k", **ports, "key": KEY, "signature_scheme": "hmac-sha256"}


@pytest.fixture
async def relayed():
    """Starts a kernel behind a relay: `command` runs `remote_end.py`."""
    async with AsyncExitStack() as stack:

        async def start(*command, text=False):
            command = command or (sys.executable, "-c", source("relay/remote_end.py"), *(["--text"] if text else []))
            directory = private_directory()
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
            connection = addresses(directory)
            remote = await Piped.start(*command)
            host = await RelayHost.open(connection, remote, text=text)
            stack.push_async_callback(host.close)
            client = AsyncKernelClient()
            client.load_connection_info(connection)
            client.start_channels()
            stack.callback(client.context.destroy, 0)
            stack.callback(client.stop_channels)
            await answers(client)
            return Relayed(host, remote, client, connection)

        yield start
