"""Custom tools: functions, code and values that a user adds to the REPL.

A callable stays on the host and is called from the kernel with JSON arguments; a string that defines its own name is
code for the kernel; everything else is a value. All of it is checked when the RLM is made.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import json
import keyword
import pickle
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import FunctionType
from typing import Any, Literal

from rlm_kernel._async import gather_or_cancel, is_stop, run_in_thread
from rlm_kernel.errors import ConfigError
from rlm_kernel.kernel.guest.names import RESERVED
from rlm_kernel.mcp.approval import ToolCall as Call
from rlm_kernel.mcp.config import MCPServer
from rlm_kernel.mcp.server import RecordedServer, ToolFailedError, ToolServer
from rlm_kernel.text import clip
from rlm_kernel.types import Answer, ToolCall

MAX_ERROR = 20_000
"""Characters of an error of a server."""

ToolKind = Literal["function", "code", "value"]


@dataclass(frozen=True, slots=True)
class Tool:
    """One custom tool.

    Attributes:
        name: what the model calls it.
        kind: ``function`` (called on the host), ``code`` (runs in the kernel) or ``value`` (a variable there).
        content: the callable, the source or the value.
        description: for the prompt; the user's, else made from signature and docstring, or from the type. Empty: the
            prompt does not list it.
    """

    name: str
    kind: ToolKind
    content: Any
    description: str

    @property
    def about(self) -> str:
        """What the prompt says about it, in its list; empty if it does not name the tool."""
        return f"- `{self.name}`: {self.description}" if self.description else ""

    def card(self) -> dict[str, Any]:
        """What the guest needs to define the function, also for `help()`: name, docstring, parameters."""
        return {"name": self.name, "doc": inspect.getdoc(self.content) or "", "parameters": _parameters(self.content)}

    def to_record(self) -> dict[str, Any]:
        """The tool in the log, enough for a replay. A value that JSON cannot hold exactly is left out."""
        known: dict[str, Any] = {"name": self.name, "kind": self.kind, "description": self.description}
        if self.kind == "function":
            return known | {"card": self.card()}
        with contextlib.suppress(TypeError, ValueError, RecursionError):
            if self.kind == "code" or json.loads(json.dumps(self.content)) == self.content:
                return known | {"content": self.content}
        return known

    async def call(self, request: ToolCall) -> Answer:
        """Call the function on the host, in a thread unless it is asynchronous. What it raises is an answer, too."""
        try:
            value, error = await self._outcome(request)
        except BaseException as raised:  # the cell gets whatever it raises
            if is_stop(raised):
                raise  # nobody waits for the answer
            value, error = None, raised
        if error is not None:
            return Answer(error=json.dumps([type(error).__name__, _text_of(error)]))
        try:
            return Answer(json.dumps(value))
        except (TypeError, ValueError, RecursionError) as error:
            why = f"{self.name} returned {type(value).__name__}, which cannot travel as JSON: {error}"
            return Answer(error=json.dumps(["TypeError", why]))

    def approval(self, request: ToolCall) -> Call | None:  # noqa: ARG002 (a server's)
        """The call as `approve` gets it; None: it needs no approval.

        Raises:
            AttributeError, TypeError, ValueError: there is no such function, or the arguments do not fit.
        """
        return None

    async def given(self, value: Any, request: ToolCall) -> Answer:
        """A value that a user gives instead of a call."""
        return await replace(self, content=lambda *_, **__: value).call(request)

    async def _outcome(self, request: ToolCall) -> tuple[Any, BaseException | None]:
        """What the function returned, or what it raised in a thread: no future can carry a StopIteration."""

        def call() -> tuple[Any, BaseException | None]:
            try:
                return self.content(*request.args, **request.kwargs), None
            except BaseException as error:  # noqa: BLE001 (the cell gets whatever it raises)
                return None, error

        value, error = call() if inspect.iscoroutinefunction(self.content) else await run_in_thread(call)
        return await value if inspect.isawaitable(value) else value, error


class ServerTool(Tool):
    """The tools of an MCP server: one name, whose attributes are the functions. `content` is a `ToolServer`."""

    __slots__ = ()

    @property
    def about(self) -> str:
        """As of `Tool`."""
        prompt: str = self.content.prompt
        return f"{prompt}\n  {self.description}" if self.description else prompt

    def card(self) -> dict[str, Any]:
        """As of `Tool`, with all functions."""
        card: dict[str, Any] = self.content.card()
        return card

    def to_record(self) -> dict[str, Any]:
        """As of `Tool`. A replay needs no server."""
        return {"name": self.name, "kind": self.kind, "description": self.about, "card": self.card()}

    def approval(self, request: ToolCall) -> Call | None:
        """As of `Tool`."""
        call: Call | None = self.content.approval(_function_of(request), request.args, request.kwargs)
        return call

    async def call(self, request: ToolCall) -> Answer:
        """Call a function of the server. What it raises is an answer, too."""
        try:
            return Answer(await self.content.call(_function_of(request), request.args, request.kwargs))
        except ToolFailedError as error:
            return self._failed("ToolError", str(error))
        except BaseException as error:  # the cell gets whatever it raises
            if is_stop(error):
                raise
            return self._failed(type(error).__name__, str(error))

    async def given(self, value: Any, request: ToolCall) -> Answer:  # noqa: ARG002
        """As of `Tool`."""
        return Answer(json.dumps({"parts": [{"json": value}]}))

    def _failed(self, kind: str, message: str) -> Answer:
        return Answer(error=json.dumps([kind, self.content.redacted(clip(message, MAX_ERROR))]))


def _function_of(request: ToolCall) -> str:
    return request.tool.partition(".")[2]


def tool_called(tools: Mapping[str, Tool], name: str) -> Tool | None:
    """The tool that a call names: its own name, or for a server ``server.function``."""
    server, is_dotted, _ = name.partition(".")
    tool = tools.get(server)
    return tool if isinstance(tool, ServerTool) == bool(is_dotted) else None


async def begin_servers(tools: Iterable[Tool]) -> None:
    """Connect to the servers among the tools.

    Raises:
        ConfigError: one cannot be started or reached.
    """
    if servers := servers_of(tools):
        await gather_or_cancel(*(server.begin() for server in servers))


def servers_of(tools: Iterable[Tool]) -> tuple[ToolServer, ...]:
    """The servers among the tools, each once."""
    return tuple(dict.fromkeys(tool.content for tool in tools if isinstance(tool, ServerTool)))


def server_secrets(tools: Iterable[Tool]) -> set[str]:
    """The keys of the servers among the tools."""
    return {secret for server in servers_of(tools) for secret in server.secrets}


def tools_of(custom_tools: Mapping[str, Any] | None, argument: str = "custom_tools") -> tuple[Tool, ...]:
    """The tools of a documented dict: names to callables, code, values, or `{"tool": ..., "description": ...}`.

    Raises:
        ConfigError: a name that is taken or no name, or a value that cannot travel; the message names the key.
    """
    if custom_tools is None:
        return ()
    if not isinstance(custom_tools, Mapping):
        raise ConfigError(f"{argument} must be a dict of names to tools, not {type(custom_tools).__name__}.")
    return tuple(_tool(name, given, argument) for name, given in custom_tools.items())


def prompt_section(tools: tuple[Tool, ...]) -> str:
    """The part of the system prompt that names the tools, in the documented form; empty without tools."""
    lines = "\n".join(tool.about for tool in tools if tool.about)
    if not lines:
        return ""
    return f"Custom tools and data available in the REPL:\n{lines}"


def _tool(name: Any, given: Any, argument: str) -> Tool:
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        raise ConfigError(f"{argument}[{name!r}]: the name of a tool must be a Python name.")
    if name in RESERVED:
        names = ", ".join(sorted(RESERVED))
        raise ConfigError(f"{argument}[{name!r}]: this name is reserved: choose another one. Reserved names: {names}.")
    content, description = given, None
    if isinstance(given, dict) and "tool" in given and given.keys() <= {"tool", "description"}:
        content, description = given["tool"], given.get("description")
    if description is not None and not isinstance(description, str):
        raise ConfigError(f"{argument}[{name!r}]: the description must be a str, not {type(description).__name__}.")
    if isinstance(content, MCPServer):
        content = ToolServer(name, content)
    if isinstance(content, ToolServer | RecordedServer):
        return ServerTool(name, "function", content, description or "")
    kind = _kind(name, content)
    if kind == "value":
        _check_travels(name, content, argument)
    return Tool(name, kind, content, description or _describe(kind, content))


def _kind(name: str, content: Any) -> ToolKind:
    if callable(content):
        return "function"
    return "code" if isinstance(content, str) and _binds(content, name) else "value"


def _binds(source: str, name: str) -> bool:
    """Whether a text is Python code that binds this name at its top level, also in a `try` or an `if`."""
    try:
        waiting: list[ast.AST] = [ast.parse(source)]
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # the last two: words that look nested too deeply
        return False
    while waiting:
        node = waiting.pop()
        if name in _bound_by(node):
            return True
        waiting += _inside(node)
    return False


def _bound_by(node: ast.AST) -> set[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return {name}
        case ast.Import(names=names):
            return {alias.asname or alias.name.partition(".")[0] for alias in names}
        case ast.ImportFrom(names=names):
            return {alias.asname or alias.name for alias in names}
        case ast.Name(id=name, ctx=ast.Store()):
            return {name}
    return set()


def _inside(node: ast.AST) -> Iterable[ast.AST]:
    """The parts that can bind a name at the top level: no inner scopes, and no `x += 1`."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef() | ast.Lambda():
            return ()
        case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
            return ()
        case ast.AugAssign() | ast.AnnAssign(value=None):
            return ()
    return ast.iter_child_nodes(node)


class _OfScript(Exception):  # noqa: N818 (it does not leave this module)
    """A value has an object of a class of the running script, which no kernel can import."""


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        kind = value if isinstance(value, type | FunctionType) else type(value)
        if kind.__module__ == "__main__":
            raise _OfScript(f"{kind.__qualname__} is part of the script, which the kernel cannot import")
        return NotImplemented


def _check_travels(name: str, value: Any, argument: str) -> None:
    try:
        _Pickler(io.BytesIO(), protocol=4).dump(value)
    except Exception as error:
        raise ConfigError(
            f"{argument}[{name!r}]: a {type(value).__name__} cannot be sent to the kernel ({error}). "
            "Give a function that works with it on the host, or plain data."
        ) from error


def _text_of(error: BaseException) -> str:
    """The text of an exception, whose class may have a `__str__` that raises."""
    try:
        return str(error)
    except Exception as wrong:  # noqa: BLE001 (it is the user's code)
        return f"its text cannot be shown ({type(wrong).__name__})"


def _describe(kind: ToolKind, content: Any) -> str:
    if kind == "value":
        size = f" of length {len(content)}" if hasattr(content, "__len__") else ""
        return f"a {type(content).__name__}{size}"
    if kind == "code":
        return "defined in the notebook"
    first_line = (inspect.getdoc(content) or "").partition("\n")[0]
    signature = _signature(content)
    return f"{'(...)' if signature is None else signature} {first_line}".strip()


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):  # some functions of C have none
        return None


def _parameters(function: Callable[..., Any]) -> list[dict[str, Any]] | None:
    """The parameters as texts: name, kind, default, annotation. None for a function without a signature."""
    if (signature := _signature(function)) is None:
        return None
    return [
        {
            "name": parameter.name,
            "kind": int(parameter.kind),
            "default": None if parameter.default is parameter.empty else repr(parameter.default),
            "annotation": _annotation(parameter.annotation),
        }
        for parameter in signature.parameters.values()
    ]


def _annotation(annotation: Any) -> str | None:
    if annotation is inspect.Parameter.empty:
        return None
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
