"""Convert untrusted text to inactive Markdown.

JupyterLab, VS Code, nbconvert and GitHub parse Markdown differently, so this does not rely on a parser: an invisible
character (U+2060, a word joiner) after its first character breaks everything that could begin HTML, an image or a link.
Lists, emphasis, tables, code and formulas are unchanged; two dollars alone are money. A URL in the text may become a
link to that URL.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from functools import partial

from rlm_kernel import text as text_module
from rlm_kernel.html import markup
from rlm_kernel.html.markup import Markup, h, render
from rlm_kernel.html.prose import FORMULA, delimited, has_layout, heading_ranks, is_markdown, still_tex
from rlm_kernel.parsing import split_blocks
from rlm_kernel.text import clip, plain

JOINER = "\N{WORD JOINER}"

MAX_CHARACTERS = 500_000
"""Of a text that is shown as Markdown."""

_ACTIVE = re.compile(
    r"<(?=[A-Za-z/!?])"  # HTML, and links in angle brackets
    r"|!(?=\[)"  # images
    r"|\](?=[(:\[])"  # links and their definitions
    r"|`(?=``)|~(?=~~)"  # fences that this file has not seen
    r"|\\(?=(?:begin|end)\{|\\[(\[])"  # formulas without dollars
)
_CODE_SPAN = re.compile(r"(?<!`)(`{1,2})(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
_TICKS = re.compile(r"`+")
_DOLLAR = re.compile(r"\\?\$")
_ACTIVE_OF_UNKNOWN = re.compile(
    r"<(?=[A-Za-z/!?])(?!/?(?:small|span|details|summary)>)"  # HTML but for the elements that this module makes
    r"|!(?=\[)"
    r"|\](?=[:\[])|\](?=\()(?!\((?!/)[\w%~./-]+\))"  # links, but for those to files nearby
    r"|`(?=``)|~(?=~~)"
)
_ACTIVE_IN_FORMULA = re.compile(r"!(?=\[)|\](?=[(:\[])|~(?=~~)")  # where a renderer knows no formulas
_MONEY = render(h("span", Markup(r"\$")))
"""A dollar that begins no formula: the backslash is for Markdown parsers, the tags are for MathJax."""
_INSIDE = r"^((?:[ \t]*+(?:>|[-*+]|\d{1,9}[.)]))*+[ \t]*)"  # of quotations and lists
_HEADING = re.compile(rf"{_INSIDE}(#{{1,6}})(?=[ \t]|$)", re.MULTILINE)
_UNDERLINE = re.compile(rf"{_INSIDE}(?==+[ \t]*$|-+[ \t]*$)", re.MULTILINE)
_BREAK = re.compile(r"(?<=\S)[ \t]*\n(?=[ \t]*\S)")
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~<>&-])")
_HIGHEST_HEADING, _LOWEST_HEADING = 3, 5
"""Those above are the notebook's own; JupyterLab shows those below in smaller letters than the text."""


def prose(text: str, *, breaks: bool = False, levels: Collection[int] | None = None) -> str:
    """The text as Markdown without HTML, images and links; its headings are below those of the notebook.

    Args:
        text: untrusted; longer than `MAX_CHARACTERS`, it is clipped in the middle.
        breaks: whether line breaks are kept, as in a question or an answer. Then text with indented lines or columns
            that is not Markdown becomes a code block.
        levels: of the headings of the text that this is a part of; None: those of this text.
    """
    shown = plain(clip_text(text, MAX_CHARACTERS))
    if breaks and has_layout(shown) and not is_markdown(shown):
        return code_block(shown)
    ranks = heading_ranks(heading_levels(shown) if levels is None else levels)
    return _in_parts(shown, partial(_inert, breaks=breaks, ranks=ranks))


def heading_levels(text: str) -> set[int]:
    """The levels of the headings of a text."""
    parts = [part for part in split_blocks(text) if isinstance(part, str)] if "#" in text else []
    return {len(one[2]) for part in parts for one in _HEADING.finditer(part)}


def one_line(text: str, limit: int = 120) -> str:
    """The text in one line of at most `limit` characters, without any markup: for headings and tables."""
    # Escaped alone, a sign behind a URL would not be: some take the backslash for a part of the URL.
    inactive = _inactive(text_module.one_line(text, limit))
    return escape_dollars(_SPECIAL.sub(r"\\\1", inactive))


def escape_dollars(text: str) -> str:
    """The text with dollars that begin no formula."""
    return _DOLLAR.sub(lambda _: _MONEY, text)


def code_block(text: str, language: str = "") -> str:
    """The text as a code block that nothing in it can end."""
    shown = plain(text).strip("\n")
    longest = max((len(run) for run in _TICKS.findall(shown)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{shown}\n{fence}"


def details(summary: str, body: str) -> str:
    """A part that opens on a click, without JavaScript. `body`: Markdown of this module; `summary`: any text."""
    return render(markup.details(text_module.one_line(summary), Markup(f"\n\n{body}\n\n")))


def small(text: str) -> str:
    """Markdown of this module in small letters."""
    return render(h("small", Markup(text)))


def harmless(text: str) -> str:
    """Untrusted Markdown without active parts, except those that this module makes. Idempotent.

    For notebooks of other users, and for Markdown that a kernel sent.
    """
    return _in_parts(plain(text), lambda prose: tex(_ACTIVE_OF_UNKNOWN.sub(rf"\g<0>{JOINER}", prose.strip("\n"))))


tex = partial(still_tex, joiner=JOINER)
"""Formulas without commands that make links or define commands, which some renderers execute."""

clip_text = partial(clip, gap="\n… {:,} characters left out; the log has them …\n")
"""Clips a text in the middle, for the notebook of a run."""


def _in_parts(text: str, convert: Callable[[str], str]) -> str:
    """The text with its code blocks fenced again, and the text around them converted."""
    parts = (
        convert(part) if isinstance(part, str) else code_block(part.code, part.language) for part in split_blocks(text)
    )
    return "\n\n".join(part for part in parts if part.strip())


def _inert(text: str, breaks: bool, ranks: dict[int, int]) -> str:
    lowered = _HEADING.sub(partial(_lower, ranks=ranks), text.strip("\n"))
    shown = "".join(_pieces(_UNDERLINE.sub(r"\n\1", lowered)))
    return _BREAK.sub("  \n", shown) if breaks else shown


def _inactive(text: str) -> str:
    return _ACTIVE.sub(lambda found: found[0] + JOINER, text)  # a template would take three times as long


def _lower(heading: re.Match[str], ranks: dict[int, int]) -> str:
    return heading[1] + "#" * min(_LOWEST_HEADING, _HIGHEST_HEADING + ranks.get(len(heading[2]), 0))


def _pieces(text: str) -> Iterator[str]:
    """The text without active parts: code spans, formulas, and the words between them, whose dollars are money."""
    at = 0
    for span in _CODE_SPAN.finditer(text):
        yield from _words_and_formulas(text[at : span.start()])
        yield _inactive(span[0])
        at = span.end()
    yield from _words_and_formulas(text[at:])


def _words_and_formulas(text: str) -> Iterator[str]:
    at = 0
    for found in FORMULA.finditer(text):
        yield escape_dollars(_inactive(text[at : found.start()]))
        yield _ACTIVE_IN_FORMULA.sub(rf"\g<0>{JOINER}", delimited(found))
        at = found.end()
    yield escape_dollars(_inactive(text[at:]))
