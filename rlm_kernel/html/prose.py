"""Markdown of a person or a model as elements: it is never HTML, and text that is not Markdown keeps its layout.

These are the only rules: the notebook, the view of a cell, the cards of results and the viewer draw what they give.
Links, images and HTML are shown as they were written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from rlm_kernel.html.markup import Formula, Node, as_data, h
from rlm_kernel.html.mathematics import mathml
from rlm_kernel.text import plain

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.rules_inline import StateInline
    from markdown_it.token import Token

MAX_CHARACTERS = 50_000
"""Of a text that is parsed here. A longer one is shown as it is."""

MAX_MATHEMATICS = 10_000
"""Characters of all formulas of a text. Those after it are shown as TeX."""

MAX_DEPTH = 60
"""Maximum nesting. The content of deeper elements is kept, without their tags."""

_MARKS = re.compile(
    r"^[ ]{0,3}(?:#{1,6}[ ]+\S|[-*+][ ]+\S|\d{1,9}[.)][ ]+\S|>[ ]?\S|```|~~~|-{3,}[ ]*$|\*{3,}[ ]*$)"  # blocks
    r"|^[ ]*\|?[ ]*:?-{2,}:?[ ]*\|"  # the second line of a table
    r"|\*\*(?=[^\s*])[^*\n]+\*\*|(?<![\w*])\*(?=[^\s*])[^*\n]*[^\s*]\*(?![\w*])"  # emphasis
    r"|(?<![\w_])_(?=[^\s_])[^_\n]*[^\s_]_(?![\w_])|`[^`\n]+`",
    re.MULTILINE,
)
_LAYOUT = re.compile(r"^[ \t]+\S|\S(?:\t| {2,})\S", re.MULTILINE)
_MATHEMATICAL = r"(?:[^$`\n]|\n(?![ \t]*\n))"
# Between brackets no further one may open: then each text is read once.
_IN_BRACKETS = r"(?:[^$`\n\\]|\\(?![()\[\]])|\n(?![ \t]*\n))"
FORMULA = re.compile(
    rf"(?<![\\$])\$\$(?!\$)(?=[ \t\n]*(?:[A-Za-z][ \t\n]*\$|{_MATHEMATICAL}*?[\\^_={{<>+]))"
    rf"(?P<block>{_MATHEMATICAL}+)\$\$(?!\$)"
    r"|(?<![\\$\w])\$(?=[^\s\d$](?:\$|[^$`\n]*[\\^_={<>+]))(?P<line>[^$`\n]*[^\s$`\\])\$(?![\w$])"
    rf"|\\\[(?P<brackets>{_IN_BRACKETS}++)\\\]|\\\((?P<parentheses>{_IN_BRACKETS}++)\\\)"
)
"""A formula. Two dollars are no formula: `$5 to $10` is money, and `$HOME` a variable of a shell."""
_ACTIVE_IN_TEX = re.compile(
    r"\\(?=(?:href|url|require|html[A-Za-z]*+|class|style|cssId|data|includegraphics|bbox|csname|[egx]?def|let"
    r"|(?:re)?newcommand|(?:re)?newenvironment)(?![A-Za-z]))"
)
_SIZES = ("1.3em", "1.17em", "1.07em", "1em")
_CELL = "border:1px solid rgba(128,128,128,0.3);padding:2px 8px"
_STYLES = {
    "p": "margin:4px 0",
    "ul": "margin:4px 0;padding-left:22px",
    "ol": "margin:4px 0;padding-left:22px",
    "blockquote": "margin:4px 0;padding-left:10px;border-left:3px solid rgba(128,128,128,0.3)",
    "table": "border-collapse:collapse;margin:6px 0",
    "th": _CELL,
    "td": _CELL,
}
_CODE = (
    "white-space:pre-wrap;overflow-wrap:anywhere;background:rgba(128,128,128,0.08);padding:6px 10px;border-radius:4px"
)
_AS_IT_IS = "white-space:pre-wrap;overflow-wrap:anywhere"

_Opened = tuple[str, dict[str, Any], list[Node]]


def is_markdown(text: str) -> bool:
    """Whether a text has a mark of Markdown or a formula, and is no JSON."""
    return (_MARKS.search(text) or FORMULA.search(text)) is not None and not _is_json(text)


def has_layout(text: str) -> bool:
    """Whether a text that is not Markdown has indented lines or columns, which Markdown would lose."""
    return _LAYOUT.search(text) is not None or _is_json(text)


def still_tex(text: str, joiner: str = "\N{WORD JOINER}") -> str:
    """A formula without commands that make links or define commands, which some renderers execute."""
    return _ACTIVE_IN_TEX.sub(rf"\g<0>{joiner}", text)


def delimited(found: re.Match[str]) -> str:
    """A `FORMULA` between dollars, which every renderer knows. It holds nothing that HTML could begin with."""
    kind = found.lastgroup or ""
    signs = "$$" if kind in ("block", "brackets") else "$"
    tex = found[kind].replace("<", r"\lt ").replace(">", r"\gt ")
    return f"{signs}{still_tex(tex.strip() if signs == '$' else tex)}{signs}"


def heading_ranks(levels: Iterable[int]) -> dict[int, int]:
    """The levels of the headings of a text, to their ranks from 0: so their sizes keep their order."""
    return {level: rank for rank, level in enumerate(sorted(set(levels)))}


def prose(text: str) -> Node:
    """A text as elements: Markdown where it is Markdown, else as it is."""
    shown = plain(text)
    nodes = _nodes(shown)
    return h("div", shown.strip("\n"), style=_AS_IT_IS) if nodes is None else nodes


def prose_data(text: str) -> list[Any] | None:
    """The same for the viewer, as `as_data` gives it; None: the text is shown as it is.

    A block of code is a `pre` whose attribute `data-info` is what stands behind its fence.
    """
    nodes = _nodes(text)
    return None if nodes is None else as_data(nodes)


@lru_cache(4_096)
def in_words(text: str) -> str:
    """A text without the marks of its Markdown, for one line of a list. Formulas stay TeX."""
    if len(text) > MAX_CHARACTERS or not is_markdown(text):
        return text
    tokens = _flat(_parser().parse(text))
    words = "".join(token.content or " " * (token.block or token.tag == "br") for token in tokens)
    return " ".join(words.split())


def _nodes(text: str) -> list[Node] | None:
    if len(text) > MAX_CHARACTERS or not is_markdown(text):
        return None
    tokens = list(_flat(_parser().parse(text)))
    return _tree(tokens, heading_ranks(int(one.tag[1]) for one in tokens if one.type == "heading_open"))


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    parser.disable(["link", "image", "autolink", "reference", "html_block", "html_inline", "lheading"])
    parser.inline.ruler.before("escape", "formula", _take_formula)
    return parser


def _take_formula(state: StateInline, silent: bool) -> bool:
    found = FORMULA.match(state.src, state.pos)
    if found is None:
        return False
    if not silent:
        spent = state.env["mathematics"] = state.env.get("mathematics", 0) + len(found[0])
        token = state.push("formula" if spent <= MAX_MATHEMATICS else "code_inline", "", 0)
        token.content = found[0]
    state.pos = found.end()
    return True


def _formula(found: re.Match[str]) -> Formula:
    kind = found.lastgroup or ""
    block = kind in ("block", "brackets")
    return Formula(delimited(found), lambda: mathml(found[kind].strip(), block=block) or h("code", found[0]))


def _flat(tokens: list[Token]) -> Iterator[Token]:
    for token in tokens:
        if token.type == "inline":
            yield from token.children or ()
        elif not token.hidden:
            yield token


def _tree(tokens: Iterable[Token], ranks: dict[int, int]) -> list[Node]:
    opened: list[_Opened] = [("", {}, [])]
    for token in tokens:
        if token.nesting > 0:
            opened.append((token.tag if len(opened) <= MAX_DEPTH else "", dict(token.attrs), []))
        elif token.nesting < 0:
            tag, attributes, children = opened.pop()
            opened[-1][2].append(_element(tag, attributes, children, ranks) if tag else children)
        else:
            opened[-1][2].append(_leaf(token))
    return opened[0][2]


def _element(tag: str, attributes: dict[str, Any], children: list[Node], ranks: dict[int, int]) -> Node:
    if tag in ("h1", "h2", "h3", "h4", "h5", "h6"):
        rank = min(ranks.get(int(tag[1]), 0), len(_SIZES) - 1)
        return h(f"h{rank + 3}", children, style=f"font-size:{_SIZES[rank]};margin:8px 0 4px")
    styles = [style for style in (_STYLES.get(tag), attributes.pop("style", None)) if style]
    if styles:
        attributes["style"] = ";".join(styles)
    return h(tag, children, **attributes)


def _leaf(token: Token) -> Node:
    match token.type:
        case "softbreak" | "hardbreak":
            return h("br")
        case "hr":
            return h("hr")
        case "code_inline":
            return h("code", token.content)
        case "fence" | "code_block":
            info = {"data_info": token.info.strip()} if token.info.strip() else {}
            return h("pre", token.content.rstrip("\n"), style=_CODE, **info)
        case "formula" if found := FORMULA.match(token.content):
            return _formula(found)
    return token.content


def _is_json(text: str) -> bool:
    if text.strip()[:1] not in ("{", "["):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
