"""The container's streams, in Docker's frames, over whatever docker-py has opened."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest

from rlm_kernel.provisioners.docker.streams import attach

pytestmark = pytest.mark.no_engine


class Channel:
    """A connection that is no socket, as one over ssh is none."""

    def __init__(self, inner):
        self.recv, self.sendall, self.shutdown, self.close = inner.recv, inner.sendall, inner.shutdown, inner.close


def framed(stream, data):
    return struct.pack("!B3xI", stream, len(data)) + data


@pytest.mark.parametrize("kind", [lambda end: end, Channel], ids=["a socket", "a channel"])
async def test_pieces_come_out_by_stream_however_they_were_cut(kind):
    ours, theirs = socket.socketpair()
    attached = await attach(kind(ours))
    sent = framed(1, b"out") + framed(2, b"error") + framed(1, b"") + framed(1, b"x" * 100_000)
    for at in range(0, len(sent), 40_001):
        theirs.sendall(sent[at : at + 40_001])
    await attached.write(b"to its input")
    assert theirs.recv(100) == b"to its input"
    theirs.close()
    seen = {1: b"", 2: b""}
    async for stream, data in attached.frames():
        seen[stream] += data
    assert seen == {1: b"out" + b"x" * 100_000, 2: b"error"}
    await attached.close()


async def test_closing_does_not_wait_for_a_container_that_does_not_read():
    ours, theirs = socket.socketpair()
    attached = await attach(ours)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(attached.write(b"x" * 1_000_000), 0.2)
    await asyncio.wait_for(attached.close(), 20)
    theirs.close()
