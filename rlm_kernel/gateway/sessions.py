"""Sessions: who called, what may be read, and how much of each budget is used."""

from __future__ import annotations

import hmac
import secrets
import threading
import time
import uuid
from collections import OrderedDict
from dataclasses import asdict, dataclass, field
from typing import Any

from rlm_kernel.gateway import limits
from rlm_kernel.gateway.refusals import LimitExceededError, NotFoundError
from rlm_kernel.gateway.tree import Parts

RENEW = "Create a new session with rlm.session.create."


@dataclass(frozen=True)
class Config:
    """The budgets of a session. Values above the defaults are lowered to them."""

    max_depth: int = limits.SESSION_DEPTH
    max_iterations: int = limits.SESSION_ITERATIONS
    max_tool_calls: int = limits.SESSION_TOOL_CALLS
    timeout_ms: int = limits.SESSION_TIMEOUT_MS
    max_output_bytes: int = limits.SESSION_OUTPUT_BYTES


@dataclass(frozen=True)
class Chunk:
    """Lines of a file. `file_handle`: of the file."""

    file_handle: str
    parts: Parts
    start: int
    end: int


@dataclass(frozen=True)
class Span:
    """A piece of content that left the gateway.

    Attributes:
        source_type: `file`, `chunk`, `search` or `execution`.
        handle: of the file; of an execution, the hash of its code.
        parts: the path of the file; only the record on disk has it.
        content_hash: of the UTF-8 that was given.
    """

    source_type: str
    handle: str
    parts: Parts
    start_line: int
    end_line: int
    content_hash: str
    size: int

    def shown(self) -> dict[str, Any]:
        """For the caller: without the path."""
        return {
            "file_handle": self.handle,
            "start_line": self.start_line,
            "end_line": self.end_line,
            "content_hash": self.content_hash,
            "source_type": self.source_type,
            "bytes": self.size,
        }


@dataclass(frozen=True)
class Output:
    """A result that left the gateway. `reader`: `caller`, or `model` for what a run of `complete` has read."""

    tool: str
    size: int
    hash: str
    reader: str = "caller"

    def shown(self) -> dict[str, Any]:
        """For the caller."""
        return {"tool": self.tool, "bytes": self.size, "content_hash": self.hash, "reader": self.reader}


@dataclass
class Session:
    """A session of one caller. Handles are made from its secret, so those of another session are unknown here.

    Attributes:
        lock: of the tool that runs. It is held for as long as a search takes, so only worker threads take it.
        counts: of the results and budgets. It is held for a moment.
    """

    owner: str
    config: Config
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    began: float = field(default_factory=time.monotonic)
    roots: tuple[Parts, ...] = ()
    tool_calls: int = 0
    output_bytes: int = 0
    spans: list[Span] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    refusals: int = 0
    refusal_bytes: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    counts: threading.RLock = field(default_factory=threading.RLock, repr=False)
    _secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    _handles: OrderedDict[str, Parts | Chunk] = field(default_factory=OrderedDict, repr=False)

    @property
    def age_ms(self) -> int:
        """Milliseconds since it began."""
        return int((time.monotonic() - self.began) * 1000)

    @property
    def is_over(self) -> bool:
        """Whether its time is used up."""
        return self.age_ms >= self.config.timeout_ms

    def state(self) -> dict[str, Any]:
        """The budgets, and what is used of them."""
        used = {"tool_calls": self.tool_calls, "output_bytes": self.output_bytes, "age_ms": self.age_ms}
        return {"session_id": self.id, "config": asdict(self.config), "used": used}

    def count_call(self) -> None:
        """Count a call, if one is left.

        Raises:
            LimitExceededError: a budget is used up.
        """
        config = self.config
        if self.is_over:
            raise LimitExceededError(f"Timeout exceeded: {self.age_ms}ms >= {config.timeout_ms}ms. {RENEW}")
        if self.tool_calls >= config.max_tool_calls:
            raise LimitExceededError(f"Tool call budget exceeded: {self.tool_calls} >= {config.max_tool_calls}")
        if self.output_bytes >= config.max_output_bytes:
            raise LimitExceededError(f"Output budget exceeded: {self.output_bytes} >= {config.max_output_bytes}")
        self.tool_calls += 1

    def count_output(self, output: Output) -> None:
        """Count a result before it leaves.

        Raises:
            LimitExceededError: it is larger than what is left.
        """
        total = self.output_bytes + output.size
        if total > self.config.max_output_bytes:
            raise LimitExceededError(f"Output budget exceeded: {total} >= {self.config.max_output_bytes}")
        self.output_bytes = total
        self.outputs.append(output)

    def file_handle(self, parts: Parts) -> str:
        """The handle of a file; the same for the same file."""
        return self._add("file", "/".join(parts), parts)

    def chunk_handle(self, chunk: Chunk) -> str:
        """The handle of a chunk."""
        return self._add("chunk", f"{'/'.join(chunk.parts)}\0{chunk.start}\0{chunk.end}", chunk)

    def file_of(self, handle: str) -> Parts:
        """The file of a handle of this session.

        Raises:
            NotFoundError: there is none.
        """
        found = self._handles.get(handle)
        if not isinstance(found, tuple):
            raise NotFoundError("Invalid file handle")
        self._handles.move_to_end(handle)
        return found

    def chunk_of(self, handle: str) -> Chunk:
        """The chunk of a handle of this session.

        Raises:
            NotFoundError: there is none.
        """
        found = self._handles.get(handle)
        if not isinstance(found, Chunk):
            raise NotFoundError("Invalid chunk ID")
        self._handles.move_to_end(handle)
        return found

    def _add(self, kind: str, what: str, target: Parts | Chunk) -> str:
        named = f"{kind}\0{what}".encode()
        handle = f"{kind}_{hmac.digest(self._secret, named, 'sha256').hex()[:32]}"
        self._handles[handle] = target
        self._handles.move_to_end(handle)
        if len(self._handles) > limits.MAX_HANDLES:
            self._handles.popitem(last=False)
        return handle


class Sessions:
    """The live sessions of a gateway."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, owner: str, config: Config) -> Session:
        """A new session.

        Raises:
            LimitExceededError: there are too many.
        """
        with self._lock:
            self.sweep()
            if len(self._sessions) >= limits.MAX_SESSIONS:
                raise LimitExceededError(f"Too many sessions: {len(self._sessions)} >= {limits.MAX_SESSIONS}")
            session = Session(owner, config)
            self._sessions[session.id] = session
            return session

    def find(self, id_: str, owner: str) -> Session:
        """The session of this caller.

        Raises:
            NotFoundError: there is none.
        """
        session = self._sessions.get(id_)
        if session is None or session.owner != owner:
            raise NotFoundError("Session not found")
        return session

    def of(self, owner: str) -> list[Session]:
        """The sessions of a caller."""
        return [session for session in list(self._sessions.values()) if session.owner == owner]

    def close(self, session: Session) -> None:
        """Forget a session and its handles."""
        self._sessions.pop(session.id, None)

    def sweep(self) -> list[Session]:
        """Forget the sessions whose time is used up, and return them."""
        over = [session for session in self._sessions.values() if session.is_over]
        for session in over:
            self._sessions.pop(session.id, None)
        return over
