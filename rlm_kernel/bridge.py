"""Answer the guest: take its questions off the wire, have them answered, send the answers back, each exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from rlm_kernel.questions import MOST_IMAGES
from rlm_kernel.records import Answer, CellReport, Image, Query, ToolCall
from rlm_kernel.wire import WIRE, ToGuest, pack, unpack

ACKNOWLEDGE_AFTER = 0.05
"""Seconds. A question answered sooner needs no acknowledgement: the answer is one."""

INTERRUPT_STRIKES = 0.2
"""Seconds in which the kernel's main thread takes the signal, once the kernel says that it was sent."""

SendToGuest = Callable[[ToGuest, str, "bytes | None"], None]


class Responder(Protocol):
    """Who answers: the engine, or whoever else hosts a kernel."""

    async def answer(self, query: Query | ToolCall) -> Sequence[Answer]:
        """The outcomes of the query's prompts, in order, or of the tool. Failures are data; what is raised becomes one.

        The task is cancelled when nobody in the kernel waits any more.
        """
        ...


class Bridge:
    """The host's end of the wire for one life of a kernel.

    The kernel may send anything: what is not a question of this version is dropped, and a question that was seen before
    is not asked again.
    """

    def __init__(self, send: SendToGuest, responder: Responder) -> None:
        self._send = send
        self._responder = responder
        self._loop = asyncio.get_running_loop()
        self._open = False
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._held: list[str] | None = None
        self._strike: asyncio.TimerHandle | None = None
        self._seen: set[str] = set()
        self.report: CellReport | None = None
        self.stored: dict[str, asyncio.Future[str | None]] = {}

    # -- the life of a cell

    def cell_starts(self) -> None:
        """Questions that arrive from now on belong to this cell."""
        self.answer_interrupted()
        self._open, self.report = True, None

    def cell_ended(self) -> None:
        """Questions that arrive from now on are refused; those under way go on, those of an interrupted cell end."""
        self._open = False
        self.answer_interrupted()

    def interrupt(self) -> None:
        """Stop every question, now and until the cell ends; they are answered when the interrupt has struck.

        Whoever was answered before goes on: the interrupt would strike what comes after the cell, and the kernel's
        reply would be lost.
        """
        self._open = False
        self._held = list(dict.fromkeys([*(self._held or ()), *self._under_way]))
        for call in self._under_way:
            self._cancel(call)

    def interrupted(self) -> None:
        """The kernel has sent itself the interrupt."""
        self._strike = self._loop.call_later(INTERRUPT_STRIKES, self.answer_interrupted)

    def answer_interrupted(self) -> None:
        """The interrupt has struck, and only one thread: all that wait are answered."""
        held, self._held = self._held, None
        if self._strike is not None:
            self._strike.cancel()
        for call in held or ():
            self._send_answers(call, [Answer(error="cancelled: the cell was interrupted")])

    async def quiet(self) -> None:
        """Stop every question, and tell those who wait."""
        stopped = await self._stop()
        for call in stopped:
            self._send_answers(call, [Answer(error="cancelled: the run is over")])

    async def close(self) -> None:
        """The kernel is gone: nobody waits for anything."""
        await self._stop()
        for waiting in self.stored.values():
            waiting.cancel()

    async def _stop(self) -> list[str]:
        """Cancel what is under way. Returns what had no answer yet."""
        under_way = dict(self._under_way)
        for task in under_way.values():
            task.cancel()
        if under_way:
            await asyncio.wait(under_way.values())
        return [call for call, task in under_way.items() if task.cancelled()]

    # -- messages of the guest

    def take(self, data: Any, buffers: Sequence[Any]) -> None:
        """A `comm_msg` of the guest.

        Raises:
            ValueError, TypeError, KeyError: it is not one of the messages of `wire.py`.
        """
        if data["wire"] != WIRE:
            raise ValueError(f"wire version {data['wire']!r}, not {WIRE}")
        match data["op"]:
            case "ask":
                self._take_question(str(data["id"]), buffers)
            case "cancel":
                self._cancel(str(data["id"]))
            case "report":
                self.report = _report(unpack(buffers[0]))
            case "stored":
                waiting = self.stored.pop(data["id"], None)
                if waiting is not None and not waiting.done():
                    error = data.get("error")
                    waiting.set_result(None if error is None else str(error))

    def _take_question(self, call: str, buffers: Sequence[Any]) -> None:
        if call in self._seen:
            self._send("ack", call, None)
            return
        self._seen.add(call)
        if self._held is not None:
            self._held.append(call)
            return
        if not self._open:
            self._send_answers(call, [Answer(error="refused: no cell is running, or it was interrupted")])
            return
        try:
            query = _question(call, unpack(buffers[0]), buffers[1:])
        except Exception as error:  # noqa: BLE001 (whatever it is, a thread in the kernel may wait for an answer)
            self._send_answers(call, [Answer(error=f"refused: the host cannot read this: {error}")])
            return
        task = self._loop.create_task(self._answer(query))
        self._under_way[call] = task
        acknowledge = self._loop.call_later(ACKNOWLEDGE_AFTER, self._send, "ack", call, None)

        def over(_: asyncio.Task[None]) -> None:
            acknowledge.cancel()
            self._under_way.pop(call, None)

        task.add_done_callback(over)

    async def _answer(self, query: Query | ToolCall) -> None:
        try:
            answers = await self._responder.answer(query)
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001 (a thread in the kernel waits)
            count = len(query.prompts) if isinstance(query, Query) else 1
            answers = [Answer(error=f"{type(error).__name__}: {error}")] * count
        self._send_answers(query.id, answers)

    def _send_answers(self, call: str, answers: Sequence[Answer]) -> None:
        entries = [entry(answer) for answer in answers]
        self._send("answer", call, pack({"answers": entries}))

    def _cancel(self, call: str) -> None:
        task = self._under_way.get(call)
        if task is not None:
            task.cancel()


def entry(answer: Answer) -> dict[str, str]:
    """An answer as the guest reads it."""
    if answer.error is None:
        return {"text": answer.text}
    return {"refused" if answer.refused else "error": answer.error}


def _question(call: str, payload: Any, images: Sequence[Any]) -> Query | ToolCall:
    if payload["kind"] != "tool":
        return query_of(call, payload, images)
    args, kwargs = payload["args"], payload["kwargs"]
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise TypeError("args is a list, kwargs a dict")
    return ToolCall(call, str(payload["tool"]), tuple(args), kwargs)


def query_of(call: str, payload: Any, images: Sequence[Any]) -> Query:
    """The question in what the guest sent.

    Raises:
        ValueError, TypeError, KeyError: it is none.
    """
    prompts, model, kind, schema = payload["prompts"], payload["model"], payload["kind"], payload["schema"]
    if kind not in ("llm_query", "rlm_query") or not isinstance(prompts, list) or not prompts:
        raise ValueError("not a question")
    if not all(isinstance(prompt, str) for prompt in prompts) or not isinstance(model, str | None):
        raise TypeError("prompts are texts, a model is a name")
    if not isinstance(schema, dict | None) or len(images) > MOST_IMAGES:
        raise TypeError("a schema is a dict, and pictures are few")
    pictures = tuple(Image.of(bytes(image)) for image in images)
    return Query(call, kind, tuple(prompts), model, bool(payload["batch"]), schema, pictures)


def _report(payload: Any) -> CellReport:
    def text(key: str) -> str | None:
        value = payload[key]
        return None if value is None else str(value)

    variables = {str(name): str(kind) for name, kind in payload["variables"].items()}
    restored = {str(name): None if kept is None else str(kept) for name, kept in payload["restored"].items()}
    values = text("final"), text("answer"), text("draft")
    return CellReport(*values, variables, restored, text("final_json"), text("answer_json"))
