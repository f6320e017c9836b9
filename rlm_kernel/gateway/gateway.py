"""The gateway without a protocol: calls of tools go in, dicts come out."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlm_kernel import terminal
from rlm_kernel.errors import ConfigError
from rlm_kernel.gateway import arguments, limits
from rlm_kernel.gateway.calls import Call, Progress, Services, canary_of, ignore_progress
from rlm_kernel.gateway.completion import answer_task
from rlm_kernel.gateway.execution import run_code
from rlm_kernel.gateway.index import VERSION, Index
from rlm_kernel.gateway.kernels import Kernels
from rlm_kernel.gateway.models import Models
from rlm_kernel.gateway.refusals import LimitExceededError, NotAllowedError, NotFoundError, RefusedError
from rlm_kernel.gateway.sessions import Output, Session, Sessions
from rlm_kernel.gateway.tools import BY_NAME, SCOPES, TOOLS, Tool, describe_session
from rlm_kernel.gateway.trail import Trail
from rlm_kernel.gateway.tree import Tree, digest

Result = dict[str, Any]

MAX_SEARCHES = 4
"""At the same time. They wait for the first index, and the other tools do not."""
CANCELLED = "CANCELLED"
"""A code of the trail: nobody gets this refusal."""


@dataclass(frozen=True)
class Caller:
    """Who calls. Sessions belong to a caller.

    Attributes:
        scopes: which tools may be called.
    """

    name: str = "local"
    scopes: frozenset[str] = frozenset(SCOPES)


class Gateway:
    """Calls tools, within the budgets of sessions, and writes the trail.

    Args:
        root: the repository.
        data: the folder of trail and index, outside of the repository.
        models: of `rlm.complete`.

    Raises:
        ConfigError: a folder cannot be used.
    """

    def __init__(self, root: Path, data: Path, models: Models | None = None) -> None:
        root, data = root.resolve(), data.resolve()
        if data.is_relative_to(root):
            raise ConfigError("The data folder is inside of the repository: give another one with --data-dir.")
        tree = Tree(root)
        name = hashlib.sha256(str(root).encode("utf-8", "surrogateescape")).hexdigest()[:16]
        index = Index(tree, data / f"index-{VERSION}-{name}.sqlite")
        self.services = Services(tree, index, Kernels(root), models or Models(), canary_of(tree))
        self.trail = Trail(data / "trail")
        self.sessions = Sessions()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._bytes = 0
        self._runs = 0
        self._searches = ThreadPoolExecutor(MAX_SEARCHES, "rlm-search")

    async def close(self) -> None:
        """End kernels, and close the files."""
        await self.services.kernels.close_all()
        await asyncio.to_thread(self.services.index.close)
        self._searches.shutdown(wait=False)
        self.trail.close()
        self.services.tree.close()

    def metrics(self) -> str:
        """Counts in the text format of Prometheus."""
        calls = (f'rlm_gateway_calls_total{{tool="{t}",outcome="{o}"}} {n}' for (t, o), n in self._counts.items())
        return "\n".join(
            (
                "# TYPE rlm_gateway_calls_total counter",
                *calls,
                "# TYPE rlm_gateway_output_bytes_total counter",
                f"rlm_gateway_output_bytes_total {self._bytes}",
                "# TYPE rlm_gateway_sessions gauge",
                f"rlm_gateway_sessions {len(self.sessions)}\n",
            )
        )

    async def call(
        self, name: str, given: dict[str, Any], caller: Caller, progress: Progress = ignore_progress
    ) -> Result:
        """The result of a tool, or a dict with `error`. Nothing is raised but a cancellation."""
        tool = BY_NAME.get(name)
        if tool is None:
            known = sorted(TOOLS)
            return {"success": False, "error": "Unknown tool", "error_code": "UNKNOWN_TOOL", "available_tools": known}
        try:
            _check_scope(tool, caller)
            return await self._call(tool, given, caller, progress)
        except RefusedError as refused:
            return self._refused(tool, given, caller, str(refused), refused.code)
        except asyncio.CancelledError:
            self._refused(tool, given, caller, "The call was cancelled", CANCELLED)
            raise
        except Exception as error:  # noqa: BLE001 (a caller sees no traceback)
            terminal.print_note(f"rlm: gateway: {tool.name} failed: {type(error).__name__}: {error}")
            why, kind = "The tool failed; the gateway's stderr says why", type(error).__name__
            return self._refused(tool, given, caller, why, "EXECUTION_ERROR", error_type=kind)

    async def _call(self, tool: Tool, given: dict[str, Any], caller: Caller, progress: Progress) -> Result:
        if tool.name == "rlm.session.create":
            return await self._create(tool, arguments.parse(arguments.SessionCreate, given), caller)
        taken: Any = arguments.parse(tool.takes, given)
        session = self.sessions.find(taken.session_id, caller.name)
        if tool.name == "rlm.session.close":
            self.sessions.close(session)
            await self.services.kernels.close(session.id)
            return self._seal(tool, session, Call(self.services, session), {"success": True}, free=True)
        session.count_call()
        call = Call(self.services, session, progress=progress)
        if tool.name == "rlm.exec.run":
            result = await run_code(call, taken)
        elif tool.name == "rlm.complete":
            result = await self._complete(call, taken)
        else:
            threads = self._searches if tool.name.startswith("rlm.search.") else None
            result = await asyncio.get_running_loop().run_in_executor(threads, self._run, tool, call, taken)
        return self._seal(tool, session, call, result)

    async def _create(self, tool: Tool, given: arguments.SessionCreate, caller: Caller) -> Result:
        for over in self.sessions.sweep():
            await self.services.kernels.close(over.id)
        session = self.sessions.open(caller.name, given.config.lowered())
        return self._seal(tool, session, Call(self.services, session), describe_session(session), free=True)

    def _run(self, tool: Tool, call: Call, taken: Any) -> Result:
        assert tool.run is not None
        with call.session.lock:
            return tool.run(call, taken)

    async def _complete(self, call: Call, given: arguments.Complete) -> Result:
        if self._runs >= limits.MAX_RUNS:
            raise LimitExceededError(f"Too many runs of rlm.complete: {self._runs} >= {limits.MAX_RUNS}. Try later.")
        self._runs += 1
        try:
            return await answer_task(call, given, lambda reading: self._inner(reading, given))
        finally:
            self._runs -= 1

    def _inner(self, reading: Call, given: arguments.Complete) -> Callable[[str, dict[str, Any]], Result]:
        """The function through which a run reads: the budgets are those of the session, and of the call."""
        session, budgets = reading.session, given.budgets
        calls, size = session.tool_calls, session.output_bytes
        max_calls = budgets.max_tool_calls or session.config.max_tool_calls
        max_size = budgets.max_output_bytes or session.config.max_output_bytes

        def call(name: str, arguments_: dict[str, Any]) -> Result:
            if session.tool_calls - calls >= max_calls:
                raise RefusedError(f"Tool call budget exceeded: {session.tool_calls - calls} >= {max_calls}")
            if session.output_bytes - size >= max_size:
                raise RefusedError(f"Output budget exceeded: {session.output_bytes - size} >= {max_size}")
            tool = TOOLS[name]
            taken = arguments.parse(tool.takes, {**arguments_, "session_id": session.id})
            session.count_call()
            one = Call(reading.services, session, roots=reading.roots)
            return self._seal(tool, session, one, self._run(tool, one, taken), reader="model")

        return call

    def _seal(
        self, tool: Tool, session: Session, call: Call, result: Result, *, free: bool = False, reader: str = "caller"
    ) -> Result:
        """Count a result and write it to the trail, before it leaves. `free`: it holds nothing of the repository."""
        content = json.dumps(result, ensure_ascii=False).encode()
        output = Output(tool.name, len(content), digest(content), reader)
        with session.counts:
            if free:
                session.outputs.append(output)
            else:
                session.count_output(output)
                session.spans.extend(call.spans)
            spans = [{**span.shown(), "path": "/".join(span.parts)} for span in call.spans]
            about = {"session": session.id, "caller": session.owner, "tool": tool.name, "hash": output.hash}
            about["reader"] = reader
            self.trail.write({"kind": "call", **about, "bytes": output.size, "spans": spans})
        self._counts[tool.name, "ok"] += 1
        self._bytes += output.size
        return result

    def _refused(self, tool: Tool, given: dict[str, Any], caller: Caller, why: str, code: str, **more: str) -> Result:
        """Count a refusal and write it to the trail. The budgets of a session do not limit refusals."""
        result = {"success": False, "error": why, "error_code": code, "tool": tool.name, **more}
        size = 0 if code == CANCELLED else len(json.dumps(result, ensure_ascii=False).encode())
        about: dict[str, Any] = {"caller": caller.name, "tool": tool.name, "code": code, "bytes": size}
        with contextlib.suppress(NotFoundError):
            session = self.sessions.find(str(given.get("session_id")), caller.name)
            session.refusals += 1
            session.refusal_bytes += size
            about["session"] = session.id
        self.trail.write({"kind": "refused", **about})
        self._counts[tool.name, code] += 1
        self._bytes += size
        return result


def _check_scope(tool: Tool, caller: Caller) -> None:
    if not caller.scopes.intersection(tool.scopes):
        raise NotAllowedError(f"The key does not allow {tool.name}: it needs the scope {' or '.join(tool.scopes)}")
