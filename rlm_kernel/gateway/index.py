"""An index of a repository in SQLite, outside of it: full text with BM25 (FTS5), and the text for regular expressions.

A file is indexed in windows of lines. Its text is stored once, in a table of its own: a scan reads one row for each
file. A refresh reads only files whose `stat` has changed. The index is a copy of the text of the repository, so only
its owner can read it.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlm_kernel import terminal
from rlm_kernel.errors import ConfigError
from rlm_kernel.gateway.refusals import RefusedError
from rlm_kernel.gateway.tree import MAX_DEPTH, Entry, Parts, Tree

WINDOW_LINES = 40
MAX_TERMS = 16
"""Of a query."""
MAX_CANDIDATES = 5000
"""Windows that are looked at for one query."""
MAX_WAIT_SECONDS = 0.3
"""A query waits this long for a refresh, and then uses the index as it is. The first query waits for the index."""

LOCKED_SECONDS = 30.0
"""A refresh waits this long while another gateway writes the index."""

_WINDOWS_BITS = 24
"""Row = file << 24 | window: a file of 16 MB has fewer windows than that."""
_WORD = re.compile(r"\w+")
_HUMP = re.compile(r"([a-z0-9])(?=[A-Z])")
_HASH_BYTES = 1 << 26
"""Of new words in memory before they are written: fewer and larger segments to merge."""
VERSION = 2
"""Of the schema and of `_windows`: FTS5 forgets a window by its words, so these must be the same words."""
_SCHEMA = """
PRAGMA page_size = 16384;
PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS files (id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, stamp TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS texts (file INTEGER PRIMARY KEY, content BLOB NOT NULL);
CREATE VIRTUAL TABLE IF NOT EXISTS windows USING fts5(
    content, names, content = '', tokenize = 'porter unicode61'
);
"""


@dataclass(frozen=True)
class Window:
    """Lines of a file in the index. `start`: the first line, from 1. `score`: higher is better."""

    parts: Parts
    start: int
    lines: tuple[str, ...]
    score: float


class Index:
    """The index of a tree.

    Args:
        tree: the files.
        path: of the database.

    Raises:
        ConfigError: it cannot be opened.
    """

    def __init__(self, tree: Tree, path: Path) -> None:
        self._tree = tree
        self._path = path
        self._busy = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()
        self.is_built = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
            with self._connection() as database:
                database.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(f"The index {path} cannot be opened ({error}): remove it, or use --data-dir.") from error

    def close(self) -> None:
        """Stop a refresh that is in progress."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()

    def bring_up_to_date(self) -> None:
        """Refresh, and wait a moment for it; without an index, wait for the whole of it."""
        with self._busy:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._refresh_or_say_why_not, name="rlm-index", daemon=True)
                self._thread.start()
            thread = self._thread
        thread.join(MAX_WAIT_SECONDS if self.is_built else None)

    def _refresh_or_say_why_not(self) -> None:
        try:
            self.refresh()
        except (OSError, sqlite3.Error) as error:
            terminal.print_note(f"rlm: gateway: the index is not up to date: {type(error).__name__}: {error}")

    def refresh(self) -> int:
        """Index what was added or changed, forget what was removed, and return how many files these were."""
        with self._connection() as database:
            database.execute("PRAGMA synchronous = OFF")
            database.execute("BEGIN IMMEDIATE")  # another gateway may index the same tree
            database.execute("INSERT INTO windows (windows, rank) VALUES ('hashsize', ?)", (_HASH_BYTES,))
            known = {path: (id_, stamp) for id_, path, stamp in database.execute("SELECT id, path, stamp FROM files")}
            changed = 0
            for entry in self._tree.walk((), MAX_DEPTH):
                if self._closed.is_set():
                    break
                id_, stamp = known.pop(entry.path, (None, "")) if not entry.is_folder else (None, _stamp(entry))
                if not entry.is_folder and stamp != _stamp(entry):
                    self._store(database, id_, entry)
                    changed += 1
            else:
                for path, (id_, _) in known.items():
                    _forget(database, id_, path)
                    database.execute("DELETE FROM files WHERE id = ?", (id_,))
                self.is_built = True
            database.commit()
        return changed + len(known)

    def search(self, query: str, wanted: Callable[[Parts], bool]) -> Iterator[Window]:
        """The windows of wanted files that hold words of a query, the best first."""
        terms = list(dict.fromkeys(_WORD.findall(query)))[:MAX_TERMS]
        if not terms:
            return
        match = " OR ".join(f'"{term}"' for term in terms)
        asked = "SELECT rowid, rank FROM windows WHERE windows MATCH ? ORDER BY rank LIMIT ?"
        with self._connection() as database:
            for row, rank in database.execute(asked, (match, MAX_CANDIDATES)):
                file, number = row >> _WINDOWS_BITS, row & ((1 << _WINDOWS_BITS) - 1)
                parts = self._parts(database, file)
                if parts is not None and wanted(parts):
                    start = number * WINDOW_LINES
                    lines = self._lines(database, file)[start : start + WINDOW_LINES]
                    yield Window(parts, start + 1, lines, -rank)

    def scan(
        self, matches: Callable[[bytes], bool], scope: Parts, wanted: Callable[[Parts], bool], seconds: float
    ) -> Iterator[tuple[Parts, bytes] | None]:
        """The wanted files below a folder whose UTF-8 matches, and this. None: the time is used up."""
        end = time.monotonic() + seconds
        asked, given = "SELECT file, content FROM texts", tuple[int | str, ...]()
        if scope:
            below = "/".join(scope) + "/"
            asked += " WHERE file IN (SELECT id FROM files WHERE substr(path, 1, ?) = ?)"
            given = (len(below), below)
        with self._connection() as database:
            for file, content in database.execute(asked, given):
                if time.monotonic() > end:
                    yield None
                    return
                if matches(content) and (parts := self._parts(database, file)) is not None and wanted(parts):
                    yield parts, content

    def _parts(self, database: sqlite3.Connection, file: int) -> Parts | None:
        found = database.execute("SELECT path FROM files WHERE id = ?", (file,)).fetchone()
        return tuple(found[0].split("/")) if found else None

    def _lines(self, database: sqlite3.Connection, file: int) -> tuple[str, ...]:
        found = database.execute("SELECT content FROM texts WHERE file = ?", (file,)).fetchone()
        return _lines_of(found[0]) if found else ()

    def _store(self, database: sqlite3.Connection, id_: int | None, entry: Entry) -> None:
        if id_ is None:
            added = database.execute("INSERT INTO files (path, stamp) VALUES (?, ?)", (entry.path, _stamp(entry)))
            id_ = int(added.lastrowid or 0)
        else:
            _forget(database, id_, entry.path)
            database.execute("UPDATE files SET stamp = ? WHERE id = ?", (_stamp(entry), id_))
        try:
            lines = self._tree.read(entry.parts).lines
        except RefusedError:  # not text, too large, or removed
            return
        database.execute("INSERT INTO texts (file, content) VALUES (?, ?)", (id_, "\n".join(lines).encode()))
        database.executemany(
            "INSERT INTO windows (rowid, content, names) VALUES (?, ?, ?)", _windows(id_, entry.path, lines)
        )

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(self._path, timeout=LOCKED_SECONDS, isolation_level=None)) as database:
            yield database


def words_of(query: str) -> set[str]:
    """The words that a query looks for, in lower case."""
    return {word.lower() for word in _WORD.findall(query)[:MAX_TERMS]}


def _lines_of(content: bytes) -> tuple[str, ...]:
    return tuple(content.decode().split("\n"))


def _windows(file: int, path: str, lines: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    """The rows of a file."""
    for number, start in enumerate(range(0, len(lines), WINDOW_LINES)):
        text = "\n".join(lines[start : start + WINDOW_LINES])
        yield file << _WINDOWS_BITS | number, text, f"{path.replace('/', ' ')} {_names_in(text)}"


def _names_in(text: str) -> str:
    """The words inside of names such as `SessionManager`, which the tokenizer does not cut."""
    if _HUMP.search(text) is None:
        return ""
    return " ".join(_HUMP.sub(r"\1 ", name) for name in sorted(set(_WORD.findall(text))) if not name.islower())


def _forget(database: sqlite3.Connection, file: int, path: str) -> None:
    for (content,) in database.execute("SELECT content FROM texts WHERE file = ?", (file,)).fetchall():
        database.executemany(
            "INSERT INTO windows (windows, rowid, content, names) VALUES ('delete', ?, ?, ?)",
            _windows(file, path, _lines_of(content)),
        )
    database.execute("DELETE FROM texts WHERE file = ?", (file,))


def _stamp(entry: Entry) -> str:
    about = entry.about
    return f"{about.st_ino} {about.st_size} {about.st_mtime_ns} {about.st_ctime_ns}"
