"""The finished parts of a run as Rich renderables.

All untrusted text passes through `plain` and becomes `Text`, so nothing that a model wrote is markup. Long texts are
clipped in the middle.

    [1] │ code of a cell, highlighted
        → its output
        ✗ its traceback
        ↳ its sub-calls
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.panel import Panel
from rich.segment import Segment
from rich.style import Style
from rich.syntax import ANSISyntaxTheme, Syntax
from rich.table import Table
from rich.text import Text

from rlm_kernel.text import (
    drop_common_beginning,
    format_cost,
    format_duration,
    format_tokens,
    join_text,
    one_line,
    plain,
)
from rlm_kernel.trajectory.console.status import subcalls_title
from rlm_kernel.trajectory.states import ending_of
from rlm_kernel.trajectory.tree import describe_ending

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlm_kernel.trajectory.events import ModelReplied, RunStarted, SubcallAnswered
    from rlm_kernel.trajectory.progress import Subcalls
    from rlm_kernel.types import CellResult, Output, UsageSummary

_MARGIN = 4
_LINE_CHARACTERS = 600
_MAX_OUTPUTS = 20
_MAX_TRACEBACK = 20_000
_IPYTHON_HEAD = re.compile(r"\A(?:-++\n)?(?:\w++ {2,}+(Traceback \(most recent call last\)))?")
"""A rule and the name of the error, for a screen of 75 columns. The last line repeats the name."""


def header(event: RunStarted) -> RenderableType:
    """The question, the models, the environment and the size of the context."""
    question = event.asked or "No separate question: the context holds it."
    return Group("", _panel(clip_lines(question, 12, 4), "question", plain(event.facts), "cyan"))


def turn(number: str, event: ModelReplied) -> RenderableType:
    """The line above the reply of an iteration."""
    usage = event.reply.usage
    tokens = format_tokens(usage.input_tokens, usage.output_tokens, usage.estimated_tokens)
    facts = f"{tokens} · {format_duration(event.seconds)}"
    cut = [("cut by the length limit · ", "yellow")] if event.reply.finish_reason == "length" else []
    return Group("", _Rule(Text(number, style="bold"), Text.assemble(*cut, (facts, "dim"))))


def words(text: str) -> RenderableType:
    """The prose of a reply."""
    return _with_mark(" ", clip_lines(text.strip(), 30, 10), "")


def code(source: str, number: int | None) -> RenderableType:
    """A code block. `number`: of the cell; None: the block did not run."""
    label = "" if number is None else f"[{number}]"
    text = _highlighter().highlight(str(clip_lines(source.strip("\n"), 60, 20)))
    text.rstrip()
    text.no_wrap, text.overflow = False, "fold"
    if number is None:
        text.stylize("dim")
    return _Margin(text, f"{label:>{_MARGIN - 1}} │ ", "cyan", f"{'':{_MARGIN}}│ ")


def output(result: CellResult) -> RenderableType:
    """The outputs and the ending of a cell."""
    shown = _outputs(result.outputs)
    if ending := describe_ending(result):
        shown.append(_with_mark("✗", Text(ending, style="red"), "red"))
    if not shown:
        shown.append(_with_mark("→", Text("no output", style="dim"), "dim"))
    if result.seconds >= 1 and result.status != "timeout":
        shown.append(_with_mark(" ", Text(f"took {format_duration(result.seconds)}", style="dim"), "dim"))
    return Group(*shown)


def subcalls(done: Subcalls, seconds: float) -> RenderableType:
    """The sub-calls of a cell in one line, with a few of them as examples."""
    spent = f"{format_tokens(done.input_tokens, done.output_tokens)} · {format_duration(seconds)}"
    title = Text.assemble(f"{done.prompts:,} ", subcalls_title(done), (f" · {spent}", "dim"))
    prompts = drop_common_beginning([one_line(sample.prompt, _LINE_CHARACTERS) for sample in done.samples])
    samples = (_sample(prompt, sample) for prompt, sample in zip(prompts, done.samples, strict=True))
    return Group(_with_mark("↳", title, "cyan"), *samples)


def message(text: str) -> RenderableType:
    """A message of the user in a conversation."""
    return Group("", _panel(clip_lines(text, 20, 10), "message", "", "cyan"))


def notice(message: str) -> RenderableType:
    """A message for the user."""
    return _with_mark("!", _styled(clip_lines(message, 20, 10), "yellow"), "yellow")


def quiet(message: str) -> RenderableType:
    """A minor fact."""
    return _with_mark(" ", _styled(clip_lines(message, 20, 10), "dim"), "")


def answer(text: str, facts: str) -> RenderableType:
    """The answer of the run."""
    return Group("", _panel(clip_lines(text, 80, 20), "answer", facts, "green"))


def failure(error: BaseException, seconds: float) -> RenderableType:
    """The end of a run without an answer. The message of the error is not drawn: the caller of the run gets it."""
    text = f"{ending_of(error)} after {format_duration(seconds)}"
    return Group("", _with_mark("✗", Text(text, "bold red"), "red"))


def usage(summary: UsageSummary) -> RenderableType:
    """Calls, tokens and cost by model; nothing where no model was called."""
    if not summary.model_usage_summaries:
        return Group()
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("model", overflow="ellipsis", no_wrap=True)
    for name in ("calls", "tokens in", "tokens out", "cost"):
        table.add_column(name, justify="right", no_wrap=True)
    for model, spent in summary.model_usage_summaries.items():
        cost = format_cost(spent.total_cost, "unknown")
        sent, received = f"{spent.total_input_tokens:,}", f"{spent.total_output_tokens:,}"
        table.add_row(Text(plain(model)), f"{spent.total_calls:,}", sent, received, cost)
    guessed = Text(f"{summary.estimated_tokens:,} of the tokens are an estimate, the most it can be", style="dim")
    return Padding(Group(table, guessed) if summary.estimated_tokens else table, (0, 0, 1, 2))


def clip_lines(text: str, head: int, tail: int) -> Text:
    """At most `head` + `tail` lines of the text, clipped in the middle, without control sequences."""
    reach = _LINE_CHARACTERS * (head + tail)
    if len(text) > 2 * reach:  # The cost must not grow with text that is not shown.
        lines = [*_lines(text[:reach])[:head], None, *_lines(text[-reach:])[-tail:]]
        left_out = f"… {len(text):,} characters in all …"
    else:
        every = _lines(text)
        lines = every if len(every) <= head + tail + 1 else [*every[:head], None, *every[-tail:]]
        left_out = f"… {len(every) - head - tail:,} more lines …"
    return Text("\n").join(
        Text(left_out, style="dim italic") if line is None else Text(_shorten(line)) for line in lines
    )


def _lines(text: str) -> list[str | None]:
    return list(plain(text).rstrip("\n").expandtabs(4).split("\n"))


def _shorten(line: str) -> str:
    if len(line) <= _LINE_CHARACTERS:
        return line
    return f"{line[:_LINE_CHARACTERS]} … {len(line) - _LINE_CHARACTERS:,} more characters"


def _outputs(items: Sequence[Output]) -> list[RenderableType]:
    """The first and the last of the outputs: a cell may show a million of them."""
    more = len(items) - 2 * _MAX_OUTPUTS
    first, last = (items, ()) if more <= 0 else (items[:_MAX_OUTPUTS], items[-_MAX_OUTPUTS:])
    gap = [_with_mark("…", Text(f"{more:,} more outputs", style="dim italic"), "dim")] if more > 0 else []
    return [*_shown(first), *gap, *_shown(last)]


def _shown(items: Sequence[Output]) -> list[RenderableType]:
    return [part for item in items if (part := _output(item)) is not None]


def _output(item: Output) -> RenderableType | None:
    if item["output_type"] == "error":
        return _with_mark("✗", _traceback(item), "red")
    if item["output_type"] == "stream":
        style = "yellow" if item["name"] == "stderr" else ""
        return _text_output(join_text(item["text"]), style)
    kinds = item["data"]
    return _text_output(join_text(kinds.get("text/plain") or f"[{', '.join(kinds)}]"), "")


def _text_output(text: str, style: str) -> RenderableType | None:
    if not text.strip():
        return None
    return _with_mark("→", _styled(clip_lines(text, 12, 8), style), "dim")


def _styled(text: Text, style: str) -> Text:
    text.style = style
    return text


def _traceback(item: Output) -> Text:
    lines = item.get("traceback") or [f"{item['ename']}: {item['evalue']}"]
    whole = "\n".join(lines)
    ends = whole if len(whole) <= 2 * _MAX_TRACEBACK else f"{whole[:_MAX_TRACEBACK]}\n…\n{whole[-_MAX_TRACEBACK:]}"
    text = clip_lines(_IPYTHON_HEAD.sub(r"\1", plain(ends)), 4, 14)
    *_, last = text.split("\n")
    text.stylize("red", len(text) - len(last))
    return text


def _sample(prompt: str, event: SubcallAnswered) -> RenderableType:
    got = one_line(event.text if event.error is None else event.error, _LINE_CHARACTERS)
    row = Table.grid(padding=(0, 1), expand=True)
    row.add_column(width=_MARGIN + 1)
    row.add_column(ratio=3, no_wrap=True, overflow="ellipsis", style="dim")
    row.add_column(width=1, style="dim")
    row.add_column(ratio=2, no_wrap=True, overflow="ellipsis", style="dim" if event.error is None else "red")
    row.add_row("", Text(prompt), "⇒", Text(got))
    return row


def _panel(text: Text, title: str, facts: str, colour: str) -> Panel:
    return Panel(
        text,
        title=Text(title, style="bold"),
        title_align="left",
        subtitle=Text(facts, style="dim"),
        subtitle_align="right",
        border_style=colour,
        box=box.ROUNDED,
        padding=(0, 1),
    )


def _with_mark(mark: str, text: Text, style: str) -> RenderableType:
    return _Margin(text, f"{'':{_MARGIN}}{mark} ", style, " " * (_MARGIN + 2))


@functools.cache
def _highlighter() -> Syntax:
    return Syntax("", "python", theme=_theme())


@functools.cache
def _theme() -> ANSISyntaxTheme:
    """A few colours of the terminal's own palette, readable on a light and on a dark background."""
    colours = {
        "Comment": Style(dim=True, italic=True),
        "Keyword": Style(color="magenta"),
        "Operator.Word": Style(color="magenta"),
        "Literal.String": Style(color="green"),
        "Literal.Number": Style(color="cyan"),
        "Name.Builtin": Style(color="blue"),
        "Name.Function": Style(color="blue"),
        "Name.Class": Style(color="blue", bold=True),
        "Name.Exception": Style(color="red"),
    }
    return ANSISyntaxTheme({tuple(kind.split(".")): style for kind, style in colours.items()})


class _Margin:
    """Text wrapped next to a margin; the margin of the first line may differ."""

    def __init__(self, text: Text, first: str, style: str, rest: str) -> None:
        self._text = text
        self._first = first
        self._rest = rest
        self._style = style

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = max(1, options.max_width - len(self._first))
        style = console.get_style(self._style)
        margin = self._first
        for line in console.render_lines(self._text, options.update(width=width, height=None), pad=False):
            yield Segment(margin, style)
            yield from line
            yield Segment.line()
            margin = self._rest


class _Rule:
    """A line across the screen with text at both ends."""

    def __init__(self, left: Text, right: Text) -> None:
        self._left = left
        self._right = right

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        fill = options.max_width - self._left.cell_len - self._right.cell_len - 8
        line = Text.assemble(("── ", "dim"), self._left, " ", ("─" * max(1, fill), "dim"), " ", self._right)
        yield Text.assemble(line, (" ──" if fill > 0 else "", "dim"), no_wrap=True, overflow="ellipsis")
