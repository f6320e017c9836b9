"""Tab completion of `%%rlm` and `%rlm`: options, commands and their values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rlm_kernel.clients import registry
from rlm_magics import grammar
from rlm_magics.commands import environment_names
from rlm_magics.settings import Settings

Namespace = Mapping[str, Any]


def of_cell(namespace: Namespace, line: str, word: str) -> list[str]:
    """Completions for a word in the first line of a `%%rlm` cell."""
    before = _before(line, word)
    if (choose := _VALUES.get(before[-1] if before else "")) is not None:
        return _beginning(choose(namespace), word)
    return _beginning(grammar.cell_grammar().options, word) if word.startswith("-") or not word else []


def of_command(namespace: Namespace, line: str, word: str) -> list[str]:
    """Completions for a word of a `%rlm` line."""
    before = _before(line, word)
    if len(before) <= 1:
        return _beginning(grammar.COMMANDS, word)
    command = before[1]
    if (choose := _VALUES.get(before[-1])) is not None:
        return _beginning(choose(namespace), word)
    if command == "config" and len(before) == 2 and not word.startswith("-"):  # noqa: PLR2004 (%rlm config)
        return _beginning(Settings.class_own_traits(), word)
    return _beginning(grammar.command_grammar(command).options, word) if command in grammar.COMMANDS else []


def _before(line: str, word: str) -> list[str]:
    """The words of a line before the one that is being written."""
    return line[: len(line) - len(word)].split() if word and line.endswith(word) else line.split()


def _variables(namespace: Namespace) -> Iterable[str]:
    return (name for name in namespace if not name.startswith("_") and not callable(namespace[name]))


def _models(namespace: Namespace) -> Iterable[str]:
    own = (name for name, value in namespace.items() if callable(getattr(value, "complete", None)))
    return (*registry.BACKENDS, *(name for name in own if not name.startswith("_")))


def _schemas(namespace: Namespace) -> Iterable[str]:
    return (name for name, value in namespace.items() if isinstance(value, dict) or hasattr(value, "model_json_schema"))


_VALUES: Mapping[str, Callable[[Namespace], Iterable[str]]] = {
    **dict.fromkeys(("-c", "--context", "-o", "--output"), _variables),
    **dict.fromkeys(("-b", "--backend", "--sub-backend"), _models),
    **dict.fromkeys(("-e", "--environment"), lambda _: environment_names()),
    "--prompts": lambda _: ("large", "small"),
    "--schema": _schemas,
}
"""The possible values of an option."""


def _beginning(words: Iterable[str], word: str) -> list[str]:
    return sorted(one for one in words if one.startswith(word))
