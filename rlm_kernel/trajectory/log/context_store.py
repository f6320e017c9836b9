"""Store the inputs of runs: a small one in the log, any other once in a file that is named by its hash.

The log `logs/rlm_2026-11-20_12-00-00_1f0c2a9b.jsonl` names `contexts/9f86d081….txt`, a file in its folder.
"""

from __future__ import annotations

import codecs
import errno
import hashlib
import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlm_kernel.errors import RecordingError
from rlm_kernel.kernel.protocol import pickled
from rlm_kernel.trajectory.log.atomic_files import copy_whole, is_there, write_whole
from rlm_kernel.trajectory.log.reader import ContextEncoding, StoredContext
from rlm_kernel.types import Input, Prompt, TextFile
from rlm_kernel.untrusted import json_text

FOLDER = "contexts"
EMBEDDED_BYTES = 20_000
"""Inputs up to this size are in the log."""
MAX_BYTES = 2**32
"""Limit of a file that is read: another user may have put a sparse file next to the log."""

_PIECE_BYTES = 1 << 20
_MAX_SECRET_CHARACTERS = 20_000
"""A longer secret may lie across two pieces of a file and is not found."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SUFFIXES: dict[ContextEncoding, str] = {"text": ".txt", "json": ".json", "pickle": ".pickle"}


def store(
    context: Input,
    folder: Path | None,
    redact: Callable[[str], str] = str,
    may_take: Callable[[int], bool] = lambda _: True,
) -> StoredContext:
    """Store an input. Hashing and writing take about 0.3 s for 100 MB.

    Args:
        context: the input.
        folder: of the log; None: only the hash is kept.
        redact: removes secrets from text. An input with a secret is not stored: without the secret it would differ.
        may_take: whether a file of this size in bytes may be written; if not, only the hash is kept.

    Raises:
        OSError: it could not be written.
    """
    if isinstance(context, TextFile):
        return _store_file(context, folder, redact, may_take)
    encoding, content = encode(context)
    sha256, size = hashlib.sha256(content).hexdigest(), len(content)
    # A pickle holds text as UTF-8, between other bytes.
    text = context if isinstance(context, str) else content.decode("utf-8", "replace")
    if redact(text) is not text:
        return StoredContext(sha256, encoding, size, redacted=True)
    if size <= EMBEDDED_BYTES and encoding != "pickle":
        return StoredContext(sha256, encoding, size, value=context)
    if folder is None:
        return StoredContext(sha256, encoding, size)
    name = _name(sha256, encoding)
    if not is_there(folder / name, size):
        if not may_take(size):
            return StoredContext(sha256, encoding, size, left_out=True)
        write_whole(folder / name, content)
    return StoredContext(sha256, encoding, size, file=name)


def _store_file(
    file: TextFile, folder: Path | None, redact: Callable[[str], str], may_take: Callable[[int], bool]
) -> StoredContext:
    """Store a copy of a file. The system copies it, and memory does not depend on its size."""
    path = Path(file.path)
    sha256, is_secret = _examine(path, redact)
    stored = StoredContext(sha256, "text", file.size)
    if is_secret:
        return replace(stored, redacted=True)
    if folder is None:
        return stored
    name = _name(sha256, "text")
    if not is_there(folder / name, file.size):
        if not may_take(file.size):
            return replace(stored, left_out=True)
        copy_whole(folder / name, path)
    now = path.stat()
    if (now.st_size, now.st_mtime_ns) != (file.size, file.modified):
        raise OSError(errno.EBUSY, "the file of the context was changed while it was stored", file.path)
    return replace(stored, file=name)


def _examine(path: Path, redact: Callable[[str], str]) -> tuple[str, bool]:
    """The hash of a file in UTF-8, and whether it holds a secret."""
    sha256, end, is_secret = hashlib.sha256(), "", False
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    with path.open("rb") as content:
        while piece := content.read(_PIECE_BYTES):
            sha256.update(piece)
            text = end + decoder.decode(piece)
            is_secret = is_secret or redact(text) is not text
            end = text[-_MAX_SECRET_CHARACTERS:]
    return sha256.hexdigest(), is_secret


def load(stored: StoredContext | None, folder: Path) -> tuple[ContextEncoding, bytes]:
    """The bytes of an input as they were stored, and how they are read.

    Args:
        stored: where they are; None: they were not stored.
        folder: of the log.

    Raises:
        RecordingError: they are missing or altered.
    """
    if stored is None:
        raise RecordingError("The run ended before its context was stored: give the context again.")
    if stored.redacted:
        raise RecordingError("The context holds a secret and was left out of the record: give the context again.")
    if stored.left_out:
        raise RecordingError(
            f"The context has {stored.size:,} bytes, more than the files of the run may have (max_log_bytes), and is "
            "not in the record: give the context again."
        )
    content = encode(stored.value)[1] if stored.file is None else _read(folder / stored.file, stored)
    if hashlib.sha256(content).hexdigest() != stored.sha256:
        where = folder / stored.file if stored.file else "the one in the log"
        raise RecordingError(
            f"The context of the run was altered: {where} is not what the run read. Put it back, or give it again."
        )
    return stored.encoding, content


def _read(path: Path, stored: StoredContext) -> bytes:
    """The content of the file of an input. A forged log may name another file; a larger file is not read."""
    if stored.file != _name(stored.sha256, stored.encoding) or not _SHA256.fullmatch(stored.sha256):
        raise RecordingError(f"The log names {stored.file!r} as its context, which is not one of ours: it was altered.")
    try:
        return json_text.read_file(path, min(stored.size, MAX_BYTES))
    except ValueError:
        return b""
    except OSError as error:
        raise RecordingError(
            f"The context of the run is missing: {path} ({error.strerror}). Put it back, or give the context again."
        ) from error


def _name(sha256: str, encoding: ContextEncoding) -> str:
    return f"{FOLDER}/{sha256}{_SUFFIXES[encoding]}"


def decode(encoding: ContextEncoding, content: bytes) -> Prompt:
    """The input of a run.

    Raises:
        RecordingError: it is not what `encoding` says, or it is a pickle, which can run code: the host does not open
            one that it reads from a file.
    """
    if encoding == "pickle":
        raise RecordingError(
            "The context holds values that JSON cannot, and was stored as a pickle, which is not opened here because a "
            "pickle can run code: give the context again, as RLM.resume(log, prompt=…) or --context FILE."
        )
    text = content.decode("utf-8", "surrogatepass")
    try:
        value: Prompt = text if encoding == "text" else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecordingError(f"The context is not the JSON that it should be: {error}. Give it again.") from error
    return value


def encode(context: Prompt) -> tuple[ContextEncoding, bytes]:
    """The bytes that an input is stored as: text as it is, else JSON where that is exact, else a pickle."""
    if isinstance(context, str):
        return "text", context.encode("utf-8", "surrogatepass")
    with suppress(TypeError, ValueError, RecursionError):
        text = json.dumps(context)
        if _same(json.loads(text), context):
            return "json", text.encode("ascii")
    return "pickle", pickled(context)


def _same(read: Any, written: Any) -> bool:
    """Whether JSON gave a value back exactly: types too, so that 1 is not True and a tuple no list."""
    if type(read) is not type(written):
        return False
    if isinstance(read, dict):
        return list(read) == list(written) and all(_same(read[key], written[key]) for key in read)
    if isinstance(read, list):
        return len(read) == len(written) and all(map(_same, read, written))
    return bool(read == written)
