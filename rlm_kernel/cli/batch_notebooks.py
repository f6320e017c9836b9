"""The options of `rlm batch` for a notebook, as papermill names them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_kernel import terminal
from rlm_kernel.errors import ConfigError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from rlm_kernel.batch.batch import Batch, BatchOptions
    from rlm_kernel.batch.tasks import Tasks

SUFFIX = ".ipynb"
_NO_PARAMETERS = ("question", "context", "prompts", "sandbox", "environment_kwarg", "max_errors", "engine", "scheduler")
"""Options that an execution of a notebook has no place for."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument_group(
        "notebooks", "FILE may be a notebook. Papermill executes it for each row of --over; the names are papermill's."
    ).add_argument
    help_ = "a parameter of all executions"
    add("-p", "--parameters", nargs=2, metavar=("NAME", "VALUE"), action="append", default=[], help=help_)
    add("-f", "--parameters-file", metavar="YAML", action="append", default=[], help="a file of such parameters")
    help_ = "rows with the parameters of one execution each and its id, or a folder: each file is the parameter `path`"
    add("--over", metavar="FILE|DIR", help=help_)
    add("-k", "--kernel", metavar="NAME", help="the kernel of the notebook (default: its own); rlm-local, rlm-docker …")


def is_notebook(args: Namespace) -> bool:
    """Whether the tasks are executions of a notebook.

    Raises:
        ConfigError: there are options of a notebook without one, or of questions with one.
    """
    if args.tasks.endswith(SUFFIX):
        if given := [name for name in _NO_PARAMETERS if getattr(args, name)]:
            raise ConfigError(f"A notebook takes no --{given[0].replace('_', '-')}: give its parameters with -p.")
        return True
    if args.parameters or args.parameters_file or args.over or args.kernel:
        raise ConfigError(f"-p, -f, -k and --over are for a notebook, and {args.tasks} does not end in {SUFFIX}.")
    return False


def tasks_of(args: Namespace) -> Tasks:
    """The executions.

    Raises:
        ConfigError: a file cannot be read, or a parameter is wrong.
    """
    from papermill.cli import _resolve_type
    from papermill.iorw import read_yaml_file

    from rlm_kernel.papermill.batch import tasks_of_notebook

    fixed: dict[str, Any] = {}
    for file in args.parameters_file:
        try:
            fixed |= read_yaml_file(file) or {}
        except Exception as error:  # noqa: BLE001 (papermill and PyYAML have many)
            raise ConfigError(f"{file} cannot be read as a mapping in YAML: {error}") from None
    fixed |= {name: _resolve_type(value) for name, value in args.parameters}
    return tasks_of_notebook(Path(args.tasks), fixed, None if args.over is None else Path(args.over))


def batch_of(args: Namespace, tasks: Tasks, options: BatchOptions) -> Batch:
    """The batch of the executions. Options of models and limits become parameters, as papermill's engine reads them.

    Raises:
        ConfigError: an option is wrong.
    """
    import nbformat

    from rlm_kernel.papermill.batch import batch_of_notebook
    from rlm_kernel.papermill.host import notes_about

    notebook = nbformat.read(args.tasks, as_version=4)  # type: ignore[no-untyped-call]
    kernel = args.kernel or notebook.metadata.get("kernelspec", {}).get("name", "")
    for note in notes_about(notebook, kernel, max_depth=None):  # which may differ from row to row
        terminal.print_note(f"rlm: {note}")
    logging.getLogger("papermill").setLevel(logging.ERROR)  # it warns of parameters of the engine
    return batch_of_notebook(Path(args.tasks), tasks, options, _models(args), args.kernel)


def _models(args: Namespace) -> dict[str, Any]:
    from rlm_kernel.clients import options

    names = ("backend", "model", "base_url", "sub_backend", "sub_model", "max_budget", "max_timeout", "max_tokens")
    given = {name: getattr(args, name) for name in (*names, "max_calls")}
    given["backend_kwargs"] = dict(options.pair(text, "--backend-kwarg") for text in args.backend_kwarg)
    return {name: value for name, value in given.items() if value}
