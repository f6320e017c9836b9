"""The input of a run as it can travel to a kernel: data as it is, tables and arrays in parts; the rest is an error.

Nothing of a library is pickled: a table becomes lists of plain values. A kernel with the library puts them together
again, and a kernel without it reads them as records.
"""

from __future__ import annotations

import datetime as dt
import inspect
import io
import pickle
import re
import socket
import sys
import warnings
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from enum import Enum
from numbers import Number
from typing import Any

from rlm_kernel.errors import ConfigError
from rlm_kernel.types import Foreign

_BASES = (str, bytes, bytearray, int, float, complex, dict, list, tuple, set, frozenset)
GIVE_PLAIN = "give what you need of it as text, numbers, lists and dicts"
"""Advice for a value that cannot be sent."""

_PLAIN = frozenset({str, int, float, bool, type(None), bytes, complex})
_CONTAINERS = frozenset({dict, list, tuple, set, frozenset})
_MAX_LEVELS = 200
_HEAD_ROWS = 20
_MAX_HEAD = 4_000
_MADE_BY_NAME = re.compile(r"category|(datetime|timedelta)64.*|str|string|boolean|U?Int\d+|Float\d+")


def convert(value: Any, path: str = "context") -> Any:
    """A value without what cannot travel.

    Args:
        value: str, bytes, dict, list, a table or an array, and what these hold.
        path: the expression for it, for messages.

    Raises:
        ConfigError: it holds something that no kernel can read; the message says what, where and what to do.
    """
    if type(value) in _CONTAINERS and _is_plain(value, path):
        return value
    try:
        return _converted(value, path)
    except RecursionError:
        raise _too_deep(path) from None


def _too_deep(path: str) -> ConfigError:
    return ConfigError(
        f"{path} is nested too deeply, or holds itself: give lists and dicts of at most {_MAX_LEVELS} levels, or text, "
        "json.dumps(value) for example."
    )


def is_context(value: Any) -> bool:
    """Whether a value is a context as it is, or as a table or an array."""
    return isinstance(value, str | dict | list | bytes | bytearray) or _foreign_kind(value) is not None


def _converted(value: Any, path: str) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is dict:
        return {_converted(key, f"a key of {path}"): _converted(of, f"{path}[{key!r}]") for key, of in value.items()}
    if kind in _CONTAINERS:
        return kind(_converted(entry, f"{path}[{place}]") for place, entry in enumerate(value))
    if kind is bytearray or kind is memoryview:
        return bytes(value)
    foreign = as_foreign(value)
    if foreign is None:
        _check(value, path)
    return value if foreign is None else foreign


def _is_plain(value: Any, path: str) -> bool:
    """Whether a container holds plain values and containers only. Takes a second for a million records."""
    level, seen = [value], {id(value)}
    for _ in range(_MAX_LEVELS):
        below = []
        for container in level:
            values = container.values() if type(container) is dict else container
            odd = set(map(type, values)) - _PLAIN
            if odd - _CONTAINERS or (type(container) is dict and not set(map(type, container)) <= _PLAIN):
                return False
            if odd:
                new = [inner for inner in values if type(inner) in _CONTAINERS and id(inner) not in seen]
                seen.update(map(id, new))
                below += new
        level = below
        if not level:
            return True
    raise _too_deep(path)


# -- what cannot travel


def _check(value: Any, path: str) -> None:
    """Check that a kernel can read a value of another class."""
    if (why := refusal(value, path)) is not None:
        raise ConfigError(why)


def refusal(value: Any, path: str) -> str | None:
    """Why no kernel can read a value that is neither data nor a table, and what to do; None if it can."""
    for is_one, describe, todo in _UNKNOWN:
        if is_one(value):
            return f"{path} is {describe(value)}: {todo(value) if callable(todo) else todo}."
    try:
        pickle.dumps(value, protocol=4)
    except Exception as error:
        todo = "give dict(value)" if isinstance(value, Mapping) else GIVE_PLAIN
        return f"{path} is a {type(value).__name__}, which cannot be copied to another process ({error}): {todo}."
    return None


def how_to_give(value: Any) -> str:
    """How to give a value as the whole input that a kernel can read only within one."""
    if value is None:
        return "give the input, or the question itself"
    if isinstance(value, Enum):
        return "give value.value"
    if isinstance(value, Iterable) and not hasattr(value, "to_dict"):
        return "give list(value)"
    if type(value) in _PLAIN or isinstance(value, dt.date | dt.time | dt.timedelta | Number):
        return "give str(value), or [value] to keep its type"
    return _as_data(value)


def _function(value: Any) -> str:
    name = getattr(value, "__name__", "")
    return f"{'a lambda' if name == '<lambda>' else f'the function {name!r}'}, and a context holds data"


def _is_of_this_program(value: Any) -> bool:
    defined = value if inspect.isclass(value) else type(value)
    return defined.__module__ in {"__main__", "__mp_main__"} or "<locals>" in defined.__qualname__


def _object(value: Any) -> str:
    defined = value if inspect.isclass(value) else type(value)
    where = "in this program" if "<locals>" not in defined.__qualname__ else "inside a function"
    of = "the class" if inspect.isclass(value) else "an object of the class"
    return f"{of} {defined.__name__}, which is defined {where} and unknown to the kernel"


def _as_data(value: Any) -> str:
    if isinstance(value, Enum):
        return "give value.value"
    if inspect.isclass(value):
        return "define it in a cell, or give its source as text"
    for name, how in (
        ("__dataclass_fields__", "dataclasses.asdict(value)"),
        ("model_dump", "value.model_dump()"),
        ("_asdict", "value._asdict()"),
        ("to_dict", "value.to_dict()"),
    ):
        if hasattr(value, name):
            return f"give plain data, {how}"
    if (plain := next((kind for kind in _BASES if isinstance(value, kind)), None)) is not None:
        return f"give plain data, {plain.__name__}(value)"
    return "give plain data, vars(value) for example"


_UNKNOWN: tuple[tuple[Callable[[Any], bool], Callable[[Any], str], str | Callable[[Any], str]], ...] = (
    (inspect.isroutine, _function, "give functions as custom_tools={'name': function}"),
    (inspect.ismodule, lambda value: f"the module {value.__name__!r}", "import it in a cell"),
    (
        lambda value: isinstance(value, io.IOBase) or type(value).__name__ == "_TemporaryFileWrapper",
        lambda value: f"an open file ({getattr(value, 'name', 'without a name')!r})",
        "give its text, file.read(), or a Path",
    ),
    (
        lambda value: type(value).__name__ == "LazyFrame",
        lambda _: "a LazyFrame, a query that has not run",
        "give value.collect()",
    ),
    (inspect.isawaitable, lambda value: f"a {type(value).__name__} that nobody has awaited", "give its result"),
    (
        lambda value: isinstance(value, Iterator | KeysView | ValuesView | ItemsView),
        lambda value: f"a {type(value).__name__}, which can be read in this process only",
        "give list(value)",
    ),
    (lambda value: isinstance(value, socket.socket), lambda _: "a socket", "give what you read from it"),
    (_is_of_this_program, _object, _as_data),
)
"""Values that no kernel can read: how they are recognised, what they are, and what to do."""


# -- tables and arrays


def as_foreign(value: Any) -> Foreign | None:
    """A table or an array in parts; None for other values. Imports nothing: who has one has imported its library."""
    if (kind := _foreign_kind(value)) is None:
        return None
    length = 0 if getattr(value, "shape", True) == () else len(value)
    return Foreign(kind, _PARTS[kind](value), type(value).__name__, length, _head(value), value)


def _foreign_kind(value: Any) -> str | None:
    for kind in _PARTS:
        library, name = kind.split(".")
        if (module := sys.modules.get(library)) is not None and isinstance(value, getattr(module, name, ())):
            return kind
    return None


def _head(value: Any) -> str:
    """The first rows as the library shows them."""
    some = value[:_HEAD_ROWS] if getattr(value, "shape", True) != () else value
    return str(some)[:_MAX_HEAD]


def _frame(table: Any) -> dict[str, Any]:
    """The parts of a `pandas.DataFrame`."""
    columns = [table.iloc[:, place] for place in range(table.shape[1])]
    return {
        "names": [_converted(name, "the name of a column") for name in table.columns],
        "head": _index(table.columns),
        "columns": [_column(column) for column in columns],
        "index": _index(table.index),
    }


def _series(series: Any) -> dict[str, Any]:
    """The parts of a `pandas.Series`."""
    return {"name": _item(series.name), "column": _column(series), "index": _index(series.index)}


def _index(index: Any) -> dict[str, Any]:
    names = [_item(name) for name in index.names]
    if type(index).__name__ == "RangeIndex":
        return {"range": (index.start, index.stop, index.step), "names": names}
    levels = [index.get_level_values(place).to_series() for place in range(index.nlevels)]
    return {"levels": [_column(level) for level in levels], "names": names, "freq": _frequency(index)}


def _frequency(index: Any) -> str | None:
    """The frequency of an index of dates, where its name says all of it."""
    frequency = getattr(index, "freq", None)
    if frequency is None or not type(index).__name__.endswith(("timeIndex", "deltaIndex")):
        return None
    name: str = frequency.freqstr
    try:
        return name if sys.modules["pandas"].tseries.frequencies.to_offset(name) == frequency else None
    except ValueError:
        return None


def _column(series: Any) -> dict[str, Any]:
    """A column: its type as text, and its values as plain ones. What pandas cannot make from them becomes text."""
    dtype = series.dtype
    about: dict[str, Any] = {"dtype": str(dtype)}
    if about["dtype"] == "category":
        about |= {"ordered": bool(dtype.ordered), "categories": _column(dtype.categories.to_series())}
    if getattr(dtype, "kind", "O") in "iufb" and about["dtype"].islower():
        return {**about, "values": series.tolist()}
    if about["dtype"].startswith("datetime64") and "," not in about["dtype"]:
        return {**about, "values": _moments(series)}
    values = series.tolist()
    plain = about["dtype"] == "object"
    if not set(map(type, values)) <= _PLAIN or (not plain and series.hasnans):
        missing = series.isna().tolist()
        values = [
            (of if plain and type(of) in _PLAIN else None) if gone is True else _item(of)
            for of, gone in zip(values, missing, strict=True)
        ]
    if not plain and not _is_made_from(values, series):
        _warn(f"a column of the type {dtype}")
        return {"dtype": "object", "values": [of if of is None else str(of) for of in values]}
    return {**about, "values": values}


def _is_made_from(values: list[Any], series: Any) -> bool:
    """Whether pandas makes a column of a less frequent type from the name of the type and its values."""
    name = str(series.dtype)
    if _MADE_BY_NAME.fullmatch(name):
        return True
    try:
        made = sys.modules["pandas"].Series(values, dtype=name)
    except (ValueError, TypeError, NotImplementedError):
        return False
    return bool(made.equals(series.reset_index(drop=True)))


def _moments(series: Any) -> list[str | None]:
    """Dates without a time zone as text in ISO 8601."""
    import numpy as np

    moments = series.to_numpy()
    whole = moments.astype("datetime64[s]")
    texts: list[str] = np.datetime_as_string(
        whole if (whole == moments)[~np.isnat(moments)].all() else moments
    ).tolist()
    return [None if text == "NaT" else text for text in texts]


def _item(value: Any) -> Any:
    """A value of a table: dates of pandas as text in ISO 8601, and what cannot be sent as text."""
    if type(value) in _PLAIN:
        return value
    if type(value).__module__.startswith("pandas") and not _foreign_kind(value):
        return value.isoformat() if hasattr(value, "isoformat") else str(value)
    try:
        return _converted(value, "a value of a table")
    except ConfigError:
        _warn(f"a value of the type {type(value).__name__}")
        return str(value)


def _warn(what: str) -> None:
    warnings.warn(f"{what} in a table cannot be sent to a kernel and arrives there as text.", stacklevel=2)


def _array(array: Any) -> dict[str, Any]:
    """The parts of a `numpy.ndarray`."""
    numpy = sys.modules["numpy"]
    if isinstance(array, numpy.ma.MaskedArray):
        values = _converted(array.tolist(), "an array")  # None where it is masked
        return {**_array(array.data), "values": values, "mask": _array(numpy.ma.getmaskarray(array))}
    if array.dtype.hasobject:
        return {"values": _converted(array.tolist(), "an array")}
    if array.dtype.names:
        return _fields(array)
    return {"dtype": array.dtype.str, "shape": array.shape, "content": array.tobytes(), "values": None}


def _fields(array: Any) -> dict[str, Any]:
    """The parts of an array with named fields: for a kernel without numpy, a dict for each element."""
    from numpy.lib.recfunctions import repack_fields

    packed = repack_fields(array, recurse=True)
    rows = packed.tolist()
    if packed.ndim == 1:
        rows = [dict(zip(packed.dtype.names, row, strict=True)) for row in rows]
    values = _converted(rows, "an array")
    return {"dtype": packed.dtype.descr, "shape": array.shape, "content": packed.tobytes(), "values": values}


def _scalar(value: Any) -> dict[str, Any]:
    """The parts of a number of numpy."""
    return _array(value.reshape(1)) | {"shape": ()}


def _polars(table: Any) -> dict[str, Any]:
    """The parts of a `polars.DataFrame`: as an Arrow file, and as lists for a kernel without polars."""
    buffer = io.BytesIO()
    table.write_ipc(buffer)
    return {"ipc": buffer.getvalue(), "columns": _items(table.to_dict(as_series=False))}


def _polars_series(series: Any) -> dict[str, Any]:
    """The parts of a `polars.Series`."""
    return _polars(series.to_frame())


def _arrow(table: Any) -> dict[str, Any]:
    """The parts of a `pyarrow.Table` or of a batch of one: as an Arrow stream, and as lists."""
    from pyarrow import BufferOutputStream, ipc

    sink = BufferOutputStream()
    with ipc.new_stream(sink, table.schema) as writer:
        writer.write(table)
    return {"ipc": sink.getvalue().to_pybytes(), "columns": _items(table.to_pydict())}


def _items(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {name: [_item(value) for value in values] for name, values in columns.items()}


_PARTS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "pandas.DataFrame": _frame,
    "pandas.Series": _series,
    "polars.DataFrame": _polars,
    "polars.Series": _polars_series,
    "pyarrow.Table": _arrow,
    "pyarrow.RecordBatch": _arrow,
    "numpy.ndarray": _array,
    "numpy.generic": _scalar,
}
"""Classes of libraries, each with what takes its objects apart. A kernel puts them together (`guest.BUILT`)."""
