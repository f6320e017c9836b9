"""`rlm acp`: serve one client over stdin and stdout, until it goes."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import cast

import acp

from rlm_kernel.acp.door import Door
from rlm_kernel.acp.lines import StandardStreams
from rlm_kernel.acp.settings import Settings


async def serve(settings: Settings) -> None:
    """Serve the client at the other end of stdin and stdout. Ends with stdin, or with SIGTERM or Ctrl-C.

    Raises:
        ConfigError: stdin or stdout is a file.
    """
    streams, door = await StandardStreams.open(), Door(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, streams.end)
    try:
        with contextlib.suppress(ConnectionError):
            await acp.run_agent(cast(acp.Agent, door), streams.writer, streams.reader, use_unstable_protocol=True)
    finally:
        await door.close()
