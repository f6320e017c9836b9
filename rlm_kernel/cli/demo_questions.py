"""The context and the questions of `rlm demo`, and how each answer is checked.

Code can answer two of them: the correct answer is computed here with `ast`, in another way than a model is likely to
choose. The third needs a judgement for each of six items: its correct answer was found by reading them, and can be
checked in a minute. No prompt of the library holds any of these questions or answers.
"""

from __future__ import annotations

import ast
import re
import sysconfig
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Sources = Mapping[str, str]

ENOUGH_CHARACTERS = 10_000_000
_FOREIGN = {"site-packages", "dist-packages", "__pycache__"}
_TESTS = {"test", "tests", "idle_test"}
_PATH = re.compile(r"(?<![\w./-])[\w./-]+\.py\b")


def standard_library(root: Path | None = None) -> dict[str, str]:
    """The source of every module of the standard library, by path; its own tests only if the rest is too short.

    Args:
        root: the folder of the library; None: that of the running Python.
    """
    root = root or Path(sysconfig.get_path("stdlib"))
    paths = [path.relative_to(root) for path in sorted(root.rglob("*.py"))]
    paths = [path for path in paths if _FOREIGN.isdisjoint(path.parts)]
    modules = _sources(root, [path for path in paths if _TESTS.isdisjoint(path.parts)])
    if sum(map(len, modules.values())) >= ENOUGH_CHARACTERS:
        return modules
    return modules | _sources(root, [path for path in paths if not _TESTS.isdisjoint(path.parts)])


def _sources(root: Path, paths: list[Path]) -> dict[str, str]:
    sources = {}
    for path in paths:
        with suppress(UnicodeDecodeError):  # a few files have another encoding on purpose, to test the tokenizer
            sources[path.as_posix()] = (root / path).read_text("utf-8")
    return sources


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an answer is right, and why, in a few words."""

    right: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Question:
    """A question with a truth to check against.

    Attributes:
        text: what the model is asked.
        kind: ``code`` can answer it, or it needs a ``judgement``.
        truth: computes or knows the answer for these sources.
        check: compares an answer with the truth.
        source: where the truth comes from, for the reader.
    """

    text: str
    kind: Literal["code", "judgement"]
    truth: Callable[[Sources], Any]
    check: Callable[[str, Any], Verdict]
    source: str


CLASS = "ThreadPoolExecutor"
JUDGED = {
    "ftplib.py": True,
    "statistics.py": False,
    "smtplib.py": True,
    "textwrap.py": False,
    "poplib.py": True,
    "fractions.py": False,
}
"""Whether the module is a client for a network protocol. Read the first lines of each to see."""


def _tree(source: str) -> ast.AST:
    try:
        return ast.parse(source)
    except SyntaxError:  # The library holds a few files that are wrong on purpose: templates and test data.
        return ast.Module([], [])


def _defines_class(source: str) -> bool:
    return any(isinstance(node, ast.ClassDef) and node.name == CLASS for node in ast.walk(_tree(source)))


def _paths_of_class(sources: Sources) -> set[str]:
    # Parsing all sources takes several seconds, and a name that is not in a text is not in its tree.
    return {path for path, source in sources.items() if CLASS in source and _defines_class(source)}


def _functions(source: str) -> int:
    return sum(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in ast.walk(_tree(source)))


def _paths_with_most_functions(sources: Sources) -> set[str]:
    limit, paths = 0, set[str]()
    for path, source in sorted(sources.items(), key=lambda item: item[1].count("def"), reverse=True):
        if source.count("def") < limit:  # Neither this file nor those after it can have as many definitions.
            break
        functions = _functions(source)
        if functions >= limit:
            paths = paths | {path} if functions == limit else {path}
            limit = functions
    return paths


def _judged_network(sources: Sources) -> set[str]:
    return {path for path, is_client in JUDGED.items() if is_client and path in sources}


def check_paths(answer: str, truth: set[str]) -> Verdict:
    """Right if exactly the true paths are named."""
    named = {path.removeprefix("./") for path in _PATH.findall(answer)}
    return Verdict(named == truth, f"the truth is {', '.join(sorted(truth))}")


def check_judgements(answer: str, truth: set[str]) -> Verdict:
    """Right if each of the items was put on its right side."""
    named = {path for path, pattern in _MODULES.items() if pattern.search(answer)}
    hits = sum((path in named) == (path in truth) for path in JUDGED)
    verdict = check_paths(" ".join(named), truth)
    return Verdict(verdict.right, f"{hits} of {len(JUDGED)} judgements agree; {verdict.reason}")


_MODULES = {path: re.compile(rf"(?<![\w.]){re.escape(path.removesuffix('.py'))}\b") for path in JUDGED}

QUESTIONS = (
    Question(
        text=f"In which file is the class {CLASS} defined?",
        kind="code",
        truth=_paths_of_class,
        check=check_paths,
        source="computed with ast",
    ),
    Question(
        text="Which file has the most function definitions?",
        kind="code",
        truth=_paths_with_most_functions,
        check=check_paths,
        source="computed with ast",
    ),
    Question(
        text=(
            f"Which of the six modules {list(JUDGED)} are clients for a network protocol? "
            "Ask llm_query_batched about context[name][:500] of each of the six."
        ),
        kind="judgement",
        truth=_judged_network,
        check=check_judgements,
        source="found by reading the six files",
    ),
)
