"""A server as the runs of an RLM share it: started when it is needed, once more when it has died, and its functions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from rlm_kernel._async import shielded
from rlm_kernel.at_exit import end_at_exit
from rlm_kernel.errors import ConfigError, RecordingError
from rlm_kernel.installation import install_command
from rlm_kernel.kernel.protocol import MAX_ANSWER_BYTES
from rlm_kernel.mcp.approval import ToolCall
from rlm_kernel.mcp.config import MCPServer
from rlm_kernel.mcp.functions import MAX_FUNCTIONS, OWN, Function, functions_of
from rlm_kernel.mcp.results import Part, error_text, parts_of, parts_of_resource
from rlm_kernel.text import clip_end, plain
from rlm_kernel.trajectory.log.redaction import MIN_SECRET_LENGTH, Redactor, is_secret_name

if TYPE_CHECKING:
    from rlm_kernel.mcp.connection import Connection

MAX_LINES = 40
"""Tools that the prompt shows with their signatures."""
MAX_NAMES_CHARACTERS = 1_500
"""Of the names of the others."""
MAX_INSTRUCTIONS = 2_000
MAX_FOUND = 50
MAX_PAGES = 50
CARD = "*"
"""Asked by the guest for a list that may have changed; no function has this name."""
ENDED = "the MCP server {name} ended{why}"
RESTARTED = "The MCP server {name} had ended{why}, and was started again: what it remembered is lost."


class ToolFailedError(Exception):
    """A tool returned an error; the message is the text of the server."""


class ToolServer:
    """A server with a name.

    Args:
        name: of the server in the REPL.
        config: the server.
    """

    def __init__(self, name: str, config: MCPServer) -> None:
        self.name = name
        self.config = config
        self._connection: Connection | None = None
        self._functions: dict[str, Function] = {}
        self._names: dict[str, str] = {}
        self._instructions = ""
        self._left_out = 0
        self._turn = asyncio.Lock()
        self._restarts = 0
        self._note = ""
        self._redact = Redactor(self.secrets)

    def __repr__(self) -> str:
        return f"ToolServer({self.name!r}, {self.config!r})"

    @property
    def secrets(self) -> set[str]:
        """What must not be in a log, a prompt or a kernel: values of headers, keys among variables, and in the URL."""
        config = self.config
        values = [word for value in config.headers.values() for word in (value, *value.split()[-1:])]
        values += [value for name, value in config.env.items() if is_secret_name(name)]
        if config.url is not None:
            address = urlsplit(config.url)
            values += [value for name, value in parse_qsl(address.query) if is_secret_name(name)]
            values += [address.password or ""]
        return {value for value in values if len(value) >= MIN_SECRET_LENGTH}

    # -- the connection

    async def begin(self) -> None:
        """Connect for a run, if it is not connected.

        Raises:
            ConfigError: the server cannot be started or reached, or the SDK is missing.
        """
        self._restarts = 0
        try:
            await self._connected()
        except ConfigError as error:
            raise ConfigError(f"custom_tools[{self.name!r}]: the MCP server did not start: {error}.") from error

    async def _connected(self) -> Connection:
        """The connection.

        Raises:
            ConfigError: the server cannot be started or reached.
        """
        async with self._turn:
            if self._connection is not None and self._connection.alive:
                return self._connection
            if self._connection is not None:
                await shielded(self._connection.close())
            self._connection = await self._open()
            return self._connection

    async def _open(self) -> Connection:
        try:
            from rlm_kernel.mcp.connection import Connection
        except ImportError as error:
            raise ConfigError(f"it needs the MCP SDK ({error}): {install_command('mcp')}") from error
        connection = Connection(self.config)
        try:
            await connection.open()
        except ConfigError as error:
            raise ConfigError(self._redact(str(error))) from error
        end_at_exit(self)
        self._take(connection)
        return connection

    def _take(self, connection: Connection) -> None:
        """Take over the tools of a connection."""
        self._functions = functions_of(connection.tools, self.name, self._names)
        self._names |= {function.tool: function.name for function in self._functions.values()}
        self._left_out = max(0, connection.total - len(self._functions))
        self._instructions = clip_end(plain(connection.client.instructions or "").strip(), MAX_INSTRUCTIONS)

    async def _ask(self, what: str, work: Any) -> Any:
        """The reply of the server, which is started once more if it has ended."""
        connection = self._connection
        if connection is None or not connection.alive:
            connection = await self._again(connection)
        try:
            reply = await connection.ask(f"{self.name}.{what}", work)
        except ConnectionError as error:
            why = f": {error}" if str(error) else ""
            ended = ENDED.format(name=self.name, why=f" during {self.name}.{what}(…){why}")
            raise ConnectionError(
                f"{ended}. The call may have happened. The next call starts the server again."
            ) from error
        self._restarts = 0
        if connection.changed:
            await self._list_again(connection)
        return reply

    async def _list_again(self, connection: Connection) -> None:
        await connection.ask(f"{self.name}.tools", lambda _: connection.list_tools())
        self._take(connection)

    async def _again(self, before: Connection | None) -> Connection:
        why = f" ({before.words})" if before is not None and str(before.words) else ""
        if before is not None:
            if self._restarts:
                raise ConnectionError(f"{ENDED.format(name=self.name, why=why)} again, and is not started any more.")
            self._restarts += 1
        try:
            connection = await self._connected()
        except ConfigError as error:
            raise ConnectionError(
                f"{ENDED.format(name=self.name, why=why)}, and did not start again: {error}"
            ) from error
        self._note = RESTARTED.format(name=self.name, why=why) if before is not None else ""
        return connection

    async def close(self) -> None:
        """End the server. Idempotent; the next run starts it again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await shielded(connection.close())

    # -- its functions

    def card(self) -> dict[str, Any]:
        """What the guest needs to define them."""
        doc = [f"Tools of the MCP server {self.name}; each has an asynchronous form: await {self.name}.aNAME(...)."]
        doc += [self._instructions] if self._instructions else []
        functions = [function.card() for function in self._functions.values()]
        return {"name": self.name, "doc": "\n\n".join(doc), "parameters": None, "functions": functions}

    @property
    def prompt(self) -> str:
        """What the prompt says about it."""
        name, functions = self.name, list(self._functions.values())
        about = (
            f"- `{name}`: functions of the MCP server {name}, called with Python arguments; they return Python values. "
            f"`await {name}.aNAME(...)` is the asynchronous form. `help({name}.NAME)` shows one in full, "
            f"`{name}.tools('words')` finds some, `{name}.resources()` and `{name}.read_resource(uri)` read resources."
        )
        lines = [about]
        lines += [f"  - `{name}.{function.signature}` {function.summary}" for function in functions[:MAX_LINES]]
        if more := [function.name for function in functions[MAX_LINES:]]:
            lines.append(f"  - further ones: {clip_end(', '.join(more), MAX_NAMES_CHARACTERS)}")
        if self._left_out:
            lines.append(f"  - {self._left_out:,} more tools, which are not available: at most {MAX_FUNCTIONS:,} are.")
        return self._redact("\n".join(lines))

    # -- calls

    def approval(self, function: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> ToolCall | None:
        """The call as it is shown to who decides; None: it asks for nothing of the server that needs a decision.

        Raises:
            AttributeError: there is no such function.
            TypeError: the arguments do not fit.
        """
        if (found := self._functions.get(function)) is not None:
            arguments = found.bound(args, kwargs)
            return ToolCall(self.name, found.tool, arguments, found.title, found.is_read_only)
        if function == "read_resource":
            return ToolCall(
                self.name, "resources/read", {"uri": _uri(args, kwargs)}, "read a resource", is_read_only=True
            )
        if function in (*OWN, CARD):
            return None
        raise self._unknown(function)

    def _unknown(self, function: str) -> AttributeError:
        return AttributeError(f"the MCP server {self.name} has no tool {function!r} (any more)")

    async def call(self, function: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """What a function returns, as the JSON that the guest makes a value of.

        Raises:
            ToolFailedError: the server returned an error.
            ConnectionError, TimeoutError: it did not return anything.
            AttributeError, TypeError: there is no such function, or the arguments do not fit.
            ValueError: it returned too much.
        """
        before = self._functions
        reply: dict[str, Any] = {"parts": await self._parts(function, args, kwargs)}
        if function == CARD or self._functions != before:
            reply["changed"] = self.card()
        if self._note:
            reply["note"], self._note = self._note, ""
        text = json.dumps(reply)
        if len(text) > MAX_ANSWER_BYTES:
            raise ValueError(
                f"{self.name}.{function} returned {len(text):,} bytes, and a cell can take {MAX_ANSWER_BYTES:,}: ask "
                "for a part of it."
            )
        return self._redact(text)

    def redacted(self, text: str) -> str:
        """A text without the secrets of the server."""
        return self._redact(text)

    async def _parts(self, function: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Part]:
        from rlm_kernel.mcp.connection import ServerError

        try:
            if (found := self._functions.get(function)) is not None:
                arguments = found.bound(args, kwargs)
                result = await self._ask(function, lambda client: client.call_tool(found.tool, arguments))
                if result.is_error:
                    raise ToolFailedError(error_text(result))
                return parts_of(result, unwraps=found.unwraps)
            if function == "read_resource":
                uri = _uri(args, kwargs)
                read = await self._ask(function, lambda client: client.read_resource(uri))
                return parts_of_resource(read.contents)
            if function == "resources":
                return [{"json": await self._ask(function, _resources)}]
            if function in ("tools", CARD):
                return [{"json": await self._found(*args, **kwargs)}]
        except ServerError as error:
            raise ToolFailedError(str(error)) from error
        raise self._unknown(function)

    async def _found(self, words: str = "") -> list[str]:
        """The functions with all the words in their lines, after the server has listed them again."""
        await self._ask("tools", _nothing)
        if self._connection is not None:
            await self._list_again(self._connection)
        wanted = str(words).lower().split()
        lines = (function.line for function in self._functions.values())
        return [f"{self.name}.{line}" for line in lines if all(word in line.lower() for word in wanted)][:MAX_FOUND]


async def _nothing(_: Any) -> None:
    """Ask for nothing: a server that has ended is started again."""


def _uri(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    given = [*args, *kwargs.values()]
    if len(given) != 1 or not isinstance(given[0], str) or kwargs.keys() - {"uri"}:
        raise TypeError("read_resource(uri) takes the URI of a resource, a text")
    return given[0]


async def _resources(client: Any) -> list[dict[str, Any]]:
    """The resources of a server, and the templates of further ones."""
    found: list[Any] = []
    if client.server_capabilities.resources is None:
        return []
    for method, field in (("list_resources", "resources"), ("list_resource_templates", "resource_templates")):
        cursor = None
        for _ in range(MAX_PAGES):
            page = await getattr(client, method)(cursor=cursor)
            found += getattr(page, field)
            if (cursor := page.next_cursor) is None:
                break
    return [resource.model_dump(mode="json", by_alias=True, exclude_none=True) for resource in found]


class RecordedServer:
    """A server of a recorded run: its functions have the answers of the record, and nothing is started.

    Args:
        name: of the server.
        card: of the record.
        prompt: what the prompt said about it.
    """

    secrets: frozenset[str] = frozenset()

    def __init__(self, name: str, card: dict[str, Any], prompt: str) -> None:
        self.name = name
        self.prompt = prompt
        self._card = card

    def __repr__(self) -> str:
        return f"RecordedServer({self.name!r})"

    async def begin(self) -> None:
        """Nothing is started."""

    async def close(self) -> None:
        """Nothing was started."""

    def card(self) -> dict[str, Any]:
        """As of `ToolServer`."""
        return self._card

    def approval(self, *_: Any) -> None:
        """Nothing needs a decision."""

    def redacted(self, text: str) -> str:
        """The text."""
        return text

    async def call(self, function: str, *_: Any) -> str:
        """Refuse.

        Raises:
            RecordingError: always.
        """
        raise RecordingError(f"This call of {self.name}.{function} is not in the log: give custom_tools again.")
