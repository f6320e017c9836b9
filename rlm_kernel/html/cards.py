"""How results, usage, errors and an `RLM` look in a notebook: a short `repr`, and an HTML card made of elements."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping, Sequence

from rlm_kernel.html.markup import Element, Markup, Node, h, render_output
from rlm_kernel.text import plain

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 200

_LINE = "1px solid rgba(128,128,128,0.25)"
_FRAME = f"border:{_LINE};border-radius:6px;padding:8px 14px;max-width:980px;line-height:1.5"
_CELL = "padding:1px 12px 1px 0"


def short_repr(name: str, fields: Mapping[str, object]) -> str:
    """`Name(field=value, …)`, in which long values are shortened."""
    return f"{name}({', '.join(f'{key}={_short.repr(value)}' for key, value in fields.items())})"


def card(*parts: Node) -> Markup:
    """Parts in a frame."""
    return render_output(h("div", parts, style=_FRAME))


def title(text: str, beside: str = "") -> Element:
    """A line in bold, and facts in a fainter colour after it."""
    return h("div", [h("b", plain(text)), " ", small(beside)] if beside else h("b", plain(text)))


def small(text: str) -> Element:
    """Facts in a fainter colour."""
    return h("span", plain(text), style="opacity:0.65")


def as_it_is(text: str) -> Element:
    """A text with its lines, and no markup."""
    return h("div", plain(text), style="white-space:pre-wrap;overflow-wrap:anywhere")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Element:
    """A table. All columns but the first are aligned to the right."""
    align = ["left", *["right"] * (len(head) - 1)]
    made = [
        h("tr", [h("td", plain(one), style=f"text-align:{side};{_CELL}") for one, side in zip(row, align, strict=True)])
        for row in rows
    ]
    names = [h("th", one, style=f"text-align:{side};{_CELL}") for one, side in zip(head, align, strict=True)]
    return h("table", h("thead", h("tr", names)), h("tbody", made), style="border-collapse:collapse;margin:6px 0")


def settings(rows: Mapping[str, str]) -> Element:
    """Names and values, one pair in a row."""
    made = [
        h("tr", h("th", name, style=f"text-align:left;{_CELL}"), h("td", plain(value), style="text-align:left"))
        for name, value in rows.items()
    ]
    return h("table", h("tbody", made), style="border-collapse:collapse;margin:6px 0")
