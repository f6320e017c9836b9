"""An index of a repository in SQLite, outside of it: full text with BM25 (FTS5), and the text for regular expressions.

A file is indexed in windows of lines. A refresh reads only files whose `stat` has changed. The index is a copy of the
text of the repository, so only its owner can read it.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlm_kernel.errors import ConfigError
from rlm_kernel.gateway.refusals import RefusedError
from rlm_kernel.gateway.tree import MAX_DEPTH, Entry, Parts, Tree

WINDOW_LINES = 40
MAX_TERMS = 16
"""Of a query."""
MAX_WAIT_SECONDS = 0.3
"""A query waits this long for a refresh, and then uses the index as it is. The first query waits for the index."""

_WINDOWS_BITS = 24
"""Row = file << 24 | window: a file of 16 MB has fewer windows than that."""
_WORD = re.compile(r"\w+")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_HASH_BYTES = 1 << 26
"""Of new words in memory before they are written: fewer and larger segments to merge."""
_SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = OFF;
CREATE TABLE IF NOT EXISTS files (id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, stamp TEXT NOT NULL);
CREATE VIRTUAL TABLE IF NOT EXISTS windows USING fts5(content, names, tokenize = 'porter unicode61');
"""


@dataclass(frozen=True)
class Window:
    """Lines of a file in the index. `start`: the first line, from 1. `score`: higher is better."""

    parts: Parts
    start: int
    content: str
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
                self._thread = threading.Thread(target=self.refresh, name="rlm-index", daemon=True)
                self._thread.start()
            thread = self._thread
        thread.join(MAX_WAIT_SECONDS if self.is_built else None)

    def refresh(self) -> int:
        """Index what was added or changed, forget what was removed, and return how many files these were."""
        with self._connection() as database:
            database.execute("INSERT INTO windows (windows, rank) VALUES ('hashsize', ?)", (_HASH_BYTES,))
            known = {path: (id_, stamp) for id_, path, stamp in database.execute("SELECT id, path, stamp FROM files")}
            changed = 0
            for entry in self._tree.walk((), MAX_DEPTH):
                if self._closed.is_set():
                    return changed
                id_, stamp = known.pop(entry.path, (None, "")) if not entry.is_folder else (None, _stamp(entry))
                if not entry.is_folder and stamp != _stamp(entry):
                    self._store(database, id_, entry)
                    changed += 1
            for id_, _ in known.values():
                _forget(database, id_)
                database.execute("DELETE FROM files WHERE id = ?", (id_,))
            database.commit()
        self.is_built = True
        return changed + len(known)

    def search(self, query: str) -> Iterator[Window]:
        """The windows that hold words of a query, the best first."""
        terms = list(dict.fromkeys(_WORD.findall(query)))[:MAX_TERMS]
        if not terms:
            return
        match = " OR ".join(f'"{term}"' for term in terms)
        asked = "SELECT rowid, content, rank FROM windows WHERE windows MATCH ? ORDER BY rank"
        with self._connection() as database:
            for row, content, rank in database.execute(asked, (match,)):
                yield self._window(database, row, content, -rank)

    def scan(self, scope: Parts, seconds: float) -> Iterator[tuple[int, bytes] | None]:
        """Row and UTF-8 of every window below a folder. None: the time is used up."""
        end = time.monotonic() + seconds
        asked = "SELECT rowid, CAST(content AS BLOB) FROM windows"
        with self._connection() as database:
            for row, content in self._rows(database, asked, scope):
                if time.monotonic() > end:
                    yield None
                    return
                yield row, content

    def windows(self, rows: Sequence[int]) -> list[Window]:
        """The windows of these rows that are still there."""
        with self._connection() as database:
            asked = "SELECT rowid, content FROM windows WHERE rowid = ?"
            found = (database.execute(asked, (row,)).fetchone() for row in rows)
            return [self._window(database, row[0], row[1], 0.0) for row in found if row]

    def _rows(self, database: sqlite3.Connection, asked: str, scope: Parts) -> Iterator[tuple[int, bytes]]:
        if not scope:
            yield from database.execute(asked)
            return
        below = "/".join(scope) + "/"
        files = "SELECT id FROM files WHERE substr(path, 1, ?) = ? ORDER BY id"
        for (id_,) in database.execute(files, (len(below), below)):
            yield from database.execute(f"{asked} WHERE rowid BETWEEN ? AND ?", _rows_of(id_))

    def _window(self, database: sqlite3.Connection, row: int, content: str, score: float) -> Window:
        (path,) = database.execute("SELECT path FROM files WHERE id = ?", (row >> _WINDOWS_BITS,)).fetchone()
        start = (row & ((1 << _WINDOWS_BITS) - 1)) * WINDOW_LINES + 1
        return Window(tuple(path.split("/")), start, content, score)

    def _store(self, database: sqlite3.Connection, id_: int | None, entry: Entry) -> None:
        if id_ is None:
            added = database.execute("INSERT INTO files (path, stamp) VALUES (?, ?)", (entry.path, _stamp(entry)))
            id_ = int(added.lastrowid or 0)
        else:
            _forget(database, id_)
            database.execute("UPDATE files SET stamp = ? WHERE id = ?", (_stamp(entry), id_))
        try:
            lines = self._tree.read(entry.parts).lines
        except RefusedError:  # not text, too large, or removed
            return
        path = " ".join(entry.parts)
        database.executemany(
            "INSERT INTO windows (rowid, content, names) VALUES (?, ?, ?)",
            ((_rows_of(id_)[0] + number, text, f"{path} {_names_in(text)}") for number, text in _cut(lines)),
        )

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(self._path, timeout=30)) as database:
            yield database


def words_of(query: str) -> set[str]:
    """The words that a query looks for, in lower case."""
    return {word.lower() for word in _WORD.findall(query)[:MAX_TERMS]}


def _cut(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    for number, start in enumerate(range(0, len(lines), WINDOW_LINES)):
        yield number, "\n".join(lines[start : start + WINDOW_LINES])


def _names_in(text: str) -> str:
    """The words inside of names such as `SessionManager`, which the tokenizer does not cut."""
    if _HUMP.search(text) is None:
        return ""
    return " ".join(_HUMP.sub(" ", name) for name in set(_WORD.findall(text)) if not name.islower())


def _rows_of(file: int) -> tuple[int, int]:
    return file << _WINDOWS_BITS, ((file + 1) << _WINDOWS_BITS) - 1


def _forget(database: sqlite3.Connection, file: int) -> None:
    database.execute("DELETE FROM windows WHERE rowid BETWEEN ? AND ?", _rows_of(file))


def _stamp(entry: Entry) -> str:
    about = entry.about
    return f"{about.st_ino} {about.st_size} {about.st_mtime_ns} {about.st_ctime_ns}"
