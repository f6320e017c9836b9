"""The sub-calls and tool calls of a cell as one folded output below the cell.

HTML that opens without JavaScript, and short Markdown and text for clients that do not show HTML. The HTML is a tree of
elements, in which every string is text. Texts are clipped to a common limit; the log has all of them.
"""

from __future__ import annotations

import json
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, islice

from rlm_kernel.html.markup import Element, Node, details, h, render_output
from rlm_kernel.text import drop_common_beginning, format_cost, format_duration, format_tokens, one_line, plain
from rlm_kernel.trajectory.events import SubcallAnswered
from rlm_kernel.trajectory.notebook import markdown
from rlm_kernel.trajectory.notebook.saved_outputs import own_output
from rlm_kernel.trajectory.tree import Call, Cell, ToolUse, sum_paid
from rlm_kernel.types import Output

ALL_TEXTS = 300_000
"""Maximum characters of all prompts and answers of one cell."""

MAX_TEXT = 8_000
MIN_TEXT = 120
GROUP = 50
"""Prompts of a batch in one fold."""

IN_SHORT = 8
"""Calls in the Markdown and the text."""

_label = partial(one_line, limit=70)

ChildName = Callable[[int, int], str]
"""The file of a child's notebook, by the call's place in the cell and the prompt's in the call, both from 0."""


def calls_output(cell: Cell, child_name: ChildName) -> Output | None:
    """The calls of a cell, or None when it made none."""
    if not cell.calls and not cell.tools:
        return None
    texts = 2 * sum(call.started.count for call in cell.calls) + 2 * len(cell.tools)
    limit = max(MIN_TEXT, min(MAX_TEXT, ALL_TEXTS // texts))
    title = _title(cell)
    parts = [_call(call, limit, partial(child_name, number)) for number, call in enumerate(cell.calls)]
    parts += [_tool(use, limit) for use in cell.tools]
    short = [*islice(chain(*map(_in_short, cell.calls), map(_tool_in_short, cell.tools)), IN_SHORT)]
    rest = texts // 2 - len(short)
    more = [f"… and {rest:,} more, all in the log"] if rest > 0 else []
    data = {
        "text/html": render_output(_details(f"↳ {title}", parts)),
        "text/markdown": "\n".join([f"↳ {markdown.one_line(title, 200)}", "", *_items(short + more)]),
        "text/plain": "\n".join([f"↳ {title}", *(f"  {plain(s)}" for s in short + more)]),
    }
    return own_output("calls", data)


def _items(lines: Sequence[str]) -> Iterator[str]:
    return (f"* {markdown.one_line(one, 240)}" for one in lines)


def _title(cell: Cell) -> str:
    prompts = sum(call.started.count for call in cell.calls)
    parts = []
    if prompts:
        kinds = Counter(call.started.kind for call in cell.calls for _ in call.started.prompts)
        parts.append(" and ".join(f"{kind}: {count:,}" for kind, count in kinds.items()))
        parts.append(_usage_text(cell))
        missing = prompts - sum(len(call.answers) for call in cell.calls)
        failed = sum(answer.error is not None for call in cell.calls for answer in call.answers.values())
        parts += [f"{failed:,} failed"] * bool(failed) + [f"{missing:,} without an answer"] * bool(missing)
    if cell.tools:
        parts.append(f"tools: {len(cell.tools):,}")
    return " · ".join(parts)


def _usage_text(cell: Cell) -> str:
    summary = sum_paid(cell.spending())
    seconds = sum(call.seconds or 0.0 for call in cell.calls)
    sums = format_tokens(summary.total_input_tokens, summary.total_output_tokens)
    return f"{sums} · {format_cost(summary.total_cost, unpriced=summary.unpriced_models)} · {format_duration(seconds)}"


# -- sub-calls


def _call(call: Call, limit: int, child_name: Callable[[int], str]) -> Element:
    prompts = call.started.prompts
    labels = [_label(line) for line in drop_common_beginning([one_line(prompt, 2_000) for prompt in prompts])]
    rows = [_prompt(call, index, labels[index], limit, child_name(index)) for index in range(len(prompts))]
    if len(rows) == 1:
        return rows[0]
    title = f"{call.started.kind}_batched, {len(rows):,} prompts to {plain(call.started.model)}"
    if len(rows) > GROUP:
        rows = [*_groups(call, rows)]
    return _details(title, rows)


def _groups(call: Call, rows: Sequence[Element]) -> Iterator[Element]:
    for start in range(0, len(rows), GROUP):
        group = rows[start : start + GROUP]
        places = range(start, start + len(group))
        failed = sum(place not in call.answers or call.answers[place].error is not None for place in places)
        title = f"{start + 1:,} to {start + len(group):,}" + f" · {failed} failed" * bool(failed)
        yield _details(title, group)


def _prompt(call: Call, index: int, label: str, limit: int, child: str) -> Element:
    answer = call.answers.get(index)
    got = "no answer" if answer is None else _answer_text(answer)
    mark = "✗" if answer is None or answer.error is not None else "⇒"
    batch = f"{index + 1:,} " if call.started.count > 1 else f"{call.started.kind} "
    facts = [*([call.started.model] if answer is None else _facts(answer)), *_options(call)]
    body = [h("p", plain(" · ".join(facts)))]
    if index in call.children:
        body.append(h("p", h("a", "the notebook of this child run", href=urllib.parse.quote(child))))
    body += [*_block("prompt", call.started.prompts[index], limit), *_block("answer", got, limit)]
    return _details([h("b", batch), label, " ", h("b", mark), " ", _label(got)], body)


def _facts(answer: SubcallAnswered) -> list[str]:
    usage = answer.usage
    spent = format_tokens(usage.input_tokens, usage.output_tokens, usage.estimated_tokens), format_cost(usage.cost)
    attempts = [f"{answer.attempts} replies"] * (answer.attempts > 1)
    return [answer.model, *spent, format_duration(answer.seconds), *attempts]


def _options(call: Call) -> list[str]:
    """Pictures and a schema, if the call has them."""
    pictures, schema = call.started.images, call.started.schema
    return [f"{len(pictures)} pictures"] * bool(pictures) + ["an answer by schema"] * (schema is not None)


def _answer_text(answer: SubcallAnswered) -> str:
    return answer.text if answer.error is None else f"Error: {answer.error}"


def _in_short(call: Call) -> Iterator[str]:
    """One line for each prompt, made lazily."""
    for index, prompt in enumerate(call.started.prompts):
        answer = call.answers.get(index)
        got = "no answer" if answer is None else _answer_text(answer)
        yield f"{call.started.kind}: {_label(prompt)} ⇒ {_label(got)}"


# -- tools


def _tool(use: ToolUse, limit: int) -> Element:
    called, got = _call_text(use), _outcome(use)
    mark = "⇒" if use.outcome.error is None else "✗"
    summary: list[Node] = [h("b", _label(called)), " ", h("b", mark), " ", _label(got)]
    body = [h("p", format_duration(use.seconds)), *_block("call", called, limit), *_block("result", got, limit)]
    return _details(summary, body)


def _tool_in_short(use: ToolUse) -> str:
    return f"{_label(_call_text(use))} ⇒ {_label(_outcome(use))}"


def _call_text(use: ToolUse) -> str:
    named = [f"{name}={json.dumps(value)}" for name, value in use.call.kwargs.items()]
    return f"{use.call.tool}({', '.join([*map(json.dumps, use.call.args), *named])})"


def _outcome(use: ToolUse) -> str:
    if use.outcome.error is None:
        return use.outcome.text
    try:
        return ": ".join(map(str, json.loads(use.outcome.error)))
    except ValueError:
        return use.outcome.error


# -- elements


def _details(summary: Node, body: Node) -> Element:
    return details(summary, h("div", body, style="margin-left: 1.2em"))


def _block(name: str, text: str, limit: int) -> list[Element]:
    shown = plain(markdown.clip_text(text, limit))
    return [h("p", h("i", name)), h("pre", shown, style="white-space: pre-wrap")]
