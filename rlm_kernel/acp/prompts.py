"""What a client sends in a prompt: the message, and the data that comes with it."""

from __future__ import annotations

import base64
import binascii
import contextlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from acp import schema

from rlm_kernel import inputs
from rlm_kernel._async import run_in_thread
from rlm_kernel.acp.failures import wrong
from rlm_kernel.acp.files import Files, Place
from rlm_kernel.errors import ConfigError
from rlm_kernel.gateway.refusals import RefusedError
from rlm_kernel.types import Image

Block = (
    schema.TextContentBlock
    | schema.ImageContentBlock
    | schema.AudioContentBlock
    | schema.ResourceContentBlock
    | schema.EmbeddedResourceContentBlock
)

MAX_BYTES = 15_000_000
"""Of all files and pictures of one prompt, as text. Longer ones are read in a cell, with `read_file`."""
_SEE = "llm_query(question, images=[base64.b64decode(context[{name!r}]['base64'])])"


@dataclass(slots=True)
class Message:
    """A prompt. `text`: the message. `context`: data by the keys that the message names. `linked`: files in it."""

    text: str = ""
    context: dict[str, Any] = field(default_factory=dict)
    linked: list[Path] = field(default_factory=list)


async def read_prompt(blocks: Sequence[Block], files: Files) -> Message:
    """Read a prompt.

    Raises:
        RequestError: it is empty or too large, or it names a file that cannot be read.
    """
    reader = _Reader(files)
    for block in blocks:
        try:
            await reader.take(block)
        except (RefusedError, ConfigError, OSError, ValueError) as error:
            raise wrong(f"{_named(block)} cannot be read: {error}") from error
    message = reader.message
    message.text = message.text.strip()
    if not message.text:
        raise wrong("The prompt has no text: write a question.")
    return message


class _Reader:
    def __init__(self, files: Files) -> None:
        self.message = Message()
        self._files = files
        self._size = 0

    async def take(self, block: Block) -> None:
        match block:
            case schema.TextContentBlock(text=text):
                self.message.text += text
            case schema.ResourceContentBlock(uri=uri):
                await self._link(uri)
            case schema.EmbeddedResourceContentBlock(resource=schema.TextResourceContents(text=text, uri=uri)):
                self._add(self._name_of(uri), text)
            case schema.EmbeddedResourceContentBlock(resource=schema.BlobResourceContents(blob=blob, uri=uri)):
                name = self._name_of(uri)
                await self._add_bytes(name, _decoded(blob))
            case schema.ImageContentBlock(data=data, uri=uri):
                self._add_image(self._name_of(uri) if uri else "picture", _decoded(data))
            case _:
                raise ValueError("sounds are not understood")

    async def _link(self, uri: str) -> None:
        """A file becomes data of the message; a folder is named, and read in cells."""
        place = self._files.place(uri)
        name = self._files.name(place) or "."
        if await run_in_thread(lambda: place.tree.is_folder(place.parts)):
            self.message.text += f" {name}/ (a folder: list_files({name!r}), read_file) "
            return
        self.message.linked.append(place.path)
        text = await self._files.text(place)
        if text is not None and place.path.suffix != ".ipynb":
            self._add(name, text)
        else:
            await self._add_bytes(name, await run_in_thread(lambda: place.tree.read_bytes(place.parts)))

    def _name_of(self, uri: str) -> str:
        """A name for what a client embeds. It may be anything: nothing is read there."""
        with contextlib.suppress(RefusedError):
            return self._files.name(self._files.place(uri))
        return PurePosixPath(uri.partition("?")[0]).name[:200] or "attachment"

    async def _add_bytes(self, name: str, content: bytes) -> None:
        with contextlib.suppress(ValueError):
            Image.of(content)
            self._add_image(name, content)
            return
        self._add(name, await run_in_thread(lambda: _as_text(name, content)))

    def _add_image(self, name: str, content: bytes) -> None:
        image = Image.of(content)
        encoded = {"media_type": image.media_type, "base64": base64.b64encode(content).decode()}
        key = self._add(name, encoded, f"a picture; to see it: {_SEE}")
        self.message.text = self.message.text.replace("{name!r}", repr(key))

    def _add(self, name: str, value: Any, about: str = "") -> str:
        """Keep data under a key that is free, and name it in the message."""
        self._size += sum(map(len, value.values())) if isinstance(value, dict) else len(value)
        if self._size > MAX_BYTES:
            raise ValueError(f"the files of a prompt have at most {MAX_BYTES:,} bytes; name larger ones in the text")
        keys = self.message.context
        key = next(k for k in (name, *(f"{name} ({n})" for n in range(2, len(keys) + 3))) if k not in keys)
        keys[key] = value
        self.message.text += f" {key} (context[{key!r}]{', ' * bool(about)}{about}) "
        return key


def _decoded(data: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise ValueError(f"it is not base64: {error}") from error


def _as_text(name: str, content: bytes) -> str | dict[str, str]:
    """The text of a file, or of a document, from its bytes."""
    with tempfile.TemporaryDirectory(prefix="rlm-acp-") as folder:
        path = Path(folder, Path(name).name)
        path.write_bytes(content)
        return inputs.load(path, max_bytes=MAX_BYTES)


def _named(block: Block) -> str:
    uri = getattr(block, "uri", None) or getattr(getattr(block, "resource", None), "uri", None)
    return str(uri) if uri else f"The {block.type} of the prompt"


__all__ = ["Block", "Message", "Place", "read_prompt"]
