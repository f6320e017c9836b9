"""The view of a run as HTML that every front end shows, also when the notebook is opened again.

It has no script, no class and no external file. Styles are attributes of the elements, in colours that are readable on
a light and on a dark background. It is a tree of elements in which every string is text (`rlm_kernel.html.markup`).

A run in progress is shown in pieces, each of which is an output of the cell: an update replaces only the pieces that
changed, so folds and selections in the others stay.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from rlm_kernel.html.markup import Element, Markup, Node, details, h, is_address, render_output
from rlm_kernel.html.prose import prose
from rlm_kernel.html.sanitizer import sanitize
from rlm_kernel.parsing import without_thinking
from rlm_kernel.text import clip, format_duration, format_tokens, join_text, one_line, plain
from rlm_kernel.trajectory.console.render import clip_lines
from rlm_kernel.trajectory.notebook.cells import split
from rlm_kernel.trajectory.progress import Subcalls
from rlm_kernel.trajectory.states import State, ending_of
from rlm_kernel.trajectory.tree import Call, Cell, Turn, describe_ending
from rlm_kernel.types import CellResult, Output
from rlm_magics.progress import Progress

ACCENT, GOOD, BAD, WARN = "#3b82f6", "#16a34a", "#dc2626", "#d97706"
_COLOURS: dict[State, str] = {
    "running": ACCENT,
    "answered": GOOD,
    "stopped": WARN,
    "limit": WARN,
    "failed": BAD,
    "lost": WARN,
}
_LINE = "rgba(128,128,128,0.25)"
_GROUND = "rgba(128,128,128,0.08)"
_MONO = "font-family:ui-monospace,Menlo,Consolas,monospace;font-size:12px"
_PRE = (
    f"{_MONO};line-height:1.45;margin:4px 0;padding:6px 10px;border-radius:4px;"
    "white-space:pre-wrap;overflow-wrap:anywhere;overflow:auto;max-height:320px"
)
_CODE = f"background:{_GROUND};border-left:2px solid {ACCENT}"
_GAP = "\N{EN SPACE}"
_MAX_CHILDREN = 6
_SHOWN = 64
_TAIL_LINES = 8
_MAX_WORDS = 6_000
_MAX_TABLE = 100_000
_MAX_PICTURE = 3_000_000
"""Characters of a picture, as base64 has them."""
_PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")
_FRAME = f"border-left:3px solid {_LINE};padding:2px 14px;max-width:980px;font-size:13px;line-height:1.5"


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the view.

    Attributes:
        content: its elements; empty: nothing is shown any more.
        words: the same in one line, for a front end that shows text only.
    """

    content: Node
    words: str

    def html(self) -> Markup:
        """The piece as HTML."""
        return render_output(h("div", self.content, style=_FRAME) if self.content else ())


def page(progress: Progress, link: Element | None = None) -> Markup:
    """A whole run in one piece.

    Args:
        progress: the run.
        link: to the notebook of the run, or None.
    """
    with progress.lock:
        turns = [turn for turn in progress.run.turns if turn.reply is not None]
        parts: list[Node] = [_header(progress)]
        if progress.turns_before:
            parts.append(left_out(progress.turns_before).content)
        parts += [_turn(turn, unfolded=True) for turn in turns]
        parts.append(status(progress, link).content)
        return render_output(h("div", parts, style=_FRAME))


def head(progress: Progress, notes: Iterable[str] = ()) -> Piece:
    """The question, the facts and the warnings."""
    started = progress.run.started
    words = "RLM" if started is None else f"RLM · {one_line(started.asked or started.facts, _SHOWN)}"
    return Piece([_header(progress), *_notes(notes)], words)


def turn_of(turn: Turn, *, unfolded: bool) -> Piece:
    """A turn that has a reply: the words of the model, its code, calls and outputs."""
    return Piece(_turn(turn, unfolded=unfolded), f"{turn.iteration} · {_first_line(turn)}")


def left_out(count: int) -> Piece:
    """Stands for turns that are not shown any more."""
    text = f"… {count:,} turn{'s' * (count != 1)} before; the notebook has all of them"
    return Piece(_small(text), text)


def status(progress: Progress, link: Element | None = None) -> Piece:
    """What happens at this moment, and the last line."""
    parts = [*_tail(progress)] if progress.over else [*_now(progress)]
    parts.append(_footer(progress, link))
    if not progress.over:
        parts.append(_div(_AFTER_A_RELOAD.format(datetime.now().astimezone()), "opacity:0.65;font-size:12px"))
    return Piece(parts, f"RLM · {_state(progress)} · {_totals(progress)}")


_AFTER_A_RELOAD = (
    "As of {:%H:%M:%S}. After a reload of the page this view stands still: the notebook of the run goes on, and "
    "%rlm last shows the run when it has ended."
)


def _header(progress: Progress) -> Node:
    started = progress.run.started
    if started is None:
        return _div("RLM", "font-weight:600")
    question = started.asked or "No separate question: the context holds it."
    return [
        h("div", prose(_clipped(question, 8, 4)), style="font-weight:600;overflow-wrap:anywhere"),
        _div(plain(started.facts), "opacity:0.65;font-size:12px"),
    ]


def _notes(notes: Iterable[str]) -> Iterator[Element]:
    for note in notes:
        yield _div([h("b", "Note"), f" {plain(note)}"], f"color:{WARN};margin-top:4px")


# -- turns


def _turn(turn: Turn, *, unfolded: bool) -> Element:
    assert turn.reply is not None, "only turns with a reply are shown"
    usage = turn.reply.usage
    facts = f"{format_tokens(usage.input_tokens, usage.output_tokens)} · {format_duration(turn.seconds)}"
    code = h("span", _first_line(turn), style=_MONO)
    title: list[Node] = [h("b", str(turn.iteration)), _GAP, code, _GAP, _small(facts)]
    body: list[Node] = [
        _cell(turn.cells[piece]) if isinstance(piece, int) else _said(piece)
        for piece in split(without_thinking(turn.reply.text), [cell.code for cell in turn.cells])
    ]
    body += [_div(f"! {plain(notice)}", f"color:{WARN}") for notice in turn.notices]
    return details(title, body, open=unfolded)


def _first_line(turn: Turn) -> str:
    assert turn.reply is not None, "only turns with a reply are shown"
    text = turn.cells[0].code if turn.cells else turn.reply.text
    first = next((line.strip() for line in plain(text).splitlines() if line.strip()), "(empty)")
    return one_line(first, _SHOWN)


def _said(words: str) -> Element:
    return h("div", prose(clip(words, _MAX_WORDS)), style="margin:6px 0;overflow-wrap:anywhere")


def _cell(cell: Cell) -> Node:
    parts: list[Node] = [_pre(_clipped(cell.code.strip("\n"), 40, 10), _CODE)]
    parts += [_call(call) for call in cell.calls[:_MAX_CHILDREN]]
    if len(cell.calls) > _MAX_CHILDREN:
        parts.append(_small(f"↳ {len(cell.calls) - _MAX_CHILDREN:,} more calls"))
    if cell.result is not None:
        parts += _outputs(cell.result)
    return parts


def _call(call: Call) -> Element:
    started, failed = call.started, sum(a.error is not None for a in call.answers.values())
    facts = f"↳ {started.count:,} {started.kind} to {plain(started.model)}"
    facts += f" · {format_duration(call.seconds)}" if call.seconds is not None else ""
    facts += f" · {len(call.children)} children" if call.children else ""
    return _div([_small(facts), _failed(" ", failed)], "font-size:12px")


def _failed(before: str, count: int) -> Node:
    return [before, h("span", f"{count:,} failed", style=f"color:{BAD}")] if count else []


def _outputs(result: CellResult) -> Iterator[Node]:
    for output in result.outputs:
        if output["output_type"] == "error":
            traceback = "\n".join(output.get("traceback") or [f"{output['ename']}: {output['evalue']}"])
            yield _pre(_clipped(traceback, 3, 8), f"color:{BAD}")
        elif output["output_type"] == "stream":
            yield _text(join_text(output["text"]))
        else:
            yield _displayed(output["data"])
    if ending := describe_ending(result):
        yield _div(ending, f"color:{BAD}")


def _displayed(data: Output) -> Node:
    """A value or a display: as a picture, a table or Markdown if it is one, else as text."""
    if (picture := _picture(data)) is not None:
        return picture
    if isinstance(markup := data.get("text/html"), str) and len(markup) <= _MAX_TABLE:
        return h("div", sanitize(markup), style="overflow:auto;max-height:320px;margin:4px 0")
    if isinstance(words := data.get("text/markdown"), str):
        return _said(words)
    return _text(join_text(data.get("text/plain") or f"[{', '.join(data)}]"))


def _picture(data: Output) -> Element | None:
    sources = [f"data:{kind};base64,{''.join(join_text(data[kind]).split())}" for kind in _PICTURES if kind in data]
    if "image/svg+xml" in data:
        drawn = join_text(data["image/svg+xml"]).encode("utf-8", "replace")
        sources.append(f"data:image/svg+xml;base64,{base64.b64encode(drawn).decode()}")
    shown = next((one for one in sources if len(one) <= _MAX_PICTURE and is_address("src", one)), None)
    if shown is None:
        return None
    name = one_line(join_text(data.get("text/plain") or "A picture"), _SHOWN)
    return h("img", src=shown, alt=name, style="max-width:100%;background-color:#fff;margin:4px 0")


def _text(text: str) -> Node:
    return _pre(_clipped(text, 10, 6)) if text.strip() else ()


# -- the current activity


def _now(progress: Progress) -> Iterator[Element]:
    yield from _tail(progress)
    if progress.subcalls is not None:
        yield _subcalls(progress.subcalls)
    yield from _children(progress)


def _tail(progress: Progress) -> Iterator[Element]:
    """The end of what is written or printed. It stays if the run was stopped in the middle."""
    if progress.tail.strip():
        yield _pre("\n".join(plain(progress.tail).rstrip().splitlines()[-_TAIL_LINES:]), "opacity:0.75")


def _subcalls(calls: Subcalls) -> Element:
    bar = h(
        "progress",
        f"{calls.answered} of {calls.prompts}",
        value=calls.answered,
        max=max(1, calls.prompts),
        style=f"width:180px;vertical-align:middle;accent-color:{ACCENT}",
    )
    count = h("b", f"{calls.answered:,}/{calls.prompts:,}")
    left = "" if calls.seconds_left is None else f"{format_duration(calls.seconds_left)} left · "
    title: list[Node] = [bar, _GAP, count, " ", _small(left + calls.title), _failed(" · ", calls.failed)]
    samples = [_sample(one.prompt, one.text if one.error is None else one.error) for one in calls.samples]
    return _div([title, samples], "margin-top:6px")


def _sample(prompt: str, answer: str) -> Element:
    return _div([one_line(prompt, _SHOWN), " ", h("b", "⇒"), " ", one_line(answer, _SHOWN)], "font-size:12px")


def _children(progress: Progress) -> Iterator[Element]:
    running = [(key, child) for key, child in progress.children.items() if not child.over]
    for (_, _, index), child in running[:_MAX_CHILDREN]:
        text = f"child {index + 1} · {_state(child)} · {_totals(child)}"
        yield _div(f"↳ {plain(text)}", "font-size:12px;margin-left:12px;opacity:0.8")
    if len(running) > _MAX_CHILDREN:
        yield _small(f"↳ {len(running) - _MAX_CHILDREN:,} more children")


# -- the last line


def _footer(progress: Progress, link: Element | None) -> Element:
    state = h("b", plain(_state(progress)), style=f"color:{_COLOURS.get(progress.run.state, BAD)}")
    parts: list[Node] = [state, " ", _small(f"· {_totals(progress)}")]
    return _div(parts if link is None else [*parts, " · ", link], "margin-top:4px;font-size:12px")


def _state(progress: Progress) -> str:
    match progress.run.state:
        case "running":
            return f"{progress.turn} · {progress.activity}" if progress.turn else progress.activity
        case state:
            return state.capitalize() if progress.run.failure is None else ending_of(progress.run.failure)


def _totals(progress: Progress) -> str:
    spent, counts = progress.usage, str(progress.counts())
    parts = [format_duration(progress.seconds)]
    if spent.total_calls:
        parts.append(spent.facts.replace(" · ", f" ({counts}) · ", 1) if counts else spent.facts)
    elif counts:
        parts.append(counts)
    return " · ".join(parts)


# -- texts and elements


def _clipped(text: str, head: int, tail: int) -> str:
    return str(clip_lines(text, head, tail))


def _div(content: Node, style: str) -> Element:
    return h("div", content, style=style)


def _pre(text: str, style: str = "") -> Element:
    return h("pre", text, style=f"{_PRE};{style}")


def _small(text: str) -> Element:
    return h("span", text, style="opacity:0.65")
