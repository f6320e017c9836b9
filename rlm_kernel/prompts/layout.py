"""The conversations of models that were trained to be RLMs: which messages there are, by whom, and what stays.

A model that was trained in one conversation does worse in another. A `Layout` is data (`profiles/*.toml`), and so are
its words; `reference.py` reads the reference's own ones from a copy of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rlm_kernel.prompts.context_preview import ContextFacts
from rlm_kernel.types import CellResult, Prompt

SHOWN_LENGTHS = 100
"""Parts of a context whose lengths are named."""

_FIELD = re.compile(r"\{(\w++)\}")
_FILE = re.compile(r"\((?:<[^<>()]{1,200}>|[\w./-]{1,200}\.py), line (\d+)\)\Z")
_SIMPLE = frozenset(
    {"str", "int", "float", "bool", "list", "dict", "tuple"}
    # Subclasses of them that cells often make: the kernel reports names of types only.
    | {"Counter", "OrderedDict", "defaultdict", "float64", "str_", "FailedQuery"}
)
_SCAFFOLD = frozenset({"f"})
"""Names of the reference's own code in its REPL: it lists them at their place when a cell has assigned to them."""
_RENAMED = frozenset({"my_answer", "my_context", "my_context_0", "my_history"})
"""Where the kernel keeps what a cell assigned to one of its names."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The messages of a conversation. Texts may have fields in braces, which are filled in once.

    Attributes:
        facts: about the context: ``{type}``, ``{characters}``, ``{lengths}`` of its parts.
        asked: ``{facts}`` and the ``{question}``, for a run with a question; empty: the facts alone.
        facts_role: who says it, after the system message.
        turn: before each turn: ``{turn}``, ``{turns}``.
        turn_asked: the same for a run with a question: ``{question}``.
        first, later: what precedes it in the first turn, and in the others.
        keeps_turn: whether it stays in the conversation; else it is sent in its turn only.
        block: the message about a cell: ``{code}``, ``{output}``.
        many_blocks: the same in a reply with several: also ``{number}``; empty: as `block`.
        message_per_block: whether each cell has a message of its own.
        names: the first names among the variables of a cell.
        last_word: said by the assistant when no turns are left.
        advice: the end of the system message, unless ``orchestrator=False``.
    """

    facts: str
    turn: str
    block: str
    last_word: str
    asked: str = ""
    facts_role: Literal["user", "assistant"] = "user"
    turn_asked: str = ""
    first: str = ""
    later: str = ""
    keeps_turn: bool = True
    many_blocks: str = ""
    message_per_block: bool = False
    names: tuple[str, ...] = ("answer", "context_0", "context")
    advice: str = ""

    def about(self, prompt: Prompt, facts: ContextFacts, question: str) -> str:
        """What is said of the context, with the question."""
        lengths = [facts.length] if isinstance(prompt, str) else _lengths(prompt)
        listed = str(lengths)
        if len(lengths) > SHOWN_LENGTHS:
            listed = f"{lengths[:SHOWN_LENGTHS]}... [{len(lengths) - SHOWN_LENGTHS} others]"
        fields = {"type": facts.type_name, "characters": str(sum(lengths)), "lengths": listed}
        said = fill(self.facts, **fields)
        return fill(self.asked, facts=said, question=question) if question and self.asked else said

    def before(self, iteration: int, max_iterations: int, question: str) -> str:
        """The message before a turn, which counts from 1."""
        text = fill(
            self.turn_asked if question and self.turn_asked else self.turn,
            turn=str(iteration),
            turns=str(max_iterations),
            question=question,
        )
        return (self.first if iteration == 1 else self.later) + text

    def after(self, results: Sequence[CellResult], limit: int) -> list[str]:
        """The messages after the cells of a reply; each output is cut after `limit` characters."""
        template = self.many_blocks if self.many_blocks and len(results) > 1 else self.block
        texts = [
            fill(template, number=str(number), code=result.code, output=cut(output_of(result, self.names), limit))
            for number, result in enumerate(results, 1)
        ]
        return texts if self.message_per_block or not texts else ["\n\n".join(texts)]


def fill(template: str, **fields: str) -> str:
    """A template with its fields; what they hold is not read as a template. An unknown field stays as it is."""
    return _FIELD.sub(lambda found: fields.get(found[1], found[0]), template)


def cut(text: str, limit: int) -> str:
    """The first `limit` characters, and how many are left out."""
    return text if len(text) <= limit else f"{text[:limit]}... + [{len(text) - limit} chars...]"


def output_of(result: CellResult, names: Sequence[str]) -> str:
    """What a cell printed, the line of its error, and its simple variables; values of expressions are not shown."""
    errors = result.stderr + (f"\n{_raised(result)}" if result.status != "ok" else "")
    parts = [f"\n{text}" for text in (result.stdout, errors) if text]
    simple = set(_simple(result))
    first = [name for name in names if name not in _SCAFFOLD or name in simple]
    variables = list(dict.fromkeys([*first, *_simple(result)]))
    parts += [f"REPL variables: {variables}\n"] if variables else []
    return "\n\n".join(parts) or "No output"


def _simple(result: CellResult) -> Iterator[str]:
    return (n for n, kind in result.report.variables.items() if kind in _SIMPLE and n not in _RENAMED)


def _raised(result: CellResult) -> str:
    if result.status == "timeout":
        return f"TimeoutError: the cell was ended after {result.seconds:.0f} s"
    if result.error is None:
        return "SystemError: the kernel died while it ran this cell"
    message = _FILE.sub(r"(<string>, line \1)", result.error.message[-1_000:])
    return f"{result.error.name}: {result.error.message[:-1_000]}{message}"


def _lengths(prompt: Any) -> list[int]:
    """Characters of the parts of a dict or list: of the contents of messages, of texts, and of the JSON of others."""
    if isinstance(prompt, dict):
        return [len(value) if isinstance(value, str) else _json_length(value) for value in prompt.values()]
    if not isinstance(prompt, list):
        return [len(str(prompt))]
    if not prompt:
        return [0]
    if isinstance(prompt[0], dict) and "content" in prompt[0]:
        return [len(str(part.get("content", ""))) if isinstance(part, dict) else _json_length(part) for part in prompt]
    return [len(part) if isinstance(part, str) else _json_length(part) for part in prompt]


def _json_length(value: Any) -> int:
    try:
        return len(json.dumps(value, default=str))
    except (TypeError, ValueError, RecursionError):
        return len(repr(value))
