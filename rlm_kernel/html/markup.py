"""HTML as elements: the one place where markup is made.

    render(h("p", "The reply: ", h("b", text), style="color:#dc2626"))

A string is always text, never markup: only an element makes a tag. So a view cannot forget to escape.
`tests/contract/test_markup.py` lists each string constant outside of this module that holds a tag.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from string import Template
from typing import Any, TypeAlias

VOID = frozenset("br col hr img meta wbr".split())
"""Elements without children and without an end."""

CONTENT = VOID - {"meta"} | frozenset(
    "a abbr b blockquote caption center cite code colgroup dd del details div dl dt em figcaption figure h1 h2 h3 h4 "
    "h5 h6 i ins kbd li mark ol p pre progress q s samp small span strong sub summary sup table tbody td tfoot th "
    "thead tr tt u ul var".split()
)
"""Inactive elements."""

MATHEMATICS = frozenset(
    "math merror mfrac mi mmultiscripts mn mo mover mpadded mphantom mprescripts mroot mrow ms mspace msqrt mstyle "
    "msub msubsup msup mtable mtd mtext mtr munder munderover".split()
)
"""Elements of MathML. None of them acts without an attribute that makes a link."""

NAMES = CONTENT | MATHEMATICS | {"meta", "script", "style"}
"""All elements. The text of a script and of a style sheet is not HTML: see `h`."""

PICTURE = re.compile(r"data:image/(?:png|jpeg|gif|webp|svg\+xml);base64,[A-Za-z0-9+/=]*+")
"""The address of a picture that is data in the page. A browser runs and loads nothing from it, not even from SVG."""

_BEGINS_FORMULA = re.compile(r"\$|\\(?=[(\[]|begin\{)")
_NO_FORMULAS = frozenset({"pre", "code", "script", "style"})
"""Elements in which MathJax looks for no formula."""

_ATTRIBUTE = re.compile(r"(?!on)[a-z][a-z-]*")
_WEB = re.compile(r"https?://[^\s/\\?#]", re.IGNORECASE)
_ELSEWHERE = re.compile(r"\A(?:[^/?#:]*+:|[/\\]{2}|[\x00-\x20])")
"""The beginning of an address that is not a path: a scheme, a host, or a character that hides one."""


class Markup(str):
    """Text that is markup already. Made by this module, and in places that `tests/contract/test_markup.py` allows."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Element:
    """An element; see `h`."""

    name: str
    children: tuple[Node, ...]
    attributes: dict[str, str]


@dataclass(frozen=True, slots=True)
class Formula:
    """A formula.

    Attributes:
        tex: between dollars, for `render_output`.
        draw: makes it as MathML, or as text if it cannot be drawn.
    """

    tex: str
    draw: Callable[[], Node]


Node: TypeAlias = str | Element | Formula | Iterable["Node"]
"""A text, an element, a formula, or several of them."""


def h(name: str, *children: Node, **attributes: str | int | bool) -> Element:
    """An element.

    Args:
        name: one of `NAMES`.
        children: texts, which are escaped, and elements. A script or a style sheet takes `Markup` alone.
        attributes: `http_equiv` becomes `http-equiv`; True becomes an attribute without a value, False none.

    Raises:
        ValueError: there is no such element, a void element has children, a script or a style sheet is foreign text, or
            an attribute could act: a listener, or an address that `is_address` refuses.
    """
    if name not in NAMES:
        raise ValueError(f"{name!r} is not an element that is made here: {', '.join(sorted(NAMES))}.")
    if name in VOID and children:
        raise ValueError(f"The element {name} has no children.")
    if name in ("script", "style") and not all(isinstance(child, Markup) for child in children):
        raise ValueError(f"The text of a {name} element is read as a program: give it as Markup.")
    given = {key.replace("_", "-"): value for key, value in attributes.items() if value is not False}
    return Element(
        name, children, {key: _checked(key, "" if held is True else str(held)) for key, held in given.items()}
    )


def details(summary: Node, *body: Node, **attributes: str | int | bool) -> Element:
    """A part that opens on a click, without JavaScript."""
    return h("details", h("summary", summary), *body, **attributes)


def render(*nodes: Node) -> Markup:
    """The nodes as HTML."""
    pieces: list[str] = []
    _write(nodes, pieces, still=False)
    return Markup("".join(pieces))


def render_output(*nodes: Node) -> Markup:
    """The nodes as HTML for an output of a notebook, whose front end typesets formulas: no text begins one."""
    pieces: list[str] = []
    _write(nodes, pieces, still=True)
    return Markup("".join(pieces))


def render_line(*nodes: Node) -> Markup:
    """The nodes as HTML in one line, for Markdown: there an empty line ends HTML, and Markdown begins again."""
    return Markup(render(*nodes).replace("\n", "&#10;"))


def embed_json(text: str) -> Markup:
    """JSON, or lines of it, for a script element of the type ``application/json``, which no character of it can end."""
    return Markup(text.replace("<", r"\u003c"))  # in JSON, a `<` is always a part of a string


def fill(template: str, **nodes: Node) -> Markup:
    """A page file of ours with nodes in the places of its ``$names``."""
    return Markup(Template(template).substitute({name: render(node) for name, node in nodes.items()}))


def as_data(node: Node) -> list[Any]:
    """The nodes for a script that builds elements itself: texts, and elements as `[name, attributes, children]`.

    Raises:
        TypeError: a node is markup already.
    """
    if isinstance(node, Markup):
        raise TypeError("Markup cannot be given as data: make it of elements.")
    if isinstance(node, str):
        return [node]
    if isinstance(node, Element):
        return [[node.name, node.attributes, as_data(node.children)]]
    return as_data(node.draw()) if isinstance(node, Formula) else [one for part in node for one in as_data(part)]


def is_address(name: str, value: str) -> bool:
    """Whether an address is safe: it does nothing before a click, and then opens what it names.

    Args:
        name: ``href``: a path or a page of the web; ``src``: a path or a picture that is a part of the address.
        value: the address.
    """
    is_path = _ELSEWHERE.match(value) is None
    return is_path or (PICTURE.fullmatch(value) if name == "src" else _WEB.match(value)) is not None


def _checked(name: str, value: str) -> str:
    """The value of an attribute.

    Raises:
        ValueError: it could act.
    """
    if not _ATTRIBUTE.fullmatch(name):
        raise ValueError(f"{name!r} is not an attribute that is made here; listeners are not.")
    if name in ("href", "src") and not is_address(name, value):
        raise ValueError(f"{name}={value[:80]!r} is not a path, nor an address that is allowed there.")
    return value


def _write(node: Node, pieces: list[str], *, still: bool) -> None:
    if isinstance(node, str):
        pieces.append(node if isinstance(node, Markup) else _escaped(node, still=still))
    elif isinstance(node, Element):
        attributes = (
            f' {name}="{html.escape(value)}"' if value else f" {name}" for name, value in node.attributes.items()
        )
        pieces.append(f"<{node.name}{''.join(attributes)}>")
        if node.name not in VOID:
            _write(node.children, pieces, still=still and node.name not in _NO_FORMULAS)
            pieces.append(f"</{node.name}>")
    elif isinstance(node, Formula):
        _write(Markup(html.escape(node.tex)) if still else node.draw(), pieces, still=still)
    else:
        for one in node:
            _write(one, pieces, still=still)


def _escaped(text: str, *, still: bool) -> str:
    """The text as HTML. `still`: what could begin a formula is an element of its own: MathJax does not join them."""
    escaped = html.escape(text)
    return _BEGINS_FORMULA.sub(r"<span>\g<0></span>", escaped) if still else escaped
