"""Rich's console, for foreign text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from rlm_kernel.text import plain


class PlainConsole(Console):
    """A console that a text cannot give orders to. Only what Rich itself adds (styles, movements) reaches the terminal.

    No markup, no emoji codes and no highlighting: what looks like one is text.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"highlight": False, "markup": False, "emoji": False, **options})

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of a renderable, with text only in them."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=plain(segment.text))
