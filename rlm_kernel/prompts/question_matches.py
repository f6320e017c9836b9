"""Lines of a context that contain words of the question: a small model needs them to write its first cell.

The search is bounded, not exact. It looks for each word of the question in a few spellings, drops a common word after
its first hits, stops after a budget of characters, and then prefers lines in which the most, and the rarest, words
meet.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
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
_COST_OF_A_PART = 200  # looking into one more text costs about as much as reading so many characters

_MAX_QUESTION_CHARACTERS = 10_000  # of a question are looked at: it may quote a whole document

_WORD = re.compile(r"[/\w][\w.@/-]*[\w/]|\w+")
_COUNTING = re.compile(r"\bhow (many|often)\b|\bcount\b|\bsum\b|\btotal\b|\bnumber of\b", re.IGNORECASE)

_COMMON_WORDS = frozenset(
    """
    about above argument arguments function functions class classes method methods module modules import
    about above after again all also and answer any appear appears are average been before being below between
    biggest both but called can contain contained containing contains context could count counted data defined
    dict did does each every file files find first for from give given greatest had has have highest how into its
    item items key keys largest last least less line lines list longest lowest many mean mention mentioned mentions
    more most much name named names not number numbers often only other out over please question said say shortest
    should show smallest string sum tell text than that the their them then there these they this those together
    total under use used uses value values was were what when where which who whom whose why will with without
    word words would write written
    """.split()
)


@dataclass(frozen=True, slots=True)
class _Line:
    """A line with a word of the question: where it stands and how it reads."""

    label: str
    text: str


def question_lines(prompt: Prompt, question: str, limit: int) -> list[str]:
    """Lines of the context in which words of the question stand, the most telling first.

    Args:
        prompt: the context.
        question: what is asked about it.
        limit: the most lines.

    Returns:
        Each line cut to about 160 characters around the word; in a dict or list with ``context[key]: `` before it,
        except when the question counts: a small model would then count in that place only.
    """
    question = question[:_MAX_QUESTION_CHARACTERS]
    search = _Search(prompt, places=_COUNTING.search(question) is None)
    hits = {word: found for word in _words(question) if (found := search.hits(word))}
    weights = {word: 1 / len(found) + _is_name(word, question) for word, found in hits.items()}
    lines = dict.fromkeys(line for found in hits.values() for line in found)
    scores = {line: _score(line, weights, _COMMON_WORDS & set(question.lower().split())) for line in lines}
    best = sorted((line for line in lines if scores[line] >= _INFORMATIVE), key=lambda line: -scores[line])
    return list(dict.fromkeys(line.label + line.text for line in best))[:limit]


_INFORMATIVE = 0.2  # the score of a line with one plain word that stands in five lines


class _Search:
    """Finds words in a context and remembers how much it may still read."""

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
    """Whether the question uses the word as a name: quoted, or with a digit, a joint or a capital inside.

    A plain number is none: it is more often a bound ("longer than 2000 ms") than something to find.
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
    for key, value in pairs(prompt):
        yield (key,), value if isinstance(value, str) else bounded_repr(value, 500)


def _line(reach: tuple[Any, ...], text: str, at: int, length: int) -> _Line:
    begin = max(text.rfind("\n", max(0, at - _LINE_CHARACTERS), at) + 1, at - _LINE_CHARACTERS // 2, 0)
    end = text.find("\n", at, begin + _LINE_CHARACTERS)
    line = text[begin : end if end >= 0 else max(begin + _LINE_CHARACTERS, at + length)]
    return _Line("".join(f"{key_label(key)}: " for key in reach), line.strip())
