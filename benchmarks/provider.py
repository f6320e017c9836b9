"""A model provider on loopback that answers at once, with the replies of `scenarios.py`.

A process of its own, so that no side shares an interpreter with it. Prints its base URL, and ends with its standard
input. `GET /arrivals` returns when requests with a system message came since the last look, by `time.monotonic`, which
all processes of a machine share: how long a turn took is seen from outside, alike for every engine.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from scenarios import reply

HEAD = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n"

arrivals: list[float] = []


async def main() -> None:
    """Serve until standard input ends."""
    server = await asyncio.start_server(_connection, "127.0.0.1", 0)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(0, ended.set)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await ended.wait()


async def _connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(_length(head))
            payload = json.dumps(_answer(head, body)).encode()
            writer.write(HEAD.format(len(payload)).encode() + payload)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


def _length(head: bytes) -> int:
    fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:] if b":" in line)
    return int(fields.get(b"content-length", 0))


def _answer(head: bytes, body: bytes) -> dict[str, Any]:
    if head.startswith(b"POST"):
        return _completion(json.loads(body))
    if not head.startswith(b"GET /arrivals"):  # a server is asked once for its models, to learn their windows
        return {"object": "list", "data": []}
    seen = {"arrivals": arrivals[:]}
    arrivals.clear()
    return seen


def _completion(body: dict[str, Any]) -> dict[str, Any]:
    messages = body["messages"]
    if messages[0]["role"] == "system":
        arrivals.append(time.monotonic())
    message = {"role": "assistant", "content": reply(body["model"], messages)}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }


if __name__ == "__main__":
    asyncio.run(main())
