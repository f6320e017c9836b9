"""The tools that read files: lists, handles, spans and chunks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from pathspec import GitIgnoreSpec

from rlm_kernel.gateway import arguments, limits
from rlm_kernel.gateway.calls import Call
from rlm_kernel.gateway.refusals import LimitExceededError, NotFoundError, RefusedError
from rlm_kernel.gateway.sessions import Chunk, Span
from rlm_kernel.gateway.tree import NO_PATTERN, Entry, Parts, Text, digest, parts_of

MANIFEST_DEPTH = 10


def set_roots(call: Call, given: arguments.RootsSet) -> dict[str, Any]:
    """Allow folders of the repository."""
    roots = tuple(dict.fromkeys(map(parts_of, given.roots)))
    for number, root in enumerate(roots, 1):
        if not call.tree.is_folder(root):
            raise NotFoundError(f"Root does not exist: number {number} names no folder that can be read")
    call.session.roots = roots
    return {"success": True, "roots": ["/".join(root) or "." for root in roots]}


def list_folder(call: Call, given: arguments.List) -> dict[str, Any]:
    """The files and folders below a folder."""
    root = call.allowed(parts_of(given.root))
    shown = _filter(given.patterns)
    entries = call.tree.walk(root, given.depth)
    found = list(itertools.islice((e for e in entries if e.is_folder or shown(e.parts)), limits.MAX_LISTED + 1))
    hashes = _Hashes(call)
    items = [_folder(call, entry) if entry.is_folder else hashes.file(entry) for entry in found[: limits.MAX_LISTED]]
    if len(found) > limits.MAX_LISTED:
        items.append({"type": "truncated", "message": "Max items reached"})
    return {"success": True, "items": items}


def make_manifest(call: Call, given: arguments.Manifest) -> dict[str, Any]:
    """All files below a folder, with their hashes and lines."""
    root = call.allowed(parts_of(given.root))
    files = (entry for entry in call.tree.walk(root, MANIFEST_DEPTH) if not entry.is_folder)
    found = list(itertools.islice(files, limits.MAX_LISTED + 1))
    hashes = _Hashes(call)
    described = [hashes.file(entry, lines=True) for entry in found[: limits.MAX_LISTED]]
    total = sum(file["size"] for file in described)
    return {"success": True, "files": described, "total_size": total, "truncated": len(found) > limits.MAX_LISTED}


def make_handle(call: Call, given: arguments.HandleCreate) -> dict[str, Any]:
    """The handle of a file."""
    parts = call.allowed(parts_of(given.file_path))
    call.tree.check_file(parts)
    return {"success": True, "file_handle": call.session.file_handle(parts)}


def read_span(call: Call, given: arguments.SpanRead) -> dict[str, Any]:
    """Lines of a file."""
    parts = call.allowed(call.session.file_of(given.file_handle))
    lines = given.end_line - given.start_line + 1
    if lines < 1:
        raise RefusedError("Invalid argument: end_line is before start_line")
    if lines > limits.MAX_SPAN_LINES:
        raise LimitExceededError(f"Span too large: {lines} > {limits.MAX_SPAN_LINES} lines")
    text = call.tree.read(parts)
    span = Chunk(given.file_handle, parts, given.start_line, given.end_line)
    return {**_content(call, text, span, given.max_bytes, "file"), "total_lines": len(text.lines)}


def make_chunks(call: Call, given: arguments.ChunkCreate) -> dict[str, Any]:
    """Cut a file into chunks."""
    parts = call.allowed(call.session.file_of(given.file_handle))
    if given.chunk_size > limits.MAX_CHUNK_LINES:
        raise LimitExceededError(f"Chunk size too large: {given.chunk_size} > {limits.MAX_CHUNK_LINES}")
    if given.budget > limits.MAX_CHUNKS:
        raise LimitExceededError(f"Budget too large: {given.budget} > {limits.MAX_CHUNKS}")
    if given.overlap >= given.chunk_size:
        raise RefusedError("Invalid argument: overlap must be less than chunk_size")
    total = len(call.tree.read(parts).lines)
    step = given.chunk_size - given.overlap
    starts = range(1, max(total - given.overlap, 1) + 1, step) if total else range(0)
    chunks = (Chunk(given.file_handle, parts, at, min(at + given.chunk_size - 1, total)) for at in starts)
    ids = [call.session.chunk_handle(chunk) for chunk in itertools.islice(chunks, given.budget)]
    return {"success": True, "chunk_ids": ids, "total_chunks": len(starts)}


def get_chunk(call: Call, given: arguments.ChunkGet) -> dict[str, Any]:
    """The lines of a chunk."""
    chunk = call.session.chunk_of(given.chunk_id)
    content = _content(call, call.tree.read(call.allowed(chunk.parts)), chunk, given.max_bytes, "chunk")
    return {**content, "chunk_id": given.chunk_id, "file_handle": chunk.file_handle}


def cut(text: str, max_bytes: int) -> str:
    """The beginning of a text, of at most this many bytes of UTF-8."""
    return text.encode()[:max_bytes].decode("utf-8", "ignore")


def sound(text: str) -> str:
    """Text that UTF-8 can hold: code and models may give lone surrogates."""
    return text.encode("utf-8", "replace").decode()


def _content(call: Call, text: Text, span: Chunk, max_bytes: int, source: str) -> dict[str, Any]:
    """Lines of a file, as many as fit, and their provenance."""
    if span.start > max(len(text.lines), 1):
        raise RefusedError(f"Invalid argument: start_line {span.start} is after the last line, {len(text.lines)}")
    whole = "\n".join(text.lines[span.start - 1 : span.end])
    content = cut(whole, min(max_bytes, limits.MAX_SPAN_BYTES))
    end = span.start + content.count("\n")
    size = len(content.encode())
    record = Span(source, span.file_handle, span.parts, span.start, end, digest(content.encode()), size)
    warning = call.warning_about(record, content)
    call.spans.append(record)
    return {
        "success": True,
        "label": "DATA",
        "content": content,
        "start_line": span.start,
        "end_line": end,
        "hash": record.content_hash,
        "provenance": record.shown(),
        "warning": warning,
        "metadata": {"line_count": end - span.start + 1, "byte_count": size, "is_truncated": content != whole},
    }


def _folder(call: Call, entry: Entry) -> dict[str, Any]:
    count = sum(1 for _ in itertools.islice(_below(call, entry.parts), limits.MAX_LISTED))
    return {"type": "directory", "path": entry.path, "item_count": count}


def _below(call: Call, parts: Parts) -> Iterator[Entry]:
    try:
        yield from call.tree.walk(parts, 1)
    except RefusedError:  # removed since it was listed
        return


def _filter(patterns: list[str] | None) -> Any:
    """A function that says whether a path fits one of the patterns, in the syntax of `.gitignore`."""
    if not patterns:
        return lambda _: True
    spec = spec_of(patterns)
    return lambda parts: spec.match_file("/".join(parts))


def spec_of(patterns: list[str]) -> GitIgnoreSpec:
    """Patterns in the syntax of `.gitignore`.

    Raises:
        RefusedError: one is none, or they are too complex.
    """
    try:
        return GitIgnoreSpec.from_lines(patterns)
    except NO_PATTERN:
        raise RefusedError("Invalid argument: patterns must be simple globs, such as '*.py' or 'src/**'") from None


class _Hashes:
    """Describes files; hashes them until so many bytes were read."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._left = limits.MAX_HASHED_BYTES

    def file(self, entry: Entry, *, lines: bool = False) -> dict[str, Any]:
        """A file of a list, or with `lines` of a manifest."""
        size = entry.about.st_size
        raw = b"\0"
        hashed = None
        if size <= self._left:
            self._left -= size
            try:
                raw = self._call.tree.read_bytes(entry.parts)
                hashed = digest(raw)
            except RefusedError:  # removed or replaced since it was listed, or too large
                hashed = None
        handle = self._call.session.file_handle(entry.parts)
        about = {"path": entry.path, "file_handle": handle, "size": size, "hash": hashed}
        if not lines:
            return {"type": "file", **about}
        count = raw.count(b"\n") + (not raw.endswith(b"\n") and raw != b"")
        return {**about, "lines": None if b"\0" in raw else count}
