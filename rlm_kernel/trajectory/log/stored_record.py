"""The record of a long run: a `dict` that is read from the log the first time it is used."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

_LOADING = (
    "__contains__", "__delitem__", "__eq__", "__getitem__", "__ior__", "__iter__", "__len__", "__ne__", "__or__",
    "__repr__", "__reversed__", "__ror__", "__setitem__", "clear", "copy", "get", "items", "keys", "pop", "popitem",
    "setdefault", "update", "values",
)  # fmt: skip
"""The methods of a dict that depend on its content or change it. json, copy, pickle and `{**record}` use them as well.
"""


class StoredRecord(dict[str, Any]):
    """A dict that is incomplete until a method of it is used.

    Args:
        read: returns the whole content; called once, also by several threads.
        known: a part of it. json takes a dict without an item for an empty one, and asks no further.

    Raises:
        RecordingError: from any method that reads it: the log is gone or was altered.
    """

    def __init__(self, read: Callable[[], dict[str, Any]], **known: Any) -> None:
        super().__init__(known)
        self._read: Callable[[], dict[str, Any]] | None = read
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self.items()),)

    def load(self) -> None:
        """Read the content, unless that was done. Of several threads, one reads and the others wait."""
        with self._lock:
            if self._read is not None:
                dict.update(self, self._read())
                self._read = None


def _loading(name: str) -> Callable[..., Any]:
    """A method of dict that loads the record before."""
    plain = getattr(dict, name)

    def method(self: StoredRecord, *args: Any, **kwargs: Any) -> Any:
        self.load()
        return plain(self, *args, **kwargs)

    return method


for _name in _LOADING:
    setattr(StoredRecord, _name, _loading(_name))
