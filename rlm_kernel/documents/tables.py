"""Tables as text: a line that says what the columns are, and the rows as CSV."""

from __future__ import annotations

import csv
import datetime as dt
import io
import re
import sqlite3
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from operator import itemgetter
from typing import Any, BinaryIO
from xml.etree import ElementTree as ET
from zipfile import BadZipFile, ZipFile

from rlm_kernel.documents.cell_notes import MAX_PART, cell_notes
from rlm_kernel.documents.found import Lines, UnreadError
from rlm_kernel.documents.kinds import is_in_wal_mode

MAX_COLUMNS = 10_000
"""Of a table. Further columns are left out, and the schema line says so."""

MAX_EMPTY_ROWS = 1 << 20
"""Of a sheet, after which no more are read: as many as Excel has rows. A row of a file may have any number."""

_CELLS = 100
_HIDDEN = 1  # a column of a virtual table that `SELECT *` leaves out
_LISTED = 5
_MAX_NAME = 100
_GAP = 1_000
_ROWS = 1_000
_DAMAGES = (BadZipFile, OSError, EOFError, RuntimeError, ValueError, zlib.error)
_NO_VALUE = re.compile(rb"(?:</f>|<f\b[^<>]{0,999}/>)\s{0,99}(?:<v ?/>|<v></v>)?\s{0,99}</c>")
_WAL_MAGIC = (0x377F0682, 0x377F0683)
_WAL_HEAD = struct.Struct(">IIIIII8x")  # magic, version, page size, checkpoint, two salts, checksums
_FRAME = struct.Struct(">IIII8x")  # page, pages of the database or 0, two salts, checksums


def parquet(file: BinaryIO, lines: Lines) -> str:
    """A Parquet file, group of rows by group of rows."""
    from pyarrow.parquet import ParquetFile

    table = ParquetFile(file)
    return _arrow_text(table.schema_arrow, table.metadata.num_rows, table.iter_batches(batch_size=_ROWS), lines)


def arrow(file: BinaryIO, lines: Lines) -> str:
    """An Arrow or Feather file."""
    from pyarrow import ipc

    reader = ipc.open_file(file)
    batches = (reader.get_batch(index) for index in range(reader.num_record_batches))
    return _arrow_text(reader.schema, None, batches, lines)


def _arrow_text(schema: Any, rows: int | None, batches: Iterable[Any], lines: Lines) -> str:
    columns = [(column.name, str(column.type)) for column in schema][:MAX_COLUMNS]
    values = (
        row
        for batch in batches
        for row in zip(*(batch.column(i).to_pylist() for i in range(len(columns))), strict=True)
    )
    return _joined([("", columns, rows, values, len(schema) > MAX_COLUMNS)], lines)


def is_wal(name: str, file: BinaryIO) -> bool:
    """Whether this is the write-ahead log of an SQLite database, with transactions in it."""
    if not name.endswith("-wal"):
        return False
    head = file.read(_WAL_HEAD.size + 1)
    file.seek(0)
    return len(head) > _WAL_HEAD.size and int.from_bytes(head[:4], "big") in _WAL_MAGIC


def with_wal(database: BinaryIO, wal: BinaryIO) -> BinaryIO:
    """An SQLite database in memory with what is committed in its write-ahead log.

    SQLite itself would read the log only from the disk, and create a file for it, which this process may not.
    """
    content, log = bytearray(database.read()), wal.read()
    if len(log) < _WAL_HEAD.size:
        return io.BytesIO(content)
    magic, _, page_size, _, *salts = _WAL_HEAD.unpack_from(log)
    step = _FRAME.size + page_size
    if magic not in _WAL_MAGIC or page_size.bit_count() != 1:
        return io.BytesIO(content)
    pages: dict[int, int] = {}
    for begin in range(_WAL_HEAD.size, len(log) - step + 1, step):
        page, size, *of_frame = _FRAME.unpack_from(log, begin)
        if of_frame != salts:  # of a transaction before the log was last emptied
            break
        pages[page] = begin + _FRAME.size
        if size:  # the transaction ends here, and the database has so many pages
            _write(content, log, pages, page_size, size)
            pages.clear()
    return io.BytesIO(content)


def _write(content: bytearray, log: bytes, pages: dict[int, int], page_size: int, size: int) -> None:
    """Write the pages of a transaction of the log into a database, which has `size` pages afterwards."""
    whole = size * page_size
    if whole > len(content) + len(log):
        raise UnreadError("its write-ahead log is damaged")
    del content[whole:]
    content.extend(bytes(whole - len(content)))
    for page, begin in pages.items():
        if 0 < page <= size:
            content[(page - 1) * page_size : page * page_size] = log[begin : begin + page_size]


def sqlite(file: BinaryIO, lines: Lines) -> str:
    """The tables of an SQLite database. It is read from memory: nothing beside the file is opened."""
    content = bytearray(file.read())
    if is_in_wal_mode(content):  # a database in memory has no log
        content[18:20] = b"\1\1"
    with_views = sqlite3.connect(":memory:")
    try:
        with_views.deserialize(bytes(content))
        with_views.execute("PRAGMA trusted_schema = OFF")
        with_views.text_factory = lambda value: value.decode("utf-8", "replace")
        return "; ".join(filter(None, (_joined(_tables(with_views), lines), _not_read(with_views))))
    except sqlite3.Error as error:
        raise UnreadError(f"it is no whole database ({error})") from error
    finally:
        with_views.close()


Table = tuple[str, Sequence[tuple[str, str]], int | None, Iterable[Sequence[Any]], bool]
"""Name, columns with types, number of rows if known, rows, and whether columns are missing."""


def _tables(database: sqlite3.Connection) -> Iterator[Table]:
    names = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite@_%' ESCAPE '@'"
    names += " AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY name"
    for (name,) in database.execute(names).fetchall():
        quoted = '"' + name.replace('"', '""') + '"'
        about = database.execute(f"PRAGMA table_xinfo({quoted})")  # with generated columns, which are rows' values, too
        columns = [(row[1], row[2] or "any") for row in about if row[6] != _HIDDEN]
        rows = database.execute(f"SELECT count(*) FROM {quoted}").fetchone()[0]  # noqa: S608 (it is quoted)
        yield name, columns, rows, database.execute(f"SELECT * FROM {quoted}"), False  # noqa: S608


def _not_read(database: sqlite3.Connection) -> str:
    """A note of views and virtual tables: what they show can take any time."""
    query = "SELECT name FROM sqlite_schema WHERE type = 'view' OR sql LIKE 'CREATE VIRTUAL%' ORDER BY name"
    names = [_line(name)[:_MAX_NAME] for (name,) in database.execute(query)]
    more = f", … ({len(names):,} in all)" if len(names) > _LISTED else ""
    return f"views and virtual tables were not read: {', '.join(names[:_LISTED])}{more}" if names else ""


def sheets(file: BinaryIO, lines: Lines) -> str:
    """The sheets of an Excel workbook; formulas as their last values. The first row names the columns."""
    from openpyxl import load_workbook

    notes: dict[str, None] = {}  # each once, in their order
    book = load_workbook(file, read_only=True, data_only=True)
    cut = _joined((table for sheet in book.worksheets for table in _sheet(sheet, notes)), lines)
    unread = _add_cell_notes(file, book, lines)
    without = _formulas_without_values(file)
    told = f"formulas without values: {without:,} (open and save it in a spreadsheet program)" if without else ""
    return "; ".join(filter(None, (cut, *notes, unread, told)))


def _add_cell_notes(file: BinaryIO, book: Any, lines: Lines) -> str:
    """Add the comments and links of the cells; returns a note if they cannot be read."""
    try:
        with ZipFile(file) as archive:
            for sheet in book.worksheets:
                for heading, found in cell_notes(archive, sheet._worksheet_path.lstrip("/")):  # noqa: SLF001
                    lines.add("\n".join([f"\n# {heading} of {_line(sheet.title)}", *found, ""]))
    except (*_DAMAGES, ET.ParseError, AttributeError, KeyError, TypeError):
        return "comments and links were not read"
    return ""


def _formulas_without_values(file: BinaryIO) -> int:
    """How many formulas of a workbook no program has calculated. Sheets above 100 MB are not searched."""
    try:
        with ZipFile(file) as archive:
            parts = [of for of in archive.infolist() if of.filename.startswith("xl/worksheets/")]
            return sum(len(_NO_VALUE.findall(archive.read(of))) for of in parts if of.file_size <= MAX_PART)
    except _DAMAGES:
        return 0  # its cells were read


def _sheet(sheet: Any, notes: dict[str, None]) -> Iterator[Table]:
    sheet.reset_dimensions()  # a file may claim any size, and each row would be filled up to it
    rows = _filled(sheet.iter_rows(values_only=True), notes)
    if (head := next(rows, None)) is not None:
        name = sheet.title if sheet.sheet_state == "visible" else f"{sheet.title} (hidden)"
        yield name, [(_cell(value), "") for value in head], None, rows, False


def _filled(rows: Iterable[Sequence[Any]], notes: dict[str, None]) -> Iterator[Sequence[Any]]:
    """The rows that are not empty, each without the empty cells at its end."""
    numbered, last = enumerate(rows, 1), 0
    while found := next(filter(itemgetter(1), islice(numbered, MAX_EMPTY_ROWS)), None):
        number, row = found
        if len(row) > MAX_COLUMNS:
            notes[f"only the first {MAX_COLUMNS:,} columns"] = None
        if filled := _without_end(row[:MAX_COLUMNS]):
            if number - last > _GAP:
                notes[f"gaps of {_GAP:,} or more empty rows were left out"] = None
            last = number
            yield filled
    if next(numbered, None) is not None:
        notes[f"rows after {MAX_EMPTY_ROWS:,} empty ones were not read"] = None


def _without_end(row: Sequence[Any]) -> Sequence[Any]:
    """A row without the empty cells at its end."""
    size = len(row)
    while size >= _CELLS and row[size - _CELLS : size].count(None) == _CELLS:
        size -= _CELLS
    while size and row[size - 1] is None:
        size -= 1
    return row[:size]


def _joined(tables: Iterable[Table], lines: Lines) -> str:
    """Add tables one below the other; returns a note if they are not whole."""
    missing = False
    for name, columns, rows, values, lacks_columns in tables:
        missing = missing or lacks_columns
        if not _add(lines, name, columns, rows, values):
            return "its rows were cut at the limit"
    if lines.is_empty:
        raise UnreadError("it holds no table")
    return f"only the first {MAX_COLUMNS:,} columns" if missing else ""


def _add(
    lines: Lines, name: str, columns: Sequence[tuple[str, str]], rows: int | None, values: Iterable[Sequence[Any]]
) -> bool:
    of = f" {name}" if name else ""
    count = "" if rows is None else f" of {rows:,} row{'s' * (rows != 1)}"
    described = ", ".join(f"{_line(column)} ({kind})" if kind else _line(column) for column, kind in columns)
    lines.add(f"{chr(10) * (not lines.is_empty)}# table{of}{count}; columns: {described}\n")
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow([column for column, _ in columns])
    for row in values:
        writer.writerow([_cell(value) for value in row])
        if lines.is_full:
            return False
    return not lines.is_full


def _line(name: str) -> str:
    return " ".join(str(name).split())


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bytes):
        return f"({len(value):,} bytes)"
    if isinstance(value, dt.datetime):
        text = value.isoformat(sep=" ")
        return text.removesuffix(" 00:00:00")
    return str(value)


KINDS: dict[str, tuple[Callable[[BinaryIO, Lines], str], tuple[str, ...]]] = {
    "parquet": (parquet, ("pyarrow",)),
    "arrow": (arrow, ("pyarrow",)),
    "sqlite": (sqlite, ()),
    "sheets": (sheets, ("openpyxl",)),
}
"""How a kind is read, and the modules that the extra `files` installs for it."""
