"""From variables and files of the notebook to the input of a run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlm_kernel import inputs
from rlm_kernel.errors import ConfigError
from rlm_kernel.provisioners import kernelspecs
from rlm_kernel.text import suggestion
from rlm_kernel.types import Prompt
from rlm_kernel.values import is_context


@dataclass(frozen=True, slots=True)
class Input:
    """The input of a run.

    Attributes:
        prompt: the value, or the path of a file.
        notes: how the value is changed on its way, one sentence each.
    """

    prompt: Prompt | Path
    notes: tuple[str, ...] = ()


def read(
    names: Sequence[str],
    files: Sequence[str],
    namespace: Mapping[str, Any],
    environment: str,
    max_bytes: int = inputs.MAX_BYTES,
) -> Input | None:
    """The input that the options of a cell name; None when they name none.

    One variable or file is the input itself, several make a dict by name. A file that is all is not read here, because
    the kernel may read it.

    Args:
        names: of variables.
        files: paths of files and folders.
        namespace: of the notebook.
        environment: where the cells will run; it decides how a table is sent.
        max_bytes: how many bytes each file or folder may hold.

    Raises:
        ConfigError: there is no such variable or file, or it holds something else.
    """
    if (path := _only_file(names, files, namespace)) is not None:
        return Input(path)
    notes: list[str] = []
    found: dict[str, Any] = {}
    for name in names:
        value = variable(name, namespace, "--context")
        if isinstance(value, Path):
            found[name] = inputs.read(str(value.expanduser()), "--context", max_bytes)
        else:
            found[name] = _convert(name, value, environment, notes.append)
    for file in files:
        found[file] = inputs.read(str(Path(file).expanduser()) if file else "", "--file", max_bytes)
    if not found:
        return None
    if len(found) == 1:
        ((only, value),) = found.items()
        if isinstance(value, str | dict | list):
            return Input(value, tuple(notes))
        notes.append(f"{only} is not a text, a list or a dict, so the model finds it as context[{only!r}].")
    return Input(found, tuple(notes))


def _only_file(names: Sequence[str], files: Sequence[str], namespace: Mapping[str, Any]) -> Path | None:
    """The file that is the whole input, or None."""
    if len(names) + len(files) != 1 or files == [""]:
        return None
    only = Path(files[0]) if files else namespace.get(names[0])
    return path if isinstance(only, Path) and (path := only.expanduser()).is_file() else None


def variable(name: str, namespace: Mapping[str, Any], option: str) -> Any:
    """The value of a variable of the notebook.

    Raises:
        ConfigError: there is no variable of this name.
    """
    if name in namespace:
        return namespace[name]
    known = [known for known in namespace if not known.startswith("_")]
    meant = suggestion(name, known, ". Assign it in a cell above, and run that cell.")
    file = " To give a file, use --file." if option == "--context" and Path(name).suffix else ""
    raise ConfigError(f"{option} {name}: there is no variable {name!r}{meant}{file}")


def _convert(name: str, value: Any, environment: str, note: Callable[[str], object]) -> Any:
    """A value as a run takes it."""
    if isinstance(value, str | list | dict):
        return value
    if isinstance(value, bytes | bytearray):
        return _text_or_bytes(bytes(value))
    if is_table(value):
        return _table(name, value, environment, note)
    if isinstance(value, tuple | set | frozenset):
        note(f"{name} is a {type(value).__name__}; the model gets it as a list.")
        return list(value)
    if is_context(value):
        return value
    raise ConfigError(
        f"--context {name} is of type {type(value).__name__}: give a str, list, dict, bytes, pandas DataFrame or other "
        f"table, array or Path, or convert it first, for example {name} = str({name})."
    )


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
