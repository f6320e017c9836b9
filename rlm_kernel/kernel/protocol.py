"""The messages between host and guest: their names, their fields, and how values are encoded.

Each message is a Jupyter `comm_msg` with one comm id. The guest sends on IOPub. The host sends on the control channel,
because the shell channel is not read while a cell runs. `data` holds the small fields below. Large values and arbitrary
text are JSON or bytes in the buffers, so that their encoding is exact.

The guest runs without this file; `tests/contract/test_wire.py` checks both ends against it.
"""

from __future__ import annotations

import ctypes
import io
import json
import pickle
import sys
from typing import Any, Final, Literal, NotRequired, TypedDict

from rlm_kernel.types import Foreign, TextFile

WIRE: Final = 1
"""The version of the protocol. A guest and a host of different versions refuse each other's messages."""

NOT_COPIED_BYTES: Final = 1_000_000
"""An ASCII text of this length is sent from where it is: its copy would be new memory, whose pages cost most of it."""
_IS_CPYTHON = sys.implementation.name == "cpython"
COMM_ID: Final = "rlm-host"

MAX_ID_CHARACTERS: Final = 64
MAX_QUESTION_BYTES: Final = 20_000_000
"""Of the payload of an `ask`. The guest splits a larger batch into several questions."""
MAX_PICTURES_BYTES: Final = 20_000_000
"""Of all pictures of an `ask`."""
MAX_PROMPTS: Final = 2_000
"""Of an `ask`."""
MAX_BATCH: Final = 200_000
"""Prompts and calls of tools of one cell."""
MAX_ANSWER_BYTES: Final = 20_000_000
"""Of the answer of the whole task, and of each answer to a cell."""
MAX_REPORT_BYTES: Final = 41_000_000
MAX_NAMES: Final = 1_000
MAX_NAME_CHARACTERS: Final = 200
"""Of a variable in a report, and of the name of its type."""
MAX_VALUE_CHARACTERS: Final = 1_000
"""Of the beginning of its value. Logs keep less: a key that begins in that part is found in what follows."""

FromGuest = Literal["ask", "cancel", "report", "stored", "running", "waiting"]
"""`ask`: answer these prompts (`AskPayload`). `cancel`: the answers are no longer needed. `report`: the cell has ended
(`ReportPayload`). `stored`: a `put` has succeeded, or failed with `error`. `running`, `waiting`: answers a `check`: a
cell runs, or the kernel waits for one."""

ToGuest = Literal["ack", "answer", "put", "check"]
"""`ack`: the ask arrived, do not send it again. `answer`: `AnswerPayload`. `put`: assign the buffer to a name.
`check`: look whether a cell can still have a reply; its id is that of the request."""

Encoding = Literal["text", "bytes", "pickle", "tool", "file"]
"""How the buffer of a `put` is read. `tool`: the JSON of a `Tool.card`, from which the guest makes a function.
`file`: JSON with `path`, `size` and `modified` of a `TextFile`, whose text the guest reads."""


class Data(TypedDict):
    """The `data` of every message."""

    wire: int
    op: FromGuest | ToGuest
    id: str
    error: NotRequired[str]  # of `stored`
    missing: NotRequired[list[str]]  # of `stored`: libraries that the kernel lacks; their tables are records
    name: NotRequired[str]  # of `put`
    encoding: NotRequired[Encoding]  # of `put`


class AskPayload(TypedDict):
    """The first buffer of `ask`; the others are image files, which go with each prompt."""

    kind: Literal["llm_query", "rlm_query"]
    prompts: list[str]
    model: str | None
    batch: bool
    schema: dict[str, Any] | None


class ToolPayload(TypedDict):
    """The buffer of `ask` for a custom tool. Its answer's `text` is the result as JSON, its `error` a JSON pair."""

    kind: Literal["tool"]
    tool: str
    args: list[Any]
    kwargs: dict[str, Any]


class ReportPayload(TypedDict):
    """The buffer of `report`; see `records.CellReport`."""

    final: str | None
    answer: str | None
    draft: str | None
    variables: dict[str, str]
    restored: dict[str, str | None]
    final_json: str | None
    answer_json: str | None
    values: dict[str, str]


class AnswerPayload(TypedDict):
    """The buffer of `answer`: one entry for each prompt, in order.

    Each holds one of `text` (JSON for a question with a schema), `error` (there is no answer) and `refused` (the call
    was wrong, and raises in the cell, also for a batch). An error may come with `partial`, the text so far.
    """

    answers: list[dict[str, str]]


def pack(payload: Any) -> bytes:
    """JSON in ASCII: lone surrogates survive as escapes."""
    return json.dumps(payload, separators=(",", ":")).encode("ascii")


def unpack(buffer: Any) -> Any:
    """The value of a buffer of `pack`, or of the guest, whose JSON is UTF-8 with surrogates passed.

    Raises:
        ValueError: it is not JSON.
    """
    return json.loads(buffer if isinstance(buffer, bytes | bytearray) else bytes(buffer))


def encode(value: Any) -> tuple[Encoding, bytes]:
    """A value for a `put`: text as UTF-8 with surrogates passed, bytes, everything else as a pickle.

    Pickles go from the host to the kernel only, which is the safe direction. Every Python 3 reads protocol 4.

    Raises:
        pickle.PicklingError: the value cannot be pickled; pickle also raises TypeError or AttributeError.
    """
    if type(value) is str:
        return "text", value.encode("utf-8", "surrogatepass")
    if isinstance(value, TextFile):
        return "file", pack({"path": value.path, "size": value.size, "modified": value.modified})
    if type(value) is bytes:
        return "bytes", value
    return "pickle", pickled(value)


def pickled(value: Any) -> bytes:
    """Plain data as a pickle. A `Foreign` is in it by its parts.

    Raises:
        pickle.PicklingError: as in `encode`.
    """
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=4).dump(value)
    return buffer.getvalue()


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> tuple[str, dict[str, Any]] | None:
        return (obj.kind, obj.parts) if isinstance(obj, Foreign) else None


def encode_for_sending(value: Any) -> tuple[Encoding, bytes | memoryview]:
    """The same as `encode`, but a long ASCII text is not copied: CPython holds it as its UTF-8 bytes.

    Raises:
        pickle.PicklingError: as in `encode`.
    """
    if type(value) is not str or len(value) < NOT_COPIED_BYTES or not value.isascii() or not _IS_CPYTHON:
        return encode(value)
    address_of = ctypes.pythonapi.PyUnicode_AsUTF8AndSize
    address_of.argtypes, address_of.restype = [ctypes.py_object, ctypes.c_void_p], ctypes.c_void_p
    content: Any = (ctypes.c_char * len(value)).from_address(address_of(value, None))
    content.text = value  # lives as long as the view
    return "text", memoryview(content).cast("B").toreadonly()
