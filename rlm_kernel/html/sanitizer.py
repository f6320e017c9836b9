"""Rebuild untrusted HTML from inactive elements.

The tags of `CONTENT` become elements of `rlm_kernel.html.markup`, with their inactive attributes. Everything else is
text, or left out: scripts, style sheets, forms, drawings, comments. The result is safe by construction, however a
browser would parse the input. Pictures are kept if they are data in the page itself: nothing is loaded.

Takes linear time. Ammonia (`nh3`) does not: 200,000 nested elements take it a minute.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from rlm_kernel.html.markup import CONTENT, PICTURE, VOID, Markup, Node, h, is_address, render

MAX_DEPTH = 60
"""Maximum nesting. The content of deeper elements is kept, without their tags."""

MAX_ELEMENTS = 20_000
"""Of one text. The content of further elements is kept, without their tags."""

MAX_ATTRIBUTES = 40

STYLES = frozenset(
    "background-color border border-bottom border-collapse border-left border-right border-spacing border-top color "
    "font-family font-size font-style font-variant font-weight line-height margin-left max-height max-width min-width "
    "opacity overflow overflow-wrap padding padding-bottom padding-left padding-right padding-top text-align "
    "text-decoration vertical-align white-space width".split()
)
"""Properties that are kept: they take no address, and cannot put one element over another."""

_ANYWHERE = frozenset({"align", "class", "colspan", "dir", "rowspan", "scope", "style", "title", "valign"})
_ATTRIBUTES = {
    "a": {"href"},
    "details": {"open"},
    "img": {"alt", "height", "src", "width"},
    "ol": {"start"},
    "progress": {"max", "value"},
    "table": {"border"},
}
_CLASSES = frozenset({"dataframe"})
"""The class of tables by pandas, for which JupyterLab has a style. Any other class could imitate a part of the page."""

_VALUE = r"""(?:"[^"]*+"|'[^']*+'|[^\s"'<>=`]++)"""
_ATTRIBUTE = re.compile(rf"(?P<name>[\w:.-]++)(?:\s*+=\s*+(?P<value>{_VALUE}))?+")
_TAG = re.compile(
    rf"<(?P<end>/?)(?P<name>[A-Za-z][A-Za-z0-9]*+)"
    rf"(?P<attributes>(?:\s++[\w:.-]++(?:\s*+=\s*+{_VALUE})?+){{0,{MAX_ATTRIBUTES}}}+)\s*+/?>"
)
_NO_CONTENT = re.compile(
    r"<(?P<name>script|style|title|textarea|xmp|iframe|noembed|noframes|noscript|template|object|select|svg|math)\b"
    r"(?:.*?</(?P=name)\s*+>|.*)|<!--(?:.*?-->|.*)|<[!?][^>]*+>?",
    re.IGNORECASE | re.DOTALL,
)
_STYLE = re.compile(r"\A\s*+(?P<name>[a-z-]++)\s*+:\s*+(?P<value>[\w\s#%.,()'+-]++)", re.IGNORECASE)

_Opened = tuple[str, dict[str, str], list[Node]]
"""An element that is not closed yet: its name, its attributes and its children."""


def sanitize(text: str, *, ours: bool = False) -> Markup:
    """Inactive HTML. Idempotent.

    Args:
        text: HTML, which need not be well formed.
        ours: whether the page around it is ours: then classes and links to files in its folder are kept.
    """
    return render(_tree(_NO_CONTENT.sub("", text), ours))


def _tree(text: str, ours: bool) -> list[Node]:
    opened: list[_Opened] = [("", {}, [])]  # the first one is the text itself
    at = count = 0
    for tag in _TAG.finditer(text):
        if count == MAX_ELEMENTS:
            text, at = _TAG.sub("", text[at:]), 0
            break
        opened[-1][2].append(html.unescape(text[at : tag.start()]))
        at, name = tag.end(), tag["name"].lower()
        if name not in CONTENT:
            continue
        count += not tag["end"]
        if tag["end"]:
            _close(opened, name)
        elif name in VOID:
            opened[-1][2].append(h(name, **_attributes(name, tag["attributes"], ours)))
        elif len(opened) <= MAX_DEPTH:
            opened.append((name, _attributes(name, tag["attributes"], ours), []))
    opened[-1][2].append(html.unescape(text[at:]))
    while len(opened) > 1:
        _close(opened, opened[-1][0])
    return opened[0][2]


def _close(opened: list[_Opened], name: str) -> None:
    """Close the innermost element of this name and those inside it; do nothing if none is open."""
    if name not in (element[0] for element in opened):
        return
    last = ""
    while last != name:
        last, attributes, children = opened.pop()
        opened[-1][2].append(h(last, children, **attributes))


def _attributes(tag: str, written: str, ours: bool) -> dict[str, str]:
    allowed = _ANYWHERE | _ATTRIBUTES.get(tag, set())
    kept: dict[str, str] = {}
    for one in _ATTRIBUTE.finditer(written):
        name, value = one["name"].lower(), html.unescape((one["value"] or "").strip("\"'"))
        if name in allowed and (held := _kept(name, value, ours)) is not None:
            kept.setdefault(name, held)
    return kept


def _kept(name: str, value: str, ours: bool) -> str | None:
    """The safe value of an attribute; None: the attribute is dropped."""
    match name:
        case "class":
            return value if ours or value in _CLASSES else None
        case "style":
            return "; ".join(_styles(value)) or None
        case "src":
            picture = "".join(value.split())
            return picture if PICTURE.fullmatch(picture) else None
        case "href":
            web = value.lower().startswith(("http://", "https://"))
            return value if (ours or web) and is_address(name, value) else None
    return value


def _styles(style: str) -> Iterator[str]:
    for declared in style.split(";"):
        one = _STYLE.fullmatch(declared)
        if one is not None and one["name"].lower() in STYLES and "url" not in one["value"].lower():
            yield f"{one['name'].lower()}: {one['value'].strip()}"
