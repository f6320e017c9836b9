"""A live connection to an MCP server, in a task of its own: what the SDK opens, one task must open and close."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from mcp import Client
from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED, Implementation, Tool, ToolListChangedNotification
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from rlm_kernel import __version__
from rlm_kernel.errors import ConfigError
from rlm_kernel.mcp.config import MCPServer
from rlm_kernel.mcp.transports import LastWords, transport

_LOGGER = logging.getLogger(__name__)

MAX_PAGES = 200
MAX_LISTED = 20_000
END_SECONDS = 8.0
PROBE_SECONDS = 2.0
"""In which a server must list its tools after a call that timed out; otherwise it is taken as dead."""


class Connection:
    """One connection. `open` it once.

    Args:
        server: what to connect to.

    Attributes:
        client: of the SDK, once it is open.
        tools: as listed last.
        total: how many tools the server has listed, with those beyond the limit.
        changed: whether the server has said that its tools have changed.
        words: why it has ended.
    """

    def __init__(self, server: MCPServer) -> None:
        self.client: Client
        self.tools: list[Tool] = []
        self.total = 0
        self.changed = False
        self.words = LastWords()
        self._server = server
        self._task: asyncio.Task[None] | None = None
        self._close = asyncio.Event()
        self._lost = False

    @property
    def alive(self) -> bool:
        """Whether it can still be used."""
        return self._task is not None and not self._task.done() and not self._lost

    async def open(self) -> None:
        """Connect, and list the tools.

        Raises:
            ConfigError: that did not succeed within the timeout; the message is the end of a sentence.
        """
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.ensure_future(self._live(ready))
        try:
            async with asyncio.timeout(self._server.timeout):
                await asyncio.wait({ready, self._task}, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            await self.close()
            why = f"it did not answer within {self._server.timeout:g} seconds"
            raise ConfigError(". ".join(filter(None, (why, str(self.words))))) from None
        except asyncio.CancelledError:
            await self.close()
            raise
        if not ready.done() or ready.exception() is not None:
            error = ready.exception() if ready.done() else None
            await self.close()
            raise ConfigError(self._why(error)) from error

    def _why(self, error: BaseException | None) -> str:
        said = str(self.words)
        if isinstance(error, ConfigError):
            return str(error)
        if error is None or (isinstance(error, MCPError) and error.code == CONNECTION_CLOSED):
            return said or "it ended at once"
        return ". ".join(filter(None, (describe(error), said)))

    async def _live(self, ready: asyncio.Future[None]) -> None:
        try:
            given = transport(self._server, self.words)
            about = Implementation(name="rlm-kernel", version=__version__)
            async with Client(given, client_info=about, message_handler=self._take, cache=None) as client:
                self.client = client
                # A schema of the server is never used to check what it returns: a pattern in it could take forever.
                client.session.validate_tool_result = _accept  # type: ignore[assignment, method-assign]
                await self.list_tools()
                ready.set_result(None)
                await self._until_closed(client)
        except BaseException as error:
            if not ready.done():
                ready.set_exception(_first(error))
                ready.exception()  # it may be read by nobody
            if isinstance(error, asyncio.CancelledError):
                raise

    async def _until_closed(self, client: Client) -> None:
        tools = client.server_capabilities.tools
        follows = client.protocol_version in MODERN_PROTOCOL_VERSIONS and tools is not None and tools.list_changed
        following = asyncio.ensure_future(self._follow(client)) if follows else None
        try:
            await self._close.wait()
        finally:
            if following is not None:
                following.cancel()
                await asyncio.wait({following})

    async def _follow(self, client: Client) -> None:
        """Note changes that a server of the stateless protocol tells who listens."""
        try:
            async with client.listen(tools_list_changed=True) as changes:
                async for _ in changes:
                    self.changed = True
        except Exception as error:  # noqa: BLE001 (it is a hint; the tools are listed anyway)
            _LOGGER.debug("The server tells no changes: %r", error)

    async def _take(self, message: Any) -> None:
        if isinstance(message, ToolListChangedNotification):
            self.changed = True

    async def list_tools(self) -> None:
        """List the tools again."""
        self.changed = False
        found: dict[str, Tool] = {}
        total, cursor = 0, None
        if self.client.server_capabilities.tools is not None:
            for _ in range(MAX_PAGES):
                page = await self.client.list_tools(cursor=cursor)
                total += len(page.tools)
                found |= {tool.name: tool for tool in page.tools[: MAX_LISTED - len(found)]}
                if (cursor := page.next_cursor) is None:
                    break
        self.tools, self.total = list(found.values()), total

    async def ask(self, what: str, work: Callable[[Client], Awaitable[Any]]) -> Any:
        """The reply of the server.

        Args:
            what: the call, for messages.
            work: makes the call.

        Raises:
            TimeoutError: there is none.
            ConnectionError: the connection ended.
            ServerError: the server refused the call, or its reply is none.
        """
        try:
            async with asyncio.timeout(self._server.timeout):
                return await work(self.client)
        except TimeoutError:
            late = f"{what} did not return within {self._server.timeout:g} seconds"
            if not await self._responds():
                self._lost = True
                late += ", and the server does not answer: the next call starts it again"
            raise TimeoutError(late) from None
        except MCPError as error:
            if error.code == CONNECTION_CLOSED or not self.alive or "Session terminated" in error.message:
                self._lost = True
                raise ConnectionError(str(self.words)) from error
            raise ServerError(error.message) from error
        except ValueError as error:  # pydantic's
            raise ServerError(describe(error)) from error
        except OSError as error:
            self._lost = True
            raise ConnectionError(describe(error)) from error
        except Exception as error:
            if not self.alive or type(error).__module__.startswith(("anyio", "httpx2")):
                self._lost = True
                raise ConnectionError(str(self.words) or describe(error)) from error
            raise ServerError(describe(error)) from error

    async def _responds(self) -> bool:
        """Whether the server answers anything."""
        try:
            async with asyncio.timeout(min(PROBE_SECONDS, self._server.timeout)):
                await self.client.list_tools()
        except MCPError as error:
            return error.code != CONNECTION_CLOSED
        except Exception as error:  # noqa: BLE001 (whatever it is, there was no answer)
            _LOGGER.debug("The server does not answer: %r", error)
            return False
        return True

    async def close(self) -> None:
        """End it, and a server that it has started. Idempotent."""
        self._close.set()
        if self._task is None:
            return
        await asyncio.wait({self._task}, timeout=END_SECONDS if self._is_open else 0)
        if not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=END_SECONDS)

    @property
    def _is_open(self) -> bool:
        return hasattr(self, "client")


class ServerError(Exception):
    """A server refused a call; the message is its text."""


async def _accept(*_: Any) -> None:
    """Check nothing."""


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def describe(error: BaseException) -> str:
    """An error in a few words."""
    error = _first(error)
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        more = f", and {error.error_count() - 1:,} more faults" if error.error_count() > 1 else ""
        return f"its reply does not follow the protocol ({place[:200]}: {first['msg'][:200]}{more})"
    return f"{type(error).__name__}: {error}"[:1_000] if str(error) else type(error).__name__
