"""Texts that a reply quotes, such as a mail of the context: an answer in them is none of the model's."""

from __future__ import annotations

import re
from collections.abc import Iterator

_CALL = re.compile(r"^[ \t]*+>[ \t>*_`]*+FINAL(?:_?VAR)?[*_`]{0,3}\(", re.MULTILINE | re.IGNORECASE)
_LINES = re.compile(r"(?:(?<![ \t])[ \t]*+>[^\n]*+(?:\n|\Z))++")
_OF_MODEL = re.compile("answer|result|final|conclu|therefore|thus", re.IGNORECASE)
_WORD = re.compile(r"\w")
_HEADER = re.compile(
    r"\A\s*+(?:From|To|Cc|Subject|Date|Sent|Reply-To|User|Assistant|System|Human|Customer|Agent|Bot)[ \t]*+:[ \t]++"
    r"(?![\w.\[\], |]++=)\S"
)
_MAX_LINE = 500
"""Characters of the line before a quotation."""


def quotations(text: str) -> Iterator[re.Match[str]]:
    """The lines of Markdown quotations, from a call on, that are introduced by other words than the model's answer."""
    end = 0
    for call in _CALL.finditer(text) if ">" in text else ():
        if call.start() >= end and _is_introduced(text, call.start()) and (lines := _LINES.match(text, call.start())):
            end = lines.end()
            yield lines


def is_correspondence(text: str) -> bool:
    """Whether a text begins like a mail, or a conversation: `From: ...`, `User: ...`."""
    return _HEADER.match(text) is not None


def _is_introduced(text: str, at: int) -> bool:
    """Whether a line of a quotation, or one that ends with a colon, stands before a place."""
    before = text[max(0, at - _MAX_LINE) : at]
    line = before.rstrip().rpartition("\n")[2].strip()
    if _OF_MODEL.search(line) or not _WORD.search(line):
        return False
    return line.endswith(":") or (line.startswith(">") and before.count("\n", len(before.rstrip())) == 1)
