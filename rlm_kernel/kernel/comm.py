"""The host's end of the protocol: receive the questions of the guest, have them answered, send each answer once.

A kernel may ask any number of questions of any size. A limited number is parsed and answered at a time. The next ones
wait as bytes. Beyond that a question is refused, and the cell gets the reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol
from weakref import WeakSet

from rlm_kernel._async import is_stop
from rlm_kernel.kernel.incoming import fits
from rlm_kernel.kernel.protocol import (
    MAX_ANSWER_BYTES,
    MAX_BATCH,
    MAX_ID_CHARACTERS,
    MAX_NAME_CHARACTERS,
    MAX_NAMES,
    MAX_PICTURES_BYTES,
    MAX_PROMPTS,
    MAX_QUESTION_BYTES,
    MAX_REPORT_BYTES,
    MAX_VALUE_CHARACTERS,
    WIRE,
    ToGuest,
    pack,
    unpack,
)
from rlm_kernel.types import MAX_IMAGES, Answer, CellReport, Image, Query, ToolCall

ACKNOWLEDGE_AFTER = 0.05
"""Seconds. A question that is answered sooner needs no acknowledgement."""

INTERRUPT_SECONDS = 0.2
"""Seconds in which the kernel's main thread handles the signal, once the kernel has replied that it was sent."""

MAX_UNDER_WAY = 1_000
"""Questions that are answered at a time."""
MAX_UNDER_WAY_BYTES = 80_000_000
"""Estimated memory of their texts, for all kernels together; a larger question is answered alone."""
ALWAYS_ADMITTED_BYTES = 1_000_000
"""A kernel without a question in flight may always ask one of this size; otherwise its cell could wait forever."""
MAX_WAITING = 5_000
MAX_WAITING_BYTES = 60_000_000
"""For all kernels together."""
MAX_PARSED_BYTES = 120_000_000
"""Memory of a parsed question or report."""
LIBRARIES = frozenset({"pandas", "polars", "pyarrow", "numpy"})
"""Whose tables and arrays are taken apart for the kernel."""
MAX_REMEMBERED = 50_000
"""Ids of questions. A question is repeated only until its answer arrives, so the latest ids are enough."""
MAX_ANSWERS_CHARACTERS = 40_000_000
"""Of all answers of a question."""

SendToGuest = Callable[[ToGuest, str, "bytes | None"], None]


class Responder(Protocol):
    """Answers the questions of a kernel, and of its recorded cells: the engine, a replay, a notebook."""

    async def answer(self, query: Query | ToolCall) -> Sequence[Answer]:
        """The answers to the query's prompts, in order, or to the tool call. A failure is an `Answer` too.

        An exception becomes a failure. The task is cancelled when the kernel no longer waits for the answer.
        """
        ...


class InFlight:
    """The estimated memory of the questions of all kernels of this process.

    Attributes:
        waiting: bytes of those that are not parsed yet.
        under_way: bytes of those that are being answered.
        bridges: the comms, which may have questions that wait for room.
    """

    def __init__(self) -> None:
        self.waiting = 0
        self.under_way = 0
        self.bridges: WeakSet[HostComm] = WeakSet()

    def release(self, size: int) -> None:
        """A question is answered, so there is room for others."""
        self.under_way -= size
        for comm in list(self.bridges):
            comm.look_again()


class TooMuchError(ValueError):
    """The kernel sent more than the limits allow."""


class HostComm:
    """The host's end of the protocol for one kernel process.

    The kernel may send anything. A message that is not of this version is dropped, and a repeated question is not
    answered again.
    """

    def __init__(self, send: SendToGuest, responder: Responder) -> None:
        self._send = send
        self._responder = responder
        self._loop = asyncio.get_running_loop()
        self._open = False
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._waiting: dict[str, Sequence[Any]] = {}
        self._asked = 0  # prompts and calls of tools, by this cell
        self._held: list[str] | None = None
        self._interrupt_timer: asyncio.TimerHandle | None = None
        self._seen: dict[str, None] = {}
        _in_flight.bridges.add(self)
        self.report: CellReport | None = None
        self.stored: dict[str, asyncio.Future[str | None]] = {}
        self.missing: set[str] = set()

    # -- the life of a cell

    def cell_starts(self) -> None:
        """Questions that arrive from now on belong to this cell."""
        self.answer_interrupted()
        self._open, self.report, self._asked = True, None, 0

    def cell_ended(self) -> None:
        """Refuse questions from now on. Those in flight continue; those of an interrupted cell end."""
        self._open = False
        self.answer_interrupted()

    def interrupt(self) -> None:
        """Stop all questions until the cell ends. They are answered after the interrupt was delivered.

        A call that is answered before would return, and the interrupt would hit the code after the cell. The reply of
        the kernel would be lost.
        """
        self._open = False
        self._held = list(dict.fromkeys([*(self._held or ()), *self._under_way, *self._waiting]))
        self._forget_waiting()
        for call in list(self._under_way):
            self._cancel(call)

    def interrupted(self) -> None:
        """The kernel has sent itself the interrupt."""
        self._interrupt_timer = self._loop.call_later(INTERRUPT_SECONDS, self.answer_interrupted)

    def answer_interrupted(self) -> None:
        """Answer the questions of all threads: the interrupt reaches the main thread only."""
        held, self._held = self._held, None
        if self._interrupt_timer is not None:
            self._interrupt_timer.cancel()
        for call in held or ():
            self._send_answers(call, [Answer(error="cancelled: the cell was interrupted")])

    async def quiet(self) -> None:
        """Stop all questions, and answer them as cancelled."""
        stopped = await self._stop()
        for call in stopped:
            self._send_answers(call, [Answer(error="cancelled: the run is over")])

    async def close(self) -> None:
        """The kernel has ended: stop all questions without an answer."""
        _in_flight.bridges.discard(self)
        await self._stop()
        for waiting in self.stored.values():
            waiting.cancel()

    async def _stop(self) -> list[str]:
        """Cancel all questions. Returns the ids of those without an answer."""
        under_way, waiting = dict(self._under_way), list(self._waiting)
        self._forget_waiting()
        for task in under_way.values():
            task.cancel()
        if under_way:
            await asyncio.wait(under_way.values())
        return [*(call for call, task in under_way.items() if task.cancelled()), *waiting]

    # -- messages of the guest. Handlers raise what `_call_of` raises, or another of `channels.FORGED`.

    def take_question(self, message: dict[str, Any]) -> None:
        """Take an `ask`: answer it, queue it, or refuse it."""
        call, buffers = _call_of(message), message["buffers"]
        if call in self._seen:
            self._send("ack", call, None)
            return
        self._remember(call)
        size = sum(map(len, buffers))
        if (why := _too_large(buffers, message["unread"])) or (why := self._too_many(size)):
            self._send_answers(call, [Answer(error=why, refused=True)])
        elif self._held is not None:
            self._held.append(call)
        elif not self._open:
            self._send_answers(call, [Answer(error="refused: no cell is running, or it was interrupted")])
        else:
            self._waiting[call] = buffers
            _in_flight.waiting += size
            self._start_waiting()
            if call in self._waiting:
                self._send("ack", call, None)

    def take_cancel(self, message: dict[str, Any]) -> None:
        """Take a `cancel`: the kernel no longer waits for the answer."""
        self._cancel(_call_of(message))

    def take_report(self, message: dict[str, Any]) -> None:
        """Take the `report` of the running cell."""
        _call_of(message)
        self.report = _report(message["buffers"], message["unread"])

    def take_stored(self, message: dict[str, Any]) -> None:
        """Take a `stored`: the result of a `put`."""
        waiting, data = self.stored.pop(_call_of(message), None), message["content"]["data"]
        error, missing = data.get("error"), data.get("missing")
        self.missing |= LIBRARIES.intersection(missing) if isinstance(missing, list) else set()
        if waiting is not None and not waiting.done():
            waiting.set_result(None if error is None else str(error))

    def _remember(self, call: str) -> None:
        self._seen[call] = None
        if len(self._seen) > MAX_REMEMBERED:
            del self._seen[next(iter(self._seen))]

    def _too_many(self, size: int) -> str:
        """Why one more question cannot wait; empty if it can."""
        waiting = len(self._held or ()) + len(self._waiting)
        if waiting >= MAX_WAITING or _in_flight.waiting + size > MAX_WAITING_BYTES:
            return (
                f"{waiting:,} questions wait for their turn, and with this one {_in_flight.waiting + size:,} bytes; at "
                f"most {MAX_WAITING:,} with {MAX_WAITING_BYTES:,} bytes may. Ask fewer at a time, or a batch."
            )
        return ""

    def look_again(self) -> None:
        """Start waiting questions if there is room. Can be called in any thread."""
        if self._waiting:
            self._loop.call_soon_threadsafe(self._start_waiting)

    def _start_waiting(self) -> None:
        """Parse and answer the questions that have waited longest, while there is room."""
        while self._waiting and len(self._under_way) < MAX_UNDER_WAY:
            call, buffers = next(iter(self._waiting.items()))
            room = _room(buffers)
            is_full = _in_flight.under_way > 0 and _in_flight.under_way + room > MAX_UNDER_WAY_BYTES
            if is_full and (self._under_way or room > ALWAYS_ADMITTED_BYTES):
                return
            self._take_out(call)
            task = self._under_way[call] = self._loop.create_task(self._answer(call, buffers))
            _in_flight.under_way += room
            task.add_done_callback(partial(self._end, call, room))

    def _end(self, call: str, room: int, _: asyncio.Task[None]) -> None:
        self._under_way.pop(call, None)
        _in_flight.release(room)
        self._start_waiting()

    def _take_out(self, call: str) -> None:
        """Remove a question from the waiting ones."""
        _in_flight.waiting -= sum(map(len, self._waiting.pop(call, ())))

    def _read(self, call: str, buffers: Sequence[Any]) -> Query | ToolCall:
        """A question from its buffers.

        Raises:
            TooMuchError: it is too large, or the cell has asked too often.
            Exception: it is not a question.
        """
        query = question_of(call, _unpacked(buffers[0], "this question"), buffers[1:])
        prompts = _prompts_of(query)
        if prompts > MAX_PROMPTS:
            raise TooMuchError(f"this question has {prompts:,} prompts; a question may have at most {MAX_PROMPTS:,}.")
        if self._asked + prompts > MAX_BATCH:
            raise TooMuchError(
                f"this cell has asked {self._asked:,} times; a cell may ask at most {MAX_BATCH:,} times."
            )
        self._asked += prompts
        return query

    def _forget_waiting(self) -> None:
        for call in list(self._waiting):
            self._take_out(call)

    async def _answer(self, call: str, buffers: Sequence[Any]) -> None:
        """Parse a question, have it answered, send the answers. A failure is an answer too: a thread waits for it."""
        try:
            query = self._read(call, buffers)
        except TooMuchError as error:
            return self._send_answers(call, [Answer(error=str(error), refused=True)])
        except Exception as error:  # noqa: BLE001 (the error is the answer)
            return self._send_answers(call, [Answer(error=f"refused: the host cannot read this: {error}")])
        del buffers  # they may be large, and the answer may take long
        acknowledge = self._loop.call_later(ACKNOWLEDGE_AFTER, self._send, "ack", call, None)
        try:
            answers = await self._responder.answer(query)
        except BaseException as error:  # the error is the answer, unless nobody waits for it
            if is_stop(error):
                raise
            answers = [Answer(error=f"{type(error).__name__}: {error}")] * _prompts_of(query)
        finally:
            acknowledge.cancel()
        return self._send_answers(call, answers)

    def _send_answers(self, call: str, answers: Sequence[Answer]) -> None:
        entries = [answer_entry(answer) for answer in _bounded(answers)]
        self._send("answer", call, pack({"answers": entries}))

    def _cancel(self, call: str) -> None:
        self._take_out(call)
        task = self._under_way.get(call)
        if task is not None:
            task.cancel()


_in_flight = InFlight()


def _call_of(message: dict[str, Any]) -> str:
    """The id of the call that a message is about.

    Raises:
        TooMuchError: the id is too long; the error is for the model.
        ValueError, TypeError, KeyError: the message is not one of `protocol.py`.
    """
    data = message["content"]["data"]
    if data["wire"] != WIRE:
        raise ValueError(f"wire version {data['wire']!r}, not {WIRE}")
    call = data["id"]
    if not isinstance(call, str) or len(call) > MAX_ID_CHARACTERS:
        raise TooMuchError(f"An id of a call has {len(str(call)):,} characters; at most {MAX_ID_CHARACTERS}.")
    return call


def _prompts_of(question: Query | ToolCall) -> int:
    return len(question.prompts) if isinstance(question, Query) else 1


def answer_entry(answer: Answer) -> dict[str, str]:
    """An answer in the form that the guest reads."""
    if answer.error is None:
        return {"text": answer.text}
    partial = {"partial": answer.text} if answer.text else {}
    return {"refused" if answer.refused else "error": answer.error, **partial}


def _bounded(answers: Sequence[Answer]) -> list[Answer]:
    """The answers; those that are too large to send are replaced by an error."""
    bounded, room = [], MAX_ANSWERS_CHARACTERS
    for answer in answers:
        size = len(answer.text) + len(answer.error or "")
        room -= size
        if size > MAX_ANSWER_BYTES or room < 0:
            why = f"the answer has {size:,} characters, with those before it more than can be sent to a cell"
            bounded.append(Answer(error=why))
        else:
            bounded.append(answer)
    return bounded


def _too_large(buffers: Sequence[Any], unread: int) -> str:
    """Why a question is too large; empty if it is not."""
    payload, pictures = len(buffers[0]) if buffers else 0, sum(map(len, buffers[1:]))
    if payload > MAX_QUESTION_BYTES or (unread and not buffers):
        return f"this question has {payload + unread:,} bytes; a question may have at most {MAX_QUESTION_BYTES:,}."
    if pictures + unread > MAX_PICTURES_BYTES:
        return f"these pictures have {pictures + unread:,} bytes; a question may have at most {MAX_PICTURES_BYTES:,}."
    return ""


def _room(buffers: Sequence[Any]) -> int:
    """The memory of a parsed question. One non-Latin character makes its text four times as large."""
    payload = buffers[0] if buffers else b""
    size = len(payload) if payload.isascii() and b"\\u" not in payload else 4 * len(payload)
    return size + sum(map(len, buffers[1:]))


def _unpacked(buffer: Any, what: str) -> Any:
    if not fits(buffer, MAX_PARSED_BYTES):
        raise TooMuchError(
            f"{what} has too many values or texts for one of {len(buffer):,} bytes: send less at a time."
        )
    return unpack(buffer)


def question_of(call: str, payload: Any, images: Sequence[Any]) -> Query | ToolCall:
    """A question in a payload of the guest.

    Raises:
        ValueError, TypeError, KeyError: it is not a question.
    """
    if payload["kind"] != "tool":
        return _query_of(call, payload, images)
    args, kwargs = payload["args"], payload["kwargs"]
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise TypeError("args is a list, kwargs a dict")
    return ToolCall(call, str(payload["tool"]), tuple(args), kwargs)


def _query_of(call: str, payload: Any, images: Sequence[Any]) -> Query:
    prompts, model, kind, schema = payload["prompts"], payload["model"], payload["kind"], payload["schema"]
    if kind not in ("llm_query", "rlm_query") or not isinstance(prompts, list) or not prompts:
        raise ValueError("not a question")
    if not all(isinstance(prompt, str) for prompt in prompts) or not isinstance(model, str | None):
        raise TypeError("prompts are texts, a model is a name")
    if not isinstance(schema, dict | None) or len(images) > MAX_IMAGES:
        raise TypeError("a schema is a dict, and pictures are few")
    pictures = tuple(Image.of(bytes(image)) for image in images)
    return Query(call, kind, tuple(prompts), model, bool(payload["batch"]), schema, pictures)


def _report(buffers: Sequence[Any], unread: int) -> CellReport:
    size = unread + sum(map(len, buffers))
    if unread or size > MAX_REPORT_BYTES:
        raise TooMuchError(f"The report of the cell has {size:,} bytes; at most {MAX_REPORT_BYTES:,}. It was not read.")
    payload = _unpacked(buffers[0], "The report of the cell")

    def text(key: str) -> str | None:
        value = payload[key]
        if value is not None and len(str(value)) > MAX_ANSWER_BYTES:
            raise TooMuchError(f"{key!r} has {len(str(value)):,} characters; at most {MAX_ANSWER_BYTES:,}.")
        return None if value is None else str(value)

    variables = {_name(name): _name(kind) for name, kind in _few(payload["variables"]).items()}
    restored = {_name(name): None if kept is None else _name(kept) for name, kept in _few(payload["restored"]).items()}
    shown = payload["values"]
    values = {name: str(shown[name])[:MAX_VALUE_CHARACTERS] for name in ("context", *variables) if name in shown}
    answers = text("final"), text("answer"), text("draft")
    return CellReport(*answers, variables, restored, text("final_json"), text("answer_json"), values)


def _few(names: Any) -> Any:
    if len(names) > MAX_NAMES:
        raise TooMuchError(f"The report of the cell names {len(names):,} variables; at most {MAX_NAMES:,}.")
    return names


def _name(name: object) -> str:
    if len(str(name)) > MAX_NAME_CHARACTERS:
        raise TooMuchError(f"A name in the report of the cell has {len(str(name)):,} characters.")
    return str(name)
