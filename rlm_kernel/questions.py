"""What a cell asks of the host, and what it gets: the records that cross the wire while a cell runs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Literal, Self

MOST_BYTES = 20_000_000
"""Of one picture. The guest refuses larger ones with a hint; the host drops what comes all the same."""

MOST_IMAGES = 100
"""Of one question."""

_BEGINNINGS: dict[str, tuple[bytes, ...]] = {
    "image/png": (b"\x89PNG\r\n\x1a\n",),
    "image/jpeg": (b"\xff\xd8\xff",),
    "image/gif": (b"GIF87a", b"GIF89a"),
}


@dataclass(frozen=True, slots=True)
class Image:
    """A picture in a prompt.

    Attributes:
        media_type: ``"image/png"``, ``"image/jpeg"``, ``"image/gif"`` or ``"image/webp"``.
        sha256: of the bytes, in hexadecimal.
        size: how many bytes.
        data: the bytes; empty in an event that was read from a record.
    """

    media_type: str
    sha256: str
    size: int
    data: bytes = field(default=b"", repr=False)

    @classmethod
    def of(cls, data: bytes) -> Self:
        """The picture in these bytes.

        Raises:
            ValueError: they are no PNG, JPEG, GIF or WebP, or too many.
        """
        kind = next((name for name, begins in _BEGINNINGS.items() if data.startswith(begins)), None)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            kind = "image/webp"
        if kind is None or len(data) > MOST_BYTES:
            raise ValueError(f"no PNG, JPEG, GIF or WebP image of at most {MOST_BYTES:,} bytes")
        return cls(kind, hashlib.sha256(data).hexdigest(), len(data), data)


QueryKind = Literal["llm_query", "rlm_query"]


@dataclass(frozen=True, slots=True)
class Query:
    """One call of `llm_query` or `rlm_query`, or a batch of them, as it arrived from the kernel.

    Attributes:
        id: chosen by the guest; the same for every re-send.
        kind: which function was called.
        prompts: one text, or those of the batch in order.
        model: the name the cell asked for, or None for the default.
        batch: whether it was a `..._batched` call.
        schema: a JSON Schema that the answers have to fit, as the kernel sent it; None for text.
        images: the same for all prompts.
    """

    id: str
    kind: QueryKind
    prompts: tuple[str, ...]
    model: str | None = None
    batch: bool = False
    schema: dict[str, Any] | None = None
    images: tuple[Image, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a custom tool, as it arrived from the kernel.

    Attributes:
        id: chosen by the guest; the same for every re-send.
        tool: its name.
        args, kwargs: JSON values.
    """

    id: str
    tool: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of one prompt of a `Query`, or of a `ToolCall`.

    Attributes:
        text: the answer, with a schema as JSON; of a tool its result as JSON.
        error: why there is none; of a tool the exception's class name and message as JSON.
        refused: the call itself was wrong: the error is raised in the cell as a ValueError, for a batch too.
    """

    text: str = ""
    error: str | None = None
    refused: bool = False
