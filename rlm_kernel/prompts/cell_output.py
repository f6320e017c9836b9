"""The text of a cell for the model: head and tail of its output, and the important part of its traceback."""

from __future__ import annotations

from rlm_kernel.text import clip, plain
from rlm_kernel.types import CellResult, Output

NO_OUTPUT = "(no output: end the cell with an expression, or print what you want to see)"
_TRACEBACK_SHARE = 0.6


def render_result(result: CellResult, limit: int) -> str:
    """The output of a cell as text of at most about `limit` characters.

    Both ends of a long output are kept. An error gets up to 60 % of the room, mostly for its end, which says what went
    wrong.
    """
    shown = "\n".join(filter(None, (plain(_text(output)).strip("\n") for output in result.outputs)))
    problem = _problem(result)
    problem = clip(problem, int(limit * _TRACEBACK_SHARE), head=0.3)
    shown = clip(shown, max(0, limit - len(problem)))
    return "\n".join(filter(None, (shown, _left_out(result), problem))) or NO_OUTPUT


def _text(output: Output) -> str:
    if output["output_type"] == "stream":
        return str(output["text"])
    if output["output_type"] == "error":
        return ""  # shown as the problem
    data = output["data"]
    text = str(data.get("text/plain", ""))
    pictures = [kind for kind in data if kind.startswith("image/")]
    return f"{text} [{', '.join(pictures)} was shown]" if pictures else text


def _left_out(result: CellResult) -> str:
    """A note on output that was too large to keep; without it the model would assume that there was none."""
    return f"({result.dropped_characters:,} characters of output were not kept.)" if result.dropped_characters else ""


def _problem(result: CellResult) -> str:
    if result.status == "timeout":
        return f"The cell was ended after {result.seconds:.0f} s: it took too long."
    if result.status == "died":
        return "The kernel died while it ran this cell."
    return plain(result.error.traceback) if result.error is not None else ""
