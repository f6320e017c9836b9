"""The view of a run as HTML that every front end shows and that says the same when the notebook is opened again.

No script, no class, no file from anywhere: styles stand on the elements, in colours that can be read on a light and on
a dark ground. All foreign text is escaped. What is folded is a `<details>`.
"""

from __future__ import annotations

import asyncio
import html
from collections.abc import Collection, Iterable, Iterator

from rlm_kernel.plaintext import plain
from rlm_kernel.records import CellResult, Output, UsageSummary
from rlm_kernel.trajectory.amounts import duration, tokens
from rlm_kernel.trajectory.console import drawing
from rlm_kernel.trajectory.console.status import Subcalls
from rlm_kernel.trajectory.tree import Call, Cell, Turn
from rlm_magics.progress import Progress

ACCENT, GOOD, BAD, WARN = "#3b82f6", "#16a34a", "#dc2626", "#d97706"
_LINE = "rgba(128,128,128,0.25)"
_GROUND = "rgba(128,128,128,0.08)"
_MONO = "font-family:ui-monospace,Menlo,Consolas,monospace;font-size:12px"
_PRE = (
    f"{_MONO};line-height:1.45;margin:4px 0;padding:6px 10px;border-radius:4px;"
    "white-space:pre-wrap;overflow-wrap:anywhere;overflow:auto;max-height:320px"
)
_MOST_CHILDREN = 6
_MOST_TURNS = 40
_LIVE_TURNS = 5
_SHOWN = 64
_TAIL_LINES = 8


def page(progress: Progress, unfolded: Collection[str] = (), notes: Iterable[str] = (), link: str = "") -> str:
    """The view as it is at this moment.

    Args:
        progress: the run.
        unfolded: which parts are open: ``turns`` (the list of turns), ``each`` (every turn), ``calls`` (sub-calls).
        notes: what the user should know besides.
        link: to the notebook of the run, when there is one.
    """
    with progress.lock:
        colour = _colour(progress)
        parts = [_header(progress), *_notes(notes), *_turns(progress, unfolded)]
        if not progress.over:
            parts += _now(progress, unfolded)
        parts.append(_footer(progress, link))
    return (
        f'<div style="border:1px solid {_LINE};border-left:3px solid {colour};border-radius:6px;padding:8px 14px;'
        f'max-width:980px;font-size:13px;line-height:1.5">{"".join(parts)}</div>'
    )


def words(progress: Progress) -> str:
    """The view in one line, for a front end that shows text only."""
    with progress.lock:
        return f"RLM · {_state(progress)} · {_totals(progress)}"


def _colour(progress: Progress) -> str:
    if progress.run.failure is not None:
        return WARN if _was_stopped(progress) else BAD
    return GOOD if progress.run.completion is not None else ACCENT


def _header(progress: Progress) -> str:
    started = progress.run.started
    if started is None:
        return _div("RLM", "font-weight:600")
    unit = "characters" if started.context_type == "str" else "items"
    who = f"{started.model} · {started.environment} · {started.context_type} of {started.context_length:,} {unit}"
    if started.sub_model != started.model:
        who = f"{started.model}, sub-calls {started.sub_model}" + who[len(started.model) :]
    question = started.question or "The context says what to do."
    return _div(_text(question, 4, 2), "font-weight:600;white-space:pre-wrap;overflow-wrap:anywhere") + _div(
        _escaped(who), "opacity:0.65;font-size:12px"
    )


def _notes(notes: Iterable[str]) -> Iterator[str]:
    for note in notes:
        yield _div(f"<b>Note</b> {_escaped(note)}", f"color:{WARN};margin-top:4px")


# -- turns


def _turns(progress: Progress, unfolded: Collection[str]) -> Iterator[str]:
    # The turn under way is shown below, as it happens.
    turns = [t for t in progress.run.turns if t.reply is not None and (t.finished is not None or progress.over)]
    if not turns:
        return
    # All of it is sent each time it is drawn.
    most = _MOST_TURNS if progress.over or "turns" in unfolded else _LIVE_TURNS
    rows = [_turn(turn, "each" in unfolded) for turn in turns[-most:]]
    if len(turns) > most:
        rows.insert(0, _muted(f"… {len(turns) - most} turns before; the notebook has them all"))
    count = f"{len(turns)} turn" + ("s" if len(turns) != 1 else "")
    yield _folded(_muted(count), "".join(rows), "turns" in unfolded, "margin-top:6px")


def _turn(turn: Turn, unfolded: bool) -> str:
    assert turn.reply is not None, "only turns with a reply are shown"
    usage = turn.reply.usage
    facts = f"{tokens(usage.input_tokens, usage.output_tokens)} · {duration(turn.seconds)}"
    said = turn.cells[0].code if turn.cells else turn.reply.text
    first = next((line.strip() for line in plain(said).splitlines() if line.strip()), "(empty)")
    title = f'<b>{turn.iteration}</b>&ensp;<span style="{_MONO}">{_short(first)}</span>&ensp;{_muted(facts)}'
    body = [_cell(cell) for cell in turn.cells] or [_pre(_text(turn.reply.text, 20, 6), f"background:{_GROUND}")]
    body += [_div(f"! {_escaped(notice)}", f"color:{WARN}") for notice in turn.notices]
    return _folded(title, "".join(body), unfolded, f"border-top:1px solid {_LINE};padding:2px 0")


def _cell(cell: Cell) -> str:
    parts = [_pre(_text(cell.code.strip("\n"), 40, 10), f"background:{_GROUND};border-left:2px solid {ACCENT}")]
    parts += [_call(call) for call in cell.calls[:_MOST_CHILDREN]]
    if len(cell.calls) > _MOST_CHILDREN:
        parts.append(_muted(f"↳ {len(cell.calls) - _MOST_CHILDREN:,} more calls"))
    if cell.result is not None:
        parts += _outputs(cell.result)
    return "".join(parts)


def _call(call: Call) -> str:
    started, failed = call.started, sum(a.error is not None for a in call.answers.values())
    said = f"↳ {started.count:,} {started.kind} to {started.model}"
    said += f" · {duration(call.seconds)}" if call.seconds is not None else ""
    said += f" · {len(call.children)} children" if call.children else ""
    bad = f' <span style="color:{BAD}">{failed:,} failed</span>' if failed else ""
    return _div(_muted(said) + bad, "font-size:12px")


def _outputs(result: CellResult) -> Iterator[str]:
    for output in result.outputs:
        if output["output_type"] == "error":
            told = "\n".join(output.get("traceback") or [f"{output['ename']}: {output['evalue']}"])
            yield _pre(_text(told, 3, 8), f"color:{BAD}")
        elif (text := _shown(output)).strip():
            yield _pre(_text(text, 10, 6), "")
    if result.status in ("died", "timeout"):
        yield _div("The kernel died." if result.status == "died" else "The cell was ended.", f"color:{BAD}")


def _shown(output: Output) -> str:
    if output["output_type"] == "stream":
        return drawing.joined(output["text"])
    return drawing.joined(output["data"].get("text/plain") or f"[{', '.join(output['data'])}]")


# -- this moment


def _now(progress: Progress, unfolded: Collection[str]) -> Iterator[str]:
    cell = next((cell for cell in reversed(progress.run.cells) if cell.result is None), None)
    if cell is not None:
        code = _text(cell.code.strip("\n"), 16, 4)
        yield _pre(code, f"background:{_GROUND};border-left:2px solid {ACCENT};margin-top:8px")
    if progress.tail.strip():
        last = "\n".join(plain(progress.tail).rstrip().splitlines()[-_TAIL_LINES:])
        yield _pre(html.escape(last), "opacity:0.75")
    if progress.subcalls is not None:
        yield _subcalls(progress.subcalls, "calls" in unfolded)
    yield from _children(progress)


def _subcalls(calls: Subcalls, unfolded: bool) -> str:
    failed = f' · <span style="color:{BAD}">{calls.failed:,} failed</span>' if calls.failed else ""
    names = _escaped(f"{', '.join(calls.kinds)} to {', '.join(calls.models)}")
    bar = (
        f'<progress value="{calls.answered}" max="{max(1, calls.asked)}" '
        f'style="width:180px;vertical-align:middle;accent-color:{ACCENT}">{calls.answered} of {calls.asked}</progress>'
    )
    title = f"{bar}&ensp;<b>{calls.answered:,}/{calls.asked:,}</b> {_muted(names)}{failed}"
    samples = "".join(
        _div(f"{_short(one.prompt)} <b>⇒</b> {_short(one.text if one.error is None else one.error)}", "font-size:12px")
        for one in calls.samples
    )
    return _folded(title, samples, unfolded, "margin-top:6px") if samples else _div(title, "margin-top:6px")


def _children(progress: Progress) -> Iterator[str]:
    running = [(key, child) for key, child in progress.children.items() if not child.over]
    for (_, _, index), child in running[:_MOST_CHILDREN]:
        said = f"child {index + 1} · {_state(child)} · {_totals(child)}"
        yield _div(f"↳ {_escaped(said)}", "font-size:12px;margin-left:12px;opacity:0.8")
    if len(running) > _MOST_CHILDREN:
        yield _muted(f"↳ {len(running) - _MOST_CHILDREN:,} more children")


# -- the last line


def _footer(progress: Progress, link: str) -> str:
    state = f'<b style="color:{_colour(progress)}">{_escaped(_state(progress))}</b>'
    more = f" · {link}" if link else ""
    return _div(f"{state} {_muted(f'· {_totals(progress)}')}{more}", "margin-top:8px;font-size:12px")


def _state(progress: Progress) -> str:
    if progress.run.completion is not None:
        return "Answered"
    if progress.run.failure is not None:
        return "Stopped" if _was_stopped(progress) else type(progress.run.failure).__name__
    turn = f"{progress.turn} · " if progress.turn else ""
    return f"{turn}{progress.doing}"


def _was_stopped(progress: Progress) -> bool:
    return isinstance(progress.run.failure, asyncio.CancelledError | KeyboardInterrupt)


def _totals(progress: Progress) -> str:
    spent, asked = progress.usage(), progress.asked()
    parts = [duration(progress.seconds)]
    if asked:
        parts.append(f"{asked:,} sub-call" + ("s" if asked != 1 else ""))
    if spent.total_calls:
        parts += [tokens(spent.total_input_tokens, spent.total_output_tokens), cost(spent)]
    return " · ".join(parts)


def cost(spent: UsageSummary) -> str:
    """The cost in words; one that nobody knows is never 0."""
    return "cost unknown" if spent.total_cost is None else f"${spent.total_cost:.4f}"


# -- elements


def _text(text: str, head: int, tail: int) -> str:
    return html.escape(str(drawing.clipped(text, head, tail)))


def _short(text: str) -> str:
    line = " ".join(plain(text[:1_000]).split())
    return html.escape(line if len(line) <= _SHOWN else f"{line[: _SHOWN - 1]}…")


def _escaped(text: str) -> str:
    return html.escape(plain(text))


def _div(content: str, style: str) -> str:
    return f'<div style="{style}">{content}</div>'


def _pre(content: str, style: str) -> str:
    return f'<pre style="{_PRE};{style}">{content}</pre>'


def _muted(content: str) -> str:
    return f'<span style="opacity:0.65">{content}</span>'


def _folded(title: str, body: str, unfolded: bool, style: str) -> str:
    return f'<details style="{style}"{" open" if unfolded else ""}><summary>{title}</summary>{body}</details>'
