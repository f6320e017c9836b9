"""A client of ACP, made of the SDK's own: what an editor does, without the editor.

This file runs under any supported version of the SDK, also in a virtual environment that has nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import acp
from acp import schema

CAPABILITIES = schema.ClientCapabilities(fs=schema.FileSystemCapabilities(read_text_file=True))


class Editor:
    """The client's end.

    Attributes:
        updates: what arrived, by session.
        opened: unsaved texts by absolute path.
        choose: picks the option of a permission request; gets the tool call.
        asked: the permission requests.
    """

    def __init__(self, choose: Callable[[Any], str] = lambda _: "allow_once") -> None:
        self.updates: dict[str, list[Any]] = {}
        self.opened: dict[str, str] = {}
        self.choose = choose
        self.asked: list[Any] = []
        self.arrived = asyncio.Event()
        self.agent: Any = None
        self.process: Any = None

    async def session_update(self, session_id: str, update: Any, **_: Any) -> None:
        self.updates.setdefault(session_id, []).append(update)
        self.arrived.set()

    async def request_permission(self, session_id: str, tool_call: Any, options: Any, **_: Any) -> Any:
        self.asked.append(tool_call)
        chosen = self.choose(tool_call)
        if asyncio.iscoroutine(chosen):
            chosen = await chosen
        if chosen == "cancelled":
            return acp.RequestPermissionResponse(outcome=schema.DeniedOutcome(outcome="cancelled"))
        assert chosen in [option.option_id for option in options]
        return acp.RequestPermissionResponse(outcome=schema.AllowedOutcome(outcome="selected", option_id=chosen))

    async def read_text_file(self, session_id: str, path: str, **_: Any) -> Any:
        if path not in self.opened:
            raise acp.RequestError.resource_not_found(path)
        return acp.ReadTextFileResponse(content=self.opened[path])

    def on_connect(self, conn: Any) -> None:
        """Nothing to do."""

    # -- what a test reads

    def kinds(self, session: str) -> list[str]:
        return [update.session_update for update in self.updates.get(session, [])]

    def said(self, session: str, kind: str = "agent_message_chunk") -> str:
        found = [u for u in self.updates.get(session, []) if u.session_update == kind]
        return "".join(update.content.text for update in found)

    def calls(self, session: str) -> dict[str, dict[str, Any]]:
        """The tool calls as a client shows them at the end; `history` is their status over time."""
        calls: dict[str, dict[str, Any]] = {}
        for update in self.updates.get(session, []):
            if update.session_update not in ("tool_call", "tool_call_update"):
                continue
            call = calls.setdefault(update.tool_call_id, {"history": [], "text": ""})
            for name in ("title", "kind", "status", "raw_input"):
                if getattr(update, name) is not None:
                    call[name] = getattr(update, name)
            if update.status is not None:
                call["history"].append(update.status)
            if update.content is not None:
                call["content"] = update.content
                call["text"] = "\n".join(c.content.text for c in update.content if c.content.type == "text")
        return calls

    async def wait_for(self, session: str, seen: Callable[[], bool], seconds: float = 30) -> None:
        async with asyncio.timeout(seconds):
            while not seen():
                self.arrived.clear()
                await self.arrived.wait()

    # -- what an editor asks for

    async def new(self, folder: Path | str, **more: Any) -> str:
        return (
            await self.agent.new_session(cwd=str(folder), mcp_servers=more.pop("mcp_servers", []), **more)
        ).session_id

    async def ask(self, session: str, *blocks: Any) -> Any:
        prompt = [acp.text_block(block) if isinstance(block, str) else block for block in blocks]
        return await self.agent.prompt(session_id=session, prompt=prompt)


@contextlib.asynccontextmanager
async def editor(
    *arguments: str, command: list[str], env: dict[str, str], cwd: Path, choose: Callable[[Any], Any] | None = None
) -> AsyncIterator[Editor]:
    """An editor that has started `rlm acp`, and has said hello."""
    client = Editor(*([choose] if choose else []))
    process = await asyncio.create_subprocess_exec(
        *command,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=sys.stderr,
        env=env,
        cwd=cwd,
        limit=64_000_000,
    )
    client.process = process
    client.agent = acp.connect_to_agent(client, process.stdin, process.stdout, use_unstable_protocol=True)
    try:
        client.hello = await client.agent.initialize(
            protocol_version=acp.PROTOCOL_VERSION,
            client_capabilities=CAPABILITIES,
            client_info=schema.Implementation(name="tests", title="Tests", version="1"),
        )
        yield client
    finally:
        with contextlib.suppress(Exception):
            await client.agent.close()
        process.stdin.close()
        try:
            async with asyncio.timeout(20):
                await process.wait()
        except TimeoutError:
            process.kill()
            raise
