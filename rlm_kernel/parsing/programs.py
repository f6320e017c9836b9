"""Tell a program from data: an unmarked block may hold code, or quote an answer or an output."""

from __future__ import annotations

import ast
import builtins

_BUILTINS = frozenset(vars(builtins))
_ANSWERS = frozenset({"FINAL", "FINAL_VAR"})
_SPELLED_ANSWERS = _ANSWERS | {"FINALVAR", "FINAL_ANSWER"}
_STATEMENTS = (
    *(ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Delete, ast.AugAssign),
    *(ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.TryStar, ast.Match, ast.If),
)
_EXPRESSIONS = (ast.Call, ast.Await, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.Subscript)


def is_program(tree: ast.Module, *, strictly: bool = False) -> bool:
    """Whether the code does something, rather than being a value or an answer.

    Args:
        tree: the code.
        strictly: whether an assignment of values, and one call of a class such as `Point(x=1)`, are data.
    """
    if all(_is_answer(statement) for statement in tree.body):
        return False
    return any(_does_something(statement, strictly=strictly) for statement in tree.body)


def does_more_than_answer(tree: ast.Module) -> bool:
    """Whether a statement of the code that gives no answer can only be code."""
    return any(_does_something(one, strictly=True) for one in tree.body if not any(map(_gives_answer, ast.walk(one))))


def _gives_answer(part: ast.AST) -> bool:
    return isinstance(part, ast.Name) and part.id.upper() in _SPELLED_ANSWERS


def _is_answer(statement: ast.stmt) -> bool:
    match statement:
        case ast.Expr(value=ast.Call(func=ast.Name(id=name))):
            return name in _ANSWERS
    return False


def _does_something(statement: ast.stmt, *, strictly: bool) -> bool:
    if isinstance(statement, _STATEMENTS):
        return True
    if strictly and isinstance(statement, ast.Expr):
        return any(_is_known_call(part) for part in ast.walk(statement))
    if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
        return not strictly or any(isinstance(part, _EXPRESSIONS) for part in ast.walk(statement.value))
    return any(isinstance(part, _EXPRESSIONS) or _is_context(part) for part in ast.walk(statement))


def _is_context(part: ast.AST) -> bool:
    """Whether it is the variable of the input: a cell of it alone is how small models look at it."""
    return isinstance(part, ast.Name) and part.id == "context"


def _is_known_call(part: ast.AST) -> bool:
    match part:
        case ast.Call(func=ast.Name(id=name)):
            return name in _BUILTINS or "_" in name
        case ast.Call() | ast.Await():
            return True
    return False
