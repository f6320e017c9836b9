"""The outputs of a cell in a notebook: what the kernel sent, within limits and always valid.

Of a text beyond the limit the two ends are kept; pictures have a limit of their own. A kernel may be isolated, but its
notebook is opened outside. So the outputs run nothing and load nothing, also in a trusted notebook: HTML and Markdown
are made inactive, and scripts, widgets and other kinds that a front end draws with code of its own are left out. The
log has them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from rlm_kernel.html.sanitizer import sanitize
from rlm_kernel.kernel.outputs import cell_number, is_deep
from rlm_kernel.text import join_text
from rlm_kernel.trajectory.notebook import markdown
from rlm_kernel.trajectory.tree import describe_ending
from rlm_kernel.types import CellResult, Output

TEXT_CHARACTERS = 1_000_000
"""Of all outputs of a cell together."""

PICTURE_CHARACTERS = 10_000_000
"""Of all pictures of a cell together, as base64 has them."""

_PICTURES = ("image/", "video/", "audio/", "application/pdf")
_KINDS = re.compile(
    r"text/(?:plain|html|markdown|latex)|application/(?:json|pdf)"
    r"|image/(?:png|jpeg|gif|webp|bmp|svg\+xml)|(?:video|audio)/[\w.+-]+"
)
_HARMLESS: dict[str, Callable[[str], str]] = {
    "text/html": sanitize,
    "text/markdown": markdown.harmless,
    "text/latex": markdown.tex,
}
_SIZES = frozenset({"width", "height"})


def bound_outputs(outputs: Iterable[Output]) -> list[Output]:
    """The outputs within the bounds."""
    room = _Room()
    return [room.take(output) for output in outputs]


def is_picture(kind: str) -> bool:
    """Whether the data of this MIME type are base64."""
    return kind.startswith(_PICTURES) and kind != "image/svg+xml"


def ending(result: CellResult | None, *, over: bool) -> list[Output]:
    """A note on a cell that did not end by itself, or whose output is not complete. `over`: whether the run is."""
    if result is None:
        text = "The run ended while this cell was running." if over else "This cell is running."
    else:
        text = describe_ending(result)
    return [own_output("ending", {"text/markdown": f"*{text}*", "text/plain": text})] if text else []


def own_output(role: str, data: dict[str, str]) -> Output:
    """An output that the kernel did not send; it is marked, so that a replay does not expect it."""
    return {"output_type": "display_data", "data": data, "metadata": {"rlm": {"role": role}}}


class _Room:
    """The room that is left for the outputs of a cell."""

    def __init__(self) -> None:
        self._text = TEXT_CHARACTERS
        self._pictures = PICTURE_CHARACTERS

    def take(self, output: Output) -> Output:
        match output["output_type"]:
            case "stream":
                text = self._shortened(join_text(output["text"]))
                return {"output_type": "stream", "name": output["name"], "text": text}
            case "error":
                lines = "\n".join(map(str, output["traceback"]))
                names = {"ename": str(output["ename"]), "evalue": self._shortened(str(output["evalue"]))}
                return {"output_type": "error", **names, "traceback": self._shortened(lines).split("\n")}
        counted = {"execution_count": cell_number(output.get("execution_count"))}
        return {
            "output_type": output["output_type"],
            "data": self._data(output["data"]),
            "metadata": _sizes(output.get("metadata", {})),
            **(counted if output["output_type"] == "execute_result" else {}),
        }

    def _data(self, data: dict[str, Any]) -> dict[str, Any]:
        fitting: dict[str, Any] = {}
        left_out: list[str] = []
        for kind, value in sorted(data.items(), key=lambda item: item[0] != "text/plain"):
            if kind == "text/plain":
                fitting[kind] = self._shortened(join_text(value))
            elif not _KINDS.fullmatch(kind) or is_deep(value) or not self._fits(kind, value):
                left_out.append(kind)
            else:
                fitting[kind] = value if kind == "application/json" else _HARMLESS.get(kind, str)(join_text(value))
        if not fitting:
            fitting["text/plain"] = f"({', '.join(left_out) or 'nothing'}: not kept in the notebook)"
        return fitting

    def _fits(self, kind: str, value: object) -> bool:
        size = len(value) if isinstance(value, str) else len(str(value))
        picture = kind.startswith(_PICTURES)
        if size > (self._pictures if picture else self._text):
            return False
        if picture:
            self._pictures -= size
        else:
            self._text -= size
        return True

    def _shortened(self, text: str) -> str:
        room = max(self._text, 0)
        self._text -= len(text)
        return markdown.clip_text(text, room)


def _sizes(metadata: dict[str, Any]) -> dict[str, Any]:
    """The sizes of pictures. Other metadata are dropped: a converter may write them into a tag."""
    sizes = {
        kind: _numbers(held) for kind, held in metadata.items() if _KINDS.fullmatch(kind) and isinstance(held, dict)
    }
    return {kind: held for kind, held in sizes.items() if held}


def _numbers(metadata: dict[str, Any]) -> dict[str, int]:
    return {name: held for name, held in metadata.items() if name in _SIZES and cell_number(held) is not None}
