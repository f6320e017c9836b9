"""A formula in TeX as MathML, which browsers draw without a script.

`latex2mathml` reads the TeX. What it makes is rebuilt from an allow-list: commands that would make a link, a class or a
style keep their content only, and lengths cannot reach over other parts of a page.
"""

from __future__ import annotations

import html
import logging
import re
from typing import TYPE_CHECKING

from rlm_kernel.html.markup import MATHEMATICS, Element, Node, h

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element as Read

_LOGGER = logging.getLogger(__name__)

MAX_CHARACTERS = 2_000
"""Of a formula that is drawn."""

MAX_DEPTH = 40

_LENGTH = r"\d{1,2}(?:\.\d{1,4})?(?:em|ex|pt|px|mu)|\.\d{1,4}em"
_ATTRIBUTES = {
    "accent": "true|false",
    "displaystyle": "true|false",
    "fence": "true|false",
    "form": "prefix|infix|postfix",
    "largeop": "true|false",
    "linethickness": rf"0|{_LENGTH}",
    "mathcolor": r"#[0-9A-Fa-f]{3,8}|[A-Za-z]{3,20}",
    "mathvariant": "normal",
    "maxsize": _LENGTH,
    "minsize": _LENGTH,
    "movablelimits": "true|false",
    "scriptlevel": r"[+-]?\d",
    "separator": "true|false",
    "stretchy": "true|false",
    "symmetric": "true|false",
    "width": _LENGTH,
}
_VALUES = {name: re.compile(rf"\A(?:{values})\Z") for name, values in _ATTRIBUTES.items()}


def mathml(tex: str, *, block: bool) -> Element | None:
    """A formula as an element, or None if it is not TeX that is known.

    Args:
        tex: without the signs around it.
        block: whether it has a line of its own.
    """
    if len(tex) > MAX_CHARACTERS:
        return None
    from latex2mathml.converter import convert_to_element

    style = "block" if block else "inline"
    try:
        read = convert_to_element(tex, display=style)
        return h("math", [_rebuilt(child, 1) for child in read], display=style)
    except Exception as error:  # noqa: BLE001 (of a text by a model: IndexError, RecursionError and its own)
        _LOGGER.debug("Not a formula that is known: %r", error)
        return None


def _rebuilt(read: Read, depth: int) -> Node:
    if depth > MAX_DEPTH:
        raise ValueError(f"The formula is nested more than {MAX_DEPTH} times.")
    inside: list[Node] = [html.unescape(read.text)] if read.text else []
    inside += [_rebuilt(child, depth + 1) for child in read]
    if read.tag not in MATHEMATICS:
        return h("mrow", inside)
    kept = {name: value for name, value in read.attrib.items() if name in _VALUES and _VALUES[name].match(value)}
    return h(read.tag, inside, **kept)
