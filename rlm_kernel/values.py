"""The input of a run as it can travel to a kernel: data as it is, tables and arrays in parts; the rest is an error.

Nothing of a library is pickled: a table becomes lists of plain values. A kernel with the library puts them together
again, and a kernel without it reads them as records.
"""

from __future__ import annotations

import inspect
import io
import pickle
import socket
import sys
from collections.abc import Callable, ItemsView, Iterator, KeysView, ValuesView
from typing import Any

from rlm_kernel.errors import ConfigError
from rlm_kernel.types import Foreign

_PLAIN = frozenset({str, int, float, bool, type(None), bytes, complex})
_CONTAINERS = frozenset({dict, list, tuple, set, frozenset})
_HEAD_ROWS = 20
_MAX_HEAD = 4_000


def convert(value: Any, path: str = "context") -> Any:
    """A value without what cannot travel.

    Args:
        value: str, bytes, dict, list, a table or an array, and what these hold.
        path: the expression for it, for messages.

    Raises:
        ConfigError: it holds something that no kernel can read; the message says what, where and what to do.
    """
    try:
        return _converted(value, path)
    except RecursionError:
        raise ConfigError(f"{path} is nested too deeply, or holds itself: give plain lists and dicts.") from None


def is_context(value: Any) -> bool:
    """Whether a value is a context as it is, or as a table or an array."""
    return isinstance(value, str | dict | list | bytes | bytearray) or _foreign_kind(value) is not None


def _converted(value: Any, path: str) -> Any:
    kind = type(value)
    if kind in _PLAIN or (kind in _CONTAINERS and _are_plain(value)):
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


def _are_plain(container: Any) -> bool:
    """Whether all entries and keys are plain; fast, for lists of millions."""
    values = container.values() if type(container) is dict else container
    return set(map(type, values)) <= _PLAIN and (type(container) is not dict or set(map(type, container)) <= _PLAIN)


# -- what cannot travel


def _check(value: Any, path: str) -> None:
    """Check that a kernel can read a value of another class."""
    for is_one, describe, todo in _UNKNOWN:
        if is_one(value):
            raise ConfigError(f"{path} is {describe(value)}: {todo(value) if callable(todo) else todo}.")
    try:
        pickle.dumps(value, protocol=4)
    except Exception as error:
        raise ConfigError(
            f"{path} is a {type(value).__name__}, which cannot be copied to another process ({error}): give what you "
            "need of it as text, numbers, lists and dicts."
        ) from None


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
    for name, how in (
        ("__dataclass_fields__", "dataclasses.asdict(value)"),
        ("model_dump", "value.model_dump()"),
        ("_asdict", "value._asdict()"),
        ("to_dict", "value.to_dict()"),
    ):
        if hasattr(value, name):
            return f"give plain data, {how}"
    return "give plain data, vars(value) for example"


_UNKNOWN: tuple[tuple[Callable[[Any], bool], Callable[[Any], str], str | Callable[[Any], str]], ...] = (
    (inspect.isroutine, _function, "give functions as custom_tools={'name': function}"),
    (inspect.ismodule, lambda value: f"the module {value.__name__!r}", "import it in a cell"),
    (
        lambda value: isinstance(value, io.IOBase) or type(value).__name__ == "_TemporaryFileWrapper",
        lambda value: f"an open file ({getattr(value, 'name', 'without a name')!r})",
        "give its text, file.read(), or a Path",
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
    return {"name": series.name, "column": _column(series), "index": _index(series.index)}


def _index(index: Any) -> dict[str, Any]:
    if type(index).__name__ == "RangeIndex":
        return {"range": (index.start, index.stop, index.step), "names": list(index.names)}
    levels = [index.get_level_values(place).to_series() for place in range(index.nlevels)]
    return {"levels": [_column(level) for level in levels], "names": list(index.names)}


def _column(series: Any) -> dict[str, Any]:
    """A column: its type as text, and its values as plain ones."""
    dtype = series.dtype
    about: dict[str, Any] = {"dtype": str(dtype)}
    if about["dtype"] == "category":
        about |= {"ordered": bool(dtype.ordered), "categories": _column(dtype.categories.to_series())}
    if getattr(dtype, "kind", "O") in "iufb" and about["dtype"].islower():
        return {**about, "values": series.tolist()}
    missing = series.isna().tolist()
    plain = about["dtype"] == "object"
    values = [
        (value if plain else None) if gone is True else _item(value)
        for value, gone in zip(series.tolist(), missing, strict=True)
    ]
    return {**about, "values": values}


def _item(value: Any) -> Any:
    """A value of a table: dates of pandas as text in ISO 8601."""
    if type(value) in _PLAIN:
        return value
    if type(value).__module__.startswith("pandas"):
        return value.isoformat() if hasattr(value, "isoformat") else str(value)
    return _converted(value, "a value of a table")


def _array(array: Any) -> dict[str, Any]:
    """The parts of a `numpy.ndarray`."""
    if array.dtype.hasobject:
        return {"values": _converted(array.tolist(), "an array")}
    return {"dtype": array.dtype.str, "shape": array.shape, "content": array.tobytes(), "values": None}


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
