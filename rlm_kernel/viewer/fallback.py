"""A run as folded text in plain HTML, shown where the widget is not: in exports, untrusted notebooks and nbviewer.

It needs neither script nor style. It is a tree of elements, in which every string is text; long texts are cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rlm_kernel.html.markup import Element, Markup, Node, details, h, render_output
from rlm_kernel.text import clip_end, plain
from rlm_kernel.trajectory.runs.summary import as_dict, parse_lines
from rlm_kernel.trajectory.states import describe_ending, state_of_error_name
from rlm_kernel.viewer.log_source import LogInMemory, LogOnDisk

_MAX_TEXT = 4_000
_MAX_TURNS = 100
_MAX_BYTES = 50_000_000
_KINDS = (b'"metadata"', b'"iteration"', b'"finished"', b'"failed"')


def folded_html(log: LogOnDisk | LogInMemory) -> Markup:
    """The run as nested `<details>`; if the log cannot be read, the reason."""
    try:
        large = log.size > _MAX_BYTES
        lines = list(_lines(_ends(log) if large else log.read(0, _MAX_BYTES)))
    except OSError as error:
        return render_output(h("p", _text(f"{log.name} cannot be read: {error}")))
    turns = [line for line in lines if line.get("type") == "iteration"]
    body = [_turn(turn) for turn in turns[:_MAX_TURNS]]
    if len(turns) > _MAX_TURNS:
        body.append(h("p", f"{len(turns) - _MAX_TURNS} more turns"))
    if large:
        body.append(h("p", "The log is large: only its beginning and its end are shown."))
    return render_output(details(_text(_question(lines) or log.name), body), _outcome(lines, fresh=log.fresh))


def _lines(content: bytes) -> Iterator[dict[str, Any]]:
    """The lines that are shown. The others are not parsed."""
    return parse_lines(line for line in content.splitlines() if any(kind in line[:40] for kind in _KINDS))


def _ends(log: LogOnDisk | LogInMemory) -> bytes:
    """The beginning and the end of a large log. Between them a line ends, so that none is made of two halves."""
    return log.read(0, _MAX_BYTES // 2) + b"\n" + log.read(log.size - _MAX_BYTES // 2, _MAX_BYTES // 2)


def _question(lines: list[dict[str, Any]]) -> str:
    return next((str(asked) for line in lines if (asked := line.get("question") or line.get("input_text"))), "")


def _turn(turn: dict[str, Any]) -> Element:
    text = str(turn.get("response") or "").split("```", 1)[0]
    cells = [_cell(as_dict(block)) for block in _items(turn.get("code_blocks"))]
    return details(f"Turn {_text(turn.get('iteration'))}", [_block(text), cells])


def _cell(block: dict[str, Any]) -> Node:
    result = as_dict(block.get("result"))
    calls = len(_items(result.get("rlm_calls")))
    note = [h("p", f"{calls} sub-call{'s' if calls > 1 else ''}")] if calls else []
    return [_block(block.get("code")), note, _block(result.get("stdout")), _block(result.get("stderr"))]


def _outcome(lines: list[dict[str, Any]], *, fresh: bool) -> Node:
    for line in reversed(lines):
        if line.get("type") == "failed":
            kind = _text(line.get("error_type"))
            return [_titled(describe_ending(state_of_error_name(kind), kind)), _block(line.get("error"))]
        answer = line.get("response") if line.get("type") == "finished" else line.get("final_answer")
        if answer is not None:
            return [_titled("Answer"), _block(answer)]
    return [_titled("Running" if fresh else "Lost"), h("p", "The log has no answer.")]


def _titled(title: str) -> Element:
    return h("p", h("b", title))


def _block(text: Any) -> Node:
    return h("pre", _text(text)) if text else []


def _text(value: Any) -> str:
    return clip_end(plain(str(value)), _MAX_TEXT)


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
