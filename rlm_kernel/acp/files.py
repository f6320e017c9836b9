"""The files of a session: the client's folder as functions of the REPL, which read what a cell asks for.

What may be read is what the MCP gateway would let out: below the folders of the session, no links, and nothing with the
name of a secret or that a `.gitignore` excludes. The unsaved text of an open file comes from the client, if it offers
that.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import acp
import re2

from rlm_kernel._async import run_in_thread
from rlm_kernel.gateway.refusals import NotAllowedError, RefusedError
from rlm_kernel.gateway.tree import Parts, Tree, parts_of

MAX_LISTED = 2_000
MAX_FOUND = 200
MAX_LINE = 400
"""Characters of a line that a search shows."""
SEARCH_SECONDS = 20.0
CLIENT_SECONDS = 5.0
"""How long a client may take to give the text of a file. After that the one on disk is read."""
_RE2_BYTES = 1 << 23

ReadOpen = Callable[[str], Awaitable[str]]
"""Asks the client for the text of a file, by its absolute path."""


@dataclass(frozen=True, slots=True)
class Place:
    """A file or folder of a session. `root`: the folder of the session that holds it. `parts`: below that."""

    tree: Tree
    root: Path
    parts: Parts

    @property
    def path(self) -> Path:
        """The absolute path."""
        return self.root.joinpath(*self.parts)

    def below(self, parts: Parts) -> Place:
        """Another place in the same folder of the session."""
        return Place(self.tree, self.root, parts)


class Files:
    """The folders of a session.

    Args:
        folder: its working directory, absolute.
        more: further folders.

    Attributes:
        read_open: see `ReadOpen`; None: the client does not offer it.

    Raises:
        ConfigError: a folder cannot be opened.
    """

    def __init__(self, folder: Path, more: Sequence[Path] = ()) -> None:
        self.folder = folder
        self._trees = {root: Tree(root) for root in dict.fromkeys((folder, *more))}
        self.read_open: ReadOpen | None = None
        self._loop = asyncio.get_running_loop()

    def close(self) -> None:
        """Close the folders."""
        for tree in self._trees.values():
            tree.close()
        self._trees.clear()

    def tools(self) -> dict[str, Callable[..., Any]]:
        """The functions for the REPL."""
        return {"list_files": self.list_files, "read_file": self.read_file, "search_files": self.search_files}

    def place(self, path: str) -> Place:
        """Where a path leads, absolute or relative to the working directory. A `file:` URL is a path, too.

        Raises:
            RefusedError: outside of the folders.
        """
        named = Path(_path_of(path))
        if not named.is_absolute():
            return Place(self._trees[self.folder], self.folder, parts_of(named.as_posix()))
        for root, tree in self._trees.items():
            if named.is_relative_to(root):
                return Place(tree, root, parts_of(named.relative_to(root).as_posix()))
        raise NotAllowedError(f"{path} is outside of the folders of this session")

    def name(self, place: Place) -> str:
        """A file as the REPL names it: relative to the working directory, or absolute."""
        return "/".join(place.parts) if place.root == self.folder else str(place.path)

    async def text(self, place: Place) -> str | None:
        """The text of a file as the client has it open; None: it does not say."""
        if self.read_open is None:
            return None
        await run_in_thread(lambda: place.tree.check_file(place.parts))
        try:
            return await self._in_our_loop(_in_time(self.read_open(str(place.path))))
        except (acp.RequestError, ConnectionError, TimeoutError, ValueError):  # the file on disk is there
            return None

    async def _in_our_loop(self, work: Coroutine[Any, Any, str]) -> str:
        if asyncio.get_running_loop() is self._loop:
            return await work
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    # -- the functions of the REPL

    async def read_file(self, path: str, start: int = 1, end: int | None = None) -> str:
        """The text of a file of the user's folder. start, end: lines, from 1; without them the whole file."""
        place = self.place(path)
        text = await self.text(place)
        if text is None:
            lines = (await run_in_thread(lambda: place.tree.read(place.parts))).lines
        else:
            lines = tuple(text.splitlines())
        return "\n".join(lines[max(0, start - 1) : end])

    def list_files(self, folder: str = ".", depth: int = 3) -> list[str]:
        """The paths of files and folders (which end with /) below a folder of the user's, so many levels deep."""
        place = self.place(folder)
        found = list(itertools.islice(place.tree.walk(place.parts, max(1, depth)), MAX_LISTED + 1))
        shown = [self.name(place.below(entry.parts)) + "/" * entry.is_folder for entry in found[:MAX_LISTED]]
        if len(found) > MAX_LISTED:
            shown.append(f"… more than {MAX_LISTED:,}: name a folder, or fewer levels")
        return shown

    def search_files(self, pattern: str, folder: str = ".") -> list[str]:
        """Lines of the user's files that match a regular expression, as path:line: text."""
        place, expression = self.place(folder), _compiled(pattern)
        found: list[str] = []
        ends = time.monotonic() + SEARCH_SECONDS
        for entry in place.tree.walk(place.parts, 100):
            if entry.is_folder:
                continue
            if time.monotonic() > ends:
                return [*found, f"… stopped after {SEARCH_SECONDS:.0f} s: name a folder"]
            found += self._matches(place.below(entry.parts), expression)
            if len(found) >= MAX_FOUND:
                return [*found[:MAX_FOUND], f"… more than {MAX_FOUND}: a narrower pattern, or a folder"]
        return found

    def _matches(self, place: Place, expression: Any) -> list[str]:
        try:
            lines = place.tree.read(place.parts).lines
        except (RefusedError, OSError):  # a binary, a large or a removed file
            return []
        path = self.name(place)
        hits = ((number, line) for number, line in enumerate(lines, 1) if expression.search(line))
        return [f"{path}:{number}: {line.strip()[:MAX_LINE]}" for number, line in itertools.islice(hits, MAX_FOUND)]


def _path_of(path: str) -> str:
    """The path in a `file:` URL; another URL is refused."""
    if "://" not in path:
        return path
    parts = urlsplit(path)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
        raise NotAllowedError("only files of this machine are read: file:///…")
    return unquote(parts.path)


async def _in_time(work: Awaitable[str]) -> str:
    async with asyncio.timeout(CLIENT_SECONDS):
        return await work


def _compiled(pattern: str) -> Any:
    options = re2.Options()
    options.max_mem = _RE2_BYTES
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        raise RefusedError(f"not a regular expression: {pattern[:MAX_LINE]!r}") from error
