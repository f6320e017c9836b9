"""The reference's own words, read from a copy of it that the user names: `prompts="reference:PATH"`.

They are not part of this library. The file is parsed, and neither imported nor executed: only constants, and f-strings
of known values, are taken from it.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from rlm_kernel.errors import ConfigError
from rlm_kernel.prompts import trained_profile
from rlm_kernel.prompts.layout import Layout
from rlm_kernel.prompts.trained import TrainedProfile

PREFIX = "reference:"
MAX_BYTES = 1_000_000
"""Of a file that is read."""

_PLACES = ("prompts.py", "utils/prompts.py", "rlm/utils/prompts.py")
_LOOP = "core/rlm.py"
_GET = "python -m pip download --no-deps rlms==0.1.3; python -m zipfile -e rlms-0.1.3-py3-none-any.whl FOLDER"

_FIELDS = MappingProxyType(
    {
        "query_metadata.context_type": "type",
        "context_type": "type",
        "query_metadata.context_total_length": "characters",
        "context_total_length": "characters",
        "context_lengths": "lengths",
        "root_prompt": "question",
        "metadata_body": "facts",
    }
)
"""The expressions in the f-strings, and the fields of a `Layout` that they are."""
_FORMATS = MappingProxyType({"{iter_1}": "{turn}", "{max_iter}": "{turns}", "{root_prompt}": "{question}"})
"""The same for texts for `str.format`."""


class _UnknownError(Exception):
    """A part of the file is not what is expected."""


def reference_profile(path: str | Path) -> TrainedProfile:
    """The reference's conversation in its own words.

    Args:
        path: `prompts.py` of the reference, or a folder with it: a checkout, an unpacked wheel or an installed `rlm`.
            That of 0.1.3 is the conversation of `rlm-qwen3-30b-a3b`, that of the tag v1.0.0 the one of `rlm-qwen3-8b`.

    Raises:
        ConfigError: there is no such file, or it is not of a version that is known.
    """
    file = _find(Path(path).expanduser())
    tree, loop = _parsed(file), file.parent.parent / _LOOP
    try:
        texts, last_word = _constants(tree), _last_word(_parsed(loop))
        make = _current if "ORCHESTRATOR_ADDENDUM" in texts else _first
        return make(tree, texts, last_word)
    except (_UnknownError, RecursionError) as error:
        raise ConfigError(
            f"{file} is not a prompts.py that prompts='reference:PATH' knows: {error}. Name a copy of the reference, "
            f"version 0.1.3 or tag v1.0.0 ({_GET})."
        ) from None


def _find(path: Path) -> Path:
    if path.suffix == ".whl":
        raise ConfigError(
            f"{path} is a packed wheel: unpack it (python -m zipfile -e {path} FOLDER), and name the FOLDER."
        )
    found = path if path.is_file() else next((file for file in (path / p for p in _PLACES) if file.is_file()), None)
    if found is None:
        raise ConfigError(
            f"prompts='reference:{path}': there is no file {str(path)!r}, and no {_PLACES[-1]} in such a folder. Name "
            f"a checkout or an unpacked wheel of the reference ({_GET})."
        )
    return found


def _parsed(file: Path) -> ast.Module:
    try:
        if file.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{file} has more than {MAX_BYTES:,} bytes: it is not a file of the reference.")
        return ast.parse(file.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be read: {error.strerror}. prompts='reference:PATH' reads utils/prompts.py and core/rlm.py "
            "of the reference: name the folder that holds both."
        ) from None
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(f"{file} is not Python: {error}. Name a copy of the reference's prompts.py.") from None


def _current(tree: ast.Module, texts: Mapping[str, str], last_word: str) -> TrainedProfile:
    """The conversation of 0.1.3: a message before each turn, which stays."""
    opening, turn = _function(tree, "build_rlm_system_prompt"), _function(tree, "build_user_prompt")
    base = trained_profile("rlm-qwen3-30b-a3b")
    assert base.layout is not None
    layout = replace(
        base.layout,
        facts=_assigned(opening, "metadata_body"),
        asked=_assigned(opening, "metadata_prompt"),
        turn=_format(_constant(texts, "USER_PROMPT")),
        turn_asked="",
        first=_assigned(turn, "safeguard"),
        last_word=last_word,
        advice=_constant(texts, "ORCHESTRATOR_ADDENDUM"),
    )
    return _profile(base, _constant(texts, "RLM_SYSTEM_PROMPT"), layout=layout)


def _first(tree: ast.Module, texts: Mapping[str, str], last_word: str) -> TrainedProfile:
    """The conversation of v1.0.0: the facts are said by the assistant, and the message before a turn does not stay.

    Its system message was never formatted: the braces of its examples are doubled.
    """
    opening, turn = _function(tree, "build_rlm_system_prompt"), _function(tree, "build_user_prompt")
    base = trained_profile("rlm-qwen3-8b")
    assert base.layout is not None
    layout = replace(
        base.layout,
        facts=_assigned(opening, "metadata_prompt"),
        turn=_constant(texts, "USER_PROMPT"),
        turn_asked=_format(_constant(texts, "USER_PROMPT_WITH_ROOT")),
        first=_assigned(turn, "safeguard"),
        later=_assigned(turn, "prompt", _before_plus),
        last_word=last_word,
    )
    return _profile(base, _constant(texts, "RLM_SYSTEM_PROMPT"), layout=layout)


def _profile(base: TrainedProfile, system: str, layout: Layout) -> TrainedProfile:
    """The reference limits neither replies nor sub-calls."""
    return replace(
        base, name="reference", system=system, layout=layout, reply_tokens=None, sub_reply_tokens=None, notice=""
    )


def _constants(tree: ast.Module) -> dict[str, str]:
    """The module's texts by name."""
    found = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                found[node.targets[0].id] = _text(node.value)
            except _UnknownError:
                continue
    return found


def _constant(texts: Mapping[str, str], name: str) -> str:
    if not texts.get(name):
        raise _UnknownError(f"it has no text {name}")
    return texts[name]


def _function(tree: ast.Module, name: str) -> ast.AST:
    found = next((node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == name), None)
    if found is None:
        raise _UnknownError(f"it has no function {name}")
    return found


def _assigned(within: ast.AST, name: str, read: Callable[[ast.expr], str | None] | None = None) -> str:
    """The first text that is assigned to a name of a function. `read`: takes it from the value; None: it has none."""
    for value in _values(within, name):
        try:
            text = _text(value) if read is None else read(value)
        except _UnknownError as error:
            raise _UnknownError(f"{name} is not the text that is known: {error}") from None
        if text is not None:
            return text
    raise _UnknownError(f"no text is assigned to {name}")


def _before_plus(value: ast.expr) -> str | None:
    return _text(value.left) if isinstance(value, ast.BinOp) and isinstance(value.left, ast.Constant) else None


def _values(within: ast.AST, name: str) -> Iterator[ast.expr]:
    for node in ast.walk(within):
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            yield node.value


def _last_word(tree: ast.Module) -> str:
    """What the assistant says when no turns are left."""
    for node in ast.walk(_function(tree, "_default_answer")):
        if isinstance(node, ast.Dict):
            said = {
                key.value: value
                for key, value in zip(node.keys, node.values, strict=True)
                if isinstance(key, ast.Constant)
            }
            role = said.get("role")
            if isinstance(role, ast.Constant) and role.value == "assistant" and "content" in said:
                return _text(said["content"])
    raise _UnknownError("core/rlm.py has no message of the assistant in _default_answer")


def _text(node: ast.expr) -> str:
    """The text of a constant, of an f-string of known values, of `textwrap.dedent(...)` or of `"...".join([...])`."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(map(_part, parts))
        case ast.Call(func=ast.Attribute(value=ast.Name(id="textwrap"), attr="dedent"), args=[text], keywords=[]):
            return textwrap.dedent(_text(text))
        case ast.Call(func=ast.Attribute(value=glue, attr="join"), args=[ast.List(elts=texts)], keywords=[]):
            return _text(glue).join(map(_text, texts))
    raise _UnknownError(f"line {node.lineno} is not a text")


def _part(node: ast.expr) -> str:
    """A part of an f-string: a text, or the field for a known value."""
    if not isinstance(node, ast.FormattedValue):
        return _text(node)
    field = _FIELDS.get(ast.unparse(node.value))
    if field is None or node.conversion != -1 or node.format_spec is not None:
        raise _UnknownError(f"line {node.lineno} holds {{{ast.unparse(node.value)[:100]}}}, which is not known")
    return f"{{{field}}}"


def _format(text: str) -> str:
    for old, new in _FORMATS.items():
        text = text.replace(old, new)
    return text
