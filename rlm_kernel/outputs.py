"""Collect what a cell shows, as nbformat writes it, within a bound on memory."""

from __future__ import annotations

from collections import deque
from typing import Any

from rlm_kernel.plaintext import plain
from rlm_kernel.records import CellError, Output

HEAD_CHARACTERS = 8_000_000
TAIL_CHARACTERS = 2_000_000
ITEM_COST = 200
"""Charged for an output beside its characters, so that a million empty ones are bounded too."""

_SHOWN = ("stream", "display_data", "execute_result", "error")


class Tail:
    """The end of a stream whose beginning is full. `dropped` counts the characters between the two."""

    def __init__(self, name: str, most: int) -> None:
        self.name = name
        self.dropped = 0
        self._most = most
        self._pieces: deque[str] = deque()
        self._length = 0

    def add(self, text: str) -> None:
        """Append a piece; whole pieces are forgotten from the front."""
        kept = text[-self._most :]
        self.dropped += len(text) - len(kept)
        self._pieces.append(kept)
        self._length += len(kept)
        while self._length - len(self._pieces[0]) >= self._most:
            gone = len(self._pieces.popleft())
            self._length -= gone
            self.dropped += gone

    def output(self) -> Output:
        """The tail as one output, which says how much is missing before it."""
        gap = f"\n… {self.dropped:,} characters were left out here …\n" if self.dropped else ""
        return {"output_type": "stream", "name": self.name, "text": gap + "".join(self._pieces)}


class OutputCollector:
    """The outputs of one cell, fed with the kernel's IOPub messages.

    Consecutive pieces of a stream are one output, `update_display_data` changes the display it names, `clear_output`
    clears. Beyond `head` characters only the end of the streams is kept, and errors.
    """

    def __init__(self, head: int = HEAD_CHARACTERS, tail: int = TAIL_CHARACTERS) -> None:
        self.error: CellError | None = None
        self._room = head
        self._most_tail = tail
        self._items: list[Output] = []
        self._pieces: list[str] = []  # of the last item, while it is a stream: joined when it is asked for
        self._tails: dict[str, Tail] = {}
        self._last: list[Output] = []
        self._displays: dict[str, list[Output]] = {}
        self._dropped_displays = 0
        self._clear_next = False

    def add(self, message_type: str, content: dict[str, Any]) -> Output | None:
        """Take a message; returns the piece of output in it, or None when it has none."""
        if message_type == "clear_output":
            self._clear(wait=bool(content.get("wait")))
        elif message_type == "update_display_data":
            self._update(content)
        elif message_type in _SHOWN:
            if self._clear_next:
                self._clear(wait=False)
            output = _output(message_type, content)
            self._take(output, content)
            return output
        return None

    @property
    def dropped(self) -> int:
        """Characters that were left out."""
        return sum(tail.dropped for tail in self._tails.values()) + self._dropped_displays

    def outputs(self) -> tuple[Output, ...]:
        """Everything so far."""
        self._join()
        return (*self._items, *(tail.output() for tail in self._tails.values()), *self._last)

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
            self._tails.setdefault(name, Tail(name, self._most_tail)).add(text)
            return
        last = self._items[-1] if self._items else None
        if last is None or last["output_type"] != "stream" or last["name"] != name:
            self._join()
            self._items.append({"output_type": "stream", "name": name, "text": ""})
            self._room -= ITEM_COST
        self._pieces.append(text[: self._room])
        self._room -= len(text)
        if self._room < 0:
            self._tails.setdefault(name, Tail(name, self._most_tail)).add(text[self._room :])

    def _take_display(self, output: Output, content: dict[str, Any]) -> None:
        size = len(str(output)) + ITEM_COST
        if size > self._room:
            self._dropped_displays += size
            return
        self._join()
        self._room -= size
        self._items.append(output)
        display = (content.get("transient") or {}).get("display_id")
        if display is not None:
            self._displays.setdefault(str(display), []).append(output)

    def _join(self) -> None:
        """Make the pieces of the last stream its text."""
        if self._pieces:
            self._items[-1]["text"] += "".join(self._pieces)
            self._pieces.clear()

    def _update(self, content: dict[str, Any]) -> None:
        display = (content.get("transient") or {}).get("display_id")
        for output in self._displays.get(str(display), ()):
            output["data"], output["metadata"] = content["data"], content["metadata"]

    def _clear(self, *, wait: bool) -> None:
        self._clear_next = wait
        if not wait:
            self._pieces.clear()
            self._items.clear()
            self._tails.clear()
            self._displays.clear()


def _output(message_type: str, content: dict[str, Any]) -> Output:
    if message_type == "stream":
        return {"output_type": "stream", "name": content["name"], "text": content["text"]}
    if message_type == "error":
        return {"output_type": "error", **{key: content[key] for key in ("ename", "evalue", "traceback")}}
    output: Output = {
        "output_type": message_type,
        "data": content["data"],
        "metadata": content.get("metadata", {}),
    }
    if message_type == "execute_result":
        output["execution_count"] = content["execution_count"]
    return output
