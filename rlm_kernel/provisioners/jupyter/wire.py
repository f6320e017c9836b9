"""The messages on a Jupyter server's WebSocket: the subprotocol `v1.kernel.websocket.jupyter.org`.

A message is the name of its channel and its parts: header, parent header, metadata, content, buffers. Before them are
the number of offsets and the offsets, eight bytes each, little-endian. It carries no signature.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence

SUBPROTOCOL = "v1.kernel.websocket.jupyter.org"
MIN_PARTS = 4


def encode(channel: str, parts: Sequence[bytes | bytearray | memoryview]) -> bytes:
    """A message as the bytes of a WebSocket frame."""
    pieces = [channel.encode(), *parts]
    first = 8 * (len(pieces) + 2)
    offsets = itertools.accumulate(map(len, pieces), initial=first)
    return b"".join([struct.pack(f"<{len(pieces) + 2}Q", len(pieces) + 1, *offsets), *pieces])


def decode(data: bytes) -> tuple[str, list[bytes]]:
    """The channel and the parts of a message.

    Raises:
        ValueError: it is not a message of this protocol.
    """
    try:
        count = struct.unpack_from("<Q", data)[0]
        if not MIN_PARTS + 2 <= count <= len(data) // 8:
            raise ValueError(f"a message with {count:,} offsets")
        offsets = struct.unpack_from(f"<{count}Q", data, 8)
    except struct.error as error:
        raise ValueError("a message without offsets") from error
    if list(offsets) != sorted(offsets) or offsets[-1] > len(data):
        raise ValueError("a message with wrong offsets")
    channel, *parts = (data[start:end] for start, end in itertools.pairwise(offsets))
    return channel.decode("ascii", "replace"), parts
