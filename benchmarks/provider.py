"""A model provider on loopback that answers at once: a look at the context, then the answer.

A process of its own, so that neither side shares an interpreter with it. Prints its base URL, and ends with its
standard input.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

REPLIES = (
    "I look at it first.\n\n```repl\nprint(len(context), repr(context[:40]))\n```",
    'That is the answer.\n\n```repl\nanswer["content"] = str(len(context))\nanswer["ready"] = True\n```',
)
HEAD = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n"


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
            # We ask a server once for its models, to learn their windows.
            answer = _completion(json.loads(body)) if head.startswith(b"POST") else {"object": "list", "data": []}
            payload = json.dumps(answer).encode()
            writer.write(HEAD.format(len(payload)).encode() + payload)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


def _length(head: bytes) -> int:
    fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:] if b":" in line)
    return int(fields.get(b"content-length", 0))


def _completion(body: dict[str, Any]) -> dict[str, Any]:
    """The reply of the turn that the conversation has come to."""
    turn = sum(message["role"] == "assistant" for message in body["messages"])
    message = {"role": "assistant", "content": REPLIES[min(turn, len(REPLIES) - 1)]}
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
