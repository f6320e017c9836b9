"""Collect the outputs of a cell in the form of nbformat, within a bound on memory."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, TypeVar

from rlm_kernel.kernel.incoming import UNREAD
from rlm_kernel.text import plain
from rlm_kernel.types import CellError, Output

HEAD_CHARACTERS = 8_000_000
TAIL_CHARACTERS = 2_000_000
MIN_HEAD_CHARACTERS = 100_000
MAX_CHARACTERS = 16_000_000
"""Kept of the outputs of all cells of a run and its children. Log, notebook and trajectory hold them until its end."""
ITEM_COST = 200
"""Counted for an output in addition to its characters, so that a million empty ones are bounded too."""
SHORT_DISPLAY_CHARACTERS = 100_000
"""Kept of the plain text of a display that is too large, such as the value of `context`."""
MAX_DISPLAY_ID = 1_000
"""Characters. A display with a longer name cannot be updated."""
MAX_NESTING = 100
"""Lists and dicts inside one another, in what a display holds."""
_ENCODER = json.JSONEncoder(ensure_ascii=False)
_JOIN_PIECES = 1_000

T = TypeVar("T")

_SHOWN = ("stream", "display_data", "execute_result", "error")
OUTPUT_TYPES = (*_SHOWN, "update_display_data", "clear_output")
"""The types of messages that an `OutputCollector` takes."""


class Pieces:
    """A text that comes in pieces. They are joined now and then, as small strings take fifty times their characters."""

    def __init__(self) -> None:
        self._joined: list[str] = []
        self._fresh: list[str] = []

    def add(self, text: str) -> None:
        """Append a piece."""
        self._fresh.append(text)
        if len(self._fresh) >= _JOIN_PIECES:
            self._joined.append("".join(self._fresh))
            self._fresh.clear()

    def take(self) -> str:
        """Return the text so far, and clear it."""
        text = "".join([*self._joined, *self._fresh])
        self._joined.clear()
        self._fresh.clear()
        return text


class Tail:
    """The end of a stream whose beginning is full. Up to twice `limit` characters are held."""

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        self._pieces = Pieces()
        self._held = self._length = 0

    def add(self, text: str) -> None:
        """Append a piece, and drop what is before the last `limit` characters, now and then."""
        self._length += len(text)
        self._hold(text[-self._limit :])
        if self._held >= 2 * self._limit:
            self._text()

    @property
    def kept(self) -> int:
        """Characters of the end that are output."""
        return min(self._length, self._limit)

    @property
    def dropped(self) -> int:
        """Characters between the beginning and the end."""
        return self._length - self.kept

    def output(self) -> Output:
        """The tail as one output, which says how much is missing before it."""
        gap = f"\n… {self.dropped:,} characters were left out here …\n" if self.dropped else ""
        return {"output_type": "stream", "name": self._name, "text": gap + self._text()}

    def _text(self) -> str:
        text = self._pieces.take()[-self._limit :]
        self._held = 0
        self._hold(text)
        return text

    def _hold(self, text: str) -> None:
        self._held += len(text)
        self._pieces.add(text)


@dataclass(slots=True)
class Display:
    """All outputs with one display id, which `update_display_data` changes. An update is stored once, not per output.

    Attributes:
        size: the room that they take together.
        outputs: their number.
        update: `data` and `metadata` of the last update; empty before the first.
        updated: their number at the last update; later ones are newer than it.
    """

    size: int = 0
    outputs: int = 0
    update: dict[str, Any] = field(default_factory=dict)
    updated: int = 0


class OutputCollector:
    """The outputs of one cell, fed with the kernel's IOPub messages.

    Consecutive pieces of a stream are one output, `update_display_data` changes the display it names, `clear_output`
    clears. Beyond `head` characters only the end of the streams is kept, and errors.
    """

    def __init__(self, head: int = HEAD_CHARACTERS, tail: int = TAIL_CHARACTERS) -> None:
        self.error: CellError | None = None
        self._head = self._room = head
        self._max_tail = tail
        self._items: list[Output] = []
        self._pieces = Pieces()  # of the last item, while it is a stream; joined when it is needed
        self._tails: dict[str, Tail] = {}
        self._last: list[Output] = []
        self._displays: dict[str, Display] = {}
        # Of an item: its display, and its number among the outputs of it.
        self._places: dict[int, tuple[Display, int]] = {}
        self._left_out = 0
        self._clear_next = False

    def add(self, message_type: str, content: dict[str, Any]) -> Output | None:
        """Take a message. Returns its output, or None if it has none.

        Raises:
            KeyError, TypeError, ValueError: the message is invalid, so a cell forged it. Nothing of it is kept.
        """
        if message_type == "clear_output":
            self._clear(wait=bool(content.get("wait")))
        elif message_type == "update_display_data":
            self._update(content)
        elif message_type in _SHOWN:
            if self._clear_next:
                self._clear(wait=False)
            output = _output(message_type, content)
            self._left_out += int(content.get(UNREAD, 0))
            self._take(output, content)
            return output
        return None

    @property
    def kept(self) -> int:
        """About how many characters are kept."""
        return self._head - max(0, self._room) + sum(tail.kept for tail in self._tails.values())

    @property
    def dropped(self) -> int:
        """Characters that were left out."""
        return sum(tail.dropped for tail in self._tails.values()) + self._left_out

    def outputs(self) -> tuple[Output, ...]:
        """Everything so far."""
        self._join()
        items = (self._updated(number, item) for number, item in enumerate(self._items))
        return (*items, *(tail.output() for tail in self._tails.values()), *self._last)

    def _take(self, output: Output, content: dict[str, Any]) -> None:
        if output["output_type"] == "stream":
            self._take_stream(output)
        elif output["output_type"] == "error":
            self.error = CellError(output["ename"], output["evalue"], plain("\n".join(output["traceback"])))
            self._last = [output]
        else:
            self._take_display(output, content)

    def _take_stream(self, output: Output) -> None:
        name, text = output["name"], output["text"]
        if self._room <= 0:
            self._tails.setdefault(name, Tail(name, self._max_tail)).add(text)
            return
        last = self._items[-1] if self._items else None
        if last is None or last["output_type"] != "stream" or last["name"] != name:
            self._join()
            self._items.append({"output_type": "stream", "name": name, "text": ""})
            self._room -= ITEM_COST
        kept = max(0, self._room)
        self._pieces.add(text[:kept])
        self._room -= len(text)
        if len(text) > kept:
            self._tails.setdefault(name, Tail(name, self._max_tail)).add(text[kept:])

    def _take_display(self, output: Output, content: dict[str, Any]) -> None:
        name = _require_type(dict, content.get("transient") or {}, "transient").get("display_id")
        size = _size(output) + ITEM_COST
        if size > self._room:
            output, whole = _shorten(output), size
            size = _size(output) + ITEM_COST
            self._left_out += whole - size
        if size > self._room:
            self._left_out += size
            return
        self._join()
        self._room -= size
        if isinstance(name, str) and len(name) <= MAX_DISPLAY_ID:
            self._room -= len(name)
            display = self._displays.setdefault(name, Display())
            self._places[len(self._items)] = display, display.outputs
            display.outputs += 1
            display.size += size
        self._items.append(output)

    def _join(self) -> None:
        """Make the pieces of the last stream its text."""
        if text := self._pieces.take():
            self._items[-1]["text"] += text

    def _update(self, content: dict[str, Any]) -> None:
        data, metadata = (_shallow(_of(dict, content, key)) for key in ("data", "metadata"))
        display = self._displays.get(_of(str, content["transient"], "display_id"))
        if display is None:
            return
        update = {"data": data, "metadata": metadata}
        growth = (_size(update) + ITEM_COST) * display.outputs - display.size
        if growth > max(0, self._room):
            self._left_out += growth
            return
        self._room -= growth
        display.size += growth
        display.update, display.updated = update, display.outputs

    def _updated(self, number: int, output: Output) -> Output:
        """An item after the last update of its display."""
        display, place = self._places.get(number, (None, 0))
        return output if display is None or place >= display.updated else {**output, **display.update}

    def _clear(self, *, wait: bool) -> None:
        self._clear_next = wait
        if not wait:
            self._room, self._left_out = self._head, 0
            self._pieces.take()
            self._items.clear()
            self._tails.clear()
            self._displays.clear()
            self._places.clear()


def _size(value: Any) -> int:
    """Characters of a value as JSON. This blocks the loop; only the encoder in C is fast for a million values."""
    return len(_ENCODER.encode(value))


def _shorten(output: Output) -> Output:
    """The two ends of the plain text of a display that is too large, without its other types."""
    text, half = str(output["data"].get("text/plain", "")), SHORT_DISPLAY_CHARACTERS // 2
    if len(text) > 2 * half:
        text = f"{text[:half]}\n… {len(text) - 2 * half:,} characters were left out here …\n{text[-half:]}"
    return {**output, "data": {"text/plain": text}}


class OutputRoom:
    """The room for the outputs of several cells. A cell gets at most half of the rest, and at least a minimum.

    Args:
        characters: for all of them.
    """

    def __init__(self, characters: int = MAX_CHARACTERS) -> None:
        self._left = characters

    def collector(self) -> OutputCollector:
        """A collector for the next cell."""
        head = min(HEAD_CHARACTERS, max(MIN_HEAD_CHARACTERS, self._left // 2))
        return OutputCollector(head, head * TAIL_CHARACTERS // HEAD_CHARACTERS)

    def spend(self, collector: OutputCollector) -> None:
        """Subtract what a cell's collector keeps."""
        self._left -= collector.kept


def _output(message_type: str, content: dict[str, Any]) -> Output:
    if message_type == "stream":
        if content["name"] not in ("stdout", "stderr"):
            raise ValueError(f"{content['name']!r} is not a stream")
        return {"output_type": "stream", "name": content["name"], "text": _of(str, content, "text")}
    if message_type == "error":
        return {
            "output_type": "error",
            "ename": _of(str, content, "ename"),
            "evalue": _of(str, content, "evalue"),
            "traceback": [_require_type(str, line, "traceback") for line in _of(list, content, "traceback")],
        }
    output: Output = {
        "output_type": message_type,
        "data": _shallow(_of(dict, content, "data")),
        "metadata": _shallow(_of(dict, {"metadata": {}, **content}, "metadata")),
    }
    if message_type == "execute_result":
        output["execution_count"] = cell_number(content["execution_count"])
        if output["execution_count"] is None:
            raise ValueError(f"execution_count is a natural number, not {content['execution_count']!r}")
    return output


def cell_number(count: object) -> int | None:
    """The execution count of a cell; None if it is invalid, because a cell forged it."""
    return count if isinstance(count, int) and not isinstance(count, bool) and count >= 0 else None


def _shallow(data: dict[str, Any]) -> dict[str, Any]:
    """Without the values that are nested so deeply that a reader would run out of stack."""
    return {key: value for key, value in data.items() if not is_deep(value)}


def is_deep(value: object, limit: int = MAX_NESTING) -> bool:
    """Whether lists and dicts are nested deeper than `limit`."""
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return limit == 0 or any(is_deep(item, limit - 1) for item in inner if isinstance(item, dict | list))


def _of(kind: type[T], content: dict[str, Any], key: str) -> T:
    return _require_type(kind, content[key], key)


def _require_type(kind: type[T], value: Any, key: str) -> T:
    """The value, if it is of this type: readers of an output rely on the types of nbformat."""
    if not isinstance(value, kind):
        raise TypeError(f"{key} is of type {type(value).__name__}, not {kind.__name__}")
    return value
