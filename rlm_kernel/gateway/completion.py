"""`rlm.complete`: a run of the engine that reads the repository through the tools of the gateway.

The tools that the model has are those of the caller, with the budgets of the session. What it reads is in the
provenance of the session, and the citations are taken from there.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rlm_kernel.api import RLM
from rlm_kernel.errors import RLMError
from rlm_kernel.gateway import arguments, limits
from rlm_kernel.gateway.calls import CANARY_WARNING, NO_ROOTS, Call, is_below
from rlm_kernel.gateway.models import Models
from rlm_kernel.gateway.reading import sound
from rlm_kernel.gateway.refusals import FailedError, LimitExceededError, NotAllowedError, UnavailableError
from rlm_kernel.gateway.sessions import Span
from rlm_kernel.gateway.tree import digest, parts_of
from rlm_kernel.text import clip_end

Inner = Callable[[str, dict[str, Any]], dict[str, Any]]
"""Calls a tool of the gateway from a thread: its name and its arguments without the session."""

MAX_CITATIONS = 50
MAX_WHY = 500
_PATH = re.compile(r"(?:/[\w.@+~-]+){2,}/?")
NO_MODEL = "rlm.complete is not available: the gateway has no model. Start it with --backend and --model."


@dataclass(frozen=True)
class Reader:
    """The functions that the model calls. Each gives what the tool of the gateway gives, or raises its refusal.

    Attributes:
        root: the folder that is meant by "".
        max_lines: of one reading.
    """

    inner: Inner
    root: str
    max_lines: int

    def list_files(self, folder: str = "", depth: int = 2) -> list[dict[str, Any]]:
        """List files and folders below a folder: dicts with "path", and for files "file_handle" and "size"."""
        items: list[dict[str, Any]] = self.inner("rlm.fs.list", {"root": folder or self.root, "depth": depth})["items"]
        return items

    def search_files(self, query: str, folder: str = "") -> list[dict[str, Any]]:
        """Find words: dicts with "path", "file_handle", "start_line", "end_line" and "snippet", the best first."""
        found: list[dict[str, Any]] = self.inner(
            "rlm.search.query", {"query": query, "scope": folder or self.root, "k": 10}
        )["results"]
        return found

    def grep_files(self, pattern: str, folder: str = "") -> list[dict[str, Any]]:
        """Find lines that match a regular expression: dicts as of search_files."""
        found: list[dict[str, Any]] = self.inner(
            "rlm.search.regex", {"pattern": pattern, "scope": folder or self.root}
        )["results"]
        return found

    def read_lines(self, file_handle: str, start_line: int = 1, end_line: int | None = None) -> str:
        """Read lines of a file, 200 at most; lines count from 1, and end_line is included."""
        end = start_line + self.max_lines - 1 if end_line is None else end_line
        if end - start_line + 1 > self.max_lines:
            raise LimitExceededError(f"Max span size too large: {end - start_line + 1} > {self.max_lines}")
        given = {"file_handle": file_handle, "start_line": start_line, "end_line": end}
        return str(self.inner("rlm.span.read", given)["content"])

    def tools(self) -> dict[str, Any]:
        """As `custom_tools` of an RLM."""
        methods = (self.list_files, self.search_files, self.grep_files, self.read_lines)
        return {method.__name__: method for method in methods}


async def answer_task(call: Call, given: arguments.Complete, inner: Callable[[Call], Inner]) -> dict[str, Any]:
    """Run the engine over the repository.

    Args:
        call: of `rlm.complete`.
        given: its arguments.
        inner: makes the function through which the model reads.
    """
    models = call.services.models
    if models.backend is None:
        raise UnavailableError(NO_MODEL)
    if given.constraints.max_span_size > limits.MAX_SPAN_LINES:
        raise LimitExceededError(
            f"Max span size too large: {given.constraints.max_span_size} > {limits.MAX_SPAN_LINES}"
        )
    reading = _narrowed(call, given)
    reader = Reader(inner(reading), _first_root(reading), given.constraints.max_span_size)
    began, started = len(call.session.spans), time.monotonic()
    context = await asyncio.to_thread(reader.list_files)
    completion = await _run(call, given, models, reader, context)
    spans = [span for span in call.session.spans[began:] if span.source_type in ("file", "chunk")]
    citations = await asyncio.to_thread(_citations, call, spans)
    answer = clip_end(sound(completion.response), call.session.config.max_output_bytes // 8)
    summary = answer[: limits.MAX_SUMMARY_CHARACTERS]
    share = len(citations) / len(spans) if spans else None
    return {
        "success": True,
        "response": answer,
        "answer": answer,
        "usage": completion.usage_summary.to_dict(),
        "execution_time": round(time.monotonic() - started, 3),
        "structured_answer": {"summary": summary, "citations": citations, "confidence": share},
        "warning": CANARY_WARNING if call.has_canary(answer) else None,
    }


def _narrowed(call: Call, given: arguments.Complete) -> Call:
    """The call with the roots of the constraints."""
    roots = given.constraints.allowed_roots
    if roots is None:
        return call
    narrowed = tuple(map(parts_of, roots))
    if not all(is_below(root, call.session.roots) for root in narrowed):
        raise NotAllowedError("The path is outside of the allowed roots")
    return Call(call.services, call.session, progress=call.progress, roots=narrowed)


def _first_root(call: Call) -> str:
    roots = call.roots or call.session.roots
    if not roots:
        raise NotAllowedError(NO_ROOTS)
    return "/".join(roots[0]) or "."


async def _run(call: Call, given: arguments.Complete, models: Models, reader: Reader, context: Any) -> Any:
    """The completion."""
    config, budgets = call.session.config, given.budgets
    iterations = min(budgets.max_iterations, limits.MAX_COMPLETE_ITERATIONS, config.max_iterations)
    loop = asyncio.get_running_loop()

    def tell(_: int, iteration: int) -> None:
        said = call.progress(float(iteration), float(iterations), "the model takes a turn")
        asyncio.run_coroutine_threadsafe(said, loop)

    try:
        rlm = RLM(
            backend=models.backend,
            backend_kwargs=models.backend_kwargs,
            environment=models.environment,
            prompts=models.prompts,
            max_depth=min(budgets.max_depth, config.max_depth),
            max_iterations=iterations,
            max_tokens=budgets.max_tokens,
            max_budget=budgets.max_cost,
            max_timeout=max(config.timeout_ms - call.session.age_ms, 1) / 1000,
            custom_tools=reader.tools(),
            on_iteration_start=tell,
            **models.options,
        )
        return await rlm.acompletion(context, given.task)
    except RLMError as error:
        why = _PATH.sub("[path]", clip_end(str(error), MAX_WHY))
        raise FailedError(f"The run failed: {type(error).__name__}: {why}") from None


def _citations(call: Call, spans: list[Span]) -> list[dict[str, Any]]:
    """What was read, once each, as long as the files still hold it."""
    unique = {(span.handle, span.start_line, span.end_line): span for span in spans}
    return [span.shown() for span in list(unique.values())[:MAX_CITATIONS] if _is_there(call, span)]


def _is_there(call: Call, span: Span) -> bool:
    lines = call.tree.read(span.parts).lines[span.start_line - 1 : span.end_line]
    return digest("\n".join(lines).encode()[: span.size]) == span.content_hash
