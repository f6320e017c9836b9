"""What the tools take: checked by pydantic, which also writes the input schemas."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rlm_kernel.gateway import limits
from rlm_kernel.gateway.refusals import MissingArgumentError, RefusedError
from rlm_kernel.gateway.sessions import Config

MIN_LIKENESS = 0.7
MAX_NAME_CHARACTERS = 40
"""Of an unknown argument that a message repeats."""

Path = Annotated[str, Field(max_length=limits.MAX_PATH_CHARACTERS)]
Folder = Annotated[Path, Field(description="a folder, relative to the repository; '.' is all of it")]
Handle = Annotated[str, Field(max_length=100)]
FileHandle = Annotated[Handle, Field(description="from rlm.fs.list, rlm.search.query or rlm.fs.handle.create")]
Text = Annotated[str, Field(min_length=1, max_length=limits.MAX_QUERY_CHARACTERS)]
Globs = Annotated[list[Path], Field(max_length=limits.MAX_ROOTS)]
Count = Annotated[int, Field(ge=1, le=1 << 53)]


A = TypeVar("A", bound="Arguments")


class Arguments(BaseModel):
    """The arguments of a tool. Unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class SessionConfig(Arguments):
    """Budgets of a session; values above the defaults are lowered to them."""

    max_depth: Count = limits.SESSION_DEPTH
    max_iterations: Count = limits.SESSION_ITERATIONS
    max_tool_calls: Count = limits.SESSION_TOOL_CALLS
    timeout_ms: Count = limits.SESSION_TIMEOUT_MS
    max_output_bytes: Count = limits.SESSION_OUTPUT_BYTES

    def lowered(self) -> Config:
        """The budgets that hold."""
        most = Config()
        return Config(**{name: min(value, getattr(most, name)) for name, value in self.model_dump().items()})


class SessionCreate(Arguments):
    """Of `session.create`."""

    config: SessionConfig = SessionConfig()


class InSession(Arguments):
    """Of every other tool."""

    session_id: Annotated[Handle, Field(description="from rlm.session.create")]


class RootsSet(InSession):
    """Of `roots.set`."""

    roots: Annotated[
        list[Path],
        Field(
            min_length=1,
            max_length=limits.MAX_ROOTS,
            description="folders, relative to the repository; ['.'] is all of it",
        ),
    ]


class List(InSession):
    """Of `fs.list`."""

    root: Folder
    depth: Annotated[int, Field(ge=1, le=limits.MAX_LIST_DEPTH)] = 2
    patterns: Globs | None = None


class Manifest(InSession):
    """Of `fs.manifest`."""

    root: Folder


class HandleCreate(InSession):
    """Of `fs.handle.create`."""

    file_path: Annotated[Path, Field(description="a file, relative to the repository")]


class SpanRead(InSession):
    """Of `span.read`. Lines count from 1, and the last is included."""

    file_handle: FileHandle
    start_line: Annotated[Count, Field(description="the first line; lines count from 1")]
    end_line: Annotated[Count, Field(description=f"the last line; {limits.MAX_SPAN_LINES} lines at most")]
    max_bytes: Count = limits.MAX_SPAN_BYTES


class ChunkCreate(InSession):
    """Of `chunk.create`: at most `budget` chunks of `chunk_size` lines, which share `overlap` lines."""

    file_handle: FileHandle
    strategy: Literal["line_based"] = "line_based"
    chunk_size: Count = 100
    overlap: Annotated[int, Field(ge=0, le=limits.MAX_CHUNK_LINES)] = 10
    budget: Count = 10


class ChunkGet(InSession):
    """Of `chunk.get`."""

    chunk_id: Annotated[Handle, Field(description="from rlm.chunk.create")]
    max_bytes: Count = limits.MAX_SPAN_BYTES


class SearchQuery(InSession):
    """Of `search.query`. `scope`: a folder."""

    query: Annotated[Text, Field(description="words to find")]
    scope: Folder
    k: Count = 5
    include_patterns: Globs | None = None


class SearchRegex(InSession):
    """Of `search.regex`. `scope`: a folder."""

    pattern: Annotated[Text, Field(description="a regular expression (RE2)")]
    scope: Folder
    k: Count = limits.MAX_RESULTS
    include_patterns: Globs | None = None


class ExecRun(InSession):
    """Of `exec.run`."""

    code: Annotated[str, Field(description="Python")]
    timeout_ms: Count = limits.EXEC_TIMEOUT_MS
    memory_limit_mb: Count = limits.MAX_EXEC_MEMORY_MB


class Budgets(Arguments):
    """Of one `complete`; none can be above the session's."""

    max_depth: Count = 1
    max_iterations: Count = limits.MAX_COMPLETE_ITERATIONS
    max_tool_calls: Count | None = None
    max_output_bytes: Count | None = None
    max_tokens: Count | None = None
    max_cost: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None


class Constraints(Arguments):
    """Of one `complete`."""

    allowed_roots: Annotated[list[Path], Field(min_length=1, max_length=limits.MAX_ROOTS)] | None = None
    max_span_size: Count = limits.MAX_SPAN_LINES


class Complete(InSession):
    """Of `complete`."""

    task: Annotated[
        str,
        Field(min_length=1, max_length=limits.MAX_TASK_CHARACTERS, description="what to find out about the repository"),
    ]
    budgets: Budgets = Budgets()
    constraints: Constraints = Constraints()
    response_format: Literal["text", "structured"] = "text"


class Report(InSession):
    """Of `provenance.report`."""

    export_json: bool = False


def parse(model: type[A], given: dict[str, Any]) -> A:
    """The arguments of a call.

    Raises:
        RefusedError: they do not fit; the message names the argument and what it should be, and repeats no value.
    """
    try:
        return model.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        known = [str(part) for part in first["loc"] if isinstance(part, int) or part in _names(model)]
        where = ".".join(known) or "an argument"
        if first["type"] == "missing":
            raise MissingArgumentError(f"Missing argument: {where}{_described(model, where)}") from None
        if first["type"] == "extra_forbidden" and (unknown := _unknown(model, str(first["loc"][-1]))):
            raise RefusedError(unknown) from None
        raise RefusedError(f"Invalid argument: {where}: {first['msg']}") from None


def _described(model: type[BaseModel], name: str) -> str:
    field = model.model_fields.get(name)
    return f": {field.description}" if field is not None and field.description else ""


def _unknown(model: type[BaseModel], name: str) -> str | None:
    """A message that repeats the caller's own word, if it is a short and plain identifier."""
    if not (name.isascii() and name.isidentifier() and len(name) <= MAX_NAME_CHARACTERS):
        return None
    names = sorted(_names(model))
    near = difflib.get_close_matches(name, names, 1, MIN_LIKENESS)
    return f"Unknown argument: {name}. " + (f"Did you mean {near[0]}?" if near else f"Known: {', '.join(names)}.")


def _names(model: type[BaseModel]) -> set[str]:
    """The names that the model and the models inside of it know: only these are repeated in a message."""
    names = set(model.model_fields)
    for field in model.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            names |= _names(field.annotation)
    return names
