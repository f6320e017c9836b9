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
_WORDS_LANGUAGE = re.compile(
    r"|code|text|te?xt|plain(?:text)?|log|output|console|html?|xml|markdown|md|e?mail|quote", re.IGNORECASE
)
_ANY_CALL = re.compile(r"(?<![\w.])FINAL(?:_?VAR)?[*_`]{0,3}\(", re.IGNORECASE)
_OF_DOCUMENT = re.compile(
    r"\b(?:log|line|mails?|e-?mails?|document|file|page|says|said|reads|writes|wrote|contains|holds|body)\b",
    re.IGNORECASE,
)
_ANSWER = re.compile("answer|conclu|therefore|thus", re.IGNORECASE)
_ENDS_REPLY = re.compile(
    r"\A[\W_]*+"
    r"(?:(?:i|we)[ ](?:hope|am|have|counted|found|used|gave|did)|i['\u2019](?:m|ve)|hope|let[ ]me[ ]know|please"
    r"|thanks?|feel[ ]free|done|(?:that|this|it)(?:['\u2019]s|[ ](?:is|was))|because|here|note|explanation|reason"
    r"|the[ ](?:answer|count|result|sum|total)|cheers|best|if[ ]you)\b(?![ ](?:not|no)\b)",
    re.IGNORECASE,
)
_GOES_ON = re.compile(
    r"\b(?:next|now[ ]i|then[ ]i|let[ ]me[ ](?!know)|i(?:[ ](?:will|shall|must|need)|['\u2019]ll)"
    r"|i[ ](?:do[ ]not[ ]follow|look|check|read|continue|go[ ]on|search|count)\b)",
    re.IGNORECASE,
)
_TAG = re.compile(r"</?[\w|]{1,40}+>")
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


def is_of_words(language: str) -> bool:
    """Whether a block of this language is of words."""
    return _WORDS_LANGUAGE.fullmatch(language) is not None


def holds_answer(text: str) -> bool:
    """Whether an answer stands anywhere in a text."""
    return _ANY_CALL.search(text) is not None


def is_quoted_answer(text: str, start: int, end: int) -> bool:
    """Whether the answer in the block or the element `text[start:end]` is not the model's.

    It is the model's if nothing follows, or only words that end a reply, or if it is introduced as the answer.
    """
    behind = _TAG.sub("", text[end : end + _MAX_LINE])
    if not _WORD.search(behind):
        return False
    line = text[max(0, start - _MAX_LINE) : start].rstrip().rpartition("\n")[2]
    if _ANSWER.search(line) or (_OF_MODEL.search(line) and not _OF_DOCUMENT.search(line)):
        return False
    return not _ENDS_REPLY.match(behind) or _GOES_ON.search(behind) is not None


def _is_introduced(text: str, at: int) -> bool:
    """Whether a line of a quotation, or one that ends with a colon, stands before a place."""
    before = text[max(0, at - _MAX_LINE) : at]
    line = before.rstrip().rpartition("\n")[2].strip()
    if _OF_MODEL.search(line) or not _WORD.search(line):
        return False
    return line.endswith(":") or (line.startswith(">") and before.count("\n", len(before.rstrip())) == 1)
