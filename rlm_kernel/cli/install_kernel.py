"""Install or remove the RLM kernel for notebooks.

The kernelspec `rlm`, for JupyterLab, Notebook and VS Code, is an IPython kernel of this Python
with the names that a model has in its REPL (context, llm_query, rlm_query, FINAL) and with %%rlm.
`pip install` already adds it to the same environment; use this command for a Jupyter in another
environment.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_kernel import terminal
from rlm_kernel.cli import exit_codes
from rlm_kernel.errors import ConfigError
from rlm_kernel.provisioners import kernelspecs

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

NAME = "kernel"

SPEC = "rlm"


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("action", choices=("install", "remove"), help="install or remove the kernelspec")
    parser.add_argument("--name", default=SPEC, help="the name of the kernelspec (default: %(default)s)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--user", action="store_true", help="for this user (the default)")
    where.add_argument("--sys-prefix", action="store_true", help="for this Python environment")
    where.add_argument("--prefix", metavar="DIR", help="in DIR/share/jupyter/kernels")


def execute(args: Namespace) -> int:
    """Install or remove it.

    Raises:
        ConfigError: the name is not valid, there is no such kernelspec, or the folder cannot be written.
    """
    prefix = sys.prefix if args.sys_prefix else args.prefix
    try:
        terminal.print_result((install if args.action == "install" else remove)(args.name, prefix))
    except ConfigError:
        raise
    except OSError as error:
        raise ConfigError(f"{error}: choose another place with --user, --sys-prefix or --prefix DIR.") from error
    except ValueError as error:
        raise ConfigError(f"{error} Choose another one with --name.") from error
    return exit_codes.OK


def install(name: str = SPEC, prefix: str | None = None) -> str:
    """Install the kernelspec with the path of this Python in it.

    Args:
        name: of the kernelspec.
        prefix: the folder above `share/jupyter/kernels`; None: the user's.

    Returns:
        its folder.

    Raises:
        OSError: it cannot be written.
        ValueError: `name` is not valid for a kernelspec.
    """
    from jupyter_client.kernelspec import KernelSpecManager

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / SPEC
        shutil.copytree(kernelspecs.spec_folder(SPEC), folder)
        file = folder / "kernel.json"
        fields: dict[str, Any] = json.loads(file.read_text("utf-8"))
        fields["argv"][0] = sys.executable
        file.write_text(json.dumps(fields, indent=2) + "\n", "utf-8")
        found = KernelSpecManager().install_kernel_spec(str(folder), name, user=prefix is None, prefix=prefix)
    return str(found)


def remove(name: str = SPEC, prefix: str | None = None) -> str:
    """Remove the kernelspec from the place where `install` puts it, and from no other.

    Args:
        name: of the kernelspec.
        prefix: the folder above `share/jupyter/kernels`; None: the user's.

    Returns:
        the removed folder.

    Raises:
        ConfigError: there is no such kernelspec there; the message says where Jupyter finds one.
        OSError: it cannot be removed.
    """
    folder = _kernels(prefix) / name
    if name not in kernelspecs.installed_names([str(folder.parent)]):
        raise ConfigError(f"There is no kernelspec {name!r} in {folder.parent}. {_other_place(name)}")
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder)
    return str(folder)


def _kernels(prefix: str | None) -> Path:
    """The folder of the kernelspecs of a place."""
    from jupyter_core.paths import jupyter_data_dir

    return Path(jupyter_data_dir() if prefix is None else Path(prefix, "share", "jupyter"), "kernels")


def _other_place(name: str) -> str:
    if name not in kernelspecs.installed_names():
        return "Jupyter finds no other kernelspec of that name."
    return f"Jupyter finds one in {kernelspecs.installed_folder(name).parent}: add --sys-prefix or --prefix DIR."
