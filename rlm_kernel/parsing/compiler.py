"""Ask Python whether a part of a reply is code, within a budget."""

from __future__ import annotations

import ast
import re
import textwrap
import threading
import warnings

_QUOTED = re.compile(r"\A\s*+[rRuU]?[\"']")
MAX_COMPILED = 300_000
"""Characters of one reply that Python's compiler reads: five million take seconds, and gigabytes."""

OPEN_TEXT = "unterminated triple-quoted"
"""How the problem of code begins that ends within a text."""

TREES = threading.Lock()
"""Held by a thread that makes syntax trees. CPython 3.11 counts the depth of a tree for all threads together, so two at
once raise a `SystemError`. The filters of warnings are shared, too.
"""

_REFUSALS = (SyntaxError, ValueError, RecursionError, MemoryError)


class Compiler:
    """Compiles parts of a reply with Python, within a budget. Parts beyond it are not checked."""

    def __init__(self) -> None:
        self._room = MAX_COMPILED

    def problem(self, code: str) -> str | None:
        """Why the code is not Python; None if it is, or if it was not checked."""
        if not self._takes(code):
            return None
        try:
            _compile(code, "exec")
        except IndentationError as error:
            return None if self.tree(textwrap.dedent(code)) is not None else error.msg
        except _REFUSALS as error:
            return error.msg if isinstance(error, SyntaxError) else str(error)
        return None

    def tree(self, code: str) -> ast.Module | None:
        """The code as Python's statements; None if it is not Python, or if it was not checked."""
        tree = self._tree(code, "exec")
        return tree if isinstance(tree, ast.Module) else None

    def expression(self, text: str) -> ast.expr | None:
        """The text as one expression of Python; None if it is not one, or if it was not checked."""
        tree = self._tree(text, "eval")
        return tree.body if isinstance(tree, ast.Expression) else None

    def string(self, text: str) -> str | None:
        """The value of a string literal; None if it is not one, or if it was not checked."""
        if not _QUOTED.match(text) or not self._takes(text):
            return None
        try:
            with TREES, warnings.catch_warnings(action="ignore"):
                value = ast.literal_eval(f"({text.strip()}\n)")  # adjacent texts may be on lines of their own
        except _REFUSALS:
            return None
        return value if isinstance(value, str) else None

    def _tree(self, code: str, mode: str) -> ast.AST | None:
        if not self._takes(code):
            return None
        try:
            return _compile(code, mode)
        except _REFUSALS:
            return None

    def _takes(self, text: str) -> bool:
        self._room -= len(text)
        return self._room >= 0


def _compile(code: str, mode: str) -> ast.AST:
    flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    with TREES, warnings.catch_warnings(action="ignore"):  # the cell will show the warnings of its code
        tree = compile(code, "<reply>", mode, flags, dont_inherit=True)
    assert isinstance(tree, ast.AST), "that is what the flag asks for"
    return tree
