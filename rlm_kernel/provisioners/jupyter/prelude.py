"""What a kernel of a Jupyter server needs before the guest. It runs there, in the first request, without this package.

A Jupyter server drops output of a kernel that sends much in a short time, to protect browsers. An idle status resets
its count, so one is sent in time. Messages are also lost when the connection is cut. So each message on IOPub has a
number in its metadata, by which the host sees that one is missing. The host's messages for the guest come in numbered
pieces, because a server accepts at most 10 MB at a time. Each piece is acknowledged, so the host can send it again.
"""

import atexit
import itertools
import json
import os
import shutil
import tempfile
import threading
from typing import Any

NUMBER = "rlm_number"
UNLIMITED = {"comm_msg", "display_data", "error", "execute_result", "update_display_data"}
MAX_MESSAGES = 1_000
MAX_CHARACTERS = 250_000
"""Of plain output, up to four bytes each, between two resets. By default a server allows 3,000 messages and 3 MB."""
UNNUMBERED = {"input_request", "status"}
"""A server also asks the kernel when a client connects, and does not pass on the states of that."""


class Numbered:
    """Numbers the messages of the kernel on IOPub, and keeps the server from dropping any."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.plain_send = session.send
        self.number = self.messages = self.characters = 0
        self.sending = threading.RLock()

    def send(self, stream: Any, kind: Any, content: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Replaces `Session.send`, which takes a complete message, too."""
        whole = None if isinstance(kind, str) else kind
        name, content = (kind, content) if whole is None else (whole["header"]["msg_type"], whole["content"])
        if name in UNNUMBERED or name.endswith("_reply"):
            return self.plain_send(stream, kind, content, *args, **kwargs)
        with self.sending:
            if name == "stream" and whole is not None and len(content["text"]) > MAX_CHARACTERS:
                for text in pieces_of(content["text"]):
                    message = self.session.msg(name, {**content, "text": text}, parent=whole["parent_header"])
                    self.send(stream, message, None, *args, **kwargs)
                return whole
            self.reset_limits(stream, name, content)
            self.number += 1
            if whole is None:
                kwargs["metadata"] = {**(kwargs.get("metadata") or {}), NUMBER: self.number}
            else:
                whole["metadata"] = {**(whole.get("metadata") or {}), NUMBER: self.number}
            return self.plain_send(stream, kind, content, *args, **kwargs)

    def reset_limits(self, stream: Any, name: str, content: dict[str, Any]) -> None:
        """Reset the server's count before it reaches a limit."""
        self.messages += 1
        self.characters += len(content.get("text", "")) if name == "stream" else 0
        if name in UNLIMITED or self.messages > MAX_MESSAGES or self.characters > MAX_CHARACTERS:
            self.messages = self.characters = 0
            self.plain_send(stream, "status", {"execution_state": "idle"})


def pieces_of(text: str) -> list[str]:
    """A text in pieces that the server lets through."""
    return [text[start : start + MAX_CHARACTERS] for start in range(0, len(text), MAX_CHARACTERS)]


class Pieces:
    """Takes the host's pieces in the control thread, and passes on the messages that are complete."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel
        self.pieces: list[bytes] = []
        self.last = 0
        self.dispatch = kernel.dispatch_control

    def on_frames(self, frames: list[Any]) -> Any:
        """Handle a raw message if it is a piece: ipykernel would publish two states for it. Pass on all others."""
        session = self.kernel.session
        idents, parts = session.feed_identities(frames, copy=False)
        if b'"rlm_piece"' not in parts[1].bytes:
            return self.dispatch(frames)
        return self.take(self.kernel.control_stream, idents, session.deserialize(parts, content=True, copy=False))

    def take(self, stream: Any, ident: Any, message: dict[str, Any]) -> Any:
        """Take a piece, unless it came before, and acknowledge it."""
        content, buffers = message["content"], message["buffers"]
        if content["number"] > self.last + 1:
            return None
        complete = content["number"] == self.last + 1 and content["sizes"]
        if content["number"] == self.last + 1:
            self.last += 1
            self.pieces.append(bytes(buffers[0]))
        self.kernel.session.send(stream, "rlm_piece_reply", {"number": content["number"]}, ident=ident)
        return self.pass_on(stream, ident, content["sizes"]) if complete else None

    def pass_on(self, stream: Any, ident: Any, sizes: list[int]) -> Any:
        """Handle the message that the pieces make."""
        whole = memoryview(b"".join(self.pieces))
        self.pieces = []
        ends = list(itertools.accumulate(sizes))
        parts = [whole[end - size : end] for size, end in zip(sizes, ends)]  # noqa: B905 (the kernel may be Python 3.9)
        header, parent, metadata, content = (json.loads(bytes(part)) for part in parts[:4])
        kind = header["msg_type"]
        message = {"header": header, "msg_id": header["msg_id"], "msg_type": kind, "parent_header": parent}
        message.update(metadata=metadata, content=content, buffers=parts[4:])
        return self.kernel.control_handlers[kind](stream, ident, message)


def install(shell: Any, settings: dict[str, Any]) -> None:
    """Set up the kernel: its environment, an empty working directory, and the messages."""
    kernel = shell.kernel
    os.environ.update(settings["env"])
    if settings["private"]:
        directory = tempfile.mkdtemp(prefix="rlm-", dir=os.environ.get("TMPDIR"))
        atexit.register(shutil.rmtree, directory, ignore_errors=True)
        os.chdir(directory)
    kernel.session.send = Numbered(kernel.session).send
    pieces = Pieces(kernel)
    kernel.control_handlers["rlm_piece"] = pieces.take
    if hasattr(kernel.control_stream, "on_recv"):
        kernel.dispatch_control = pieces.on_frames
        kernel.control_stream.on_recv(pieces.on_frames, copy=False)
