"""Does a function take linear time, whatever text it is given?

Hypothesis looks for the input: a short beginning, a fragment that is repeated, a short end. A quadratic function shows
itself at some ten thousand characters already, so no test has to wait for the hours that five million would take.
"""

from __future__ import annotations

import importlib
import re
import time
from pathlib import Path
from re import _parser
from types import ModuleType

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from rlm_kernel.prompts import PROFILES

ROOT = Path(__file__).resolve().parents[2]

SIZES = (2_000, 32_000)
"""Characters of the inputs that are tried one after another; the first that is too slow ends the test."""

WHOLE = 5_000_000
"""Characters of the worst input."""

SECONDS_FOR_WHOLE = 3.0
"""A second on a quiet machine, three on one that others load. What is quadratic takes an hour."""

SLACK = 0.15
"""Seconds that anything may take: a first import, a collection of garbage."""


class Attack:
    """A text that is mostly one fragment, again and again."""

    def __init__(self, beginning, fragment, end):
        self.beginning, self.fragment, self.end = beginning, fragment or "x", end

    def __repr__(self):
        return f"Attack({self.beginning!r}, {self.fragment!r}, {self.end!r})"

    def text(self, size):
        middle = self.fragment * (size // len(self.fragment) + 1)
        return self.beginning + middle[:size] + self.end


def attacks(pieces):
    """Attacks that are made of these pieces of text."""
    few = st.lists(st.sampled_from(sorted(pieces)), max_size=4).map("".join)
    return st.builds(Attack, few, few, few)


def seconds(function, text):
    """CPU time of this thread: others may load the machine."""
    began = time.thread_time()
    function(text)
    return time.thread_time() - began


def check(function, attack, sizes=SIZES):
    """Fail when the function takes more than linear time; returns the seconds of the largest size."""
    took = 0.0
    for size in sizes:
        text = attack.text(size)
        allowed = max(SLACK, len(text) * SECONDS_FOR_WHOLE / WHOLE)
        took = seconds(function, text)
        for _ in range(2):  # it may have been a first import, or a collection of garbage
            took = min(took, seconds(function, text)) if took > allowed else took
        assert took <= allowed, f"{took:.2f} s for {len(text):,} characters of {attack}"
    return took


def search(function, alphabet, examples, sizes=SIZES):
    """Look for an attack under which a function is not linear; returns the worst of those under which it is."""
    worst = (0.0, Attack("", "x", ""))

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(attacks(alphabet))
    def try_it(attack):
        nonlocal worst
        worst = max(worst, (check(function, attack, sizes), attack), key=lambda one: one[0])

    try_it()
    return worst[1]


# -- regular expressions


IN_A_KERNEL = {"guest", "replay_guest", "replay_record", "replay_script", "setup_cell"}
"""Modules and packages of ours that run in a kernel or a script of the user, where a slow one is their own business."""


def sources():
    """The files of our packages that run on the host."""
    for package in ("rlm", "rlm_kernel", "rlm_magics"):
        yield from (
            file for file in sorted((ROOT / package).rglob("*.py")) if not IN_A_KERNEL & {file.stem, file.parent.name}
        )


def modules():
    """The modules of our packages that compile regular expressions."""
    for file in sources():
        if "re.compile(" in file.read_text("utf-8"):
            yield importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts))


def patterns(module: ModuleType):
    """The compiled patterns that a module keeps, also in tuples, lists and dicts, by the name they stand under."""
    for name, value in vars(module).items():
        for number, pattern in enumerate(_inside(value)):
            if isinstance(pattern.pattern, str):
                yield f"{module.__name__}.{name}[{number}]", pattern


def patterns_of_profiles():
    """Those that the prompt profiles hold as text, as they are compiled."""
    for profile in PROFILES.values():
        for number, example in enumerate(profile.examples):
            yield f"{profile.name}.examples[{number}].cues", re.compile(example.cues, re.IGNORECASE)
        for number, (pattern, _) in enumerate(profile.hints):
            yield f"{profile.name}.hints[{number}]", re.compile(pattern)


def _inside(value, room=4):
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, tuple | list | dict) and room:
        for item in value.values() if isinstance(value, dict) else value:
            yield from _inside(item, room - 1)


def alphabet(pattern: re.Pattern[str]):
    """Characters and words that the parts of a pattern match, and a few that none of them may expect."""
    found = {"x", " ", "\n", "0", "\t", "é"}
    _collect(_parser.parse(pattern.pattern, pattern.flags), found)
    return found


def _collect(parsed, found):
    word = ""
    for operation, argument in [*parsed, (None, None)]:
        if str(operation) == "LITERAL":
            word += chr(argument)
            continue
        if word:
            found |= {word, word[:1], word[-1:], word[:-1] or word}
            word = ""
        if str(operation) == "NOT_LITERAL":
            found.add(chr(argument))
        elif str(operation) == "IN":
            found |= set(_members(argument))
        for part in _parts(str(operation), argument):
            _collect(part, found)


def _parts(name, argument):
    match name:
        case "BRANCH":
            return argument[1]
        case "ASSERT" | "ASSERT_NOT":
            return [argument[1]]
        case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
            return [argument[2]]
        case "SUBPATTERN":
            return [argument[3]]
        case "ATOMIC_GROUP":
            return [argument]
    return []


_OF_CATEGORY = {"DIGIT": "7", "SPACE": " ", "WORD": "w", "NOT_DIGIT": "d", "NOT_SPACE": "s", "NOT_WORD": "-"}


def _members(members):
    for kind, argument in members:
        match str(kind):
            case "LITERAL":
                yield chr(argument)
            case "RANGE":
                yield from map(chr, argument)
            case "CATEGORY":
                yield _OF_CATEGORY[str(argument).removeprefix("CATEGORY_")]
