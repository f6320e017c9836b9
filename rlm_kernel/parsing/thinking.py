"""The tags with which models mark their reasoning: a family, in any case, brackets and namespace."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

Kind = Literal["open", "close", "channel", "end", ""]
"""A tag that opens reasoning or closes it; the header of a channel of reasoning (harmony), and the end of a message."""

_STEMS = r"think|thought|reasoning|reflection|scratchpad|monologue|analysis|deliberat"
_TAG = re.compile(
    rf"[<\[\u25c1](?P<slash>/?[|\uff5c]?/?)(?P<name>(?=[\w.:-]{{0,40}}?(?:{_STEMS}))[\w.:-]++)"
    r"(?P<attributes>(?:[ \t][^<>\[\]\n]{0,100}+)?)[|\uff5c]?[>\]\u25b7]"
    r"|<\|channel\|>[ \t]*+(?P<channel>\w++)[^<\n]{0,100}+(?:<\|constrain\|>[ \t]*+\w*+)?<\|message\|>"
    r"|<\|(?:end|return|call)\|>(?:<\|start\|>\w*+(?!<\|channel\|>))?",
    re.IGNORECASE,
)
_FENCE = "```"
_QUOTES = ("'", '"', "`")
_ENDS = ("end", "/")
_BARE_HARMONY = re.compile(r"\A\s*+analysis(?=[A-Z])")
_BARE_FINAL = "assistantfinal"
_LAST_TOKEN = re.compile(
    r"(?:<[|\uff5c][^<>\n]{1,40}+>|</?s>|<(?:end_of_turn|eos|pad)>|\[/INST\]|\[DONE\])\s*+\Z", re.IGNORECASE
)
_MAX_MARKS = 100
"""Characters of a line beside a tag."""

_MAX_LAST = 200
"""Characters at the end of a reply in which a special token is looked for."""

_MAX_LAST_TOKENS = 10


def tags(text: str) -> Iterator[re.Match[str]]:
    """The tags of reasoning that are not quoted: a quoted one is mentioned, or searched for by code."""
    return (tag for tag in _TAG.finditer(text) if not _is_quoted(text, tag))


def kind(tag: re.Match[str]) -> Kind:
    """What a tag does."""
    if tag["name"] is not None:
        if tag["attributes"].endswith("/"):  # an empty element
            return ""
        return "close" if "/" in tag["slash"] or tag["name"].lower().startswith(_ENDS) else "open"
    if tag["channel"] is None:
        return "end"
    channel = tag["channel"].lower()
    return "close" if channel == "final" else "" if channel == "commentary" else "channel"


def stands_alone(text: str, tag: re.Match[str]) -> bool:
    """Whether nothing else is in its line."""
    behind = text[tag.end() : tag.end() + _MAX_MARKS].partition("\n")[0]
    return begins_line(text, tag) and not behind.strip()


def begins_line(text: str, tag: re.Match[str]) -> bool:
    """Whether nothing but spaces and marks of Markdown stands before it in its line."""
    start = max(0, tag.start() - _MAX_MARKS)
    before = text[start : tag.start()].rpartition("\n")
    return (bool(before[1]) or start == 0) and not before[2].strip(" \t\r>*_\ufeff\u200b")


def is_mention(text: str, tag: re.Match[str]) -> bool:
    """Whether a closing tag stands between words of a sentence."""
    before, behind = text[max(0, tag.start() - 2) : tag.start()], text[tag.end() : tag.end() + 2]
    return before[-1:] == " " and before[:1].isalpha() and behind[:1] == " " and behind[1:].islower()


def without_last_tokens(text: str) -> str:
    """The reply without the special tokens at its end, such as `<|im_end|>`."""
    for _ in range(_MAX_LAST_TOKENS):
        found = _LAST_TOKEN.search(text, max(0, len(text) - _MAX_LAST))
        if found is None:
            break
        text = text[: found.start()].rstrip()
    return text


def bare_channel(text: str) -> int:
    """Where the answer begins of a reply whose channels have lost their tokens; 0: it is none."""
    if not _BARE_HARMONY.match(text):
        return 0
    final = text.rfind(_BARE_FINAL)
    return 0 if final < 0 else final + len(_BARE_FINAL)


def _is_quoted(text: str, tag: re.Match[str]) -> bool:
    before, behind = text[max(0, tag.start() - 3) : tag.start()], text[tag.end() : tag.end() + 3]
    return (before.endswith(_QUOTES) and before != _FENCE) or (behind.startswith(_QUOTES) and behind != _FENCE)
