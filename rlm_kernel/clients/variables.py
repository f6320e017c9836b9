"""Environment variables, each with its source: the process, or the `.env` file of a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path
from stat import S_ISFIFO, S_ISREG
from types import MappingProxyType

from rlm_kernel.clients.trust import Source, Sourced
from rlm_kernel.errors import ConfigError

MAX_FILE_BYTES = 1_000_000
"""Limit of the size of a `.env` file."""


class Variables(Mapping[str, str]):
    """The variables of a process, and those of a `.env` file that the process does not have.

    Args:
        process: the variables of the process.
        dotenv: the variables of the file.
        path: the file.
    """

    def __init__(
        self, process: Mapping[str, str], dotenv: Mapping[str, str] | None = None, path: Path | None = None
    ) -> None:
        self._process = MappingProxyType(dict(process))
        self._all = MappingProxyType({**(dotenv or {}), **process})
        self._path = path

    @classmethod
    def of(cls, env: Mapping[str, str]) -> Variables:
        """The same variables; a plain mapping counts as the user's environment."""
        return env if isinstance(env, cls) else cls(env)

    def find(self, name: str | None) -> Sourced[str] | None:
        """The variable of this name, without surrounding whitespace; None if it is missing or empty."""
        value = self._all.get(name or "", "").strip()
        if name is None or not value:
            return None
        if name in self._process:
            return Sourced(value, Source.ENVIRONMENT, name, "the environment")
        return Sourced(value, Source.DOTENV, name, str(self._path))

    def __getitem__(self, name: str) -> str:
        return self._all[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def __repr__(self) -> str:
        return f"Variables({len(self)} of them, {self._path})"


def environment_variables(cwd: Path | None = None, *, pipes: bool = True) -> Variables:
    """The variables of the process and of the nearest `.env` file; the process takes precedence and is not changed.

    Args:
        cwd: the folder where the search for `.env` starts, upward; None is the working directory.
        pipes: whether a pipe is read, too: it can be read only once.

    Raises:
        ConfigError: the `.env` file cannot be read.
    """
    nearest = next((path for path in _possible_paths(cwd) if _holds_variables(path, pipes=pipes)), None)
    return Variables(os.environ, _read_dotenv(nearest) if nearest else {}, nearest)


def _possible_paths(cwd: Path | None) -> list[Path]:
    """Possible paths of a `.env` file, the nearest first."""
    try:
        start = (cwd or Path.cwd()).absolute()
    except FileNotFoundError:  # the working directory was removed
        return []
    return [folder / ".env" for folder in (start, *start.parents)]


def _holds_variables(path: Path, *, pipes: bool) -> bool:
    """Whether it is a file, or a pipe of a password manager. A folder with this name is a virtual environment."""
    try:
        mode = path.stat().st_mode
    except OSError:  # missing, or in a folder without permission
        return False
    return S_ISREG(mode) or (pipes and S_ISFIFO(mode))


def _read_dotenv(path: Path) -> dict[str, str]:
    from dotenv import dotenv_values

    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
        if len(text) > MAX_FILE_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_FILE_BYTES:,} bytes: repair or remove it.")
        values = dotenv_values(stream=StringIO(text.decode()), interpolate=False)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({error}): repair or remove it.") from error
    return _expand({name: value for name, value in values.items() if value is not None})


def _expand(values: Mapping[str, str]) -> dict[str, str]:
    """Replace ``${NAME}``, from the file only: otherwise the file could put a key into its own URL."""
    from dotenv.variables import parse_variables

    known: dict[str, str] = {}
    for name, value in values.items():
        known[name] = "".join(atom.resolve(known) for atom in parse_variables(value))
    return known
