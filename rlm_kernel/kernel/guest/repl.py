"""The state of the REPL: what the host has given, the cell that runs, and the questions in flight."""

from __future__ import annotations

import asyncio
import functools
import hmac
import itertools
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .decoding import MISSING, decode
from .health import BROKEN, Needed
from .questions import IMAGE_TYPES, decode_image
from .tools import stand_in
from .values import MAX_NAME_CHARACTERS, attempt, both, is_plain, shown, too_large, type_of
from .wire import PROCESS, WIRE, Call, as_bytes

if TYPE_CHECKING:
    from .leftovers import Begun

RESEND_SECONDS = 1.0
LOST_SECONDS = 5.0
"""For the reply of a cell that has ended."""
MAX_REPORT_BYTES = 41_000_000
MAX_VARIABLES = 200
MAX_VALUE_CHARACTERS = 1_000
MAX_VALUES_CHARACTERS = 20_000
MAX_FIGURES = 50
MAX_FIGURE_BYTES = 50_000_000
MAX_PUT_BACK = 10


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
                timer = loop.call_later(LOST_SECONDS if call.acknowledged else RESEND_SECONDS, arrived.set)
                try:
                    await arrived.wait()
                finally:
                    timer.cancel()
                self.end_if_broken()
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
            hooks = {"pre_run_cell": self.cell_starts, "post_run_cell": self.cell_ended}
            self.is_given, self.needed = False, Needed(self.shell, hooks)

    def execution_ended(self, *, has_failed: bool = False) -> None:
        """Put back what the kernel needs, and make the report if no hook did: it was removed, or IPython has failed."""
        if os.getpid() != PROCESS:
            os._exit(0)  # a fork has run the rest of the cell; it shares the sockets of the kernel
        self.ended_at = time.monotonic()
        ignore_interrupts()
        if (
            self.needed is not None and self.needed.has_report
        ):  # not in a notebook of a user's, whose cells are not ours
            self.put_back(self.needed)
            if self.cell is not None or (has_failed and self.cell_starts()):  # IPython may not have started it
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
        """The beginning of the `repr` of `context` and of the variables of built-in types, of the latest if many."""
        values, room = {}, MAX_VALUES_CHARACTERS
        context = [("context", self.ours["context"])] if "context" in self.ours else []
        for name, value in (*context, *reversed(self.made())):
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


def ignore_interrupts() -> None:
    """Ignore SIGINT after a cell: it would lose the report or the reply. ipykernel handles it in the next cell."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
