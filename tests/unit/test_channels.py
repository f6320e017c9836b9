"""The sockets of a kernel go on being read, whatever comes out of them and whoever fails to take it."""

from __future__ import annotations

import asyncio

import pytest
import zmq
from jupyter_client.client import KernelClient

from rlm_kernel.kernel.channels import Channels, Receiver
from rlm_kernel.provisioners.zmq_context import zmq_context


class Publisher:
    """The IOPub of a kernel that says whatever it is told to."""

    def __init__(self):
        self._socket = zmq_context().socket(zmq.XPUB)
        port = self._socket.bind_to_random_port("tcp://127.0.0.1")
        ports = {f"{name}_port": port for name in ("shell", "iopub", "stdin", "control", "hb")}
        self._client = KernelClient(context=zmq_context())
        self._client.load_connection_info({"transport": "tcp", "ip": "127.0.0.1", "key": "key", **ports})

    def listen(self, take):
        return Channels(self._client, Receiver({("iopub", "stream", ""): take}))

    async def publish(self, *contents):
        await asyncio.to_thread(self._socket.recv)  # somebody listens
        session = self._client.session
        for content in contents:
            header = session.msg_header("stream")
            parts = [session.pack(header), b"{}", b"{}", content]
            self._socket.send_multipart([b"stream", b"<IDS|MSG>", session.sign(parts), *parts])

    def close(self):
        self._socket.close(0)


@pytest.fixture
def publisher():
    publisher = Publisher()
    yield publisher
    publisher.close()


async def test_what_cannot_be_read_does_not_end_the_reading(publisher):
    taken, last = [], asyncio.Event()

    def take(message):
        taken.append(message["content"])
        if taken[-1] == "last":
            last.set()

    channels = publisher.listen(take)
    await publisher.publish(b"[" * 100_000 + b"]" * 100_000, b"no json", b'"last"')
    await asyncio.wait_for(last.wait(), 20)
    channels.close()
    assert taken == ["last"]


async def test_a_reader_that_fails_is_told_of_and_gets_the_next_message(publisher):
    told, last = [], asyncio.Event()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(str(context["exception"])))

    def take(message):
        if message["content"] == "last":
            last.set()
        else:
            raise RuntimeError(message["content"])

    channels = publisher.listen(take)
    await publisher.publish(b'"first"', b'"second"', b'"last"')
    await asyncio.wait_for(last.wait(), 20)
    channels.close()
    assert told == ["first", "second"]
