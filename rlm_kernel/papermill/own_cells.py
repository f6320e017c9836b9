"""The cells of a live notebook that run in its own kernel, which has the keys: those of a person, in a few exact forms.

Everything else runs in the kernel of the run. A model wrote the rest of the notebook, and may have written a cell that
begins like one of these.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from rlm_kernel.papermill.parameters import NAMES

_ROOTS = frozenset({"RLM", "rlm_record"})
_FUNCTIONS = frozenset({"RLM", "print", "str", "repr", "len"})


def is_own(source: str) -> bool:
    """Whether a cell holds magics of ours, parameters, imports of `rlm`, or calls of `RLM` with plain values only."""
    lines = [line.strip() for line in source.splitlines() if line.strip()]
    if not lines:
        return False
    if lines[0].split()[0] == "%%rlm" or all(_is_magic(line) for line in lines):
        return True
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return len(nodes) > 1 and all(_CHECKS.get(type(node), _never)(node) for node in nodes)


def _is_magic(line: str) -> bool:
    name, *arguments = line.split()
    return name.startswith("#") or name == "%rlm" or (name == "%load_ext" and arguments == ["rlm_magics"])


def _is_rlm(module: str) -> bool:
    return module.partition(".")[0] == "rlm"


def _is_target(target: ast.expr, value: ast.expr) -> bool:
    """Whether a name may be assigned: a parameter to a plain value; any other but ours to what a call returns."""
    if not isinstance(target, ast.Name) or target.id in _ROOTS | _FUNCTIONS:
        return False
    is_parameter = target.id in NAMES or target.id.startswith("rlm_")
    return is_parameter or any(isinstance(node, ast.Call) for node in ast.walk(value))


def _is_call(call: ast.Call) -> bool:
    """Whether a function of the list is called, or one of `RLM` or the record."""
    match call.func:
        case ast.Name(id=name):
            return name in _FUNCTIONS
        case ast.Attribute(value=ast.Name(id=name)):
            return name in _ROOTS
        case ast.Attribute(value=ast.Call(func=ast.Name(id="RLM"))):
            return True
    return False


def _never(_: Any) -> bool:
    return False


def _always(_: Any) -> bool:
    return True


_PLAIN = (ast.Module, ast.Expr, ast.Name, ast.Load, ast.Store, ast.Constant, ast.keyword, ast.List, ast.Tuple, ast.Dict)
_CHECKS: dict[type[ast.AST], Callable[[Any], bool]] = {
    **dict.fromkeys((*_PLAIN, ast.UnaryOp, ast.USub, ast.Await), _always),
    ast.Import: lambda node: all(_is_rlm(one.name) for one in node.names),
    ast.ImportFrom: lambda node: not node.level and _is_rlm(node.module or ""),
    ast.alias: lambda node: node.asname is None,
    ast.Assign: lambda node: all(_is_target(target, node.value) for target in node.targets),
    ast.Call: _is_call,
    ast.Attribute: lambda node: node.attr == "__name__" or not node.attr.startswith("_"),
}
"""What each kind of node must be, so that the cell does nothing but what the forms allow."""
