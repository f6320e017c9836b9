"""The agent as the protocol knows it: its methods, over the sessions of one client."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import acp
from acp import schema

from rlm_kernel import __version__
from rlm_kernel.acp.commands import COMMANDS
from rlm_kernel.acp.failures import UNKNOWN_SESSION, failure, wrong
from rlm_kernel.acp.files import Files
from rlm_kernel.acp.servers import Server, tools_of_servers
from rlm_kernel.acp.session import MODEL, Session
from rlm_kernel.acp.settings import Settings
from rlm_kernel.acp.storage import Facts, Storage, Stored
from rlm_kernel.errors import RLMError

PAGE = 50
"""Sessions of one answer to `session/list`."""
AUTHENTICATION = "environment"
_COMMAND_SECONDS = 0.1
"""A client knows a session when it has the answer that names it; commands are sent after that."""


class Door:
    """Translates the protocol into sessions. `settings`: of `rlm acp`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._storage = Storage(settings.folder)
        self._sessions: dict[str, Session] = {}
        self._opening = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._offered = schema.ClientCapabilities()

    def on_connect(self, conn: acp.Client) -> None:
        """The SDK gives us the other end."""
        self._client = conn

    async def close(self) -> None:
        """End all sessions: the client has gone."""
        for task in self._tasks:
            task.cancel()
        sessions, self._sessions = list(self._sessions.values()), {}
        await asyncio.gather(*(session.close() for session in sessions), return_exceptions=True)

    # -- the beginning

    async def initialize(
        self,
        protocol_version: int,  # noqa: ARG002 (we speak one version, and say which)
        client_capabilities: schema.ClientCapabilities | None = None,
        client_info: schema.Implementation | None = None,  # noqa: ARG002
        **_: Any,
    ) -> acp.InitializeResponse:
        """Say what we can do."""
        self._offered = client_capabilities or self._offered
        sessions = schema.SessionCapabilities(
            list=schema.SessionListCapabilities(),
            resume=schema.SessionResumeCapabilities(),
            close=schema.SessionCloseCapabilities(),
            additional_directories=schema.SessionAdditionalDirectoriesCapabilities(),
        )
        return acp.InitializeResponse(
            protocol_version=acp.PROTOCOL_VERSION,
            agent_capabilities=schema.AgentCapabilities(
                load_session=True,
                prompt_capabilities=schema.PromptCapabilities(image=True, audio=False, embedded_context=True),
                mcp_capabilities=schema.McpCapabilities(http=True, sse=False),
                session_capabilities=sessions,
            ),
            auth_methods=self._auth_methods(),
            agent_info=schema.Implementation(name="rlm-kernel", title="RLM", version=__version__),
        )

    def _auth_methods(self) -> list[Any]:
        """A key comes from the environment or a `.env` file, and from nowhere else."""
        variable = self._settings.key_variable
        if not variable:
            return []
        about = f"Set {variable} in the environment of the editor, or in a .env file of the folder that it opens."
        return [
            schema.EnvVarAuthMethod(
                id=AUTHENTICATION,
                name=f"{variable} in the environment",
                description=about,
                type="env_var",
                vars=[schema.AuthEnvVar(name=variable)],
            )
        ]

    async def authenticate(self, method_id: str, **_: Any) -> acp.AuthenticateResponse:
        """Look for the key once more: a `.env` file may have it by now."""
        if method_id not in [method.id for method in self._auth_methods()]:
            raise wrong(f"There is no way to authenticate called {method_id!r}.")
        await self._check_model()
        return acp.AuthenticateResponse()

    async def _check_model(self) -> None:
        """Check that the model can be asked, without asking it."""
        from rlm_kernel.api import RLM

        given = self._settings.arguments(None)
        try:
            await asyncio.to_thread(lambda: RLM(given.get("backend", "openai"), given.get("backend_kwargs")).close())
        except RLMError as error:
            raise failure(error) from error

    # -- sessions

    async def new_session(
        self,
        cwd: str,
        additional_directories: list[str] | None = None,
        mcp_servers: Sequence[Server] | None = None,
        **_: Any,
    ) -> acp.NewSessionResponse:
        """Begin a conversation in a folder."""
        files = self._files(cwd, additional_directories)
        try:
            tools = tools_of_servers(mcp_servers or (), cwd, files.tools())
            stored = self._storage.new(Facts(cwd))
            session = self._session_of(stored, files, tools)
            await self._open(session)
        except (RLMError, OSError) as error:
            files.close()
            raise failure(error) from error
        return acp.NewSessionResponse(session_id=session.id, **session.choices())

    async def load_session(
        self,
        cwd: str,
        session_id: str,
        mcp_servers: Sequence[Server] | None = None,
        additional_directories: list[str] | None = None,
        **_: Any,
    ) -> acp.LoadSessionResponse:
        """Continue a conversation, also of a process that was killed, and send what was said in it."""
        session = await self._again(session_id, cwd, additional_directories, mcp_servers)
        try:
            await session.tell_past()
        except (RLMError, OSError, ValueError) as error:
            raise failure(error) from error
        return acp.LoadSessionResponse(**session.choices())

    async def resume_session(
        self,
        session_id: str,
        cwd: str,
        additional_directories: list[str] | None = None,
        mcp_servers: Sequence[Server] | None = None,
        **_: Any,
    ) -> schema.ResumeSessionResponse:
        """Continue a conversation that the client remembers."""
        session = await self._again(session_id, cwd, additional_directories, mcp_servers)
        return schema.ResumeSessionResponse(**session.choices())

    async def list_sessions(
        self, cwd: str | None = None, cursor: str | None = None, **_: Any
    ) -> schema.ListSessionsResponse:
        """The conversations of a folder, or all of them, the newest first."""
        if cursor is not None and not (cursor.isascii() and cursor.isdigit() and len(cursor) < len(str(10**9))):
            raise wrong("The cursor is not one of ours.")
        begin = int(cursor or 0)
        found = await asyncio.to_thread(lambda: [*filter(None, map(_info, self._storage.all()))])
        shown = [info for info in found if cwd is None or info.cwd == cwd]
        rest = str(begin + PAGE) if len(shown) > begin + PAGE else None
        return schema.ListSessionsResponse(sessions=shown[begin : begin + PAGE], next_cursor=rest)

    async def close_session(self, session_id: str, **_: Any) -> schema.CloseSessionResponse:
        """End the kernel of a conversation, which stays on record."""
        session = self._session(session_id)
        del self._sessions[session_id]
        await session.close()
        return schema.CloseSessionResponse()

    async def set_session_mode(self, session_id: str, mode_id: str, **_: Any) -> acp.SetSessionModeResponse:
        """Ask about each cell, or not."""
        self._session(session_id).choose_mode(mode_id)
        return acp.SetSessionModeResponse()

    async def set_config_option(
        self, config_id: str, session_id: str, value: str | bool, **_: Any
    ) -> acp.SetSessionConfigOptionResponse:
        """Take another model."""
        session = self._session(session_id)
        if config_id != MODEL or not isinstance(value, str):
            raise wrong(f"There is no option {config_id!r}: {MODEL}.")
        session.choose_model(value)
        return acp.SetSessionConfigOptionResponse(config_options=session.options())

    # -- prompts

    async def prompt(self, session_id: str, prompt: list[Any], **_: Any) -> acp.PromptResponse:
        """Answer a message."""
        session = self._session(session_id)
        await self._make_room(session)
        return await session.answer(prompt)

    async def cancel(self, session_id: str, **_: Any) -> None:
        """Stop the prompt that is being answered."""
        if (session := self._sessions.get(session_id)) is not None:
            await session.cancel()

    async def ext_method(self, method: str, params: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """There are no methods of our own."""
        raise acp.RequestError.method_not_found(f"_{method}")

    async def ext_notification(self, method: str, params: dict[str, Any]) -> None:
        """There are none that we know, and an unknown notification is ignored."""

    # -- which session

    def _session(self, session_id: str) -> Session:
        if (session := self._sessions.get(session_id)) is None:
            raise wrong(UNKNOWN_SESSION)
        return session

    async def _again(
        self, session_id: str, cwd: str, more: list[str] | None, servers: Sequence[Server] | None
    ) -> Session:
        """A session of the storage. One that is open is closed first: the client may have lost it."""
        if (stored := self._storage.find(session_id)) is None:
            raise wrong(UNKNOWN_SESSION)
        files = self._files(cwd, more)
        try:
            if (before := self._sessions.pop(session_id, None)) is not None:
                await before.close()
            session = self._session_of(stored, files, tools_of_servers(servers or (), cwd, files.tools()))
            await self._open(session)
        except (RLMError, OSError, ValueError) as error:
            files.close()
            raise failure(error) from error
        return session

    def _session_of(self, stored: Stored, files: Files, tools: dict[str, Any]) -> Session:
        if self._offered.fs is not None and self._offered.fs.read_text_file:
            files.read_open = partial(self._read_open, stored.id)
        return Session(stored, files, self._client, self._settings, tools)

    async def _read_open(self, session_id: str, path: str) -> str:
        return (await self._client.read_text_file(session_id=session_id, path=path)).content

    async def _open(self, session: Session) -> None:
        """Make the agent, which shows at once whether a key is missing, and tell the client of our commands."""
        await self._make_room(session)
        await session.open()
        self._sessions[session.id] = session
        task = asyncio.create_task(self._tell_commands(session.id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell_commands(self, session_id: str) -> None:
        await asyncio.sleep(_COMMAND_SECONDS)
        told = schema.AvailableCommandsUpdate(
            session_update="available_commands_update", available_commands=list(COMMANDS)
        )
        await self._client.session_update(session_id, told)

    async def _make_room(self, session: Session) -> None:
        """End the kernels that were idle for longest, if there would be too many."""
        async with self._opening:
            others = [one for one in self._sessions.values() if one.is_live and one is not session]
            idle = sorted((one for one in others if not one.is_busy), key=lambda one: one.used_at)
            for one in idle[: max(0, len(others) + 1 - self._settings.max_sessions)]:
                await one.rest()

    def _files(self, cwd: str, more: Sequence[str] | None) -> Files:
        """The folders of a session."""
        folders = [Path(name) for name in (cwd, *(more or ()))]
        for folder in folders:
            if not folder.is_absolute() or "\0" in str(folder) or not folder.is_dir():
                raise wrong(f"{str(folder)!r} is not the absolute path of a folder.")
        try:
            return Files(folders[0], folders[1:])
        except RLMError as error:
            raise failure(error) from error


def _info(stored: Stored) -> schema.SessionInfo | None:
    """A session for a list; None: its facts cannot be read."""
    try:
        facts = stored.facts()
        updated = stored.updated.isoformat()
    except (OSError, ValueError):
        return None
    return schema.SessionInfo(session_id=stored.id, cwd=facts.cwd, title=facts.title or None, updated_at=updated)
