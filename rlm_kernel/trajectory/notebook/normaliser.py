"""Normalise outputs: those of a run and its replay are the same if they are equal after this.

No replay can repeat the addresses of objects, durations, the names of temporary files, the numbers of cells and
colours. An exception that the run shows as an error is text on stderr in a replay. Our own output about sub-calls does
not come from the kernel and is left out.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rlm_kernel.text import join_text, plain
from rlm_kernel.trajectory.notebook.saved_outputs import bound_outputs, is_picture
from rlm_kernel.types import Output

# The outputs are untrusted, and a slow pattern would block every other run of the process: each takes linear time,
# because it can begin in few places only or matches a bounded number of characters.
_NUMBER = r"(?<![\d.,])\d[\d.,]{0,40}+(?:e[+-]?\d{1,9}+)?"
_UNIT = r"(?:ns|[µμu]s|ms|s|min|h|d)"
_TIME = rf"{_NUMBER} ?{_UNIT}(?: {_NUMBER} ?{_UNIT}){{0,5}}+"
_REPLACED: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\b0x[0-9a-fA-F]{4,}"), "0x…"),
    (re.compile(rf"(CPU times: ).*|((?:Wall|Compiler|Parser) (?:time|times)?\s*: ?)(?:{_TIME})"), r"\1\2…"),
    (re.compile(rf"{_TIME} ± {_TIME} per loop \([^)\n]{{0,200}}\)"), "… per loop"),
    (re.compile(r"(?<!\d)\d{1,3}%\|[^|\n]{0,300}\| ?(\d{1,12}/\d{1,12}) \[[^\]\n]{0,200}\]"), r"\1 […]"),
    (re.compile(r"\b(?:Cell )?In ?\[\d+\]"), "In[…]"),
    (re.compile(r"\bOut ?\[\d+\]"), "Out[…]"),
    (re.compile(r"<ipython-input-\d+-[0-9a-f]+>"), "<cell>"),
    (re.compile(r"(?:/private)?(?:/var/folders/[\w+]+/[\w+]+/T|/tmp|/var/tmp)/[\w.+-]+"), "/tmp/…"),  # noqa: S108
)

_CELL_FILE = re.compile(r"ipykernel_\d+/\d+\.py")

MAX_END_CHARACTERS = 100_000
"""Characters at each end of a stream that are compared: a notebook keeps the two ends of a long one."""

MAX_DIFF_LINES = 2_000
"""Lines of each text that a diff compares."""


def unified(recorded: str, replayed: str) -> list[str]:
    """The lines of a unified diff. Of long texts what follows the first difference is compared."""
    before, after = recorded.splitlines(), replayed.splitlines()
    if max(len(before), len(after)) > MAX_DIFF_LINES:  # difflib takes quadratic time
        same = next((n for n, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), 0)
        before, after = (lines[max(0, same - 3) :][:MAX_DIFF_LINES] for lines in (before, after))
    return list(difflib.unified_diff(before, after, "recorded", "replayed", lineterm=""))


def normalise_outputs(outputs: Iterable[Output]) -> list[Output]:
    """The outputs without what differs from one run to the next.

    Streams between two displays are one text each, because a kernel may send their pieces in any order.
    """
    result: list[Output] = []
    streams: dict[str, list[str]] = {}
    for output in outputs:
        if "rlm" in output.get("metadata", {}):
            continue
        if output["output_type"] == "stream":
            streams.setdefault(output["name"], []).append(join_text(output["text"]))
        elif output["output_type"] == "error":
            streams.setdefault("stderr", []).append("\n".join(output["traceback"]) + "\n")
        else:
            result += [*_streams(streams), _display(*bound_outputs([output]))]
            streams = {}
    return [*result, *_streams(streams)]


def normalise_text(text: str) -> str:
    """A text without what differs from one run to the next."""
    text = _without_cell_files(plain(text))
    for pattern, replacement in _REPLACED:
        text = pattern.sub(replacement, text)
    return "\n".join(line.rstrip() for line in text.rstrip().split("\n"))


def _without_cell_files(text: str) -> str:
    """The text with ``<cell>`` in the place of each path of a file that ipykernel names a cell after."""
    pieces, at, low = [], 0, 0  # `low`: where the latest name ended; no character is looked at twice
    for found in _CELL_FILE.finditer(text):
        before = text[low : found.start()]
        low = found.end()
        slash = -1 if before[-1:].isspace() else "".join(before.rsplit(maxsplit=1)[-1:]).find("/")
        if slash >= 0:
            word = len(before.rsplit(maxsplit=1)[-1])
            pieces += [text[at : found.start() - word + slash], "<cell>"]
            at = low
    return "".join([*pieces, text[at:]])


def as_text(outputs: Iterable[Output]) -> str:
    """Normalised outputs as text, to be compared and shown."""
    return "\n".join(line for output in normalise_outputs(outputs) for line in _lines(output))


def _streams(streams: Mapping[str, list[str]]) -> list[Output]:
    texts = {name: normalise_text(_ends("".join(pieces))) for name, pieces in sorted(streams.items(), reverse=True)}
    return [{"output_type": "stream", "name": name, "text": text} for name, text in texts.items() if text]


def _ends(text: str) -> str:
    """What the notebook of a run has of a long text in any case."""
    return (
        text if len(text) <= 2 * MAX_END_CHARACTERS else f"{text[:MAX_END_CHARACTERS]}\n…\n{text[-MAX_END_CHARACTERS:]}"
    )


def _display(output: Output) -> Output:
    data = {kind: _value(kind, value) for kind, value in sorted(output["data"].items())}
    return {"output_type": output["output_type"], "data": data}


def _value(kind: str, value: Any) -> Any:
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        value = "".join(value)
    if not isinstance(value, str):
        return value
    return value.rstrip() if is_picture(kind) else normalise_text(value)  # base64 has no times and no names of files


def _lines(output: Output) -> Iterator[str]:
    if output["output_type"] == "stream":
        yield from (f"{output['name']}: {line}" for line in output["text"].split("\n"))
        return
    for kind, value in output["data"].items():
        text = value if isinstance(value, str) else repr(value)
        yield from (f"{kind}: {line}" for line in text.split("\n"))
