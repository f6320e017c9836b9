"""The answer that a model speaks: the text of `FINAL(…)` before any code of the reply.

In a conversation such an answer is final from its first word: code after it belongs to the answer, or is not run. So
its words can be passed on while the model writes them. One reader serves both: `Turns` reads whole replies with it, and
a chat reads pieces.
"""

from __future__ import annotations

import re

from rlm_kernel.errors import AnswerCutError
from rlm_kernel.parsing import RUN_LANGUAGES, ParsedReply, TextAnswer, parse, without_thinking

_FINAL = re.compile(r"\A[ \t>*_`]*+(FINAL_VAR|FINAL)\(")
_MAYBE_FINAL = re.compile(r"\A[ \t>*_`]*+F?I?N?A?L?_?V?A?R?\Z")
_FENCE = re.compile(r"\A {0,3}(?:`{3,}+|~{3,}+)[ \t]*+\{?\.?([\w+-]*+)[^`\n]*+\n")
_MAYBE_FENCE = re.compile(r"\A {0,3}(?:`{1,}+|~{1,}+)")
_THOUGHT = re.compile(r"\A[ \t]*+<(think|thinking|reasoning)>")
_MAYBE_THOUGHT = re.compile(r"\A[ \t]*+<[a-z]{0,9}\Z")
_NAME = re.compile(r"\w*+\s*+")
_PARENTHESIS = re.compile(r"[()]")
MAX_PREFIX = 2
"""Of a quoted text, such as `rb`."""


class SpokenAnswer:
    """Reads a reply in pieces.

    Attributes:
        text: the words of the answer so far. They will not be taken back.
        begun: whether `text` has begun.
        closed: whether the closing parenthesis was read.
    """

    def __init__(self) -> None:
        self.text = ""
        self.begun = self.closed = False
        self._rest = ""
        self._depth = 1
        self._read = self._read_start
        self._at_line_start = True
        self._tag = ""

    def feed(self, piece: str) -> str:
        """The words that a piece of the reply adds to the answer."""
        before = len(self.text)
        self._rest += piece
        while self._read():
            pass
        return self.text[before:]

    # Each state reads from `_rest` and says whether another state can go on at once.

    def _read_start(self) -> bool:
        """Before the answer: line by line."""
        rest = self._rest
        if self._at_line_start:
            if (final := _FINAL.match(rest)) is not None:
                self._rest = rest[final.end() :]
                self._read = self._read_first_words if final[1] == "FINAL" else self._read_nothing
                return True
            if (thought := _THOUGHT.match(rest)) is not None:
                self._rest, self._tag, self._read = rest[thought.end() :], f"</{thought[1]}>", self._read_thought
                return True
            if (fence := _FENCE.match(rest)) is not None and fence[1].lower() in RUN_LANGUAGES:
                self._read = self._read_nothing
                return False
            if "\n" not in rest and (
                _MAYBE_FINAL.match(rest) or _MAYBE_FENCE.match(rest) or _MAYBE_THOUGHT.match(rest)
            ):
                return False
        line_end = rest.find("\n") + 1
        self._at_line_start = line_end > 0
        self._rest = rest[line_end:] if line_end else ""
        return line_end > 0

    def _read_thought(self) -> bool:
        end = self._rest.find(self._tag)
        if end < 0:
            self._rest = self._rest[-len(self._tag) :]
            return False
        self._rest, self._read = self._rest[end + len(self._tag) :], self._read_start
        return True

    def _read_first_words(self) -> bool:
        """Hold back what may still be the name of a variable, or a quoted text."""
        words = self._rest.lstrip()
        name = _NAME.match(words)
        assert name is not None, "it matches the empty text"
        follows = words[name.end() : name.end() + 1]
        if not follows:
            return False
        if follows == ")" or (follows in "\"'" and len(name[0]) <= MAX_PREFIX):
            self._read = self._read_nothing
            return False
        self._rest, self.begun, self._read = words, True, self._read_words
        return True

    def _read_words(self) -> bool:
        """The words up to the balanced parenthesis; a space at their end is held back."""
        end = len(self._rest)
        for match in _PARENTHESIS.finditer(self._rest):
            self._depth += 1 if match[0] == "(" else -1
            if self._depth == 0:
                end, self.closed = match.start(), True
                break
        words = self._rest[:end].rstrip()
        self.text += words
        self._rest = "" if self.closed else self._rest[len(words) : end]
        if self.closed:
            self._read = self._read_nothing
        return False

    def _read_nothing(self) -> bool:
        self._rest = ""
        return False


def parse_spoken(text: str, *, finished: bool) -> ParsedReply:
    """A reply of a conversation.

    Args:
        text: the reply.
        finished: whether the model stopped by itself.

    Raises:
        AnswerCutError: the length limit cut the spoken answer.
    """
    reader = SpokenAnswer()
    reader.feed(without_thinking(text))
    if not reader.begun:
        return parse(text, finished=finished)
    if not (reader.closed or finished):
        raise AnswerCutError(partial_answer=reader.text)
    return ParsedReply(answer=TextAnswer(reader.text))
