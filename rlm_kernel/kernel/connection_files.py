"""Live REPLs that the same user may attach to, listed as connection files in one folder.

A user who can read a connection file can run code in that kernel. So a REPL is listed only when its run asks for that
(`environment_kwargs={"attachable": True}`), and folder and files are for the user alone. JupyterLab lists the same
folder as external kernels.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rlm_kernel.errors import ConfigError
from rlm_kernel.text import plain
from rlm_kernel.untrusted import json_text

VARIABLE = "RLM_RUNTIME_DIR"
FOLDER = "rlm-repls"
_ABOUT = "rlm"
_MAX_BYTES = 100_000
_MAX_PID = 2**31 - 1


@dataclass(frozen=True, slots=True)
class LiveRepl:
    """A REPL that can be looked into.

    Attributes:
        name: how it is called, such as ``"local-3fa9c1"``.
        environment: where its kernel lives.
        started: when it was listed, as ``HH:MM:SS``.
        file: its connection file.
    """

    name: str
    environment: str
    started: str
    file: Path


def folder() -> Path:
    """The folder of the connection files, made when it is missing.

    Raises:
        ConfigError: it belongs to somebody else, or others can look into it.
    """
    from jupyter_core.paths import jupyter_runtime_dir

    path = Path(os.environ.get(VARIABLE) or Path(jupyter_runtime_dir()) / FOLDER)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    about = path.stat()
    if about.st_uid != os.getuid() or stat.S_IMODE(about.st_mode) & 0o077:
        raise ConfigError(
            f"{path} must be yours alone, because its files let others run code: chmod 700 it, or set {VARIABLE}."
        )
    return path


def announce(connection: Mapping[str, Any], environment: str) -> Path:
    """List a kernel. Returns its file, for `withdraw`.

    Args:
        connection: what `KernelManager.get_connection_info()` says.
        environment: where it lives.

    Raises:
        ConfigError: the folder is not safe.
    """
    name = f"{environment}-{secrets.token_hex(3)}"
    about = {"pid": os.getpid(), "environment": environment, "started": f"{datetime.now().astimezone():%H:%M:%S}"}
    known = {key: value.decode() if isinstance(value, bytes) else value for key, value in connection.items()}
    text = json.dumps({**known, "kernel_name": f"rlm {name}", _ABOUT: about}, indent=2)
    path = folder() / f"{name}.json"
    hidden = path.with_suffix(".part")
    with os.fdopen(os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    return hidden.replace(path)


def withdraw(file: Path) -> None:
    """Take a kernel off the list. Idempotent."""
    file.unlink(missing_ok=True)


def list_live() -> list[LiveRepl]:
    """The REPLs on the list, the latest last. Those of processes that were killed are taken off.

    Warns of each file in the folder that is not what a run puts there; it is left out.
    """
    listed = [entry for file in folder().glob("*.json") if (entry := _entry(file)) is not None]
    found = []
    for _, pid, repl in sorted(listed, key=lambda entry: entry[0]):
        if _lives(pid):
            found.append(repl)
        else:
            withdraw(repl.file)
    return found


def _entry(file: Path) -> tuple[float, int, LiveRepl] | None:
    """When a REPL was listed, its process, and the REPL; None for one just taken off, and for a file of others."""
    try:
        connection = json_text.load(file, max_bytes=_MAX_BYTES)
        if isinstance(connection, dict) and _ABOUT not in connection:
            return None
        return file.stat().st_mtime, *_read(connection, file)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        warnings.warn(plain(f"{file} is left out, because it lists no REPL: {error}."), UserWarning, stacklevel=3)
        return None


def _read(connection: Any, file: Path) -> tuple[int, LiveRepl]:
    """The process and the REPL that a connection file of ours tells of.

    Raises:
        ValueError: it was not written by us.
    """
    about = connection[_ABOUT] if isinstance(connection, dict) else None
    match about:
        case {"pid": int(pid), "environment": str(environment), "started": str(started)} if 0 < pid <= _MAX_PID:
            return pid, LiveRepl(file.stem, environment, started, file)
    raise ValueError(f"it does not say in {_ABOUT!r} which process, where and since when")


def find_live(name: str | None) -> LiveRepl:
    """The REPL of this name, or of one that begins so; None: the only one there is.

    Raises:
        ConfigError: there is none, or more than one.
    """
    repls = list_live()
    found = [repl for repl in repls if name is None or repl.name.startswith(name)]
    if len(found) == 1:
        return found[0]
    if not repls:
        raise ConfigError(
            "No live REPL lets others look in. A run does with environment_kwargs={'attachable': True}, "
            "with `rlm run --attachable` or with `%%rlm --attachable`."
        )
    known = ", ".join(repl.name for repl in repls)
    raise ConfigError(f"{'Which one?' if found else f'There is no live REPL {name!r}.'} There are {known}.")


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True
