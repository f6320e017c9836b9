"""The view of a run as HTML that every front end shows, also when the notebook is opened again.

It has no script, no class and no external file. Styles are attributes of the elements, in colours that are readable on
a light and on a dark background. It is a tree of elements in which every string is text (`rlm_kernel.html.markup`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from rlm_kernel.html.markup import Element, Markup, Node, details, h, render
from rlm_kernel.text import format_cost, format_duration, format_tokens, join_text, one_line, plain
from rlm_kernel.trajectory.console.render import clip_lines
from rlm_kernel.trajectory.progress import Subcalls
from rlm_kernel.trajectory.states import State, ending_of
from rlm_kernel.trajectory.tree import Call, Cell, Turn, describe_ending
from rlm_kernel.types import CellResult, Output
from rlm_magics.progress import MAX_TURNS, Progress

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
_LIVE_TURNS = 5
_SHOWN = 64
_TAIL_LINES = 8


def page(
    progress: Progress, unfolded: Collection[str] = (), notes: Iterable[str] = (), link: Element | None = None
) -> Markup:
    """The view as it is at this moment.

    Args:
        progress: the run.
        unfolded: the parts that are open: ``turns`` (the list of turns), ``each`` (every turn), ``calls`` (sub-calls).
        notes: warnings for the user.
        link: to the notebook of the run, or None.
    """
    with progress.lock:
        parts: list[Node] = [_header(progress), *_notes(notes), *_turns(progress, unfolded)]
        if not progress.over:
            parts += _now(progress, unfolded)
        parts.append(_footer(progress, link))
        frame = f"border:1px solid {_LINE};border-left:3px solid {_COLOURS[progress.run.state]};border-radius:6px"
        return render(_div(parts, f"{frame};padding:8px 14px;max-width:980px;font-size:13px;line-height:1.5"))


def words(progress: Progress) -> str:
    """The view in one line, for a front end that shows text only."""
    with progress.lock:
        return f"RLM · {_state(progress)} · {_totals(progress)}"


def _header(progress: Progress) -> Node:
    started = progress.run.started
    if started is None:
        return _div("RLM", "font-weight:600")
    question = started.asked or "No separate question: the context holds it."
    return [
        _div(_clipped(question, 4, 2), "font-weight:600;white-space:pre-wrap;overflow-wrap:anywhere"),
        _div(plain(started.facts), "opacity:0.65;font-size:12px"),
    ]


def _notes(notes: Iterable[str]) -> Iterator[Element]:
    for note in notes:
        yield _div([h("b", "Note"), f" {plain(note)}"], f"color:{WARN};margin-top:4px")


# -- turns


def _turns(progress: Progress, unfolded: Collection[str]) -> Iterator[Element]:
    # The current turn is shown below the list.
    turns = [t for t in progress.run.turns if t.reply is not None and (t.finished is not None or progress.over)]
    if not turns:
        return
    # The whole page is sent at each update.
    limit = MAX_TURNS if progress.over or "turns" in unfolded else _LIVE_TURNS
    rows = [_turn(turn, "each" in unfolded) for turn in turns[-limit:]]
    total = progress.turns_before + len(turns)
    if total > len(rows):
        rows.insert(0, _small(f"… {total - len(rows)} turns before; the notebook has all of them"))
    count = f"{total} turn" + ("s" if total != 1 else "")
    yield details(_small(count), rows, open="turns" in unfolded, style="margin-top:6px")


def _turn(turn: Turn, unfolded: bool) -> Element:
    assert turn.reply is not None, "only turns with a reply are shown"
    usage = turn.reply.usage
    facts = f"{format_tokens(usage.input_tokens, usage.output_tokens)} · {format_duration(turn.seconds)}"
    text = turn.cells[0].code if turn.cells else turn.reply.text
    first = next((line.strip() for line in plain(text).splitlines() if line.strip()), "(empty)")
    code = h("span", one_line(first, _SHOWN), style=_MONO)
    title: list[Node] = [h("b", str(turn.iteration)), _GAP, code, _GAP, _small(facts)]
    reply = _pre(_clipped(turn.reply.text, 20, 6), f"background:{_GROUND}")
    body: list[Node] = [_cell(cell) for cell in turn.cells] or [reply]
    body += [_div(f"! {plain(notice)}", f"color:{WARN}") for notice in turn.notices]
    return details(title, body, open=unfolded, style=f"border-top:1px solid {_LINE};padding:2px 0")


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


def _outputs(result: CellResult) -> Iterator[Element]:
    for output in result.outputs:
        if output["output_type"] == "error":
            traceback = "\n".join(output.get("traceback") or [f"{output['ename']}: {output['evalue']}"])
            yield _pre(_clipped(traceback, 3, 8), f"color:{BAD}")
        elif (text := _output_html(output)).strip():
            yield _pre(_clipped(text, 10, 6))
    if ending := describe_ending(result):
        yield _div(ending, f"color:{BAD}")


def _output_html(output: Output) -> str:
    if output["output_type"] == "stream":
        return join_text(output["text"])
    return join_text(output["data"].get("text/plain") or f"[{', '.join(output['data'])}]")


# -- the current activity


def _now(progress: Progress, unfolded: Collection[str]) -> Iterator[Element]:
    cell = next((cell for cell in reversed(progress.run.cells) if cell.result is None), None)
    if cell is not None:
        yield _pre(_clipped(cell.code.strip("\n"), 16, 4), f"{_CODE};margin-top:8px")
    if progress.tail.strip():
        yield _pre("\n".join(plain(progress.tail).rstrip().splitlines()[-_TAIL_LINES:]), "opacity:0.75")
    if progress.subcalls is not None:
        yield _subcalls(progress.subcalls, "calls" in unfolded)
    yield from _children(progress)


def _subcalls(calls: Subcalls, unfolded: bool) -> Element:
    bar = h(
        "progress",
        f"{calls.answered} of {calls.prompts}",
        value=calls.answered,
        max=max(1, calls.prompts),
        style=f"width:180px;vertical-align:middle;accent-color:{ACCENT}",
    )
    count = h("b", f"{calls.answered:,}/{calls.prompts:,}")
    title: list[Node] = [bar, _GAP, count, " ", _small(calls.title), _failed(" · ", calls.failed)]
    samples = [_sample(one.prompt, one.text if one.error is None else one.error) for one in calls.samples]
    style = "margin-top:6px"
    return details(title, samples, open=unfolded, style=style) if samples else _div(title, style)


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
    state = h("b", plain(_state(progress)), style=f"color:{_COLOURS[progress.run.state]}")
    parts: list[Node] = [state, " ", _small(f"· {_totals(progress)}")]
    return _div(parts if link is None else [*parts, " · ", link], "margin-top:8px;font-size:12px")


def _state(progress: Progress) -> str:
    match progress.run.state:
        case "running":
            return f"{progress.turn} · {progress.activity}" if progress.turn else progress.activity
        case state:
            return state.capitalize() if progress.run.failure is None else ending_of(progress.run.failure)


def _totals(progress: Progress) -> str:
    spent, calls = progress.usage, progress.subcall_count()
    parts = [format_duration(progress.seconds)]
    if calls:
        parts.append(f"{calls:,} sub-call" + ("s" if calls != 1 else ""))
    if spent.total_calls:
        parts += [
            format_tokens(spent.total_input_tokens, spent.total_output_tokens),
            format_cost(spent.total_cost, unpriced=spent.unpriced_models),
        ]
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
