"""From variables and files of the notebook to the input of a run."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlm_kernel import inputs, values
from rlm_kernel.errors import ConfigError
from rlm_kernel.provisioners import kernelspecs
from rlm_kernel.text import suggestion
from rlm_kernel.types import Prompt

_LOAD = "rlm.inputs.load"
_NAMED = re.compile(r"\A\s*([^\W\d]\w*)\s*=(?!=)\s*(.+)", re.DOTALL)
"""A value with a name: ``notes=df.notes``."""


@dataclass(frozen=True, slots=True)
class Input:
    """The input of a run.

    Attributes:
        prompt: the value, or the path of a file.
        notes: how the value is changed on its way, one sentence each.
        expression: it as Python code; that of a file reads it.
    """

    prompt: Prompt | Path
    notes: tuple[str, ...] = ()
    expression: str = ""


@dataclass(frozen=True, slots=True)
class _Value:
    """A value that `--context` gives.

    Attributes:
        name: of it in a dict: the given one, else the variable or the expression.
        value: it.
        is_named: whether the name was given.
        expression: the variable or the expression.
    """

    name: str
    value: Any
    is_named: bool
    expression: str


def read(
    given: Sequence[str],
    files: Sequence[str],
    namespace: dict[str, Any],
    environment: str,
    max_bytes: int = inputs.MAX_BYTES,
) -> Input | None:
    """The input that the options of a cell name; None when they name none.

    One value or file is the input itself; several make a dict by name, and so does one with a name of its own. A file
    that is all is not read here, because the kernel may read it.

    Args:
        given: variables and expressions, each with or without `NAME=` before it.
        files: paths of files and folders.
        namespace: of the notebook.
        environment: where the cells will run; it decides how a table is sent.
        max_bytes: how many bytes each file or folder may hold.

    Raises:
        ConfigError: there is no such variable or file, or it holds something else.
    """
    named = [_evaluate(text, namespace) for text in given]
    codes = {one.name: _code(one) for one in named} | {file: f"{_LOAD}({file!r})" for file in files}
    if (path := _only_file(named, files)) is not None:
        return Input(path, expression=next(iter(codes.values())))
    notes: list[str] = []
    found: dict[str, Any] = {}
    for one in named:
        if isinstance(one.value, Path):
            found[one.name] = inputs.read(str(one.value.expanduser()), "--context", max_bytes)
        else:
            found[one.name] = _convert(one.name, one.value, environment, notes.append)
    for file in files:
        found[file] = inputs.read(str(Path(file).expanduser()) if file else "", "--file", max_bytes)
    if not found:
        return None
    if len(found) == 1:
        ((only, value),) = found.items()
        if isinstance(value, str | dict | list) and not any(one.is_named for one in named):
            return Input(value, tuple(notes), codes[only])
        if not isinstance(value, str | dict | list):
            notes.append(f"{only} is not a text, a list or a dict, so the model finds it as context[{only!r}].")
    expression = ", ".join(f"{name!r}: {code}" for name, code in codes.items())
    return Input(found, tuple(notes), f"{{{expression}}}")


def _code(one: _Value) -> str:
    return f"{_LOAD}({one.expression})" if isinstance(one.value, Path) else one.expression


def _only_file(values: Sequence[_Value], files: Sequence[str]) -> Path | None:
    """The file that is the whole input, or None."""
    if len(values) + len(files) != 1 or files == [""] or any(one.is_named for one in values):
        return None
    only = Path(files[0]) if files else values[0].value
    return path if isinstance(only, Path) and (path := only.expanduser()).is_file() else None


def _evaluate(text: str, namespace: dict[str, Any]) -> _Value:
    """The value of a variable or an expression, with the name that it has in a dict.

    Raises:
        ConfigError: it is no expression, or it raises.
    """
    if text in namespace or text.isidentifier():
        return _Value(text, variable(text, namespace, "--context"), is_named=False, expression=text)
    name, expression = found.groups() if (found := _NAMED.fullmatch(text)) else (None, text)
    try:
        value = eval(expression, namespace)  # noqa: S307 (the person's own code, in their own notebook)
    except NameError as error:
        file = " To give a file, use --file." if Path(text).suffix else ""
        raise ConfigError(f"--context {text}: {_missing(error.name or text, namespace)}{file}") from None
    except SyntaxError as error:
        raise ConfigError(f"--context {text} is no expression: {error.msg}. Put one with spaces in quotes.") from None
    except AttributeError as error:
        raise ConfigError(f"--context {text}: {error}{suggestion(error.name or '', dir(error.obj))}") from error
    except Exception as error:
        raise ConfigError(f"--context {text} raises {type(error).__name__}: {error}") from error
    return _Value(name or text, value, is_named=name is not None, expression=expression.strip())


def _missing(name: str, namespace: Iterable[str]) -> str:
    known = [known for known in namespace if not known.startswith("_")]
    meant = suggestion(name, known, ". Assign it in a cell above, and run that cell.")
    return f"there is no variable {name!r}{meant}"


def variable(name: str, namespace: Mapping[str, Any], option: str) -> Any:
    """The value of a variable of the notebook.

    Raises:
        ConfigError: there is no variable of this name.
    """
    if name in namespace:
        return namespace[name]
    raise ConfigError(f"{option} {name}: {_missing(name, namespace)}")


def _convert(name: str, value: Any, environment: str, note: Callable[[str], object]) -> Any:
    """A value as a run takes it."""
    if isinstance(value, str | list | dict):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return _text_or_bytes(bytes(value))
    if is_table(value):
        return _table(name, value, environment, note)
    if values.is_context(value):
        return value
    if (alike := _like(value)) is None:
        raise ConfigError(_refusal(name, value))
    note(f"{name} is of type {type(value).__name__}; the model gets it as a {type(alike).__name__}.")
    return alike


def _like(value: Any) -> Any:
    """The dict, Series or list with the same content as a collection, or None for another value."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Collection) and type(value).__module__.split(".")[0] == "pandas":  # an index or an array
        return sys.modules["pandas"].Series(value)
    for to_list in ("tolist", "to_pylist"):
        if callable(convert := getattr(value, to_list, None)):
            return convert()
    return list(value) if isinstance(value, Collection) else None


def _refusal(name: str, value: Any) -> str:
    """Why a value is no input, and what to give."""
    if inspect.isroutine(value):
        return f"--context {name} is of type {type(value).__name__}: give what it returns, as in -c '{name}(…)'."
    wrong = values.refusal(value, f"--context {name}")
    return wrong or f"--context {name} is of type {type(value).__name__}: {values.how_to_give(value)}."


def _text_or_bytes(value: bytes) -> str | bytes:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value


def is_table(value: Any) -> bool:
    """Whether a value is a pandas DataFrame. Does not import pandas: a DataFrame exists only if it is imported."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, pandas.DataFrame)


def _table(name: str, table: Any, environment: str, note: Callable[[str], object]) -> Any:
    if _runs_this_python(environment):
        return table
    note(f"The model gets {name} as a list of records, because the environment {environment!r} may not have pandas.")
    # An index that counts the rows says nothing; another becomes a column.
    counted = type(table.index).__name__ == "RangeIndex"
    records = (table if counted else table.reset_index()).to_dict("records")
    return [{name: _plain(value) for name, value in record.items()} for record in records]


def _plain(value: Any) -> Any:
    """A value of a table as a kernel without pandas can read it."""
    if isinstance(value, str | int | list | dict):
        return value
    if sys.modules["pandas"].isna(value) is True:
        return None
    if isinstance(value, float | bytes):
        return value
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _runs_this_python(environment: str) -> bool:
    """Whether cells run in the Python of the notebook, which can unpickle its tables."""
    if kernelspecs.AVAILABLE.get(environment, environment) == "rlm-local":
        return True
    if environment in kernelspecs.AVAILABLE or environment in kernelspecs.AVAILABLE.values():
        return False
    argv = kernelspecs.environment(environment, None).load().argv
    return bool(argv) and argv[0] in (sys.executable, "python", "python3")
