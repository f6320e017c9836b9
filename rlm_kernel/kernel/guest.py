"""The model's REPL inside the kernel. The only file of this package that runs there.

It needs the standard library, IPython and ipykernel only. The host sends its source in one silent request, which makes
it the module `rlm_guest` and calls `install`. After that both ends exchange `comm_msg`s, listed in `protocol.py`. The
guest sends on IOPub; the host sends on the control channel, whose thread is free while a cell runs.

The code of a model can change everything here. The host trusts none of it.
"""

from __future__ import annotations

import asyncio
import base64
import builtins
import contextlib
import ctypes
import functools
import gc
import hmac
import importlib
import io
import itertools
import json
import mmap
import os
import pickle
import queue
import random
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures.thread import ThreadPoolExecutor, _worker
from inspect import Parameter, Signature
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

WIRE = 1
PROCESS = os.getpid()
RESEND_SECONDS = 1.0
END_SECONDS = 1.0
LOCK_SECONDS = 1.0
LOOK_SECONDS = 1.0
THREAD_SECONDS = 2.0
LOST_SECONDS = 5.0
"""For the reply of a cell that has ended."""
BROKEN = 79
"""The exit status of a kernel that cannot reply any more; `process.BROKEN` on the host."""
WAITS_FOR_WORK = _worker.__code__
DISPLAYS = ("matplotlib_inline", "IPython", "ipywidgets")
MORE = """

schema: a JSON Schema (a dict) or a pydantic class; the answer is then an object that fits it.
images: figures, PIL images, image files or their bytes, or the execution count of a cell for the figures it showed.
allow_partial: True takes an answer that the length limit cut, with a mark at its end; otherwise it is an error."""
MAX_QUESTION_BYTES = 20_000_000
MAX_PICTURES_BYTES = 20_000_000
MAX_PROMPTS = 2_000
MAX_BATCH = 200_000
MAX_ANSWER_BYTES = 20_000_000
MAX_REPORT_BYTES = 41_000_000
MAX_NAME_CHARACTERS = 200
MAX_VARIABLES = 200
MAX_VALUE_CHARACTERS = 1_000
MAX_VALUES_CHARACTERS = 20_000
MAX_VALUE_DEPTH = 4
MAX_INTEGER_BITS = 4_000
MAX_PLAIN_DEPTH = 100
MAX_PLAIN_VALUES = 1_000_000
MAX_FIGURES = 50
MAX_FIGURE_BYTES = 50_000_000
MAX_IMAGES = 100
MAX_IMAGE_BYTES = 20_000_000
IMAGE_TYPES = ("image/png", "image/jpeg", "image/gif", "image/webp")
ATOMS = (bool, int, float, complex, type(None))
JSON_ATOMS = (str, bool, int, float, type(None))
BRACKETS = ((list, "[", "]"), (tuple, "(", ")"), (dict, "{", "}"), (set, "{", "}"), (frozenset, "frozenset({", "})"))
TYPE_NAME = type.__dict__["__name__"].__get__  # not `kind.__name__`, which a metaclass may override
PARAMETER_KINDS: tuple[Any, ...] = tuple(type(Parameter.VAR_KEYWORD))  # type: ignore[arg-type]
RESERVED = frozenset(
    "context history answer FINAL FINAL_VAR SHOW_VARS exit quit get_ipython In Out "
    "llm_query llm_query_batched allm_query allm_query_batched "
    "rlm_query rlm_query_batched arlm_query arlm_query_batched".split()
)
"""Names that the REPL defines; a custom tool cannot have one of them."""


CUT = "was cut at the length limit"
"""In the error of an answer that the length limit cut; the host writes it."""
CUT_MARK = "\n[cut at the length limit]"
"""The end of such an answer with `allow_partial=True`."""


class QueryError(RuntimeError):
    """A call of `llm_query` or `rlm_query` has no answer; the message says why, `partial_answer` is the text so far."""

    partial_answer = ""


class FailedQuery(str):
    """Stands in a batch for a prompt without an answer: a text that reads ``Error: …``; `isinstance` tells it apart.

    `partial_answer` is the text of the answer so far; empty if there is none.
    """

    __slots__ = ("partial_answer",)
    partial_answer: str

    def __new__(cls, text: str, partial_answer: str = "") -> FailedQuery:  # noqa: PYI034 (typing.Self needs Python 3.11)
        """The text of the error, with the text of the answer so far."""
        failed = super().__new__(cls, text)
        failed.partial_answer = partial_answer
        return failed


class ToolError(RuntimeError):
    """A custom tool raised something that is no built-in exception; the message begins with its name."""


class Budget(NamedTuple):
    """What is left of the limits of a run; None: no limit.

    seconds: until the time-out. tokens: of input and output. cost: US dollars. calls: prompts of sub-calls. errors:
    cells in a row that may raise. iterations: turns after this one. depth: levels of `rlm_query` with a REPL; 0: it is
    answered like `llm_query`. All runs of a tree share seconds, tokens, cost and calls.
    """

    seconds: float | None
    tokens: int | None
    cost: float | None
    calls: int | None
    errors: int | None
    iterations: int
    depth: int

    def __repr__(self) -> str:
        left = (f"{name}={'no limit' if value is None else value}" for name, value in self._asdict().items())
        return f"Budget({', '.join(left)})"


class Call:
    """A question in flight: sent until the host acknowledges it, then waited for until it is answered."""

    _numbers = itertools.count(1)

    def __init__(self, payload: dict[str, Any], notify: Callable[[], object], images: Iterable[bytes] = ()) -> None:
        __tracebackhide__ = True
        if os.getpid() != PROCESS:  # a fork has no control thread to receive the answer
            raise RuntimeError("Only the REPL's own process can ask: use threads or llm_query_batched.")
        self.id = f"q{next(self._numbers)}"
        self.buffers = [as_bytes(payload), *images]
        if len(self.buffers[0]) > MAX_QUESTION_BYTES:
            what = f"this {'call' if payload['kind'] == 'tool' else 'prompt'} has {len(self.buffers[0]):,} bytes"
            raise ValueError(f"{what}; a question may have at most {MAX_QUESTION_BYTES:,}. Ask about a part of it.")
        self.notify = notify
        self.acknowledged = False
        self.answers: list[dict[str, str]] | None = None


class Guest:
    """The state of the REPL: the shell, the questions in flight, and the names that belong to the host."""

    def __init__(self, shell: Any, comm_id: str) -> None:
        self.shell = shell
        self.kernel = shell.kernel
        self.comm_id = comm_id
        self.parent = self.kernel.get_parent("shell")
        self.cell: Any = None
        self.calls: dict[str, Call] = {}
        self.final: tuple[str | None, str | None] = (None, None)
        self.figures: deque[tuple[int, bytes]] = deque(maxlen=MAX_FIGURES)
        self.ours: dict[str, Any] = {}
        self.begun: Begun | None = None
        self.needed: Needed | None = None
        self.is_given = False  # the host has given a value since the last cell, so its setup is over
        self.is_executing = False
        self.ended_at: float | None = None  # of a cell whose reply was not sent yet

    # -- the wire

    def send(self, op: str, call: str, buffers: list[bytes] | None = None, **fields: Any) -> None:
        """Publish a message."""
        # The parent is the running cell, stored at its start: in a user's thread get_parent() may raise (ipykernel 7.0)
        # or return another cell.
        publish = functools.partial(
            self.kernel.session.send,
            self.kernel.iopub_socket,
            "comm_msg",
            {"comm_id": self.comm_id, "data": {"wire": WIRE, "op": op, "id": call, **fields}},
            parent=self.parent,
            ident=b"comm-" + self.comm_id.encode(),
            buffers=buffers,
        )
        if threading.current_thread() is threading.main_thread():
            publish()
        else:  # ipykernel would keep a socket for this thread for ten seconds; zmq has at most 1,023
            self.kernel.iopub_thread.io_loop.add_callback(publish)

    def on_control(self, stream: Any, ident: Any, message: dict[str, Any]) -> Any:
        """Handle a `comm_msg` on the control channel, in the control thread. Pass on those of other comms."""
        content = message["content"]
        if content.get("comm_id") != self.comm_id:
            return self.kernel.comm_manager.comm_msg(stream, ident, message)
        buffers, message["buffers"] = message["buffers"], []  # the kernel keeps the message; up to 500 MB must not stay
        data = content["data"]
        if data["wire"] != WIRE:
            raise RuntimeError(f"the host speaks version {data['wire']} of the wire, this guest {WIRE}")
        if data["op"] == "put":
            self.put(data, buffers)
        elif data["op"] == "check":
            self.check(data["id"])
        elif (call := self.calls.get(data["id"])) is not None:
            if data["op"] == "answer":
                call.answers = json.loads(bytes(buffers[0]))["answers"]
            call.acknowledged = True
            call.notify()
        return None

    def on_frames(self, frames: list[Any]) -> Any:
        """Handle a raw message on the control channel if it is of our comm; pass all others to ipykernel.

        For each message that it handles, ipykernel flushes both streams and publishes two states. An answer of
        `llm_query` would take twice as long.
        """
        try:
            start = next(i for i, frame in enumerate(frames) if frame.bytes == b"<IDS|MSG>") + 1
            signature, *signed = (frame.bytes for frame in frames[start : start + 5])
            content = json.loads(signed[3])
            ours = json.loads(signed[0])["msg_type"] == "comm_msg" and content["comm_id"] == self.comm_id
        except (StopIteration, ValueError, KeyError, IndexError, TypeError):
            ours = False
        if not ours or not hmac.compare_digest(self.kernel.session.sign(signed), signature):
            return self.kernel.dispatch_control(frames)
        return self.on_control(None, None, {"content": content, "buffers": [f.buffer for f in frames[start + 5 :]]})

    def put(self, data: dict[str, str], buffers: list[Any]) -> None:
        """Assign a value of the host to a name, which belongs to the host from then on."""
        try:
            if data["encoding"] == "tool":
                value = stand_in(self, json.loads(bytes(buffers.pop())))
            else:
                value = decode(data["encoding"], buffers.pop())
        except BaseException as error:
            self.send("stored", data["id"], error=f"{type(error).__name__}: {error}")
            return
        name, self.is_given = data["name"], True
        self.ours[name] = self.shell.user_ns[name] = value
        self.shell.user_ns_hidden[name] = value
        self.send("stored", data["id"], missing=sorted(MISSING))

    # -- questions

    def ask(self, payload: dict[str, Any], images: Iterable[bytes] = ()) -> list[dict[str, str]]:
        """Ask the host and wait, in the calling thread."""
        __tracebackhide__ = True
        arrived = threading.Event()
        call = Call(payload, arrived.set, images)
        self.calls[call.id] = call
        try:
            while call.answers is None:
                if not call.acknowledged:
                    self.send("ask", call.id, call.buffers)
                if not arrived.wait(LOST_SECONDS if call.acknowledged else RESEND_SECONDS):
                    self.end_if_broken()
                arrived.clear()
        finally:
            self.forget(call)
        return call.answers

    async def ask_async(self, payload: dict[str, Any], images: Iterable[bytes] = ()) -> list[dict[str, str]]:
        """Ask the host and wait, without blocking the event loop."""
        __tracebackhide__ = True
        loop, arrived = asyncio.get_running_loop(), asyncio.Event()
        call = Call(payload, lambda: loop.call_soon_threadsafe(arrived.set), images)
        self.calls[call.id] = call
        try:
            while call.answers is None:
                if not call.acknowledged:
                    self.send("ask", call.id, call.buffers)
                try:
                    await asyncio.wait_for(arrived.wait(), LOST_SECONDS if call.acknowledged else RESEND_SECONDS)
                except asyncio.TimeoutError:
                    self.end_if_broken()
                    continue
                arrived.clear()
        finally:
            self.forget(call)
        return call.answers

    def forget(self, call: Call) -> None:
        """End a call. If it has no answer it was interrupted, and the host can stop answering it."""
        self.calls.pop(call.id, None)
        if call.answers is None:
            self.send("cancel", call.id)

    # -- the turn

    def cell_starts(self, info: Any = None) -> bool:
        """Store the cell and clear the last answer. Returns False for a cell within a cell, which is a part of it."""
        parent = self.kernel.get_parent("shell")
        if self.cell is not None and parent == self.parent:
            return False
        self.parent, self.cell, self.final = parent, info, (None, None)
        return True

    def execution_starts(self) -> None:
        """Note what the kernel needs, once the host's setup is over: what that has changed is meant to stay."""
        self.is_executing, self.ended_at = True, None
        self.end_if_broken()
        if self.is_given:
            self.is_given, self.needed = False, Needed(self)

    def execution_ended(self) -> None:
        """Put back what the kernel needs, and make the report if the hook that does it was removed."""
        if os.getpid() != PROCESS:
            os._exit(0)  # a fork has run the rest of the cell; it shares the sockets of the kernel
        self.ended_at = time.monotonic()
        ignore_interrupts()
        if (
            self.needed is not None and self.needed.has_report
        ):  # not in a notebook of a user's, whose cells are not ours
            self.put_back(self.needed)
            if self.cell is not None:
                self.report()
        self.end_if_broken()

    def put_back(self, needed: Needed) -> None:
        """Put back what the kernel needs, and tell the model."""
        if names := needed.put_back():
            listed = ", ".join(names[:MAX_PUT_BACK]) + (" and more" if len(names) > MAX_PUT_BACK else "")
            needed.await_threads()
            print(f"The notebook needs what this cell replaced; it was put back: {listed}.", file=sys.stderr)

    def reply_of(self, error: Exception) -> dict[str, Any]:
        """The reply for a cell that IPython has failed to run to its end."""
        raised = traceback.format_exception(type(error), error, error.__traceback__)
        about = {"ename": type(error).__name__, "evalue": str(error), "traceback": raised}
        return {"status": "error", "execution_count": self.shell.execution_count, **about}

    def end_if_broken(self) -> None:
        """End a kernel that can never reply. The host makes a new one."""
        late = self.ended_at is not None and time.monotonic() - self.ended_at > LOST_SECONDS
        if late or (self.needed is not None and not self.needed.is_served()):
            os._exit(BROKEN)

    def check(self, call: str) -> None:
        """Look whether the kernel can still reply, in the control thread, and tell the host what it does."""
        self.end_if_broken()
        if self.is_executing:
            self.tell(call)
        else:  # something that a cell has started may occupy the loop; then it does not wait
            self.kernel.io_loop.add_callback(self.tell, call)

    def tell(self, call: str) -> None:
        """Answer a `check`."""
        if self.is_executing:
            self.send("running", call)
        else:
            self.send("waiting", call)

    def take_variable(self, name: str) -> bool:
        """Make the value of a variable the answer. Returns whether there is such a variable."""
        if name not in self.shell.user_ns:
            return False
        value = self.shell.user_ns[name]
        # `answer` is a container; the answer is its content.
        self.give(name, dict.get(value, "content") if name == "answer" and issubclass(type(value), dict) else value)
        return True

    def take_plain(self, name: str) -> None:
        """Make the value of a variable the answer, without a call of the user's code: as JSON, else as `values`."""
        value = self.shell.user_ns.get(name)
        if is_plain(value):
            self.give(name, value)
        else:
            self.final = shown(value, MAX_VALUE_CHARACTERS), None

    def give(self, name: str, value: object) -> None:
        """Make a value the answer, unless it is too large."""
        answer = both(value)
        if not too_large(name, *answer):
            self.final = answer

    def cell_ended(self, result: Any = None) -> None:
        """Report the cell to the host before the kernel becomes idle, as soon as the kernel has what it needs."""
        if self.cell is not None and result is not None and result.info is not self.cell:
            return  # a cell within this one has ended
        ignore_interrupts()
        if self.needed is None or result is None:
            self.report()

    def report(self) -> None:
        """Restore the host's names, and send the report."""
        self.cell = None
        restored, answer = self.restore(), self.shell.user_ns["answer"]
        content = dict.get(answer, "content")
        text, as_json = both(content)
        ready, error = attempt(lambda: bool(dict.get(answer, "ready")))
        if too_large("answer['content']", text, as_json):
            ready, content = False, None
        report = {
            "final": self.final[0],
            "final_json": self.final[1],
            "answer": text if ready else None,
            "answer_json": as_json if ready else None,
            "draft": None if content is None or text == "" else text,
            "variables": self.variables(),
            "values": self.values(),
            "restored": restored,
        }
        buffer = as_bytes(report)
        if len(buffer) > MAX_REPORT_BYTES:  # several large answers in one cell
            report.update(dict.fromkeys(("answer", "answer_json", "draft") if self.final[0] else ("draft",)))
            buffer = as_bytes(report)
        self.send("report", "", [buffer])
        if error:
            print(f"answer['ready'] takes True or False: {error}", file=sys.stderr)

    def remember(self, data: dict[str, Any]) -> None:
        """Keep a picture that a cell displayed, for `images=[its number]`. The oldest ones are dropped."""
        kind = next((kind for kind in IMAGE_TYPES if kind in data), None)
        if kind is None:
            return
        # The number of inputs: `execution_count` is one ahead before or after a cell, depending on IPython's version.
        self.figures.append((len(self.shell.history_manager.input_hist_parsed) - 1, decode_image(data[kind])))
        while sum(len(figure) for _, figure in self.figures) > MAX_FIGURE_BYTES:
            self.figures.popleft()

    def restore(self) -> dict[str, str | None]:
        """Restore the names that the cell overwrote or deleted; its own value is kept under another name."""
        namespace = self.shell.user_ns
        restored: dict[str, str | None] = {}
        for name, value in self.ours.items():
            current = namespace.get(name, self)
            if current is value:
                continue
            if name == "answer" and issubclass(type(current), dict):
                self.ours[name] = self.shell.user_ns_hidden[name] = current
                continue
            kept = None if current is self else f"my_{name}"
            if kept is not None:
                namespace[kept] = current
            namespace[name] = value
            restored[name] = kept
        return restored

    def variables(self) -> dict[str, str]:
        """The user's variables, each with the name of its type."""
        return {name: type_of(value) for name, value in self.made()}

    def values(self) -> dict[str, str]:
        """The beginning of the `repr` of the variables of built-in types, of the latest ones if they are many."""
        values, room = {}, MAX_VALUES_CHARACTERS
        for name, value in reversed(self.made()):
            text, error = attempt(functools.partial(shown, value, MAX_VALUE_CHARACTERS))
            if not error and text != type_of(value):
                room -= len(name) + len(text)
                if room < 0:
                    break
                values[name] = text
        return values

    def made(self) -> list[tuple[str, object]]:
        """The user's variables."""
        hidden, ours = self.shell.user_ns_hidden, self.ours
        made = (
            (name, value)
            for name, value in list(self.shell.user_ns.items())
            if type(name) is str
            and len(name) <= MAX_NAME_CHARACTERS
            and not name.startswith("_")
            and name not in ours
            and hidden.get(name, hidden) is not value
            and not issubclass(type(value), ModuleType)
        )
        return list(itertools.islice(made, MAX_VARIABLES))


def type_of(value: object) -> str:
    """The name of the type of a value."""
    name: str = TYPE_NAME(type(value))
    return name[:MAX_NAME_CHARACTERS]


def shown(value: Any, room: int, depth: int = MAX_VALUE_DEPTH) -> str:
    """The first `room` characters of the `repr` of a value, without a call of the user's code.

    Built-in types are compared by identity, because a metaclass can have an `__eq__`. Other types are named.
    """
    kind = type(value)
    if kind is str or kind is bytes:
        return repr(value[:room])[:room]
    if kind is int and value.bit_length() > MAX_INTEGER_BITS:  # its digits would take long, or are refused by Python
        return type_of(value)
    if any(kind is atom for atom in ATOMS):
        return repr(value)[:room]
    for container, opening, closing in BRACKETS:
        if kind is container:
            return items_of(value, opening, closing, room, depth)
    return type_of(value)[:room]


def is_plain(value: Any) -> bool:
    """Whether a value is of JSON's types throughout, compared by identity, and neither deep nor long."""
    level, left = [value], MAX_PLAIN_VALUES
    for _ in range(MAX_PLAIN_DEPTH):
        left -= len(level)
        if left < 0:
            return False
        below: list[Any] = []
        for one in level:
            kind = type(one)
            if kind is dict:
                below += one
                below += one.values()
            elif kind is list or kind is tuple:
                below += one
            elif (kind is int and one.bit_length() > MAX_INTEGER_BITS) or not any(kind is atom for atom in JSON_ATOMS):
                return False
        if not below:
            return True
        level = below
    return False


def items_of(value: Any, opening: str, closing: str, room: int, depth: int) -> str:
    """The same for a container."""
    if not depth or not value:
        return (f"{opening}...{closing}" if value else repr(value))[:room]
    text = opening
    for entry in value.items() if type(value) is dict else zip(value):
        text += "" if text == opening else ", "
        text += ": ".join(shown(part, room, depth - 1) for part in entry)
        if len(text) > room:
            return text[:room]
    return (text + ("," if type(value) is tuple and len(value) == 1 else "") + closing)[:room]


def as_bytes(value: Any) -> bytes:
    """JSON in UTF-8; lone surrogates are kept."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def too_large(name: str, *answer: str | None) -> bool:
    """Whether an answer has too many bytes, as text or as JSON; if so, the cell's stderr says it."""
    size = max(len(text.encode("utf-8", "surrogatepass")) for text in answer if text is not None)
    if size > MAX_ANSWER_BYTES:
        limit = f"{name} was not taken: it has {size:,} bytes; an answer may have at most {MAX_ANSWER_BYTES:,}."
        print(f"{limit} Give a part of it, or what follows from it.", file=sys.stderr)
    return size > MAX_ANSWER_BYTES


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


def attempt(made: Callable[[], Any]) -> tuple[Any, str]:
    """Call code of a user's value. Returns its result and "", or None and the error: the report must not fail."""
    try:
        return made(), ""
    except (Exception, SystemExit) as error:
        return None, "".join(traceback.format_exception_only(type(error), error)).strip()


def both(value: object) -> tuple[str, str | None]:
    """An answer as text, as Python prints it, and as JSON if it is not a text and can be encoded."""
    if issubclass(type(value), str):
        return str.__str__(value), None
    text, error = attempt(lambda: str(value))
    if error:
        text = f"<{TYPE_NAME(type(value))} that cannot be printed: {error}>"
    return text, None if value is None else attempt(lambda: json.dumps(value, default=plain, allow_nan=False))[0]


def plain(value: Any) -> Any:
    """A JSON value for a pydantic object, a value of numpy or pandas, or a set."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    return value.tolist() if hasattr(value, "tolist") else sorted(value)


def query_names(guest: Guest, kind: str, purpose: str) -> dict[str, Any]:
    """`kind` and its batched and asynchronous forms, by name. `help()` shows their docstrings to the model."""
    one = f"{purpose} Give it one text, get its answer as a text. Raises QueryError when there is no answer.{MORE}"
    many = (
        f"{purpose} Give a list of texts, get a list of answers in the same order; they are asked side by side.{MORE}"
    )
    (query, aquery), (batched, abatched) = single_queries(guest, kind), batched_queries(guest, kind)
    named: dict[str, Any] = {kind: query, f"{kind}_batched": batched, f"a{kind}": aquery, f"a{kind}_batched": abatched}
    for name, function in named.items():
        function.__name__ = function.__qualname__ = name
        function.__doc__ = (many if name.endswith("batched") else one) + (" Use with await." if name[0] == "a" else "")
        function.__module__ = "rlm_guest"
    return named


def single_queries(guest: Guest, kind: str) -> tuple[Any, Any]:
    """The function that asks one question, and its asynchronous form."""

    def query(
        prompt: str, model: str | None = None, schema: Any = None, images: Any = None, allow_partial: bool = False
    ) -> Any:
        __tracebackhide__ = True
        asked = question(kind, [prompt], model, False, schema), pictures(guest, images)
        return single(guest.ask(*asked), kind, schema, allow_partial)

    async def aquery(
        prompt: str, model: str | None = None, schema: Any = None, images: Any = None, allow_partial: bool = False
    ) -> Any:
        __tracebackhide__ = True
        asked = question(kind, [prompt], model, False, schema), pictures(guest, images)
        return single(await guest.ask_async(*asked), kind, schema, allow_partial)

    return query, aquery


def batched_queries(guest: Guest, kind: str) -> tuple[Any, Any]:
    """The function that asks many questions at a time, and its asynchronous form."""

    def batched(
        prompts: Iterable[str],
        model: str | None = None,
        schema: Any = None,
        images: Any = None,
        allow_partial: bool = False,
    ) -> Any:
        __tracebackhide__ = True
        whole, files = question(kind, as_list(prompts, kind), model, True, schema), pictures(guest, images)
        answers: list[dict[str, str]] = []
        for part in parts(whole):
            answers += for_each(guest.ask(part, files), part)
        return several(answers, kind, schema, allow_partial)

    async def abatched(
        prompts: Iterable[str],
        model: str | None = None,
        schema: Any = None,
        images: Any = None,
        allow_partial: bool = False,
    ) -> Any:
        __tracebackhide__ = True
        whole, files = question(kind, as_list(prompts, kind), model, True, schema), pictures(guest, images)
        answers: list[dict[str, str]] = []
        for part in parts(whole):
            answers += for_each(await guest.ask_async(part, files), part)
        return several(answers, kind, schema, allow_partial)

    return batched, abatched


def question(kind: str, prompts: list[str], model: str | None, batch: bool, schema: Any) -> dict[str, Any]:
    """The payload of an `ask`."""
    __tracebackhide__ = True
    for prompt in prompts:
        if not isinstance(prompt, str):
            how = "value.to_csv()" if hasattr(prompt, "to_csv") else "str(...) or json.dumps(...)"
            raise TypeError(f"{kind} takes text, not {type(prompt).__name__}: make it one with {how}.")
    if model is not None and not isinstance(model, str):
        raise TypeError(f"model= takes the name of a model, not {type(model).__name__}.")
    if hasattr(schema, "model_json_schema"):
        schema = schema.model_json_schema()
    if not isinstance(schema, (dict, type(None))):
        raise TypeError(f"schema= takes a JSON Schema (a dict) or a pydantic class, not {type(schema).__name__}.")
    return {"kind": kind, "prompts": prompts, "model": model, "batch": batch, "schema": schema}


def as_list(prompts: Iterable[str], kind: str) -> list[str]:
    """The prompts of a batch. A single text is a mistake: each letter would be a prompt."""
    __tracebackhide__ = True
    if isinstance(prompts, str):
        raise TypeError(f"{kind}_batched takes a list of texts; for one text use {kind}.")
    listed = list(prompts)
    if len(listed) > MAX_BATCH:
        raise ValueError(f"{kind}_batched takes at most {MAX_BATCH:,} prompts at a time, not {len(listed):,}.")
    return listed


def parts(payload: dict[str, Any]) -> Iterable[dict[str, Any]]:
    """Split a batch into questions within the size limits, to be asked one after another."""
    rest: list[str] = []
    room = 0
    spare = MAX_QUESTION_BYTES - len(as_bytes({**payload, "prompts": []}))
    for prompt in payload["prompts"]:
        size = len(as_bytes(prompt)) + 2
        if rest and (size > room or len(rest) == MAX_PROMPTS):
            yield {**payload, "prompts": rest}
            rest = []
        room = (room if rest else spare) - size
        rest.append(prompt)
    if rest:
        yield {**payload, "prompts": rest}


def for_each(answers: list[dict[str, str]], payload: dict[str, Any]) -> list[dict[str, str]]:
    """One answer for each prompt: the host may send one for all."""
    __tracebackhide__ = True
    if "refused" in answers[0]:
        raise ValueError(answers[0]["refused"])
    return answers * len(payload["prompts"]) if len(answers) == 1 else answers


def value_of(answer: dict[str, str], schema: Any, allow_partial: bool = False) -> Any:
    """The value of an answer, or a `FailedQuery`. `allow_partial`: a text that was cut is a value, with a mark."""
    __tracebackhide__ = True
    if "refused" in answer:
        raise ValueError(answer["refused"])
    if "error" in answer:
        partial = answer.get("partial", "")
        is_cut = partial and CUT in answer["error"]
        return partial + CUT_MARK if is_cut and allow_partial else FailedQuery(f"Error: {answer['error']}", partial)
    value = answer["text"] if schema is None else json.loads(answer["text"])
    try:
        return value if schema is None or isinstance(schema, dict) else schema.model_validate(value)
    except Exception as error:
        return FailedQuery(f"Error: the answer {answer['text']} fits the schema, but its class refuses it: {error}")


def single(answers: list[dict[str, str]], kind: str, schema: Any = None, allow_partial: bool = False) -> Any:
    """The answer of a call, or its failure raised."""
    __tracebackhide__ = True
    value = value_of(answers[0], schema, allow_partial)
    if isinstance(value, FailedQuery):
        error = QueryError(f"{kind} has no answer: {value[len('Error: ') :]}")
        error.partial_answer = value.partial_answer
        raise error
    return value


def several(answers: list[dict[str, str]], kind: str, schema: Any = None, allow_partial: bool = False) -> list[Any]:
    """The answers of a batch. A failed one is a `FailedQuery`, and stderr says how many failed."""
    __tracebackhide__ = True
    values = [value_of(answer, schema, allow_partial) for answer in answers]
    failed = sum(isinstance(value, FailedQuery) for value in values)
    if failed:
        note = f"{failed} of {len(values)} prompts of {kind}_batched have no answer; theirs read 'Error: …'."
        print(note, file=sys.stderr)
    return values


def pictures(guest: Guest, images: Any) -> list[bytes]:
    """The image files for the argument `images=`."""
    __tracebackhide__ = True
    files: list[bytes] = []
    for image in [] if images is None else images if isinstance(images, (list, tuple)) else [images]:
        files += files_of(guest, image)
    if len(files) > MAX_IMAGES or sum(map(len, files)) > MAX_PICTURES_BYTES:
        raise ValueError(
            f"images= takes {MAX_IMAGES} pictures of {MAX_PICTURES_BYTES:,} bytes at most, not {[*map(len, files)]} "
            "bytes: make them smaller, with a lower dpi or image.thumbnail((2000, 2000))."
        )
    return files


def files_of(guest: Guest, image: Any) -> list[bytes]:
    """The picture as a file; for the execution count of a cell, all pictures that it displayed."""
    __tracebackhide__ = True
    if type(image) is int:
        if shown := [figure for cell, figure in guest.figures if cell == image]:
            return shown
        known = sorted({cell for cell, _ in guest.figures})
        raise ValueError(f"cell {image} has shown no figure, or too long ago; figures are kept of the cells {known}.")
    data = file_of(guest, image)
    begins = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a")
    if not data.startswith(begins) and (data[:4], data[8:12]) != (b"RIFF", b"WEBP"):
        raise TypeError(
            "images= takes matplotlib figures, PIL images, IPython.display.Image, the path of a PNG, JPEG, GIF or WebP "
            f"file or its bytes, and the execution counts of cells; this is none, or no such file: {repr(image)[:80]}."
        )
    return [data]


def file_of(guest: Guest, image: Any) -> bytes:
    """The bytes of a picture as a file; empty if it is not a picture."""
    if isinstance(image, (str, os.PathLike)) and os.path.isfile(image):  # noqa: PTH113 (Path raises for a long text)
        with open(image, "rb") as file:  # noqa: PTH123
            return file.read(MAX_IMAGE_BYTES + 1)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return bytes(image)
    for figure in list[Any]((image, getattr(image, "figure", None))):
        if hasattr(figure, "savefig"):
            figure.savefig(drawn := io.BytesIO(), format="png", bbox_inches="tight")
            return drawn.getvalue()
    shown = guest.shell.display_formatter.format(image, include=IMAGE_TYPES)[0]
    return decode_image(next((shown[kind] for kind in IMAGE_TYPES if kind in shown), b""))


def decode_image(data: Any) -> bytes:
    """The bytes of a picture in a display: raw, or in base64."""
    return base64.b64decode(data) if isinstance(data, str) else bytes(data)


def stand_in(guest: Guest, card: dict[str, Any]) -> Any:
    """A function that calls a tool on the host."""
    name = card["name"]

    def tool(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        try:
            payload = json.loads(json.dumps({"kind": "tool", "tool": name, "args": args, "kwargs": kwargs}))
        except (TypeError, ValueError) as error:
            raise TypeError(f"{name} takes values that JSON can hold (text, numbers, lists, dicts): {error}") from None
        (answer,) = guest.ask(payload)
        if "refused" in answer:
            raise ValueError(answer["refused"])
        if "error" in answer:
            raise tool_exception(name, answer["error"])
        return json.loads(answer["text"])

    tool.__name__ = tool.__qualname__ = name
    tool.__module__ = "rlm_guest"
    tool.__doc__ = card["doc"]
    if card["parameters"] is not None:
        tool.__signature__ = Signature([parameter(p) for p in card["parameters"]])  # type: ignore[attr-defined]
    return tool


def parameter(fields: dict[str, Any]) -> Parameter:
    """A parameter of a tool, whose default and annotation have the `repr` that they have on the host."""

    def shown(text: str | None) -> Any:
        return Parameter.empty if text is None else type("Text", (), {"__repr__": lambda _: text})()

    default, annotation = shown(fields["default"]), shown(fields["annotation"])
    return Parameter(fields["name"], PARAMETER_KINDS[fields["kind"]], default=default, annotation=annotation)


def tool_exception(name: str, error: str) -> BaseException:
    """The exception that a tool raised on the host: of the same class if that is built in."""
    try:
        kind, message = json.loads(error)
    except ValueError:
        return QueryError(f"{name} has no answer: {error}")
    known = getattr(builtins, kind, None)
    if not (isinstance(known, type) and issubclass(known, Exception)):
        return ToolError(f"{kind}: {message}")
    try:
        return known(message)
    except TypeError:  # a few, such as UnicodeDecodeError, need more arguments
        return ToolError(f"{kind}: {message}")


def answer_names(guest: Guest) -> dict[str, Any]:
    """The functions with which a cell gives the answer, and the one that lists variables."""

    def FINAL(value: object) -> None:
        """Give the answer of the whole task."""
        guest.give("FINAL(...)", value)

    def FINAL_VAR(name: object) -> None:
        """Give the value of the variable with this name as the answer of the whole task."""
        if not isinstance(name, str) or not name.isidentifier():
            guest.give("FINAL_VAR(...)", name)  # the value itself was given instead of the name
        elif not guest.take_variable(name):
            print(f"FINAL_VAR: there is no variable {name!r}. SHOW_VARS() lists what there is.", file=sys.stderr)

    def SHOW_VARS() -> dict[str, str] | str:
        """The variables made so far and their types."""
        return guest.variables() or "No variables yet. What you assign in a cell stays."

    return {f.__name__: f for f in (FINAL, FINAL_VAR, SHOW_VARS)}


def budget_name(guest: Guest) -> dict[str, Any]:
    """`budget`, which is an ordinary name: cells and tools may take it."""
    ask_host = stand_in(guest, {"name": "budget", "doc": "", "parameters": None})

    def budget() -> Budget:
        """What is left of the limits: seconds, tokens, cost, calls, errors, iterations, depth. None: no limit."""
        __tracebackhide__ = True
        return Budget(**ask_host())

    budget.__qualname__, budget.__module__ = "budget", "rlm_guest"
    return {"budget": budget}


def ignore_exit(*_: object) -> None:
    """exit() and quit() would end the kernel and all variables with it."""
    print("The session stays open. To finish, give the answer with FINAL(...).", file=sys.stderr)


def skip_empty_flushes(stream: Any) -> None:
    """Make flushing an empty stream free. ipykernel flushes six times per cell, and waits for another thread each time.

    A stream is empty when its text was handed over to be sent. If not, the next message of the cell would overtake it.
    """
    if not hasattr(stream, "_buffers"):
        return
    flush, send, sending = stream.flush, stream._flush, []

    def tracked_send() -> None:
        sending.append(True)
        try:
            send()
        finally:
            sending.pop()

    def quick_flush() -> None:
        if stream._buffers or sending:  # in this order: the text leaves the buffers while it is sent
            flush()

    stream._flush, stream.flush = tracked_send, quick_flush


def ignore_interrupts() -> None:
    """Ignore SIGINT after a cell: it would lose the report or the reply. ipykernel handles it in the next cell."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def end_whole(guest: Guest, execute: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap `do_execute`: whatever a cell has done, there is a reply. No interrupt may be handled until it is sent."""
    leave, broken, main, ident = os._exit, BROKEN, threading.main_thread().ident, threading.get_ident

    @functools.wraps(execute)
    async def do_execute(*args: Any, **kwargs: Any) -> Any:
        if ident() != main:  # a subshell, while a cell may run
            return await execute(*args, **kwargs)
        guest.execution_starts()
        failed = None
        try:
            reply = await execute(*args, **kwargs)
        except Exception as error:  # the cell has broken IPython
            failed = error
        finally:
            try:
                guest.execution_ended()
            except BaseException:
                leave(broken)
                raise
        return reply if failed is None else guest.reply_of(failed)

    return do_execute


def note_reply(guest: Guest) -> None:
    """Note when the reply of a cell was sent, or has failed."""
    loop, main, ident = asyncio.get_running_loop(), threading.main_thread().ident, threading.get_ident
    handle, leave, broken = guest.kernel.shell_handlers["execute_request"], os._exit, BROKEN

    @functools.wraps(handle)
    async def execute_request(*message: Any) -> None:
        if ident() != main:
            await handle(*message)
            return
        try:
            await handle(*message)
        except Exception:  # there will be no reply
            leave(broken)
            raise
        finally:
            guest.is_executing, guest.ended_at = False, None
            loop.call_later(LOOK_SECONDS, guest.end_if_broken)  # a thread that a cell has broken ends when it wakes

    guest.kernel.shell_handlers["execute_request"] = execute_request


def wake_after_interrupt(kernel: Any) -> None:
    """Wake the event loop after an interrupt: a cell with `await` sees it only then, and ipykernel does not wake it."""
    interrupt = kernel.control_handlers["interrupt_request"]

    async def interrupt_request(*message: Any) -> None:
        await interrupt(*message)
        kernel.io_loop.add_callback(int)

    kernel.control_handlers["interrupt_request"] = interrupt_request


def remember_displays(guest: Guest, owner: Any, name: str) -> None:
    """Wrap a method of IPython that displays data, so that the guest keeps the pictures."""
    show = getattr(owner, name)

    def show_and_remember(data: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        guest.remember(data)
        show(data, *args, **kwargs)

    setattr(owner, name, show_and_remember)


def refuse_input(*_: object, **__: object) -> None:
    """Replace `input`, which would wait forever."""
    raise EOFError("input() is not available: nobody is at the keyboard. Everything you need is in `context`.")


def read_final(shell: Any) -> None:
    """Report the variable that the request names as the final answer. The host runs this as a silent cell."""
    guest = shell.kernel.rlm_guest
    guest.cell_starts()
    request = guest.parent["metadata"]["rlm"]
    take = guest.take_plain if request.get("plain") else guest.take_variable
    take(request["name"])
    guest.cell_ended()


MAX_PUT_BACK = 10
SET_BY_IPYTHON = frozenset({"_", "display", "exit", "get_ipython", "input", "quit"})
"""Built-in names that it sets while a cell runs."""
TRACES: tuple[tuple[Any, Any], ...] = ((sys.gettrace, sys.settrace), (sys.getprofile, sys.setprofile))
NEEDED = """builtins json json.encoder json.decoder time threading queue signal hmac uuid datetime os io copy inspect re
    functools contextlib warnings traceback logging asyncio asyncio.base_events asyncio.events asyncio.locks
    jupyter_client.session jupyter_client.jsonutil ipykernel.iostream ipykernel.kernelbase""".split()
"""Modules that cells replace parts of, with what runs between the end of a cell and its reply."""
NEEDED_CLASSES = "json.encoder json.decoder threading jupyter_client.session ipykernel.iostream".split()
"""Those of them whose classes are needed, too."""
NEEDED_PARTS = {
    "shell": "events display_pub displayhook kernel input_transformer_manager history_manager compile display_formatter"
    " user_ns user_ns_hidden user_module builtin_trap display_trap",
    "kernel": "shell session iopub_socket iopub_thread io_loop control_stream shell_stream comm_manager rlm_guest",
    "events": "callbacks",
    "stdout": "pub_thread session",
    "stderr": "pub_thread session",
    **dict.fromkeys(("display_pub", "displayhook"), "session pub_socket"),
    **dict.fromkeys(("session", "iopub_thread", "loop"), ""),
}
"""Objects whose methods are needed, and attributes of them."""
OWN_MODULES = frozenset({"__main__", *getattr(sys, "stdlib_module_names", ("builtins", "functools", "unittest"))})
"""Where a replacement comes from that is put back. Those of other libraries, such as nest_asyncio, are made to work."""


class Needed:
    """What the kernel needs to reply, as it was before a cell. Compared by identity, in 0.1 ms.

    Attributes:
        has_report: whether the report is made by a hook.
    """

    def __init__(self, guest: Guest) -> None:
        shell, kernel = guest.shell, guest.kernel
        self.loop: Any = asyncio.get_running_loop()
        self.modules = {name: sys.modules[name] for name in NEEDED if sys.modules.get(name) is not None}
        self.loaded = {name: module for name, module in sys.modules.items() if module is not None}
        self.spaces = [Space(name, module) for name, module in self.modules.items()]
        for name in NEEDED_CLASSES:
            for kind in vars(self.modules.get(name, ModuleType(""))).values():
                if isinstance(kind, type) and kind.__module__ == name:
                    self.spaces.append(Space(kind.__name__, kind))
        found = {"shell": shell, "kernel": kernel, "loop": self.loop, "events": shell.events}
        found |= {"stdout": sys.stdout, "stderr": sys.stderr, "iopub_thread": kernel.iopub_thread}
        found |= {"session": kernel.session, "display_pub": shell.display_pub, "displayhook": shell.displayhook}
        self.parts = [Part(name, found[name], attributes.split()) for name, attributes in NEEDED_PARTS.items()]
        self.streams: dict[str, Any] = {"stdout": sys.stdout, "stderr": sys.stderr}
        self.handlers = [(handlers, dict(handlers)) for handlers in (kernel.shell_handlers, kernel.control_handlers)]
        self.lists: list[Any] = [(made, list(made)) for made in (sys.path, sys.meta_path, sys.path_hooks)]
        self.hooks = [
            (event, hook)
            for event, hook in (("pre_run_cell", guest.cell_starts), ("post_run_cell", guest.cell_ended))
            if hook in shell.events.callbacks[event]
        ]
        self.callbacks = shell.events.callbacks
        self.events = dict(self.callbacks)
        self.has_report = len(self.hooks) > 1
        self.limit = sys.getrecursionlimit()
        self.traces = [(get, install, get()) for get, install in TRACES]
        threads = (getattr(kernel, name, None) for name in ("control_thread", "shell_channel_thread"))
        self.threads: list[Any] = [made for made in threads if hasattr(made, "io_loop")] + [kernel.iopub_thread]

    def is_served(self) -> bool:
        """Whether the threads live that receive and send for the kernel."""
        return all(getattr(made, "thread", made).is_alive() for made in self.threads) and not self.loop.is_closed()

    def await_threads(self) -> None:
        """Wait until each thread has taken something: one that a cell has broken may be about to end."""
        for thread in self.threads:
            taken = threading.Event()
            thread.io_loop.add_callback(taken.set)
            if not taken.wait(THREAD_SECONDS):
                os._exit(BROKEN)

    def put_back(self) -> list[str]:
        """Put back what a cell has replaced or deleted. Returns the names."""
        names = self.put_back_settings()
        if None in map(sys.modules.get, self.modules):
            missing = {name: made for name, made in self.loaded.items() if sys.modules.get(name) is None}
            sys.modules.update(missing)
            names += [f"sys.modules[{name!r}]" for name in missing]
        for space in self.spaces:
            names += space.put_back()
        for part in self.parts:
            names += part.put_back()
        return names + self.put_back_contents()

    def put_back_settings(self) -> list[str]:
        """Put back settings of the interpreter, and its streams."""
        names = []
        for get, install, before in self.traces:
            if get() is not before and not is_of_library(get()):
                install(before)
                names += [f"sys.{install.__name__}"]
        if sys.getrecursionlimit() < self.limit:
            sys.setrecursionlimit(self.limit)
            names += ["sys.setrecursionlimit"]
        for name, stream in self.streams.items():
            if getattr(sys, name, None) is not stream:
                setattr(sys, name, stream)
                names += [f"sys.{name}"]
            lock = getattr(stream, "_buffer_lock", None)
            if lock is not None and not lock.acquire(timeout=LOCK_SECONDS):
                stream._buffer_lock = threading.RLock()
                names += [f"the lock of sys.{name}"]
            elif lock is not None:
                lock.release()
        if hasattr(signal, "setitimer") and signal.setitimer(signal.ITIMER_REAL, 0)[0]:
            names += ["signal.alarm"]
        return names

    def put_back_contents(self) -> list[str]:
        """Put back the contents of lists and tables."""
        names = []
        for made, kept in self.lists:
            if not made and kept:
                made[:] = kept
                names += ["a list of sys"]
        for handlers, kept in self.handlers:
            if handlers != kept:
                handlers.update(kept)
                names += ["a handler of the kernel"]
        for event, hooks in self.events.items():
            self.callbacks[event] = hooks
        for event, hook in self.hooks:
            if hook not in self.events[event]:
                self.events[event].append(hook)
                names += [f"the hook {event}"]
        return names


class Space:
    """The names of a module or a class. A change that the kernel can live with is from then on what it needs."""

    def __init__(self, name: str, owner: Any) -> None:
        self.name, self.owner = name, owner
        self.kept = dict(vars(owner))
        self.latest = dict(self.kept)

    def put_back(self) -> list[str]:
        """Put back what a cell has replaced or deleted. Returns the names."""
        if vars(self.owner) == self.latest:
            return []
        names, now = [], dict(vars(self.owner))
        for name, value in list(self.kept.items()):
            if name in now and now[name] is value:
                continue
            if self.owner is builtins and name in SET_BY_IPYTHON:
                del self.kept[name]
            elif name in now and is_other_version(now[name], value):
                self.kept[name] = now[name]
            else:
                setattr(self.owner, name, value)
                names.append(f"{self.name}.{name}")
        self.latest = dict(vars(self.owner))
        return names


class Part:
    """An object of the kernel: the methods that cover those of its class, and attributes."""

    def __init__(self, name: str, owner: Any, attributes: list[str]) -> None:
        self.name, self.owner = name, owner
        self.methods = frozenset(made for made in dir(type(owner)) if callable(getattr(type(owner), made, None)))
        self.covered = self.covering()
        self.kept = {made: getattr(owner, made) for made in attributes if getattr(owner, made, None) is not None}

    def covering(self) -> dict[str, Any]:
        """The attributes of the object that hide methods of its class."""
        held = vars(self.owner) if hasattr(self.owner, "__dict__") else {}
        return {name: held[name] for name in held.keys() & self.methods}

    def put_back(self) -> list[str]:
        """Put back what a cell has replaced. Returns the names."""
        names = []
        if (found := self.covering()) != self.covered:
            for name in found.keys() - self.covered.keys():
                if not is_of_library(found[name]):
                    del vars(self.owner)[name]
                    names += [f"{self.name}.{name}"]
            for name, value in self.covered.items():
                if found.get(name) is not value:
                    vars(self.owner)[name] = value
                    names += [f"{self.name}.{name}"]
        for name, value in self.kept.items():
            if getattr(self.owner, name, None) is not value:
                setattr(self.owner, name, value)
                names += [f"{self.name}.{name}"]
        return names


def is_other_version(new: Any, old: Any) -> bool:
    """Whether a value can take the place of another. A function must be of a library, or of the same package."""
    if not callable(old):
        return old is None or type(new) is type(old)
    root = root_of(new).lstrip("_")
    return is_of_library(new) or (callable(new) and root == root_of(old).lstrip("_") and root != "builtins")


def is_of_library(made: Any) -> bool:
    """Whether a function or a class is of a library that is not Python's own."""
    root = root_of(made)
    return callable(made) and root in sys.modules and root not in OWN_MODULES


def root_of(made: Any) -> str:
    """The package of a function or a class; that of a cell if there is none."""
    module = made.__globals__.get("__name__") if isinstance(made, FunctionType) else getattr(made, "__module__", None)
    return module.partition(".")[0] if isinstance(module, str) else "__main__"


class Begun:
    """What the kernel does of itself and of its setup. A question of a persistent kernel ends with all the rest."""

    def __init__(self, guest: Guest) -> None:
        shell, loop = guest.shell, asyncio.get_running_loop()
        self.loop = loop
        self.codes = codes_of("ipykernel")
        self.tasks = asyncio.all_tasks()
        self.timers = list(getattr(loop, "_scheduled", ()))
        self.readers = self.read()
        self.threads = set(sys._current_frames())
        self.children = set(self.below())
        self.handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
        hooks = [*shell.events.callbacks.values(), shell.ast_transformers, shell.input_transformers_post]
        self.hooks = [(hook, list(hook)) for hook in (*hooks, shell.input_transformers_cleanup, gc.callbacks)]

    def read(self) -> set[int]:
        """The descriptors that the loop watches."""
        selector = getattr(self.loop, "_selector", None)
        return set() if selector is None else set(selector.get_map())

    def below(self) -> list[Any]:
        """The processes below the kernel. Landlock hides them; then only the host ends them."""
        psutil = importlib.import_module("psutil")  # ipykernel needs it
        try:
            return list(psutil.Process().children(recursive=True))
        except (OSError, psutil.Error):
            return []

    def end_callbacks(self) -> None:
        """Remove hooks of IPython, signal handlers and timers, and callbacks of the loop."""
        sys.settrace(None)
        sys.setprofile(None)
        for hook, before in self.hooks:
            hook[:] = [made for made in hook if made in before or is_part(made, DISPLAYS)]
        for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
            signal.setitimer(timer, 0)
        for number, handler in self.handlers.items():
            if handler is not None and signal.getsignal(number) != handler:
                signal.signal(number, handler)
        for fd in self.read() - self.readers:
            self.loop.remove_reader(fd)
            self.loop.remove_writer(fd)
        for handle in [*getattr(self.loop, "_scheduled", ()), *getattr(self.loop, "_ready", ())]:
            if handle not in self.timers and not is_of_loop(handle):
                handle.cancel()

    def others(self) -> list[Any]:
        """The tasks of cells that go on."""
        made = asyncio.all_tasks() - self.tasks - {asyncio.current_task()}
        return [task for task in made if getattr(task.get_coro(), "cr_code", None) not in self.codes]

    def running(self) -> set[int]:
        """The identifiers of the threads that go on. Those of ipykernel serve clients; those of executors may wait."""
        ours = {thread.ident for thread in threading.enumerate() if is_part(type(thread), ("ipykernel",))}
        going_on = {ident for ident, frame in sys._current_frames().items() if frame.f_code is not WAITS_FOR_WORK}
        return going_on - self.threads - ours - {threading.get_ident()}

    def end(self) -> None:
        """Ask tasks, threads and processes to end."""
        for task in self.others():
            task.cancel()
        for thread in threading.enumerate():
            if isinstance(thread, threading.Timer):
                thread.cancel()
        if any(type(thread) is threading.Thread for thread in threading.enumerate()):
            cancel_work()
        if monitor := getattr(getattr(sys.modules.get("tqdm"), "tqdm", None), "monitor", None):
            attempt(monitor.exit)  # it waits ten seconds at a time, in which nothing else ends it
        for ident in self.running():
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(SystemExit))
        for process in set(self.below()) - self.children:
            attempt(process.kill)

    def left(self) -> list[str]:
        """What goes on."""
        counts = {"task": len(self.others()), "thread": len(self.running())}
        return [f"{count} {name}{'s' if count > 1 else ''}" for name, count in counts.items() if count]


def codes_of(package: str) -> set[Any]:
    """The code of the functions and methods of a package, and of those that they make."""
    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] == package]
    values = [value for module in modules for value in vars(module).values()]
    values += [made for value in values if isinstance(value, type) for made in vars(value).values()]
    found = [made.__code__ for made in values if isinstance(made, FunctionType)]
    for code in found:
        found += [inner for inner in code.co_consts if isinstance(inner, CodeType)]
    return set(found)


def is_part(made: Any, packages: Iterable[str]) -> bool:
    """Whether a class, function or bound method is found in one of these packages under its own name."""
    made = getattr(made, "__func__", made)
    found = sys.modules.get(made.__module__) if isinstance(getattr(made, "__module__", None), str) else None
    if found is None or found.__name__.partition(".")[0] not in packages:
        return False
    for name in str(getattr(made, "__qualname__", "")).split("."):
        found = getattr(found, name, None)
    return found is made


def is_of_loop(handle: Any) -> bool:
    """Whether a callback belongs to asyncio, and not to a cell."""
    callback = handle._callback
    while isinstance(callback, functools.partial):
        callback = callback.func
    module = getattr(callback, "__module__", None) or type(callback).__module__
    if module == "tornado.ioloop" and handle._args:
        return is_of_loop(type("Handle", (), {"_callback": handle._args[0], "_args": ()}))
    return str(module).split(".", maxsplit=1)[0] in {"asyncio", "_asyncio", "tornado", "zmq", "ipykernel", "functools"}


def cancel_work() -> None:
    """Cancel the work that executors have not begun. They stay, and so do their threads, which wait for more."""
    for executor in [made for made in gc.get_objects() if type(made) is ThreadPoolExecutor]:
        with contextlib.suppress(queue.Empty):
            while True:
                if (work := executor._work_queue.get_nowait()) is not None:
                    work.future.cancel()


async def end_question(shell: Any) -> None:
    """End what the cells of a question have started. The host runs this as a silent cell; the first time it starts.

    Raises:
        RuntimeError: something goes on; the text says how much.
    """
    guest = shell.kernel.rlm_guest
    if guest.begun is None:
        guest.begun = Begun(guest)
        return
    begun, until = guest.begun, time.monotonic() + END_SECONDS
    begun.end_callbacks()
    while begun.left() and time.monotonic() < until:
        begun.end()
        await asyncio.sleep(0.005)
    begun.end()
    begun.end_callbacks()
    if left := begun.left():
        raise RuntimeError(" and ".join(left))


def install(shell: Any, settings: dict[str, Any]) -> None:
    """Set up the REPL. Called once in each kernel, by the host's first request."""
    guest = Guest(shell, settings["comm_id"])
    kernel = shell.kernel
    shell.enable_tip = False  # the banner of each kernel_info_request would advance the module `random` for a tip
    if settings["seed"] is not None:
        random.seed(settings["seed"])
    kernel.rlm_guest = guest
    kernel.control_handlers["comm_msg"] = guest.on_control
    if hasattr(kernel.control_stream, "on_recv"):
        kernel.control_stream.on_recv(guest.on_frames, copy=False)
    # By default IOPub drops messages for a reader that is 1,000 messages behind.
    kernel.iopub_thread.schedule(lambda: setattr(kernel.iopub_thread.socket, "sndhwm", 0))
    for stream in (sys.stdout, sys.stderr):
        skip_empty_flushes(stream)
    remember_displays(guest, shell.display_pub, "publish")
    remember_displays(guest, shell.displayhook, "write_format_data")
    kernel.raw_input = kernel.getpass = refuse_input
    kernel.do_execute = end_whole(guest, kernel.do_execute)
    note_reply(guest)
    wake_after_interrupt(kernel)
    guest.ours = {
        **query_names(guest, "llm_query", "Ask a language model."),
        **query_names(guest, "rlm_query", "Ask a recursive language model, which has a REPL of its own."),
        **answer_names(guest),
        **dict.fromkeys(("exit", "quit"), ignore_exit),
        "answer": {"content": "", "ready": False},
        "history": [],
    }
    shell.user_ns.update(guest.ours)
    shell.user_ns_hidden.update(guest.ours)
    if "budget" not in shell.user_ns:
        shell.push(budget_name(guest), interactive=False)
    shell.events.register("pre_run_cell", guest.cell_starts)
    shell.events.register("post_run_cell", guest.cell_ended)
