"""Tell the source of an expression from the words of an answer: `FINAL(str(total))` from `FINAL(Mercury (planet))`."""

from __future__ import annotations

import ast
import builtins
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from rlm_kernel.parsing.compiler import Compiler

_BUILTINS = frozenset(vars(builtins))
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_MAYBE = (ast.BinOp, ast.Attribute, ast.Tuple, ast.List, ast.Call, ast.IfExp, ast.Compare, ast.BoolOp)
_WORD_OPERATORS = (ast.Is, ast.IsNot, ast.In, ast.NotIn)
_FORMATTED = re.compile(r"\A(?:[fF][rR]?|[rR][fF])[\"']")

_CODE_BEGINS = re.compile(r"\A(?:[rRuUbBfF]{0,2}[\"']|[^\W\d]\w*+[.(\[]|[\[{(])")
_QUOTED = re.compile(
    r"\"{3}.*?\"{3}|'{3}.*?'{3}|(?P<open>\"{3}|'{3}).*+|\"(?:[^\"\\]|\\.)*+\"|(?<!\w)[rRuUbBfF]{0,2}'(?:[^'\\]|\\.)*+'"
    r"|(?P<begun>\"|(?<!\w)[rRuUbBfF]{0,2}').*+",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Source:
    """An expression of Python as an answer: its value is the answer, not its text.

    Attributes:
        code: the expression.
        names: the variables that it reads.
        certain: whether it cannot be words: `str(x)` or `r["a"]`. `O(n)`, `TCP/IP` and `a, b` may be, so they are
            source only where all their names are variables.
    """

    code: str
    names: frozenset[str]
    certain: bool


def source_of(text: str, compiler: Compiler) -> Source | None:
    """The text as source; None: it is words, a name or data."""
    node = compiler.expression(text)
    if node is None or isinstance(node, ast.Name | ast.Lambda) or _is_data(text, node):
        return None
    parts = list(ast.walk(node))
    if any(_has_gap(text, part) for part in parts):
        return None
    is_sentence = all(map(_is_of_sentence, parts))
    if is_sentence and not any(isinstance(getattr(part, "value", None), str) for part in parts):
        return None
    names = frozenset(part.id for part in parts if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load))
    bound = {part.id for part in parts if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}
    if not is_sentence and any(_is_certain(parts, has_names=bool(names))):
        return Source(text, names - bound, certain=True)
    return Source(text, names, certain=False) if isinstance(node, _MAYBE) and names else None


def broken_source(text: str) -> Source | None:
    """An f-string with a mistake in it: the model reads its error."""
    return Source(text, frozenset(), certain=True) if _FORMATTED.match(text) else None


def ends_in_text(text: str) -> bool:
    """Whether a text begins like source or data, and ends within one of its quoted texts."""
    return bool(_CODE_BEGINS.match(text)) and any(part["open"] or part["begun"] for part in _QUOTED.finditer(text))


def is_data(text: str, compiler: Compiler) -> bool:
    """Whether a text is a literal of Python or of JSON."""
    node = compiler.expression(text)
    return node is not None and _is_data(text, node)


def _is_data(text: str, node: ast.expr) -> bool:
    with suppress(ValueError, RecursionError, MemoryError):
        ast.literal_eval(node)
        return True
    with suppress(ValueError, RecursionError):
        json.loads(text)
        return True
    return False


def _has_gap(text: str, part: ast.AST) -> bool:
    """Whether a space stands before the parenthesis: `Mercury (planet)`."""
    callee = part.func if isinstance(part, ast.Call) else part.value if isinstance(part, ast.Subscript) else None
    if callee is None or callee.end_lineno is None or callee.end_col_offset is None:
        return False
    if not isinstance(callee, ast.Name | ast.Attribute):
        return False
    line = text.split("\n", callee.end_lineno)[callee.end_lineno - 1].encode("utf-8", "surrogatepass")
    return line[callee.end_col_offset : callee.end_col_offset + 1].isspace()


def _is_of_sentence(part: ast.AST) -> bool:
    """Whether it is a name, a literal, or an operator that is a word: `x is 5`, `total and names`."""
    if isinstance(part, ast.Compare):
        return all(isinstance(operator, _WORD_OPERATORS) for operator in part.ops)
    if isinstance(part, ast.UnaryOp):
        return isinstance(part.op, ast.Not) or isinstance(part.operand, ast.Constant)
    return isinstance(
        part,
        ast.Name | ast.Constant | ast.BoolOp | ast.cmpop | ast.boolop | ast.unaryop | ast.expr_context,
    )


def _is_certain(parts: list[ast.AST], *, has_names: bool) -> Iterator[bool]:
    """Whether each part can only be source."""
    for part in parts:
        match part:
            case ast.JoinedStr() | ast.Subscript() | ast.Await():
                yield True
            case ast.Call(func=ast.Attribute()):
                yield True
            case ast.Call(func=ast.Name(id=name)):
                yield name in _BUILTINS or "_" in name
            case ast.Constant(value=str()):
                yield has_names
            case ast.BinOp(left=left, right=right):
                yield any(isinstance(one, ast.Constant) and isinstance(one.value, str) for one in (left, right))
            case _:
                yield isinstance(part, _COMPREHENSIONS)
