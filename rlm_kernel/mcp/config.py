"""What an MCP server is, and the configuration files that name some."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rlm_kernel.errors import ConfigError
from rlm_kernel.mcp.naming import identifier
from rlm_kernel.text import suggestion
from rlm_kernel.untrusted import json_text

DEFAULT_TIMEOUT = 60.0
MAX_DEPTH = 30
"""Nesting of a configuration file."""

_TEXT = r'"(?:[^"\\\n]++|\\.)*+"?'
_COMMENTS = re.compile(rf"{_TEXT}|//[^\n]*+|/\*(?:[^*]++|\*(?!/))*+(?:\*/)?")
"""Texts, and comments, which the files of VS Code may have."""
_COMMAS = re.compile(rf"{_TEXT}|,\s*+(?=[}}\]])")
"""Texts, and commas before a closing bracket."""
_BETWEEN_WORDS = re.compile(r"[^0-9A-Za-z]++")
_VARIABLE = re.compile(r"\$\{([^${}]++)\}")
_SETTINGS = ("mcpServers", "servers")
_IN_A_PROJECT = (".vscode", ".cursor", ".claude")
"""Folders of a project that hold such a file."""
_KINDS = {"stdio": "command", "http": "url", "streamable-http": "url", "streamableHttp": "url", "sse": "url"}
_NOT_THE_NAME = frozenset({"mcp", "server", "servers", "run", "exec", "latest", "index", "main", "api", "www"})


@dataclass(frozen=True, slots=True, repr=False)
class MCPServer:
    """A server of the Model Context Protocol, whose tools the model calls in its REPL.

        RLM(custom_tools={"fs": MCPServer("npx", ["-y", "@modelcontextprotocol/server-filesystem", "data"])})

    Give a `command`, which is started on the host and spoken to over its standard input and output, or the `url` of a
    server. It is started when the first completion begins, and ended by `RLM.close`.

    Attributes:
        command: the program.
        args: its arguments.
        env: its environment variables, besides ``PATH``, ``HOME`` and the like. Others of the host it does not get.
        cwd: its working directory; None: that of the host.
        url: of a server: streamable HTTP, or the older server-sent events if it ends with ``/sse``.
        headers: of its requests, such as ``{"Authorization": "Bearer …"}``.
        timeout: seconds for its start, and for each call.

    Raises:
        ConfigError: an argument is missing or wrong.
    """

    command: str | None = None
    args: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | os.PathLike[str] | None = None
    url: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout: float = DEFAULT_TIMEOUT

    def __post_init__(self) -> None:
        if (self.command is None) == (self.url is None):
            raise ConfigError('MCPServer takes a command or a url: MCPServer(command="npx", args=[...]).')
        if isinstance(self.args, str) or not all(isinstance(argument, str) for argument in self.args):
            raise ConfigError(f"MCPServer: args is a list of texts, not {self.args!r}.")
        for name, given in (("command", self.command), ("url", self.url)):
            if given is not None and (not isinstance(given, str) or not given.strip() or "\0" in given):
                raise ConfigError(f"MCPServer: {name} is a text, not {given!r}.")
        for name in ("env", "headers"):
            _check_texts(name, getattr(self, name))
        if self.url is not None and urlsplit(self.url).scheme not in ("http", "https"):
            raise ConfigError("MCPServer: url begins with http:// or https://.")
        if isinstance(self.timeout, bool) or not isinstance(self.timeout, int | float) or not self.timeout > 0:
            raise ConfigError(f"MCPServer: timeout is a number of seconds, not {self.timeout!r}.")
        object.__setattr__(self, "args", tuple(self.args))
        object.__setattr__(self, "env", dict(self.env))
        object.__setattr__(self, "headers", dict(self.headers))

    def __repr__(self) -> str:
        """Without the values of variables and headers, and without a password in the URL."""
        if self.url is not None:
            address = urlsplit(self.url)
            place = f"{address.scheme}://{address.hostname}{'' if address.port is None else f':{address.port}'}"
            shown = [f"url={place + address.path!r}"]
        else:
            shown = [f"command={self.command!r}", f"args={len(self.args)}"]
        shown += [f"{name}={sorted(getattr(self, name))}" for name in ("env", "headers") if getattr(self, name)]
        return f"MCPServer({', '.join(shown)})"


def mcp_servers(
    source: str | os.PathLike[str] | Mapping[str, Any], environ: Mapping[str, str] | None = None
) -> dict[str, MCPServer]:
    """The servers of a configuration as Claude, Cursor and VS Code write it, for `custom_tools`.

    `${VAR}`, `${VAR:-default}`, `${env:VAR}`, `${workspaceFolder}` and `${userHome}` are expanded. A server that is
    `disabled` is left out. A name that is no Python name is made one: ``my-files`` is ``my_files``.

    Args:
        source: the path of a file such as `.mcp.json`, `claude_desktop_config.json`, `.cursor/mcp.json` or
            `.vscode/mcp.json`, or what one holds.
        environ: the variables; None: those of the process.

    Raises:
        ConfigError: it cannot be read, or an entry is wrong; the message names the entry.
    """
    environ = os.environ if environ is None else environ
    if isinstance(source, Mapping):
        where, folder, held = "the configuration", None, source
    else:
        path = Path(source)
        where, folder, held = str(path), _workspace(path), _read(path)
    entries = next((held[key] for key in _SETTINGS if key in held), None)
    if entries is None and held and all(isinstance(entry, Mapping) for entry in held.values()):
        entries = held
    if not isinstance(entries, Mapping):
        raise ConfigError(f"{where} names no MCP servers: it holds none of {', '.join(_SETTINGS)}.")
    servers: dict[str, MCPServer] = {}
    for given, entry in entries.items():
        if isinstance(entry, Mapping) and entry.get("disabled") is True:
            continue
        expand = _expander(f"{where}: {given}", environ, folder)
        servers[identifier(str(given), servers, "server")] = _server(f"{where}: {given}", entry, expand, folder)
    return servers


def servers_named(specs: Sequence[str]) -> dict[str, MCPServer]:
    """The servers of `--mcp` options: each a configuration file, a URL or a command, perhaps as ``name=…``.

    Raises:
        ConfigError: one is none of them.
    """
    servers: dict[str, MCPServer] = {}
    for spec in specs:
        for name, server in _named(spec.strip()).items():
            servers[identifier(name, servers, "server")] = server
    return servers


def _named(spec: str) -> dict[str, MCPServer]:
    name, is_named, rest = spec.partition("=")
    if is_named and name.isidentifier() and rest.strip():
        given = _named(rest.strip())
        return {name: next(iter(given.values()))} if len(given) == 1 else given
    if not spec:
        raise ConfigError("--mcp takes a configuration file, a URL or a command.")
    if spec.startswith(("http://", "https://")):
        address = urlsplit(spec)
        return {_short_name([*(address.hostname or "").split("."), *address.path.split("/")]): MCPServer(url=spec)}
    if spec.endswith(".json") or (Path(spec).is_file() and not os.access(spec, os.X_OK)):
        return mcp_servers(spec)
    try:
        command, *arguments = shlex.split(spec)
    except ValueError as error:
        raise ConfigError(f"--mcp {spec!r}: {error}.") from error
    words = [word for word in arguments if not word.startswith("-")][:1] or [Path(command).stem]
    return {_short_name([Path(words[0]).name.partition("@")[0] or words[0]]): MCPServer(command, arguments)}


def _short_name(words: Sequence[str]) -> str:
    """A name for a server: `server-filesystem` is `filesystem`."""
    parts = [part for word in words for part in _BETWEEN_WORDS.split(word.removesuffix(".py")) if part]
    telling = [part for part in parts if part.lower() not in _NOT_THE_NAME and not part.isdigit()]
    return "_".join(telling[-2:] if len(words) == 1 else telling[:1]).lower() or "tools"


def _read(path: Path) -> Mapping[str, Any]:
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the file cannot be read: {error}.") from error
    try:
        held = json_text.loads(_COMMAS.sub(_text_only, _COMMENTS.sub(_text_only, text)), max_depth=MAX_DEPTH)
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}.") from error
    if not isinstance(held, Mapping):
        raise ConfigError(f"{path} holds a {type(held).__name__}, not an object with mcpServers.")
    return held


def _text_only(part: re.Match[str]) -> str:
    return part[0] if part[0].startswith('"') else " "


def _workspace(path: Path) -> Path:
    """The folder of the project that a file belongs to."""
    folder = path.resolve().parent
    return folder.parent if folder.name in _IN_A_PROJECT else folder


def _expander(where: str, environ: Mapping[str, str], folder: Path | None) -> Callable[[str], str]:
    def value_of(found: re.Match[str]) -> str:
        name = found[1]
        if name in ("workspaceFolder", "workspaceRoot", "CLAUDE_PROJECT_DIR"):
            return str(folder or Path.cwd())
        if name == "userHome":
            return str(Path.home())
        if name.startswith("input:"):
            raise ConfigError(f"{where}: ${{{name}}} asks a person. Write ${{env:NAME}}, and set the variable.")
        variable, has_default, default = name.removeprefix("env:").partition(":-")
        if variable in environ:
            return environ[variable]
        if has_default:
            return default
        raise ConfigError(f"{where}: the variable {variable} is not set{suggestion(variable, environ)}")

    return lambda text: _VARIABLE.sub(value_of, text)


def _server(where: str, entry: Any, expand: Callable[[str], str], folder: Path | None) -> MCPServer:
    """The server of an entry. Fields that it does not know, such as `alwaysAllow`, say nothing about the server."""
    if not isinstance(entry, Mapping):
        raise ConfigError(f'{where} is not an object such as {{"command": "npx", "args": [...]}}.')
    kind = entry.get("type", entry.get("transport"))
    if kind is not None and kind not in _KINDS:
        raise ConfigError(f"{where}: the type {kind!r} is not known: {', '.join(_KINDS)}.")
    url = entry.get("url", entry.get("serverUrl", entry.get("httpUrl")))
    fields = {"command": entry.get("command"), "url": url, "cwd": entry.get("cwd")}
    texts = {name: value if value is None else expand(_text(where, name, value)) for name, value in fields.items()}
    arguments = entry.get("args", [])
    if not isinstance(arguments, list):
        raise ConfigError(f"{where}: args is a list of texts.")
    try:
        server = MCPServer(
            texts["command"],
            [expand(_text(where, "args", argument)) for argument in arguments],
            {**_env_file(where, entry, expand, folder), **_expanded(where, "env", entry, expand)},
            texts["cwd"],
            texts["url"],
            _expanded(where, "headers", entry, expand),
        )
    except ConfigError as error:
        raise error if str(error).startswith(where) else ConfigError(f"{where}: {error}") from error
    is_of_project = folder is not None and server.command is not None and server.cwd is None
    return replace(server, cwd=folder) if is_of_project else server


def _env_file(
    where: str, entry: Mapping[str, Any], expand: Callable[[str], str], folder: Path | None
) -> dict[str, str]:
    if (named := entry.get("envFile")) is None:
        return {}
    from dotenv import dotenv_values

    path = (folder or Path.cwd()) / expand(_text(where, "envFile", named))
    if not path.is_file():
        raise ConfigError(f"{where}: the envFile {path} does not exist.")
    return {name: value for name, value in dotenv_values(path).items() if value is not None}


def _expanded(where: str, name: str, entry: Mapping[str, Any], expand: Callable[[str], str]) -> dict[str, str]:
    def pairs(given: Mapping[Any, Any]) -> Iterator[tuple[str, str]]:
        for key, value in given.items():
            if value is not None:
                text = str(value) if isinstance(value, int | float) else value
                yield str(key), expand(_text(where, f"{name}[{str(key)!r}]", text))

    given = entry.get(name) or {}
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where}: {name} is an object of texts.")
    return dict(pairs(given))


def _text(where: str, name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{where}: {name} is a text, not {type(value).__name__}.")
    return value


def _check_texts(name: str, given: Any) -> None:
    if not isinstance(given, Mapping) or not all(
        isinstance(key, str) and isinstance(value, str) for key, value in given.items()
    ):
        raise ConfigError(f"MCPServer: {name} is a dict of texts.")
