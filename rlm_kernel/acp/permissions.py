"""Ask the person at the client before a cell or a call of a tool, in the words of the protocol."""

from __future__ import annotations

import asyncio
import itertools

import acp
from acp import schema

from rlm_kernel.acp import updates
from rlm_kernel.engine.gates import CellRequest, Decision, Refuse
from rlm_kernel.mcp.approval import ToolCall

AUTO, ASK = "auto", "ask"
MODES = (
    schema.SessionMode(id=AUTO, name="Auto", description="Cells run. Tools that may change something are asked about."),
    schema.SessionMode(id=ASK, name="Ask", description="Each cell is asked about, too."),
)
REFUSED = "the user refused it"
_OPTIONS = (
    ("allow_once", "Allow"),
    ("allow_always", "Always allow"),
    ("reject_once", "Reject"),
    ("reject_always", "Always reject"),
)
_CELLS = "cells"


class Permissions:
    """The gates of a session. What is asked is asked in the client's loop, while the engine's loop waits.

    Args:
        client: the other end.
        session: the id of the session.

    Attributes:
        mode: `AUTO` or `ASK`.
        asked: the ids of the tool calls that the client knows already, see `Updates`.
    """

    def __init__(self, client: acp.Client, session: str) -> None:
        self.mode = AUTO
        self.asked: dict[str, list[str]] = {}
        self._client = client
        self._session = session
        self._always: dict[str, bool] = {}
        self._numbers = itertools.count(1)
        self._loop = asyncio.get_running_loop()

    async def on_cell(self, request: CellRequest) -> Decision:
        """Decide about a cell, as `AgentRLM(on_cell=…)`."""
        if self.mode == AUTO:
            return True
        start = updates.cell_call(f"ask-{next(self._numbers)}", request.code)
        key = request.code if request.depth == 0 else None
        return await self._in_our_loop(start, _CELLS, key) or Refuse(REFUSED)

    async def approve(self, call: ToolCall) -> bool:
        """Decide about a call of a tool of an MCP server, as `AgentRLM(approve=…)`. "Always" holds for the tool."""
        if call.is_read_only:
            return True
        name = f"{call.server}.{call.tool}"
        start = updates.tool_call(f"ask-{next(self._numbers)}", name, [], call.arguments, title=call.title)
        return await self._in_our_loop(start, name, updates.key_of_tool(name))

    async def _in_our_loop(self, start: schema.ToolCallStart, always: str, key: str | None) -> bool:
        asked = asyncio.run_coroutine_threadsafe(self._ask(start, always, key), self._loop)
        return await asyncio.wrap_future(asked)

    async def _ask(self, start: schema.ToolCallStart, always: str, key: str | None) -> bool:
        if (known := self._always.get(always)) is not None:
            return known
        await self._client.session_update(self._session, start)
        if key is not None:
            self.asked.setdefault(key, []).append(start.tool_call_id)
        said = await self._answer(start)
        allowed = said.startswith("allow")
        if said.endswith("always"):
            self._always[always] = allowed
        if key is None:  # the cell of a child, which is no tool call of its own
            await self._client.session_update(self._session, _closed(start, allowed=allowed))
        return allowed

    async def _answer(self, start: schema.ToolCallStart) -> str:
        """The option that was chosen; anything else is a refusal."""
        call = schema.ToolCallUpdate(
            tool_call_id=start.tool_call_id,
            title=start.title,
            kind=start.kind,
            status=start.status,
            content=start.content,
            raw_input=start.raw_input,
        )
        options = [schema.PermissionOption(option_id=kind, name=name, kind=kind) for kind, name in _OPTIONS]  # type: ignore[arg-type]
        try:
            response = await self._client.request_permission(session_id=self._session, tool_call=call, options=options)
        except (acp.RequestError, ConnectionError, ValueError):  # ValueError: the answer is none of the protocol's
            return "cancelled"
        chosen = getattr(response.outcome, "option_id", "cancelled")
        return chosen if chosen in dict(_OPTIONS) else "cancelled"


def _closed(start: schema.ToolCallStart, *, allowed: bool) -> schema.ToolCallProgress:
    return schema.ToolCallProgress(
        session_update="tool_call_update",
        tool_call_id=start.tool_call_id,
        status="completed" if allowed else "failed",
    )
