"""The tags with which models mark their reasoning: a family, in any case, brackets and namespace."""

from __future__ import annotations

import re
from bisect import bisect, bisect_left
from collections.abc import Iterator
from itertools import islice
from typing import Literal

from rlm_kernel.parsing.quotations import is_quoted_answer

Kind = Literal["open", "close", "channel", "end", ""]
"""A tag that opens reasoning or closes it; the header of a channel of reasoning (harmony), and the end of a message."""

_OPENS = r"(?:[<\[\u25c1\u2039\u27e8\u3008\u3010\uff1c]|&lt[;])[ ]?+"
_LOOKS_LIKE_TAG = r"(?=[<\[\u25c1\u2039\u27e8\u3008\u3010\uff1c&][ /|\uff5c]{0,4}+\w)"
"""What is most often not there, first."""

_CLOSES = r"(?:[>\]\u25b7\u203a\u27e9\u3009\u3011\uff1e]|&gt[;])"
_VALUE = r"(?:(?!&gt[;])[^<>\[\]\n\u203a\u27e9\u3009\uff1e]){0,100}+"
_ATTRIBUTES = rf"(?:[ \t]{_VALUE})?+(?:\r?\n[ \t]*+(?:[\w:-]{{1,40}}+={_VALUE})?+){{0,9}}+"
_WORDS = (
    *("think", "thought", "reasoning", "reflection", "scratchpad", "monologue", "analysis", "deliberat"),
    *("\u601d\u8003", "\u63a8\u7406", "r\u00e9flexi", "raisonn", "razona", "pens\u00e9e", "pensamiento", "pensiero"),
    *("gedanken", "denken", "\u00fcberleg", "\u0440\u0430\u0437\u043c\u044b\u0448"),
    *("\u0440\u0430\u0441\u0441\u0443\u0436", "\uc0dd\uac01", "\ucd94\ub860"),
)
"""Also in Chinese, French, Spanish, Italian, German, Russian and Korean."""

_STEMS = rf"{'|'.join(_WORDS)}|unused9[45](?!\d)"
_STEM_BEGINS = r"(?=[trsmadupg\u601d\u63a8\u00fc\u0440\uc0dd\ucd94])"
_TAG = re.compile(
    rf"{_LOOKS_LIKE_TAG}{_OPENS}(?P<slash>/?[|\uff5c]?/?[ ]?+)"
    rf"(?P<name>(?=[\w.:\u2581-]{{0,40}}?{_STEM_BEGINS}(?:{_STEMS}))[\w.:\u2581-]++)"
    rf"(?P<attributes>{_ATTRIBUTES})[|\uff5c]?{_CLOSES}"
    r"|<(?:(?P<closed>channel\|>)|\|(?:channel>(?P<opened>thought)\b|im_start\|>(?P<turn>think|answer)(?!\w)"
    r"|(?:start\|>\w*+<\|)?+channel\|>[ \t]*+(?P<channel>\w++)[^<\n]{0,100}+"
    r"(?:<\|constrain\|>[ \t]*+\w*+)?<\|message\|>"
    r"|(?:end|return|call|im_end)\|>(?:<\|start\|>\w*+(?!<\|channel\|>))?))",
    re.IGNORECASE,
)
_HIDDEN = re.compile(
    r"^[ \t>]*+<!--[^-]*+(?:-(?!->)[^-]*+)*+-->"
    r"|<details\b(?:[^<>\n]{0,200}+>\s*+<summary>[^<\n]{0,60}?(?:think|thought|reason)|[^<>\n]{0,200}?=[\"']?reasoning\b)"
    r"[^<]*+(?:<(?!/?details\b)[^<]*+)*+</details>",
    re.MULTILINE | re.IGNORECASE,
)
OTHERS_TURN = re.compile(
    r"<(?:[|\uff5c](?:(?:im_start|start_header_id|start_of_role)\|>\s*+(?:user|system|tool|human|ipython|environment)\b"
    r"|(?:user|observation|user_token|system_token|human)[|\uff5c]>)|start_of_turn>\s*+user\b)",
    re.IGNORECASE,
)
"""The token before the turn of another, which a model has invented."""

_THOUGHT_LANGUAGE = re.compile(r"think(?:ing)?|thoughts?|reasoning|scratchpad|analysis", re.IGNORECASE)
_ELEMENT = re.compile(
    rf"{_LOOKS_LIKE_TAG}{_OPENS}(?P<slash>[|\uff5c]?/?[|\uff5c]?)(?P<word>(?:(?:begin|start|end)_(?:of_)?)?+)"
    rf"(?P<name>[a-z][\w.:-]{{0,40}}+){_ATTRIBUTES}[|\uff5c]?{_CLOSES}",
    re.IGNORECASE,
)
_OF_REASONING = re.compile(
    r"(?<![a-z])(?:reason|cot|reflect|intern|inner|ponder|brainstorm|plan(?:s|ning)?(?![a-z])|scratch|draft|consider"
    r"|contemplat|ruminat|muse|musing|self_|hidden|private|rationale|critique)",
    re.IGNORECASE,
)
_OF_ANSWERS = re.compile(
    r"answer|final|result|output|response|reply|solution|conclusion|return|code|python|repl|execute|tool|function"
    r"|\A(?:[abipqsu]|em|strong|span|div|li|[uod]l|d[dt]|t[drh]|table|tbody|thead|pre|blockquote|h\d|html|body|main"
    r"|section|article|details|summary|center|font|sub|sup|mark|kbd|samp|small|math|boxed)\Z",
    re.IGNORECASE,
)
_OF_QUOTATIONS = re.compile(
    r"(?:tool|function)s?_(?:response|result|output)s?|(?:search_?|web_?|query_?)results?|(?:block)?quot(?:e|ation)s?|cit(?:e|ation)"
    r"|doc(?:ument)?s?(?:_content)?|source|excerpt|passage|snippet|chunk|context|examples?|observations?|hypothes[ie]s"
    r"|e?mail|log|file|page|transcript|conversation|user|input|question|query|task|instructions?|system|prompt",
    re.IGNORECASE,
)
_ANSWER_OR_FENCE = re.compile(r"FINAL(?:_?VAR)?[*_`\u200b-\u200d\u2060\ufeff]{0,3}\(|```|~~~", re.IGNORECASE)
_FENCE = "```"
_QUOTES = ("'", '"', "`", "(", "\u201c", "\u2018", "\u00ab")
_CLOSING_QUOTES = ("'", '"', "`", "\u201d", "\u2019", "\u00bb")
_OF_MODELS = re.compile("think|thought|reasoning|unused", re.IGNORECASE)
_UNCLOSED_IN_BRACKETS = "[THINK]"
_ENDS = ("end", "/", "unused95")
_BRACKETS = (*"<[\u25c1\u2039\u27e8\u3008\u3010\uff1c", "&lt")
_MARKS = (*_WORDS, "unused9", "<|", "|>")
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
_MAX_ELEMENTS = 10_000


def tags(text: str, *, widely: bool = True) -> Iterator[re.Match[str]]:
    """The tags of reasoning that are not quoted: a quoted one is mentioned, or searched for by code.

    Args:
        text: the reply.
        widely: whether names count that users ask for, too, such as `<analysis>`.
    """
    if not _may_have_tags(text):
        return iter(())
    found = (tag for tag in _TAG.finditer(text) if not _is_quoted(text, tag))
    return (tag for tag in found if widely or tag["name"] is None or _OF_MODELS.search(tag["name"]))


def hidden(text: str) -> Iterator[re.Match[str]]:
    """Comments of HTML at the start of a line, and folded reasoning."""
    return _HIDDEN.finditer(text) if "!--" in text or "details" in text else iter(())


def _may_have_tags(text: str) -> bool:
    """A quick look: the pattern of tags takes long for millions of brackets."""
    lowered = text.lower()
    return any(bracket in text for bracket in _BRACKETS) and any(word in lowered for word in _MARKS)


def kind(tag: re.Match[str]) -> Kind:
    """What a tag does."""
    if tag["name"] is not None:
        if tag["attributes"].endswith("/"):  # an empty element
            return ""
        return "close" if "/" in tag["slash"] or _names_end(tag["name"].lower()) else "open"
    if tag["opened"] or tag["closed"]:
        return "open" if tag["opened"] else "close"
    if tag["turn"]:
        return "channel" if tag["turn"].lower() == "think" else "close"
    if tag["channel"] is None:
        return "end"
    channel = tag["channel"].lower()
    return "close" if channel == "final" else "" if channel == "commentary" else "channel"


def _names_end(name: str) -> bool:
    return name.startswith(_ENDS) or name.endswith(("_end", "-end"))


def is_thought_language(language: str) -> bool:
    """Whether a block is reasoning by the language of its fence."""
    return _THOUGHT_LANGUAGE.fullmatch(language) is not None


class Elements:
    """Elements of any name that begin a line, such as `<plan>...</plan>`: they may be reasoning.

    Attributes:
        openings: their opening tags, in order.
    """

    def __init__(self, text: str) -> None:
        self.openings: list[re.Match[str]] = []
        self._text = text
        self._ends: dict[str, list[tuple[int, int]]] = {}
        self._answers: list[int] = []
        self._fences: list[int] = []
        if not any(bracket in text for bracket in _BRACKETS):
            return
        for mark in islice(_ANSWER_OR_FENCE.finditer(text), _MAX_ELEMENTS):
            (self._answers if mark[0][-1] == "(" else self._fences).append(mark.start())
        if self._answers or self._fences:
            for tag in islice(_ELEMENT.finditer(text), _MAX_ELEMENTS):
                self._add(text, tag)

    def _add(self, text: str, tag: re.Match[str]) -> None:
        name = tag["name"].lower()
        if tag[0].rstrip(">").endswith("/") or _is_quoted(text, tag):
            return
        if _OF_ANSWERS.search(name) and not _OF_QUOTATIONS.fullmatch(name):
            return
        if "/" in tag["slash"] or tag["word"].lower().startswith("end"):
            self._ends.setdefault(name, []).append(tag.span())
        elif begins_line(text, tag):
            self.openings.append(tag)

    def end(self, opening: re.Match[str]) -> int | None:
        """Where the element ends, with its closing tag; None: nothing closes it."""
        ends = self._ends.get(opening["name"].lower(), [])
        at = bisect(ends, opening.span())
        return ends[at][1] if at < len(ends) else None

    def is_reasoning(self, opening: re.Match[str], end: int) -> bool:
        """Whether an element is reasoning: by its name, or because it holds an answer and another answer follows.

        It is none if it holds the only code of the reply, or code under a name that is not of reasoning.
        """
        start = opening.end()
        follows = any(marks and marks[-1] >= end for marks in (self._answers, self._fences))
        holds_code = bisect(self._fences, start) < bisect(self._fences, end)
        if _OF_REASONING.search(opening["name"]):
            return follows or not holds_code
        if holds_code or not bisect_left(self._answers, start) < bisect(self._answers, end):
            return False
        is_quotation = _OF_QUOTATIONS.fullmatch(opening["name"]) is not None
        return follows or (is_quotation and is_quoted_answer(self._text, opening.start(), end))


def may_be_unclosed(text: str, tag: re.Match[str]) -> bool:
    """Whether a tag opens reasoning that nothing closes: `[Analysis]` is the title of a section."""
    return begins_line(text, tag) and (tag[0][0] not in "[&" or tag[0] == _UNCLOSED_IN_BRACKETS)


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
    return (before.endswith(_QUOTES) and before != _FENCE) or (behind.startswith(_CLOSING_QUOTES) and behind != _FENCE)
