"""Tab completion of `%%rlm` and `%rlm`: options, commands and their values, and nothing of Python's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from glob import escape, glob
from pathlib import Path
from typing import Any

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher
from IPython.core.interactiveshell import InteractiveShell

from rlm_kernel.clients import registry
from rlm_magics import grammar
from rlm_magics.commands import environment_names
from rlm_magics.settings import Settings

Namespace = Mapping[str, Any]


_RECORDS = (".jsonl", ".ipynb", ".zip")
"""The endings of the files that `%rlm` commands take."""


def install(shell: InteractiveShell) -> None:
    """Complete the magics of a shell. A matcher suppresses those of Python, which would offer keywords as options."""

    @context_matcher(identifier="rlm_magics")
    def matcher(context: CompletionContext) -> SimpleMatcherResult:
        word = _word(context.text_until_cursor)
        hidden = shell.user_ns_hidden
        own = {name: value for name, value in shell.user_ns.items() if hidden.get(name, hidden) is not value}
        offered = _offered(own, context)
        if offered is None:
            return SimpleMatcherResult(completions=[], suppress=False)
        # What is there already suppresses the others, and changes nothing.
        made = [SimpleCompletion(text=text, type="option") for text in offered or [word]]
        return {"completions": made, "matched_fragment": word, "suppress": True, "ordered": True}

    uninstall(shell)
    shell.Completer.custom_matchers.append(matcher)


def uninstall(shell: InteractiveShell) -> None:
    """Undo `install`."""
    known = shell.Completer.custom_matchers
    known[:] = [one for one in known if getattr(one, "matcher_identifier", "") != "rlm_magics"]


def _offered(namespace: Namespace, context: CompletionContext) -> list[str] | None:
    """The completions at the cursor; None: it is not in a line of ours."""
    line = context.text_until_cursor.lstrip()
    if context.full_text.lstrip().startswith("%%rlm"):
        is_options = context.line_with_cursor.lstrip().startswith("%%rlm")
        if is_options and not line[len("%%rlm") :][:1].strip():
            return of_cell(namespace, line, _word(line)) if line != "%%rlm" else None
        return None if is_options else []
    if line.startswith(("%rlm ", "%rlm\t")):
        return of_command(namespace, line, _word(line))
    return None


def _word(line: str) -> str:
    """The word that is being written; empty after a space."""
    return "" if line[-1:].isspace() else "".join(line.split()[-1:])


def of_cell(namespace: Namespace, line: str, word: str) -> list[str]:
    """Completions for a word in the first line of a `%%rlm` cell."""
    return _of_grammar(grammar.cell_grammar(), namespace, _before(line, word), word)


def of_command(namespace: Namespace, line: str, word: str) -> list[str]:
    """Completions for a word of a `%rlm` line."""
    before = _before(line, word)
    if len(before) <= 1:
        return _beginning(grammar.COMMANDS, word)
    command = before[1]
    if command not in grammar.COMMANDS:
        return []
    if command == "config" and not word.startswith("-"):
        return _beginning(Settings.class_own_traits(), word) if len(before) == 2 else []  # noqa: PLR2004 (%rlm config)
    given = grammar.command_grammar(command)
    found = _of_grammar(given, namespace, before, word)
    has_value = before[-1] in given.options and given.takes_value(before[-1])
    if given.takes_file and not word.startswith("-") and not has_value:
        found = [*_files(word, _RECORDS), *found]
    return found


def _of_grammar(given: grammar.Grammar, namespace: Namespace, before: list[str], word: str) -> list[str]:
    """The values of the option before the word, else the options."""
    option = before[-1]
    if option in ("--file", "--log-dir"):
        return _files(word)
    if (choose := _VALUES.get(option)) is not None and option in given.options:
        return _beginning(choose(namespace), word)
    if option in given.options and given.takes_value(option):
        return []
    return _beginning(given.options, word) if word.startswith("-") or not word else []


def _files(word: str, endings: tuple[str, ...] = ("",)) -> list[str]:
    """The files with these endings, and the folders, whose path begins with a word."""
    found = [f"{path}/" if Path(path).is_dir() else path for path in glob(f"{escape(word)}*")]  # noqa: PTH207 (of any folder)
    return sorted(path for path in found if path.endswith(("/", *endings)))


def _before(line: str, word: str) -> list[str]:
    """The words of a line before the one that is being written."""
    return line[: len(line) - len(word)].split() if word and line.endswith(word) else line.split()


def _variables(namespace: Namespace) -> Iterable[str]:
    return (name for name in namespace if not name.startswith("_") and not callable(namespace[name]))


def _models(namespace: Namespace) -> Iterable[str]:
    own = (name for name, value in namespace.items() if _is_model(value))
    return (*registry.BACKENDS, *(name for name in own if not name.startswith("_")))


def _is_model(value: object) -> bool:
    return not isinstance(value, type) and callable(getattr(value, "complete", None))


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
