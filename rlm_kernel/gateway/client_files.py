"""The configuration of MCP clients, so that they use the gateway."""

from __future__ import annotations

import difflib
import json
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlm_kernel.errors import ConfigError
from rlm_kernel.trajectory.log.atomic_files import write_whole
from rlm_kernel.untrusted.json_text import loads, read_file

SERVER = "rlm"
MAX_BYTES = 1 << 22
_COPY = re.compile(r"\.before-rlm-\d+$")
_VS_CODE_INPUT = {"type": "promptString", "id": "rlm-key", "description": "Key of the RLM gateway", "password": True}


@dataclass(frozen=True)
class Client:
    """Where a client keeps its servers.

    Attributes:
        file: in the folder of the project.
        section: the name of the servers in it.
        key: how the client is told to find the key of the gateway; no file holds the key itself.
        kind: whether an entry names its transport.
    """

    file: str
    section: str
    key: str
    kind: bool = False


CLIENTS = {
    "claude-code": Client(".mcp.json", "mcpServers", "${RLM_GATEWAY_API_KEY}", kind=True),
    "cursor": Client(".cursor/mcp.json", "mcpServers", "${env:RLM_GATEWAY_API_KEY}"),
    "vscode": Client(".vscode/mcp.json", "servers", "${input:rlm-key}", kind=True),
    "copilot": Client(".vscode/mcp.json", "servers", "${input:rlm-key}", kind=True),
    "zed": Client(".zed/settings.json", "context_servers", "YOUR_KEY"),
}

TITLE = "# A workspace without source\n"
README = f"""{TITLE}
The repository is on another host. The agents of this editor read it through the RLM gateway at
{{url}}, within limits. For Claude Code and Cursor set RLM_GATEWAY_API_KEY before you start them.
VS Code asks for the key. In Zed, replace YOUR_KEY in .zed/settings.json.
"""


@dataclass(frozen=True)
class Change:
    """A change of a file. `before`: None if there is no file yet."""

    path: Path
    before: str | None
    after: str

    @property
    def diff(self) -> str:
        """As `diff -u` shows it; empty if nothing changes."""
        before, after = (self.before or "").splitlines(keepends=True), self.after.splitlines(keepends=True)
        return "".join(difflib.unified_diff(before, after, str(self.path), str(self.path)))

    def apply(self) -> Path | None:
        """Write the file, and return the copy of the one before.

        Raises:
            ConfigError: it cannot be written.
        """
        copy = None
        try:
            if self.before is not None:
                number = next(n for n in range(1, 10_000) if not self._copy(n).exists())
                copy = self._copy(number)
                mode = stat.S_IMODE(self.path.stat().st_mode)
                write_whole(copy, self.before.encode())
                copy.chmod(mode)
            write_whole(self.path, self.after.encode())
            if copy is not None:
                self.path.chmod(mode)
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be written ({error}).") from error
        return copy

    def _copy(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.before-rlm-{number}")


def change_for(name: str, folder: Path, *, url: str | None, command: Sequence[str]) -> Change:
    """What makes a client use the gateway.

    Args:
        name: of the client.
        folder: of the project.
        url: of a gateway over HTTP; None: the client starts `command`.
        command: of a gateway over stdio.

    Raises:
        ConfigError: the client is unknown, or its file is not JSON.
    """
    client = CLIENTS.get(name)
    if client is None:
        raise ConfigError(f"The client {name!r} is not known: give one of {', '.join(CLIENTS)}.")
    path = (folder / client.file).resolve()  # a link stays, and the diff names what is written
    before = _text(path)
    entry = _entry(client, url, command)
    content = _object(before, path, f"add this to {client.section!r} by hand:\n{json.dumps({SERVER: entry}, indent=2)}")
    servers = content.setdefault(client.section, {})
    if not isinstance(servers, dict):
        raise ConfigError(f"{path}: {client.section!r} is not an object: correct it first.")
    servers[SERVER] = entry
    if url is not None and "${input:" in client.key:
        inputs = content.setdefault("inputs", [])
        if not isinstance(inputs, list):
            raise ConfigError(f"{path}: 'inputs' is not a list: correct it first.")
        if _VS_CODE_INPUT not in inputs:
            inputs.append(_VS_CODE_INPUT)
    return Change(path, before, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def workspace(folder: Path, url: str) -> list[Change]:
    """The files of a workspace that holds configuration only.

    Raises:
        ConfigError: the folder holds something else.
    """
    folder = folder.resolve()
    names = ("claude-code", "cursor", "vscode", "zed")
    changes = [change_for(name, folder, url=url, command=()) for name in names]
    readme = Change(folder / "README.md", _text(folder / "README.md"), README.format(url=url))
    changes = [*changes, readme]
    others = (path for path in sorted(folder.rglob("*")) if not _is_ours(path, [change.path for change in changes]))
    foreign = readme.path if not (readme.before or TITLE).startswith(TITLE) else next(others, None)
    if foreign is not None:
        raise ConfigError(f"{foreign} is there: give a new folder, which will hold configuration only.")
    return changes


def _is_ours(path: Path, ours: Sequence[Path]) -> bool:
    """Whether a workspace may hold it: its files, copies of them, and folders."""
    is_folder = path.is_dir() and not path.is_symlink()
    return is_folder or path in ours or path.with_name(_COPY.sub("", path.name)) in ours


def _entry(client: Client, url: str | None, command: Sequence[str]) -> dict[str, Any]:
    if url is None:
        kind = {"type": "stdio"} if client.kind else {}
        return {**kind, "command": command[0], "args": list(command[1:])}
    kind = {"type": "http"} if client.kind else {}
    return {**kind, "url": url, "headers": {"Authorization": f"Bearer {client.key}"}}


def _text(path: Path) -> str | None:
    try:
        return read_file(path, MAX_BYTES).decode()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.") from error


def _object(text: str | None, path: Path, instead: str) -> dict[str, Any]:
    try:
        content = loads(text or "{}")
    except ValueError as error:
        raise ConfigError(
            f"{path} is not JSON without comments ({error}): correct the file and run it again, or {instead}"
        ) from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} does not hold an object: correct the file and run it again, or {instead}")
    return content
