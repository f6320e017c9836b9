"""Values of the host in the kernel: texts, files, plain data and tables."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import mmap
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any


def read_text(path: str, size: int, modified: int) -> str:
    """The text of a file that the host has looked at; mapped, so that only the text takes memory."""
    with Path(path).open("rb") as file:
        about = os.fstat(file.fileno())
        if (about.st_size, about.st_mtime_ns) != (size, modified):
            raise ValueError(f"{path} was changed after the run began")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return str(content, "utf-8")


def decode(encoding: str, buffer: Any) -> Any:
    """The value of a buffer that the host encoded (`protocol.encode`)."""
    if encoding == "text":
        return str(buffer, "utf-8", "surrogatepass")
    if encoding == "file":
        return read_text(**json.loads(bytes(buffer)))
    return bytes(buffer) if encoding == "bytes" else Unpickler(io.BytesIO(buffer)).load()


class Unpickler(pickle.Unpickler):
    """Reads what the host has pickled: plain data, and tables in parts."""

    def persistent_load(self, pid: tuple[str, dict[str, Any]]) -> Any:
        """A table of a library; as plain lists where the library is missing."""
        kind, parts = pid
        library = kind.partition(".")[0]
        try:
            return BUILT[kind](importlib.import_module(library), parts)
        except ImportError:
            MISSING.add(library)
            return records(parts)


MISSING: set[str] = set()
"""Libraries that this kernel lacks, and whose tables it got."""


def records(parts: dict[str, Any]) -> Any:
    """A table as a list of dicts, a series or an array as a list."""
    if parts.get("values") is not None:
        return parts["values"]
    if "content" in parts:
        return numbers(parts)
    if "column" in parts:
        return parts["column"]["values"]
    if "ipc" in parts:
        columns = parts["columns"]
    else:
        index = parts["index"]
        columns = {
            f"index_{place}" if name is None else name: level["values"]
            for place, (name, level) in enumerate(zip(index["names"], index.get("levels", ())))  # noqa: B905 (a range has none)
        }
        columns.update(zip(parts["names"], (column["values"] for column in parts["columns"]), strict=True))
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def numbers(parts: dict[str, Any]) -> Any:
    """The numbers of an array as lists."""
    code = NUMBERS.get(parts["dtype"][1:])
    if not code or parts["dtype"][0] == ">":
        raise ValueError(f"it holds an array of the type {parts['dtype']}, which needs numpy")
    content, shape = memoryview(parts["content"]), parts["shape"]
    listed: Any = content.cast(code, shape or (1,)).tolist() if content else []  # type: ignore[call-overload]
    return listed if shape else listed[0]


NUMBERS = {
    "b1": "?",
    "i1": "b",
    "i2": "h",
    "i4": "i",
    "i8": "q",
    "u1": "B",
    "u2": "H",
    "u4": "I",
    "u8": "Q",
    "f4": "f",
    "f8": "d",
}
"""The types of numpy that a memoryview can read."""


def frame(pandas: Any, parts: dict[str, Any]) -> Any:
    """A `pandas.DataFrame` from its parts."""
    index = row_index(pandas, parts["index"])
    columns = dict(enumerate(series_of(pandas, column) for column in parts["columns"]))
    table = pandas.DataFrame(columns, index=None if columns else index)
    table.index = index
    table.columns = row_index(pandas, parts["head"])
    return table


def series(pandas: Any, parts: dict[str, Any]) -> Any:
    """A `pandas.Series` from its parts."""
    made = series_of(pandas, parts["column"])
    made.index, made.name = row_index(pandas, parts["index"]), parts["name"]
    return made


def row_index(pandas: Any, parts: dict[str, Any]) -> Any:
    """The index of the rows, or of the columns."""
    if "range" in parts:
        return pandas.RangeIndex(*parts["range"], name=parts["names"][0])
    levels = [pandas.Index(series_of(pandas, level)) for level in parts["levels"]]
    if len(levels) > 1:
        return pandas.MultiIndex.from_arrays(levels, names=parts["names"])
    index = levels[0].rename(parts["names"][0])
    if parts.get("freq"):
        with contextlib.suppress(ValueError):  # an older pandas has other names
            index.freq = parts["freq"]
    return index


def series_of(pandas: Any, column: dict[str, Any]) -> Any:
    """A column with its type."""
    dtype, values = column["dtype"], column["values"]
    if dtype == "category":
        categories = pandas.Index(series_of(pandas, column["categories"]))
        return pandas.Series(pandas.Categorical(values, categories, ordered=column["ordered"]))
    if dtype.startswith("datetime64"):
        moments = pandas.to_datetime(pandas.Series(values, dtype=object), utc="," in dtype or None, format="ISO8601")
        return moments.astype(dtype)
    if dtype.startswith("timedelta64"):
        return pandas.Series(pandas.to_timedelta(values)).astype(dtype)
    if dtype == "object":
        return pandas.Series(values, dtype=object)
    return pandas.Series(values, dtype=dtype)


def array(numpy: Any, parts: dict[str, Any]) -> Any:
    """A `numpy.ndarray` from its parts."""
    if parts.get("mask"):
        made = array(numpy, {**parts, "mask": None})
        return numpy.ma.array(made, mask=array(numpy, parts["mask"]))
    if "content" not in parts:
        return numpy.array(parts["values"], dtype=object)
    return numpy.frombuffer(parts["content"], parts["dtype"]).reshape(parts["shape"]).copy()


def arrow_table(_: Any, parts: dict[str, Any]) -> Any:
    """A `pyarrow.Table` from an Arrow stream."""
    return importlib.import_module("pyarrow.ipc").open_stream(parts["ipc"]).read_all()


BUILT: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    "pandas.DataFrame": frame,
    "pandas.Series": series,
    "polars.DataFrame": lambda polars, parts: polars.read_ipc(io.BytesIO(parts["ipc"])),
    "polars.Series": lambda polars, parts: polars.read_ipc(io.BytesIO(parts["ipc"])).to_series(),
    "pyarrow.Table": arrow_table,
    "pyarrow.RecordBatch": lambda library, parts: arrow_table(library, parts).combine_chunks().to_batches()[0],
    "numpy.ndarray": array,
    "numpy.generic": lambda numpy, parts: array(numpy, parts)[()],
}
"""What puts a table or an array together, given its library and its parts (`values` on the host)."""
