"""Fenced blocks of a Markdown text, as CommonMark has them, and as models write them."""

from __future__ import annotations

import html
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Literal

from rlm_kernel.parsing.compiler import OPEN_TEXT, Compiler
from rlm_kernel.parsing.programs import is_program
from rlm_kernel.parsing.thinking import is_thought_language, kind, stands_alone, tags

_ANY_RUN_LANGUAGE = (
    r"(?:lang(?:uage)?-)?(?:i?python|py|repl)\d{0,3}"
    r"(?:[-_](?:repl|python|code|exec|script|console|interactive|interpreter))?|pycon|jupyter|tool_code|code[-_]interpreter"
)
_RUN_LANGUAGE = re.compile(_ANY_RUN_LANGUAGE, re.IGNORECASE)
"""Of the blocks that are run."""

# Possessive quantifiers prevent backtracking, each step of which would cost the length of a line.
_OPENING = re.compile(r"^ {0,3}(?P<fence>`{3,}+|~{3,}+)[ \t]*+\{?\.?(?P<language>[\w+-]*+)[^`\n]*+$", re.MULTILINE)
_CLOSING = re.compile(r"^ {0,3}(?P<fence>`{3,}+|~{3,}+)[ \t\r]*+$", re.MULTILINE)
_ONLY_BLOCK = re.compile(r"\A[^`]*```\w*[ \t]*\n(.*?)\n[ \t]*```[^`]*\Z", re.DOTALL)

_BLANK = r"[ \t\r\u00a0\u3000\ufeff\u200b-\u200d\u2060]"
_SPACE = r"[ \t\u00a0\u3000\ufeff\u200b-\u200d\u2060>]"
_CLOSES_BEFORE = r"(?:[ \t>]*+`{3,}+[ \t]++(?=`{3}))?+"
_WORDS = r"(?:[^`\n]|`(?!``))"
_LANGUAGE = r"[ \t]*+\{?\.?(?P<language>[\w+-]*+)"
WIDE_OPENING = re.compile(
    rf"^(?P<lead>{_CLOSES_BEFORE}(?:[^`~\n]|`(?!``)|~(?!~~))*+)(?P<fence>`{{3,}}+|~{{3,}}+){_LANGUAGE}(?P<info>[^`\n]*+)$",
    re.MULTILINE,
)
"""A line that opens a block: at any depth, in a list or a quotation, behind words."""

OPENING_BEHIND = re.compile(
    rf"(?<![ \t])(?P<lead>[ \t]*+)(?P<fence>`{{3,}}+|~{{3,}}+){_LANGUAGE}(?P<info>[^`\n]*+)$", re.MULTILINE
)
"""The same directly behind a closing tag, in whose line there may be other fences."""

_RUN_OPENING = re.compile(
    rf"^(?P<lead>{_CLOSES_BEFORE}(?:[^`~\n]|`(?!``)|~(?!~~))*+)(?:`{{3,}}+|~{{3,}}+)[ \t]*+"
    rf"\{{?\.?(?:{_ANY_RUN_LANGUAGE})(?![\w+-])[^`\n]*+$",
    re.MULTILINE | re.IGNORECASE,
)

ONE_LINER = re.compile(
    rf"^(?P<lead>{_WORDS}*+)(?P<fence>`{{3,}}+)(?P<inside>[^`\n]++)(?P=fence)(?P<behind>[^`\n]*+)$", re.MULTILINE
)
_LANGUAGE_AND_CODE = re.compile(r"\A\{?\.?(?P<language>[\w+-]++)\}?[ \t:]++(?P<code>\S.*)\Z", re.DOTALL)
_WIDE_CLOSING = re.compile(
    rf"^{_SPACE}*+(?P<fence>`{{3,}}+|~{{3,}}+){_BLANK}*+(?:<[^<>\n`]{{1,40}}+>{_BLANK}*+)*+$", re.MULTILINE
)
_CLOSING_BEHIND_CODE = re.compile(
    rf"^(?P<code>{_WORDS}*+)(?P<fence>`{{3,}}+)(?:[ \t\r]*+(?:<[^<>\n`]{{1,40}}+>[ \t\r]*+)*+|[ \t]++[^`\n]*+)$",
    re.MULTILINE,
)
_CODE_NAMES = (
    r"(?:run_|execute_)?(?:i?python\d?|py|repl)(?:_code)?|execute|(?:tool_|executable_|run_)?code|code_(?:action|execution)"
    r"|(?:code_|python_)?interpreter|jupyter(?:_cell|_code)?"
)
CODE_TAG = re.compile(
    rf"^[ \t>]*+(?:<pre[^<>\n]*+>\s*+)?[<\[](?P<tag>{_CODE_NAMES})\b"
    r"(?P<attributes>[^<>\[\]\n]*+)[>\]]",
    re.MULTILINE | re.IGNORECASE,
)
_CODE_TAG_CLOSING = re.compile(
    rf"[<\[]/(?P<tag>{_CODE_NAMES})[>\]](?:\s*+</pre>)?[ \t\r]*+$",
    re.MULTILINE | re.IGNORECASE,
)
PYTHON_TAG = re.compile(r"<\|python_(?:tag|start)\|>(?P<code>[^<]*+(?:<(?!\|e|\|python_end)[^<]*+)*+)(?:<\|\w++\|>)?")
"""Code up to a special token that ends it, or to the end of the reply."""

_ATTRIBUTES = re.compile(r"\A[ \t]*+(?:\{[^{}]*+\}|[\w-]++=\S*+)(?:[ \t]++(?:\{[^{}]*+\}|[\w-]++=\S*+))*+[ \t\r]*+\Z")
_QUOTATION = re.compile(r"^[ \t]*+>[ ]?", re.MULTILINE)
_INDENT = re.compile(r"[ \t]*")
_TRIPLE_QUOTES = re.compile("\"{3}|'{3}")
_INVISIBLE = re.compile(r"[\ufeff\u200b-\u200d\u2060]")
_MAX_CLOSINGS = 50
_MAX_QUOTED = 5
_MAX_TAGGED = 50_000
"""Characters between `<code>` and `</code>`."""

_MAX_LENGTH = 8
"""Of a fence: longer ones count as ones of this length where the next closing line is looked for."""

Role = Literal["run", "plain", "other"]
"""A block of code to run, one without a language, and one of another language."""


@dataclass(frozen=True, slots=True)
class FencedBlock:
    """A fenced code block of a Markdown text.

    Attributes:
        language: of the opening fence; empty if it names none.
        code: the text between the fences.
    """

    language: str
    code: str


@dataclass(frozen=True, slots=True)
class Block:
    """A block of a reply.

    Attributes:
        start, end: where it is in the reply, with its fences.
        role: what it is.
        code: without the fences, the indentation of a list and the marks of a quotation.
        closed: whether a fence closes it.
    """

    start: int
    end: int
    role: Role
    code: str
    closed: bool = True


def split_blocks(text: str, max_blocks: int = sys.maxsize) -> Iterator[str | FencedBlock]:
    """Split a Markdown text into its fenced code blocks and the text around them, in order.

    Args:
        text: the Markdown. The end of the text closes a block that is left open.
        max_blocks: the text after this number of blocks is not split.
    """
    at = 0
    while max_blocks and (opening := _OPENING.search(text, at)) is not None:
        max_blocks -= 1
        yield text[at : opening.start()]
        lines = _CLOSING.finditer(text, opening.end())
        closing = next((line for line in lines if line["fence"].startswith(opening["fence"])), None)
        at, end = (len(text), len(text)) if closing is None else (closing.end(), closing.start() - 1)
        yield FencedBlock(opening["language"], text[opening.end() + 1 : end])
    yield text[at:]


def only_block(text: str) -> str | None:
    """The code of a text with a single closed block of backticks; else None. It may begin in the middle of a line."""
    block = _ONLY_BLOCK.match(text)
    return None if block is None else block[1]


def opened_language(text: str, start: int, end: int) -> str:
    """The language of the line `text[start:end]` if it is a fence with nothing before it; otherwise empty."""
    fence = WIDE_OPENING.match(text, start, end)
    return "" if fence is None or fence["lead"].strip(" \t>") else fence["language"]


def is_fence(text: str, start: int, end: int) -> bool:
    """Whether the line `text[start:end]` is a fence, with a language or without, and nothing before it."""
    fence = WIDE_OPENING.match(text, start, end)
    return fence is not None and not fence["lead"].strip(" \t>")


def role_of(language: str) -> Role:
    """What a block of this language is."""
    if _RUN_LANGUAGE.fullmatch(language):
        return "run"
    return "plain" if language.lower() in ("", "code") else "other"


class Fences:
    """Reads the blocks of one reply."""

    def __init__(self, text: str, compiler: Compiler) -> None:
        self._text = text
        self._compiler = compiler
        self._next: dict[tuple[str, int, bool], re.Match[str] | None] = {}
        self._next_opening: tuple[bool, re.Match[str] | None] = (False, None)
        self._next_tag: tuple[bool, re.Match[str] | None] = (False, None)

    def block(self, opening: re.Match[str]) -> Block | None:
        """The block that a line opens; None: it is of no code to run, and nothing closes it."""
        role, text = role_of(opening["language"]), self._text
        if role == "run":
            return self._run_block(opening)
        closing = self._closing(opening)
        before = self._run_opening(opening.end())
        if closing is not None and before is not None and is_thought_language(opening["language"]):
            closing, before = self._closing_of_thought(opening, closing, before), None
        if closing is None or (before is not None and before.start() < closing.start()):
            return None
        if role == "plain":
            closing = self._closing_of_program(opening, closing)
        code = _clean(text[opening.end() + 1 : closing.start() - 1], opening["lead"])
        first, _, rest = code.partition("\n")
        if role == "plain" and role_of(first.strip()) == "run":  # its language is in a line of its own
            role, code = "run", rest
        return Block(opening.start("fence"), closing.end(), role, code)

    def _closing_of_thought(
        self, opening: re.Match[str], closing: re.Match[str], inner: re.Match[str]
    ) -> re.Match[str] | None:
        """The line that closes a block of reasoning which may hold a block of code; None: that one is no part of it."""
        if inner.start() > closing.start() or opening["fence"] not in inner[0]:
            return closing
        outer = self._closing(opening, closing.end())
        following = next(filter(is_opening, _RUN_OPENING.finditer(self._text, closing.end())), None)
        return None if following is not None and outer is not None and following.start() < outer.start() else outer

    def _closing_of_program(self, opening: re.Match[str], first: re.Match[str]) -> re.Match[str]:
        """The line that closes a block: the first one, or a later one if it is a program with fences in its texts."""
        if not _TRIPLE_QUOTES.search(self._text, opening.end(), first.start()):
            return first
        for line in self._closings(opening, first):
            problem = self._problem(opening.end() + 1, line.start() - 1, opening)
            if problem is None:
                return line
            if not problem.startswith(OPEN_TEXT):
                break
        return first

    def one_liner(self, line: re.Match[str]) -> Block | None:
        """The block in a line of its own, such as ```` ```python x = 1``` ````; None: the line mentions one."""
        tagged = _LANGUAGE_AND_CODE.match(line["inside"])
        if tagged is not None and role_of(tagged["language"]) == "run":
            return Block(line.start("fence"), line.end(), "run", tagged["code"].rstrip())
        if line["lead"].strip(" \t>") or line["behind"].strip():
            return None
        return Block(line.start("fence"), line.end(), "plain", line["inside"].strip())

    def tagged(self, opening: re.Match[str]) -> Block | None:
        """The block between `<code>` and `</code>`; None: it is not closed and no program, or holds fences."""
        closing = self._closing_of_tag(opening.end())
        if closing is None:
            return self._open_tagged(opening)
        if closing["tag"].lower() != opening["tag"].lower():
            return None
        if closing.start() - opening.end() > _MAX_TAGGED:
            return None
        code = self._text[opening.end() : closing.start()].strip("\r\n")
        if "```" in code:
            return None
        written = html.unescape(code)  # `x &lt; 9` is Python, too
        code = written if self._compiler.problem(written) is None else code
        is_code = opening["tag"].lower() == "code" and "python" not in opening["attributes"].lower()
        return Block(opening.start(), closing.end(), "plain" if is_code else "run", code)

    def _open_tagged(self, opening: re.Match[str]) -> Block | None:
        """The program that is the rest of the reply, behind `<code>`."""
        code = self._text[opening.end() : opening.end() + _MAX_TAGGED].strip("\r\n")
        tree = None if "```" in code else self._compiler.tree(code)
        if tree is None or not is_program(tree):
            return None
        return Block(opening.start(), len(self._text), "run", code, closed=False)

    def rest(self, opening: re.Match[str]) -> Block:
        """The block that a line opens, up to the end of the reply."""
        code = _clean(self._text[opening.end() + 1 :], opening["lead"])
        return Block(opening.start("fence"), len(self._text), "plain", code, closed=False)

    def _run_block(self, opening: re.Match[str]) -> Block:
        text, start = self._text, opening.end() + 1
        end, after, closed = self._end_of_code(opening)
        code = _clean(text[start:end], opening["lead"])
        first = self._code_on_fence(opening)
        return Block(opening.start("fence"), after, "run", f"{first}\n{code}" if first else code, closed)

    def _code_on_fence(self, opening: re.Match[str]) -> str:
        """Code behind the language in the line of the fence, or nothing."""
        info = opening["info"].strip()
        if not info or _ATTRIBUTES.match(opening["info"]) or (tree := self._compiler.tree(info)) is None:
            return ""
        return info if is_program(tree) else ""

    def _end_of_code(self, opening: re.Match[str]) -> tuple[int, int, bool]:
        """Where the code of a block ends, where the reply goes on, and whether the block is closed.

        The first closing line before which the code parses closes it, as strings may contain fences. If there is none:
        a fence behind code that parses, or the next block, or the first closing line.
        """
        text, start = self._text, opening.end() + 1
        first = self._closing(opening)
        for line in self._closings(opening, first):
            problem = self._problem(start, line.start() - 1, opening)
            if problem is None:
                return line.start() - 1, line.end() + 1, True
            if not problem.startswith(OPEN_TEXT):
                break
        limit, border = self._border(opening.end(), len(text) if first is None else first.start())
        for line in islice(_CLOSING_BEHIND_CODE.finditer(text, opening.end(), limit), _MAX_CLOSINGS):
            if self._problem(start, line.start("fence"), opening) is None:
                return self._end_behind_code(line)
        is_code = self._problem(start, limit, opening) is None
        if not is_code and (tag := self._closing_tag(opening, limit)) is not None:
            return max(start, tag - 1), tag, True
        if border:
            return max(start, limit - 1), limit, True
        if first is not None:
            return first.start() - 1, first.end() + 1, True
        behind = None if is_code else _CLOSING_BEHIND_CODE.search(text, opening.end())
        return (len(text), len(text), False) if behind is None else (*self._end_behind_code(behind)[:2], False)

    def _end_behind_code(self, line: re.Match[str]) -> tuple[int, int, bool]:
        code = line["code"].rstrip()
        end = line.start() + len(code) if code else line.start() - 1
        return end, line.end("fence"), True

    def _border(self, at: int, limit: int) -> tuple[int, bool]:
        """Where the next block to run begins before a limit, else the limit; and whether there is one."""
        opening = self._run_opening(at)
        return (limit, False) if opening is None or opening.start() >= limit else (opening.start(), True)

    def _closing_tag(self, opening: re.Match[str], limit: int) -> int | None:
        """Where the line of a closing tag of reasoning begins, in which nothing else stands, and that is in no text."""
        between = self._text[opening.end() : limit]
        found = (tag for tag in tags(between) if kind(tag) == "close" and stands_alone(between, tag))
        if (tag := next(found, None)) is None:
            return None
        place = opening.end() + between.rfind("\n", 0, tag.start()) + 1
        problem = self._problem(opening.end() + 1, place - 1, opening) or ""
        return None if problem.startswith(OPEN_TEXT) else place

    def _problem(self, start: int, end: int, opening: re.Match[str]) -> str | None:
        return self._compiler.problem(_clean(self._text[start : max(start, end)], opening["lead"]))

    def _closings(self, opening: re.Match[str], first: re.Match[str] | None) -> Iterator[re.Match[str]]:
        """The lines that can close a block."""
        if first is None:
            return iter(())
        later = (one for one in _WIDE_CLOSING.finditer(self._text, first.end()) if _closes(one, opening))
        return chain([first], islice(later, _MAX_CLOSINGS - 1))

    def _closing(self, opening: re.Match[str], inner: int = 0) -> re.Match[str] | None:
        """The first line that can close a block. Each line of the reply is read once for each kind of fence.

        Args:
            opening: of the block.
            inner: where a block within it ends; 0: there is none.
        """
        fence, at = opening["fence"], inner or opening.end()
        key = (fence[0], min(len(fence), _MAX_LENGTH), inner > 0)
        if key not in self._next or ((known := self._next[key]) is not None and known.start() < at):
            lines = _WIDE_CLOSING.finditer(self._text, at)
            self._next[key] = next((one for one in lines if one["fence"].startswith(fence[:_MAX_LENGTH])), None)
        return self._next[key]

    def _closing_of_tag(self, at: int) -> re.Match[str] | None:
        """The first `</code>` after a place. Each character of the reply is read once."""
        asked, known = self._next_tag
        if not asked or (known is not None and known.start() < at):
            known = _CODE_TAG_CLOSING.search(self._text, at)
            self._next_tag = (True, known)
        return known

    def _run_opening(self, at: int) -> re.Match[str] | None:
        """The first line after a place that opens a block to run."""
        asked, known = self._next_opening
        if not asked or (known is not None and known.start() < at):
            known = next(filter(is_opening, _RUN_OPENING.finditer(self._text, at)), None)
            self._next_opening = (True, known)
        return known


def is_opening(line: re.Match[str], at: int = 0) -> bool:
    """Whether a line with a fence opens a block: not within an answer, and not in a sentence about fences.

    Args:
        line: the line.
        at: where it begins to count, behind reasoning.
    """
    lead = line["lead"][max(0, at - line.start()) :].rstrip()
    return not lead.endswith(("'", '"', "#")) and "FINAL(" not in lead and "FINAL_VAR(" not in lead


def _closes(line: re.Match[str], opening: re.Match[str]) -> bool:
    return line["fence"].startswith(opening["fence"])


def _clean(code: str, lead: str) -> str:
    """The code of a block without the marks of the quotation, and the indentation of the list, that it is in."""
    depth = min(lead.count(">"), _MAX_QUOTED)
    if depth and _QUOTATION.match(code):
        lead = lead.rpartition(">")[2][1:]
        while depth and _QUOTATION.match(code):
            code, depth = _QUOTATION.sub("", code), depth - 1
    first = next((line for line in code.split("\n", _MAX_CLOSINGS) if line.strip()), "")
    spaces = _INDENT.match(first)
    indent = spaces[0] if spaces is not None else ""
    before = _INVISIBLE.sub("", lead)
    indent = indent[: len(before)] if not before.strip() else indent
    if not indent:
        return code
    return "\n".join(line.removeprefix(indent) for line in code.split("\n"))
