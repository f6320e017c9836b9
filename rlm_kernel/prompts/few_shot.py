"""Few-shot examples for a model that learns the notebook by imitation, and the choice among them.

A small model copies the example that looks most like its own task, above all the last one. So each example says what
kind of context it works on and which words of a question it fits, and `choose` puts the best one last. An example is a
real small context with code that runs on it: a test executes every one. They are data files, in `examples/`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from rlm_kernel.prompts.context_preview import ContextFacts, Form
from rlm_kernel.types import Prompt

MAX_QUESTION_CHARACTERS = 10_000
"""Of a question that are looked at: its cues stand at its beginning, and it may quote a whole document."""

_MEANING = re.compile(
    r"\babout\b|\b(un)?happy|\bangry|\bopinion|\bpositive|\bnegative|\bcomplain|\bmood\b|\btone\b|\bsentiment"
    r"|\btopics?\b|\bsummar|\bjudg(e|ing)|\bmeaning|\bdeals? with|\brelated to|\bdiscuss|\bpolite|\brude\b"
    r"|\b(dis)?satisfied|\bliked\b|\bdislik|\benjoy|\bpurpose\b|\bexplain|\bfriendly|\bwhat [^\n]{1,80}? is for\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Step:
    """One cell of an example: the code, and the output that the notebook gives back."""

    code: str
    output: str


@dataclass(frozen=True, slots=True)
class Example:
    """A question answered in the notebook.

    Attributes:
        forms: the kinds of context that it is an example for.
        cues: a pattern; the more of the question it finds, the better the example fits.
        context: the variable `context` of the example.
        question: what is asked.
        steps: the cells.
        answer: what FINAL says.
        meaning: whether it needs a model that reads (`llm_query`).
    """

    forms: tuple[Form, ...]
    cues: str
    context: Prompt
    question: str
    steps: tuple[Step, ...]
    answer: str
    meaning: bool = False


def read_data(folder: str, name: str) -> dict[str, Any]:
    """The content of the data file `{folder}/{name}.toml` of this package."""
    return tomllib.loads(files("rlm_kernel.prompts").joinpath(folder, f"{name}.toml").read_text("utf-8"))


def load_examples(name: str) -> tuple[Example, ...]:
    """The examples of the file `examples/{name}.toml`. Each names one of the file's contexts."""
    data = read_data("examples", name)
    return tuple(
        Example(
            forms=tuple(example.pop("forms")),
            context=data["contexts"][example.pop("context")],
            steps=tuple(Step(**step) for step in example.pop("steps")),
            **example,
        )
        for example in data["examples"]
    )


def choose(examples: Sequence[Example], facts: ContextFacts, question: str, limit: int) -> list[Example]:
    """The examples that fit a question best, the best last.

    Only those for the most similar context are shown, as the model mixes what it sees: rather one than three.
    Examples that ask a model are chosen when the question is one of meaning, and only then: a small model that has seen
    one asks itself to count.
    """
    question = question[:MAX_QUESTION_CHARACTERS]
    meaning = asks_for_meaning(question)
    ranked = sorted(
        (_fit(example, facts, question), number)
        for number, example in enumerate(examples)
        if example.meaning == meaning
    )
    alike = [number for fit, number in ranked if fit[0] == ranked[-1][0][0]]
    return [examples[number] for number in alike[-limit:]] if limit else []


def asks_for_meaning(question: str) -> bool:
    """Whether the words of the question say that somebody has to read, not to search."""
    return _MEANING.search(question[:MAX_QUESTION_CHARACTERS]) is not None


@cache
def _compiled(cues: str) -> re.Pattern[str]:
    return re.compile(cues, re.IGNORECASE)


def _fit(example: Example, facts: ContextFacts, question: str) -> tuple[int, int]:
    cues = {match[0].lower() for match in _compiled(example.cues).finditer(question)}
    same_type = type(example.context).__name__ == facts.type_name
    return ((facts.form in example.forms) + same_type, len(cues))
