"""Lines of a context that contain words of the question: a small model needs them to write its first cell.

The search is bounded, not exact. It searches for a few spellings of each word of the question, takes a limited number
of hits per word, and stops after a budget of characters. Lines with more and rarer words come first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from itertools import islice
from typing import Any

from rlm_kernel.prompts.context_preview import bounded_repr, key_label, pairs
from rlm_kernel.types import Prompt

_BUDGET = 600_000_000  # characters read by one search, about half a second
_PARTS = 100_000  # of a list or dict are searched
_HITS_PER_WORD = 40
_WORDS = 10
_MIN_WORD = 3
_LINE_CHARACTERS = 160
_COST_OF_A_PART = 200  # characters whose search takes as long as the start with another text

_MAX_QUESTION_CHARACTERS = 10_000  # of a question are used: it may quote a whole document

_WORD = re.compile(r"[/\w][\w.@/-]*[\w/]|\w+")
_COUNTING = re.compile(r"\bhow (many|often)\b|\bcount\b|\bsum\b|\btotal\b|\bnumber of\b", re.IGNORECASE)

_COMMON_WORDS = frozenset(files("rlm_kernel.prompts").joinpath("common_words.txt").read_text("utf-8").split())


@dataclass(frozen=True, slots=True)
class _Line:
    """A line with a word of the question: its place and its text."""

    label: str
    text: str


def question_lines(prompt: Prompt, question: str, limit: int) -> list[str]:
    """Lines of the context with words of the question, the most informative first.

    Args:
        prompt: the context.
        question: the user's question.
        limit: the most lines.

    Returns:
        Each line cut to about 160 characters around the word. In a dict or list ``context[key]: `` precedes it, but not
        for a question that counts: a small model would then count in that entry only.
    """
    question = question[:_MAX_QUESTION_CHARACTERS]
    search = _Search(prompt, places=_COUNTING.search(question) is None)
    hits = {word: found for word in _words(question) if (found := search.hits(word))}
    weights = {word: 1 / len(found) + _is_name(word, question) for word, found in hits.items()}
    lines = dict.fromkeys(line for found in hits.values() for line in found)
    scores = {line: _score(line, weights, _COMMON_WORDS & set(question.lower().split())) for line in lines}
    best = sorted((line for line in lines if scores[line] >= _INFORMATIVE), key=lambda line: -scores[line])
    return list(dict.fromkeys(line.label + line.text for line in best))[:limit]


_INFORMATIVE = 0.2  # the score of a line with one common word that is in five lines


class _Search:
    """Finds words in a context within a budget of characters."""

    def __init__(self, prompt: Prompt, *, places: bool) -> None:
        self._texts = list(islice(_texts(prompt), _PARTS))
        self._places = places
        self._budget = _BUDGET

    def hits(self, word: str) -> list[_Line]:
        """The lines with the word: all of them, or the first `_HITS_PER_WORD`."""
        spellings = dict.fromkeys((word, word.lower(), word.capitalize(), word.upper()))
        lines = (line for spelling in spellings for line in self._lines(spelling))
        return list(islice(lines, _HITS_PER_WORD))

    def _lines(self, spelling: str) -> Iterator[_Line]:
        for reach, text in self._texts:
            if self._budget <= 0:
                return
            yield from self._lines_of_text(reach, text, spelling)
            self._budget -= len(text) + _COST_OF_A_PART

    def _lines_of_text(self, reach: tuple[Any, ...], text: str, spelling: str) -> Iterator[_Line]:
        if reach and isinstance(reach[0], str) and spelling in reach[0]:
            yield _line(reach, text, 0, 0)
        at = text.find(spelling, 0, self._budget)
        while at >= 0:
            yield _line(reach if self._places else (), text, at, len(spelling))
            at = text.find(spelling, (text.find("\n", at) + 1) or len(text), self._budget)


def _words(question: str) -> list[str]:
    words = _WORD.findall(question)
    chosen = [w for w in dict.fromkeys(words) if len(w) >= _MIN_WORD and w.lower() not in _COMMON_WORDS]
    return sorted(chosen, key=lambda word: (not _is_name(word, question), -len(word)))[:_WORDS]


def _is_name(word: str, question: str) -> bool:
    """Whether the question uses the word as a name: quoted, or with a digit, punctuation or a capital inside.

    A plain number is not a name: it is more often a bound ("longer than 2000 ms") than something to find.
    """
    if word.isdigit():
        return False
    return any(f"{quote}{word}" in question for quote in "`'\"") or not word.isalpha() or word[1:] != word[1:].lower()


def _score(line: _Line, weights: dict[str, float], common_words: frozenset[str]) -> float:
    read = (line.label + line.text).lower()
    rare = sum(weight for word, weight in weights.items() if word.lower() in read)
    common = sum(word in read.split() for word in common_words)
    return rare and rare + common / 100


def _texts(prompt: Prompt) -> Iterator[tuple[tuple[Any, ...], str]]:
    """The texts to search, each with its key or index in a tuple (empty for a str)."""
    if isinstance(prompt, str):
        yield (), prompt
        return
    for key, value in pairs(prompt) if isinstance(prompt, dict | list) else ():
        yield (key,), value if isinstance(value, str) else bounded_repr(value, 500)


def _line(reach: tuple[Any, ...], text: str, at: int, length: int) -> _Line:
    begin = max(text.rfind("\n", max(0, at - _LINE_CHARACTERS), at) + 1, at - _LINE_CHARACTERS // 2, 0)
    end = text.find("\n", at, begin + _LINE_CHARACTERS)
    line = text[begin : end if end >= 0 else max(begin + _LINE_CHARACTERS, at + length)]
    return _Line("".join(f"{key_label(key)}: " for key in reach), line.strip())
