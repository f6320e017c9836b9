"""Parse a model's reply: the code to run, and an answer given as text.

Fenced blocks marked `repl` or `python` are code. An answer is `FINAL(...)` or `FINAL_VAR(...)` at the start of a line
outside of them.
"""

from __future__ import annotations

import ast
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, islice

RUN_LANGUAGES = frozenset({"repl", "python", "python3", "py", "ipython", "ipython3", "pycon"})
"""Of the blocks that are run."""

# Possessive quantifiers prevent backtracking, each step of which would cost the length of a line.
_OPENING = re.compile(r"^ {0,3}(?P<fence>`{3,}+|~{3,}+)[ \t]*+\{?\.?(?P<language>[\w+-]*+)[^`\n]*+$", re.MULTILINE)
_CLOSING = re.compile(r"^ {0,3}(?P<fence>`{3,}+|~{3,}+)[ \t\r]*+$", re.MULTILINE)
_THINKING = re.compile(r"^[ \t]*+<(think|thinking|reasoning)>.*?(?:</\1>|\Z)", re.DOTALL | re.MULTILINE)
# A quoted tag is mentioned in the text, or searched for by code.
_THINKING_ENDS = re.compile(r"(?<![\"'`])</(?:think|thinking|reasoning)>(?![\"'`])")
_THINKING_BEGINS = re.compile(r"<think|<reasoning")
_FINAL = re.compile(r"^[ \t>*_`]*+(FINAL_VAR|FINAL)\(", re.MULTILINE)
_PARENTHESIS = re.compile(r"[()]")
_QUOTED = re.compile(r"\A\s*+[rRuU]?[\"']")
_QUOTE_CLOSES = re.compile(r"[\"']\s*+\)")
_ONLY_BLOCK = re.compile(r"\A[^`]*```\w*[ \t]*\n(.*?)\n[ \t]*```[^`]*\Z", re.DOTALL)
_MAX_CLOSINGS = 50
_MAX_PARENTHESES = 500
_MAX_COMPILED = 300_000
"""Characters of one reply that Python's compiler reads: five million take seconds, and gigabytes."""


class _Compiler:
    """Compiles parts of a reply with Python, within a budget. Parts beyond it are not checked."""

    def __init__(self) -> None:
        self._room = _MAX_COMPILED

    def problem(self, code: str) -> str | None:
        """Why the code is not Python; None if it is, or if it was not checked."""
        if not self._takes(code):
            return None
        flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        try:
            with warnings.catch_warnings(action="ignore"):  # the cell will show the warnings of its code
                compile(code, "<reply>", "exec", flags, dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            return error.msg if isinstance(error, SyntaxError) else str(error)
        return None

    def string(self, text: str) -> str | None:
        """The value of a string literal; None if it is not one, or if it was not checked."""
        if not _QUOTED.match(text) or not self._takes(text):
            return None
        try:
            with warnings.catch_warnings(action="ignore"):
                value = ast.literal_eval(text.strip())
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None
        return value if isinstance(value, str) else None

    def _takes(self, text: str) -> bool:
        self._room -= len(text)
        return self._room >= 0


@dataclass(frozen=True, slots=True)
class TextAnswer:
    """An answer in the text of a reply.

    Attributes:
        text: the text between the parentheses, without the quotes of a quoted text.
        name: the variable that it may name, or None.
        must_be_variable: whether it was given as `FINAL_VAR(name)`.
    """

    text: str
    name: str | None = None
    must_be_variable: bool = False


@dataclass(frozen=True, slots=True)
class ParsedReply:
    """The parsed parts of a reply.

    Attributes:
        blocks: the code blocks to run, in order.
        answer: the first answer given as text, or None.
        cut: whether the length limit ended the reply inside a code block.
        prose: the text outside of the code blocks; not compared.
    """

    blocks: tuple[str, ...] = ()
    answer: TextAnswer | None = None
    cut: bool = False
    prose: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class FencedBlock:
    """A fenced code block of a Markdown text.

    Attributes:
        language: of the opening fence; empty if it names none.
        code: the text between the fences.
    """

    language: str
    code: str


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
        closing = next(_closings(text, opening), None)
        at, end = (len(text), len(text)) if closing is None else (closing.end(), closing.start() - 1)
        yield FencedBlock(opening["language"], text[opening.end() + 1 : end])
    yield text[at:]


def only_block(text: str) -> str | None:
    """The code of a text with a single closed block of backticks; else None. It may begin in the middle of a line."""
    block = _ONLY_BLOCK.match(text)
    return None if block is None else block[1]


def opened_language(text: str, start: int, end: int) -> str:
    """The language of the line `text[start:end]` if it opens a fenced block; otherwise empty."""
    opening = _OPENING.match(text, start, end)
    return opening["language"] if opening is not None else ""


def parse(text: str, *, finished: bool = True) -> ParsedReply:
    """Parse a reply.

    Args:
        text: the reply.
        finished: whether the model stopped by itself. The end of a finished reply closes an open fence. The open block
            of an unfinished reply is not run.
    """
    compiler = _Compiler()
    blocks, prose, left_open = _split(without_thinking(text), compiler)
    if left_open and not finished:
        return ParsedReply(cut=True)
    code = tuple(block for block in blocks if block.strip())
    return ParsedReply(code, _text_answer(prose, compiler), prose=prose.strip())


def without_thinking(text: str) -> str:
    """The reply without the model's reasoning in tags."""
    end = _THINKING_ENDS.search(text)
    if end is not None and _THINKING_BEGINS.search(text, 0, end.start()) is None:  # opened before the reply
        text = text[end.end() :]
    return _THINKING.sub("", text)


def _split(text: str, compiler: _Compiler) -> tuple[list[str], str, bool]:
    """The code blocks, the text outside of them, and whether the last block is open."""
    blocks: list[str] = []
    prose: list[str] = []
    at = 0
    while (opening := _code_opening(text, at)) is not None:
        prose.append(text[at : opening.start()])
        closing = _closing(text, opening, compiler)
        if closing is None:
            return [*blocks, text[opening.end() + 1 :]], "".join(prose), True
        blocks.append(text[opening.end() + 1 : closing.start() - 1])
        at = closing.end() + 1
    return blocks, "".join([*prose, text[at:]]), False


def _code_opening(text: str, at: int) -> re.Match[str] | None:
    """The next line that opens a block of code to run, even inside a block of another language."""
    return next((one for one in _OPENING.finditer(text, at) if one["language"].lower() in RUN_LANGUAGES), None)


def _closings(text: str, opening: re.Match[str]) -> Iterator[re.Match[str]]:
    """The lines that can close a block."""
    return (line for line in _CLOSING.finditer(text, opening.end()) if line["fence"].startswith(opening["fence"]))


def _closing(text: str, opening: re.Match[str], compiler: _Compiler) -> re.Match[str] | None:
    """The line that closes a block: the first one before which the code parses, as its strings may contain fences."""
    start = opening.end() + 1
    closings = _closings(text, opening)
    first = next(closings, None)
    for line in () if first is None else chain([first], islice(closings, _MAX_CLOSINGS - 1)):
        problem = compiler.problem(text[start : line.start() - 1])
        if problem is None:
            return line
        if not problem.startswith("unterminated triple-quoted"):
            break
    return first


def _text_answer(prose: str, compiler: _Compiler) -> TextAnswer | None:
    found = _FINAL.search(prose)
    if found is None:
        return None
    inside = _inside(prose[found.end() :], compiler)
    if found[1] == "FINAL_VAR":
        return TextAnswer(inside, inside.strip("\"'` "), must_be_variable=True)
    return TextAnswer(_unquote(inside, compiler), inside if inside.isidentifier() else None)


def _inside(rest: str, compiler: _Compiler) -> str:
    """The text up to the closing parenthesis: after the closing quote of a quoted text, otherwise the balanced one."""
    if rest.lstrip()[:1] in ("'", '"'):
        for closing in islice(_QUOTE_CLOSES.finditer(rest), _MAX_PARENTHESES):
            if compiler.string(rest[: closing.end() - 1]) is not None:
                return rest[: closing.end() - 1].strip()
    depth = 1
    for match in _PARENTHESIS.finditer(rest):
        depth += 1 if match[0] == "(" else -1
        if depth == 0:
            return rest[: match.start()].strip()
    last = rest.rfind(")")
    return (rest[:last] if last >= 0 else rest).strip()


def _unquote(text: str, compiler: _Compiler) -> str:
    string = compiler.string(text)
    return text if string is None else string
