"""Markdown of a model in a terminal, block by block while it is written."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.markdown import Markdown
from rich.segment import Segment
from rich.text import Text

from rlm_kernel.html.prose import has_layout, is_markdown
from rlm_kernel.text import plain

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

MAX_BLOCK = 20_000
"""Characters of a block. A longer one is shown as it is, up to its last whole line."""


class MarkdownBlocks:
    """Divides a text in progress into blocks: a finished block is drawn once, and never parsed again.

    Attributes:
        tail: the block that is not finished.
    """

    def __init__(self) -> None:
        self.tail = ""

    def feed(self, words: str) -> list[str]:
        """The blocks that these words finish."""
        self.tail += words
        if "\n" not in words or not self.tail.strip():
            return []
        lines = self.tail.splitlines(keepends=True)
        begins = len(lines) - 1 if len(self.tail) > MAX_BLOCK else _last_block(self.tail)
        done, self.tail = "".join(lines[:begins]), "".join(lines[begins:])
        return [done] if done.strip() else []

    def finish(self) -> list[str]:
        """The last block."""
        done, self.tail = self.tail, ""
        return [done] if done.strip() else []


def _last_block(text: str) -> int:
    """The line in which the last block begins."""
    begins = [token.map[0] for token in _parser().parse(text) if token.map is not None and token.level == 0]
    return max(begins, default=0)


def block(text: str) -> RenderableType:
    """A block of an answer: Markdown, or text whose layout Markdown would lose, as it is."""
    shown = plain(text).strip("\n")
    if len(shown) > MAX_BLOCK or (has_layout(shown) and not is_markdown(shown)):
        return Text(shown)
    return _Markdown(shown)


class Trimmed:
    """A renderable without blank lines before and after it, with a margin.

    Args:
        content: is drawn.
        margin: columns to its left.
        last: how many of its lines are drawn, the last ones; None: all.
    """

    def __init__(self, content: RenderableType, margin: int, last: int | None = None) -> None:
        self._content = content
        self._margin = margin
        self._last = last

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        room = options.update(width=max(1, options.max_width - self._margin), height=None)
        lines = console.render_lines(self._content, room, pad=False)
        filled = [place for place, line in enumerate(lines) if any(segment.text.strip() for segment in line)]
        shown = lines[filled[0] : filled[-1] + 1] if filled else []
        for line in shown if self._last is None else shown[-self._last :]:
            yield Segment(" " * self._margin)
            yield from line
            yield Segment.line()


class _Markdown(Markdown):
    """Rich's Markdown, without what hides text or leads elsewhere: HTML is text, and a link shows its address."""

    def __init__(self, text: str) -> None:
        super().__init__("", code_theme="ansi_dark", hyperlinks=False)
        self.markup, self.parsed = text, _parser().parse(text)


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
