"""Words of people and models for the page, as the elements that `html/prose.py` makes of them.

The page has no rules of Markdown: it asks for a text, and builds what it is given. A page in a file asks nobody, so it
holds all texts of its log that are Markdown.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rlm_kernel.html.prose import MAX_CHARACTERS, prose_data
from rlm_kernel.trajectory.runs.summary import parse_lines

MAX_TEXTS = 2_000
"""Of one request."""

_FIELDS = frozenset({"answer", "final_answer", "input_text", "partial_answer", "question", "response", "text"})
"""Fields of a log whose texts are shown as words."""


def drawn(texts: Any) -> list[list[Any] | None]:
    """What each text is drawn as; None: as it is.

    Args:
        texts: a list of texts, as a page sent it.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(texts, list) or len(texts) > MAX_TEXTS or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"The page sends a list of at most {MAX_TEXTS:,} texts.")
    return [prose_data(text) for text in texts]


def drawn_words(log: str) -> dict[str, list[Any]]:
    """The texts of a log that are Markdown, and what each is drawn as."""
    texts = dict.fromkeys(text for line in parse_lines(log.encode().splitlines()) for text in _texts(line))
    return {text: nodes for text in texts if len(text) <= MAX_CHARACTERS and (nodes := prose_data(text)) is not None}


def _texts(line: Any) -> Iterator[str]:
    """The words in a line, those of children included. Outputs and the answers of sub-calls are no words."""
    left = [line]
    while left:
        held = left.pop()
        if isinstance(held, list):
            left += held
        elif isinstance(held, dict) and held.get("type") != "answer":
            for name, value in held.items():
                if isinstance(value, str) and name in _FIELDS:
                    yield value
                elif name != "outputs":
                    left.append(value)
