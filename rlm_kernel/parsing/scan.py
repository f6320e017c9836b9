"""One pass over a reply: its blocks, and the reasoning outside of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from rlm_kernel.parsing.answers import FINAL, QUOTED_CALL, end_of_quoted, has_name, read_argument
from rlm_kernel.parsing.compiler import Compiler
from rlm_kernel.parsing.fences import (
    CODE_TAG,
    ONE_LINER,
    OPENING_BEHIND,
    PYTHON_TAG,
    WIDE_OPENING,
    Block,
    Fences,
    is_opening,
)
from rlm_kernel.parsing.programs import is_program
from rlm_kernel.parsing.quotations import holds_answer, is_correspondence, is_of_words, is_quoted_answer, quotations
from rlm_kernel.parsing.thinking import (
    OTHERS_TURN,
    Elements,
    bare_channel,
    hidden,
    is_mention,
    is_thought_language,
    kind,
    may_be_unclosed,
    stands_alone,
    tags,
)
from rlm_kernel.parsing.tool_calls import CALL_OF_TOOL, ToolCalls

_MAX_MARKS = 5_000
"""Fences and tags of a reply that are read; what comes after them is prose."""

_MAX_ANSWERS = 5
"""Answers of a reply whose ends are looked for before the reasoning is known."""

Found = re.Match[str]


@dataclass(slots=True)
class Scanned:
    """The parts of a reply.

    Attributes:
        text: the reply.
        blocks: outside of the reasoning, in order.
        thoughts: where the reasoning is, with its tags, and where another's answer is quoted.
        open_fence: a line that opens a block without a language, which nothing closes.
        open_tag: whether a tag that nothing closes may open reasoning, and is taken for words.
        answers: given as calls of a tool, as `FINAL(...)`.
    """

    text: str
    blocks: list[Block] = field(default_factory=list)
    thoughts: list[tuple[int, int]] = field(default_factory=list)
    open_fence: Found | None = None
    open_tag: bool = False
    answers: list[str] = field(default_factory=list)

    def without(self, spans: list[tuple[int, int]]) -> str:
        """The reply without the reasoning, and without other parts."""
        kept, at = [], 0
        for start, end in sorted([*self.thoughts, *spans]):
            kept.append(self.text[at:start])
            at = max(at, end)
        return "".join([*kept, self.text[at:]])


class _Marks:
    """The matches of a pattern, for places that only go forward."""

    def __init__(self, matches: Iterator[Found], place: Callable[[Found], int]) -> None:
        self._matches, self._place = matches, place
        self._current = next(matches, None)

    def first(self, at: int) -> Found | None:
        """The first match at a place or after it."""
        while self._current is not None and self._place(self._current) < at:
            self._current = next(self._matches, None)
        return self._current


class _Scanner:
    def __init__(self, text: str, compiler: Compiler, *, widely: bool) -> None:
        self._text = text
        self._compiler = compiler
        self._scanned = Scanned(text)
        self._fences = Fences(text, compiler)
        self._tool_calls = ToolCalls(text)
        self._ends = _Marks((tag for tag in tags(text, widely=widely) if kind(tag) in ("close", "end")), _start)
        self._widely = widely
        self._elements = Elements(text if widely else "")
        self._answer = self._answer_ends = self._answers = 0
        self._marks: list[tuple[_Marks, Callable[[Found], int], Callable[[Found], int]]] = [
            (_Marks(WIDE_OPENING.finditer(text), _fence), _fence, self._take_fence),
            (_Marks(ONE_LINER.finditer(text), _fence), _fence, self._take_one_liner),
            (_Marks(CALL_OF_TOOL.finditer(text if widely else ""), _start), _start, self._take_tool_call),
            (_Marks(OTHERS_TURN.finditer(text), _start), _start, self._take_turn),
            (_Marks(tags(text, widely=widely), _start), _start, self._take_tag),
            (_Marks(hidden(text), _start), _start, self._take_hidden),
            (_Marks(iter(self._elements.openings), _start), _start, self._take_element),
            (_Marks(PYTHON_TAG.finditer(text), _start), _start, self._take_python_tag),
            (_Marks(quotations(text if widely else ""), _start), _start, self._take_quotation),
            (_Marks(CODE_TAG.finditer(text), _start), _start, self._take_code_tag),
            (_Marks(FINAL.finditer(text) if has_name(text) else iter(()), _call), _call, self._take_answer),
            (_Marks(QUOTED_CALL.finditer(text) if has_name(text) else iter(()), _call), _call, self._take_quoted),
        ]

    def scan(self) -> Scanned:
        at = bare_channel(self._text)
        if at:
            self._scanned.thoughts.append((0, at))
        for _ in range(_MAX_MARKS):
            found = [
                (place(mark), number, mark)
                for number, (marks, place, _) in enumerate(self._marks)
                if (mark := marks.first(at)) is not None
            ]
            if not found:
                break
            _, number, mark = min(found, key=lambda one: one[:2])
            at = self._marks[number][2](mark)
        return self._scanned

    # Each takes a mark, and says where the reply goes on.

    def _take_fence(self, line: Found) -> int:
        if not is_opening(line, self._thought_end) or self._is_in_answer(line.start("fence")):
            return line.end()
        block = self._fences.block(line)
        if block is None:
            if not line["language"]:
                self._scanned.open_fence = line
            self._scanned.open_tag |= is_of_words(line["language"])
            return line.end()
        if self._is_quotation(block, line["language"]) or is_thought_language(line["language"]):
            self._scanned.thoughts.append((block.start, block.end))
        else:
            self._scanned.blocks.append(block)
        return block.end

    def _is_quotation(self, block: Block, language: str) -> bool:
        """Whether a block holds the words of another."""
        if not self._widely or block.role == "run":
            return False
        if is_correspondence(block.code):
            return True
        if not (is_of_words(language) and holds_answer(block.code)):
            return False
        if not is_quoted_answer(self._text, block.start, block.end):
            return False
        tree = self._compiler.tree(block.code)
        return tree is None or not is_program(tree)

    def _take_quotation(self, lines: Found) -> int:
        if self._is_in_answer(lines.start()):
            return lines.end()
        self._scanned.thoughts.append(lines.span())
        return lines.end()

    def _take_one_liner(self, line: Found) -> int:
        is_code = is_opening(line, self._thought_end) and not self._is_in_answer(line.start("fence"))
        block = self._fences.one_liner(line) if is_code else None
        if block is None:
            return line.end("fence")
        self._scanned.blocks.append(block)
        return block.end

    def _take_code_tag(self, tag: Found) -> int:
        block = None if self._is_in_answer(tag.start()) else self._fences.tagged(tag)
        if block is None:
            return tag.end()
        self._scanned.blocks.append(block)
        return block.end

    def _take_python_tag(self, tag: Found) -> int:
        code = tag["code"].strip()
        tree = None if "```" in code or self._is_in_answer(tag.start()) else self._compiler.tree(code)
        if tree is None or not is_program(tree):  # it may be the JSON of a tool's call
            return tag.start("code")
        self._scanned.blocks.append(Block(tag.start(), tag.end(), "run", code))
        return tag.end()

    def _take_tool_call(self, mark: Found) -> int:
        if self._is_in_answer(mark.start()):
            return mark.end()
        calls, end = self._tool_calls.read(mark)
        for call in calls:
            if call.kind == "code":
                self._scanned.blocks.append(Block(mark.start(), end, "run", call.text))
            else:
                self._scanned.answers.append(call.text)
        if mark["to"] is not None and not calls:  # words to another tool
            self._scanned.thoughts.append(mark.span())
        return end

    def _take_turn(self, token: Found) -> int:
        """What follows is what the model thinks that it will be told."""
        if not self._text[: token.start()].strip() or self._is_in_answer(token.start()):
            return token.end()
        self._scanned.thoughts.append((token.start(), len(self._text)))
        return len(self._text)

    def _take_hidden(self, element: Found) -> int:
        if self._is_in_answer(element.start()):
            return element.end()
        self._scanned.thoughts.append(element.span())
        return element.end()

    def _take_answer(self, call: Found) -> int:
        if (end := end_of_quoted(self._text, call.end())) is not None:
            return end  # the blocks and tags in the quotes are words
        self._answer = self._answer or call.end()
        return call.end()

    def _take_quoted(self, call: Found) -> int:
        argument = self._text.index("(", call.start()) + 1
        return end_of_quoted(self._text, argument) or call.end()

    def _is_in_answer(self, at: int) -> bool:
        """Whether a fence or a tag at a place is one of the words of an answer."""
        if self._answer and self._answers < _MAX_ANSWERS:
            self._answers += 1
            argument = read_argument(self._text[self._answer :], self._compiler)
            self._answer_ends = self._answer + argument.end if argument.closed else 0
            self._answer = 0
        return at < self._answer_ends

    def _take_tag(self, tag: Found) -> int:
        what, within = kind(tag), self._is_in_answer(tag.start())
        if what == "close" and (stands_alone(self._text, tag) or not (within or is_mention(self._text, tag))):
            return self._think_until(tag.end())
        if what not in ("open", "channel") or within:
            return tag.end()
        end = self._end_of(tag, what)
        if end is None and not (what == "channel" or may_be_unclosed(self._text, tag) or self._follows_thought(tag)):
            self._scanned.open_tag = True
            return tag.end()
        after = len(self._text) if end is None else end.end()
        self._scanned.thoughts.append((tag.start(), after))
        return self._go_on_behind(after)

    def _take_element(self, tag: Found) -> int:
        end = self._elements.end(tag)
        if self._is_in_answer(tag.start()):
            return tag.end()
        self._scanned.open_tag = self._scanned.open_tag or end is None
        if end is None or not self._elements.is_reasoning(tag, end):
            return tag.end()
        self._scanned.thoughts.append((tag.start(), end))
        return end

    def _think_until(self, end: int) -> int:
        """Everything before a closing tag without its opening one is reasoning."""
        self._scanned.thoughts[:] = [(0, end)]
        self._scanned.blocks.clear()
        self._scanned.answers.clear()
        self._scanned.open_fence = None
        self._answer = self._answer_ends = 0
        return self._go_on_behind(end)

    def _go_on_behind(self, end: int) -> int:
        """Where the reply goes on behind a closing tag: a fence may follow it in its line."""
        fence = OPENING_BEHIND.match(self._text, end)
        return end if fence is None else self._take_fence(fence)

    def _end_of(self, tag: Found, what: str) -> Found | None:
        end = self._ends.first(tag.end())
        while end is not None and what == "open" and kind(end) != "close":
            end = self._ends.first(end.end())
        return end

    @property
    def _thought_end(self) -> int:
        return self._scanned.thoughts[-1][1] if self._scanned.thoughts else 0

    def _follows_thought(self, tag: Found) -> bool:
        thoughts = self._scanned.thoughts
        return bool(thoughts) and not self._text[thoughts[-1][1] : tag.start()].strip()


def scan(text: str, compiler: Compiler, *, widely: bool = True) -> Scanned:
    """The parts of a reply. `widely`: see `tags`."""
    return _Scanner(text, compiler, widely=widely).scan()


def _start(mark: Found) -> int:
    return mark.start()


def _fence(mark: Found) -> int:
    return mark.start("fence")


def _call(mark: Found) -> int:
    return mark.start("call")
