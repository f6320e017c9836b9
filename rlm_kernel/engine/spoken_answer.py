"""The answer that a model speaks: the text of `FINAL(…)` before any code of the reply.

In a conversation such an answer is final from its first word: code after it belongs to the answer, or is not run. So
its words can be passed on while the model writes them. `Turns` reads whole replies with `parse_spoken`; a chat reads
pieces, and passes on only words that the whole reply cannot take back.
"""

from __future__ import annotations

import re

from rlm_kernel.errors import AnswerCutError
from rlm_kernel.parsing import CALL, ParsedReply, TextAnswer, begun_answer, may_be_placeholder, parse, read_answer

_KEYWORDS = ("and", "or", "not", "in", "if", "else", "for", "await", "async", "lambda", "from", "yield")
_ANY_KEYWORD = "|".join(_KEYWORDS)
_BEGUN_KEYWORD = "|".join(sorted({word[:end] for word in _KEYWORDS for end in range(1, len(word) + 1)}))
# Two words beside each other are no expression of Python, no name and no quoted text.
_WORDS = re.compile(
    rf"\A[^\"'`\[\](){{}}\\*$_]*?\b(?!(?:{_ANY_KEYWORD})\b)\w++[ \t\n]++"
    rf"(?!(?:{_ANY_KEYWORD})\b|(?:{_BEGUN_KEYWORD})\Z)\w"
)
_MARK = re.compile(r"[()\[\]`]")
_BEHIND = re.compile(r"[ \t*_`\r]*+(?:\n[ \t\r]*+(?P<blank>\n)?)?")
_SMILEY = re.compile(r"(?:[:;=]['^-]?|[\"'])\Z")
_CALL_CHARACTERS = 20
_MAX_CALLS = 50
"""Mentions of `FINAL(` before the answer."""

_MAX_HELD = 2_000
"""Characters of an answer that may still be code."""


class SpokenAnswer:
    """Reads a reply in pieces.

    Attributes:
        text: the words of the answer so far. They will not be taken back.
        begun: whether `text` has begun.
        start: where the argument of `FINAL` begins in the reply; -1: not known yet.
    """

    def __init__(self) -> None:
        self.text = ""
        self.begun = False
        self.start = -1
        self._unread = ""
        self._searched = self._calls = 0
        self._depth = 1
        self._is_unsure = False
        self._read = self._read_start

    def feed(self, piece: str) -> str:
        """The words that a piece of the reply adds to the answer."""
        before = len(self.text)
        self._unread += piece
        while self._read():
            pass
        return self.text[before:]

    # Each state reads from `_unread` and says whether another state can go on at once.

    def _read_start(self) -> bool:
        """Before the answer."""
        call = CALL.search(self._unread, self._searched)
        if call is None:
            self._searched = max(self._searched, len(self._unread) - _CALL_CHARACTERS)
            return False
        self._calls += 1
        self._searched = call.end()
        begun = begun_answer(self._unread[: call.end()])
        if begun:
            self.start, self._unread = call.end(), self._unread[call.end() :]
            self._read = self._read_first_words
        elif begun is None or self._calls == _MAX_CALLS:
            self._read = self._read_nothing
        return True

    def _read_first_words(self) -> bool:
        """Hold back what may still be a variable, a quoted text or an expression."""
        words = self._unread.lstrip()
        if not _WORDS.match(words[:_MAX_HELD]) or may_be_placeholder(words[:_MAX_HELD]):
            if len(words) >= _MAX_HELD:
                self._read = self._read_nothing
            return False
        self._unread, self.begun, self._read = words, True, self._read_words
        return True

    def _read_words(self) -> bool:
        """The words up to the first parenthesis that may end the answer; a space at their end is held back."""
        end, until = len(self._unread), 0
        for mark in _MARK.finditer(self._unread):
            before = (self.text[-2:] + self._unread[: mark.start()])[-2:]
            if mark[0] == ")" and (self._depth == 1 or self._is_unsure):
                end, self._read = mark.start(), self._read_nothing
                break
            behind = _BEHIND.match(self._unread, mark.end())
            if mark[0] == ")" and behind is not None and behind["blank"]:  # it may end the answer with its paragraph
                end, self._read = mark.start(), self._read_nothing
                break
            if mark[0] == ")" and behind is not None and behind.end() == len(self._unread):
                end, until = mark.start(), len(self._unread)
                break
            self._depth += {"(": 1, ")": -1}.get(mark[0], 0)
            self._is_unsure |= mark[0] in "[]`" or _SMILEY.search(before) is not None
        words = self._unread[:end].rstrip()
        self.text += words
        self._unread = self._unread[len(words) : max(end, until)]
        return False

    def _read_nothing(self) -> bool:
        """What comes now is passed on when the whole reply was read."""
        self._unread = ""
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
    reader.feed(text)
    answer = read_answer(text, reader.start) if reader.begun else None
    if answer is None:
        return parse(text, finished=finished)
    if not (finished or (answer.closed and answer.certain)):
        raise AnswerCutError(partial_answer=answer.text)
    return ParsedReply(answer=TextAnswer(answer.text))
