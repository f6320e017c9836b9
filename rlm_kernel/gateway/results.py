"""What the tools give; the output schemas are made from these types."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict


class Created(TypedDict):
    """Of `session.create`."""

    session_id: str
    config: dict[str, int]
    created_at: str


class Done(TypedDict):
    """Of `session.close`."""

    success: bool


class Roots(TypedDict):
    """Of `roots.set`."""

    success: bool
    roots: list[str]


class Listed(TypedDict):
    """An entry of a list."""

    type: Literal["file", "directory", "truncated"]
    path: NotRequired[str]
    file_handle: NotRequired[str]
    size: NotRequired[int]
    hash: NotRequired[str | None]
    item_count: NotRequired[int]
    message: NotRequired[str]


class Listing(TypedDict):
    """Of `fs.list`."""

    success: bool
    items: list[Listed]


class ManifestFile(TypedDict):
    """A file of a manifest. `lines`: None if it is not text, or too large."""

    path: str
    file_handle: str
    size: int
    hash: str | None
    lines: int | None


class Manifest(TypedDict):
    """Of `fs.manifest`."""

    success: bool
    files: list[ManifestFile]
    total_size: int
    truncated: bool


class FileHandle(TypedDict):
    """Of `fs.handle.create`."""

    success: bool
    file_handle: str


class Provenance(TypedDict):
    """Where content came from."""

    file_handle: str
    start_line: int
    end_line: int
    content_hash: str
    source_type: str
    bytes: int


class SpanMetadata(TypedDict):
    """Of a span."""

    line_count: int
    byte_count: int
    is_truncated: bool


class Span(TypedDict):
    """Of `span.read`. `end_line`: the last line that is in `content`."""

    success: bool
    label: str
    content: str
    start_line: int
    end_line: int
    total_lines: int
    hash: str
    provenance: Provenance
    warning: str | None
    metadata: SpanMetadata


class ChunkContent(TypedDict):
    """Of `chunk.get`."""

    success: bool
    label: str
    content: str
    chunk_id: str
    file_handle: str
    start_line: int
    end_line: int
    hash: str
    provenance: Provenance
    warning: str | None
    metadata: SpanMetadata


class Chunks(TypedDict):
    """Of `chunk.create`. `total_chunks`: of the whole file; `chunk_ids` are the first of them."""

    success: bool
    chunk_ids: list[str]
    total_chunks: int


class Hit(TypedDict):
    """A search result."""

    path: str
    file_handle: str
    start_line: int
    end_line: int
    relevance_score: float
    snippet: str
    snippet_hash: str


class Hits(TypedDict):
    """Of a search. `truncated`: the search stopped at its time limit, so there may be better results."""

    success: bool
    results: list[Hit]
    truncated: bool
    warning: str | None


class Execution(TypedDict):
    """Of `exec.run`. `error`: why the code failed; it is not in `success`, which says that it ran."""

    success: bool
    stdout: str
    stderr: str
    execution_time: float
    artifacts: list[dict[str, Any]]
    provenance: dict[str, Any]
    warning: str | None


class Structured(TypedDict):
    """A structured answer. `confidence`: the share of the citations that exist, or None without any."""

    summary: str
    citations: list[Provenance]
    confidence: float | None


class Completion(TypedDict):
    """Of `complete`."""

    success: bool
    response: str
    answer: str
    usage: dict[str, Any]
    execution_time: float
    structured_answer: Structured
    warning: str | None


class Report(TypedDict):
    """Of `provenance.report`."""

    success: bool
    label: str
    provenance_graph: dict[str, Any]
    export_payload: NotRequired[str]
