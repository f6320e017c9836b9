"""The messages between host and guest: their names, their fields, and how values are encoded.

Every message is a Jupyter `comm_msg` with one comm id. Messages of the guest come on IOPub; messages to the guest go on
the control channel, because the shell channel is not read while a cell runs. `data` holds the small fields below; what
may be large or hold any text travels as JSON or as bytes in the buffers, so that its encoding is ours and exact.

`guest.py` runs where this file is not; `tests/contract/test_wire.py` checks both ends against this table.
"""

from __future__ import annotations

import json
import pickle
from typing import Any, Final, Literal, NotRequired, TypedDict

WIRE: Final = 1
"""The version. A guest and a host of different versions do not talk to each other."""

COMM_ID: Final = "rlm-host"
GUEST_MODULE: Final = "rlm_guest"

MAX_ID_CHARACTERS: Final = 64
MAX_QUESTION_BYTES: Final = 20_000_000
"""Of the payload of an `ask`. The guest asks a larger batch in several questions."""
MAX_PICTURES_BYTES: Final = 20_000_000
"""Of all pictures of an `ask`."""
MAX_PROMPTS: Final = 2_000
"""Of an `ask`."""
MAX_BATCH: Final = 200_000
"""Prompts that a cell may ask, and calls of tools that it may make."""
MAX_ANSWER_BYTES: Final = 20_000_000
"""Of an answer of the whole task, and of one that a cell gets."""
MAX_REPORT_BYTES: Final = 41_000_000
MAX_NAMES: Final = 1_000
MAX_NAME_CHARACTERS: Final = 200
"""Of a variable in a report, and of the name of its type."""

FromGuest = Literal["ask", "cancel", "report", "stored"]
"""`ask`: answer these prompts (`AskPayload`). `cancel`: the answers are not needed any more. `report`: the cell is over
(`ReportPayload`). `stored`: a `put` was carried out, or failed with `error`."""

ToGuest = Literal["ack", "answer", "put"]
"""`ack`: the ask arrived, do not send it again. `answer`: `AnswerPayload`. `put`: give the buffer's value to a name."""

Encoding = Literal["text", "bytes", "pickle", "tool"]
"""How the buffer of a `put` is read. `tool`: the JSON of a `Tool.card`, from which the guest makes a stand-in."""


class Data(TypedDict):
    """The `data` of every message."""

    wire: int
    op: FromGuest | ToGuest
    id: str
    error: NotRequired[str]  # of `stored`
    name: NotRequired[str]  # of `put`
    encoding: NotRequired[Encoding]  # of `put`


class AskPayload(TypedDict):
    """The first buffer of `ask`; those after it are the images, as files hold them, the same for all prompts."""

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


class AnswerPayload(TypedDict):
    """The buffer of `answer`: one entry for each prompt, in order.

    Each holds one of `text` (of a question with a schema it is JSON), `error` (there is no answer) and `refused` (the
    call was wrong: raised in the cell, for a batch too).
    """

    answers: list[dict[str, str]]


def pack(payload: Any) -> bytes:
    """JSON in ASCII: lone surrogates survive as escapes."""
    return json.dumps(payload, separators=(",", ":")).encode("ascii")


def unpack(buffer: Any) -> Any:
    """The value of a buffer: what `pack` wrote, or the guest, whose JSON is UTF-8 with surrogates passed.

    Raises:
        ValueError: not JSON.
    """
    return json.loads(buffer if isinstance(buffer, bytes | bytearray) else bytes(buffer))


def encode(value: Any) -> tuple[Encoding, bytes]:
    """A value for a `put`: text as UTF-8 with surrogates passed, everything else as a pickle.

    The pickle goes in the one safe direction, from the host to the kernel; protocol 4 is read by every Python 3.

    Raises:
        pickle.PicklingError: the value cannot travel; also TypeError or AttributeError, as pickle has it.
    """
    if type(value) is str:
        return "text", value.encode("utf-8", "surrogatepass")
    if type(value) is bytes:
        return "bytes", value
    return "pickle", pickle.dumps(value, protocol=4)
