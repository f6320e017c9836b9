"""Compare two recorded runs cell by cell.

The notebooks of the runs are compared; tokens, times and file names are ignored. The exit code is
7 if the runs differ. Needs nbdime, which is in the extra `notebooks`.

A and B are logs (.jsonl) or notebooks (.ipynb).

With --web, the viewer shows the two runs side by side: turns, code, outputs, sub-calls and cost.
That needs no extra. A child run is named by its cell and prompt: 'LOG.jsonl?child=3.1'.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_kernel import terminal
from rlm_kernel.cli import exit_codes
from rlm_kernel.cli.export import notebook_of_file
from rlm_kernel.cli.view import add_server_arguments, serve
from rlm_kernel.errors import RecordingError, check_extra
from rlm_kernel.text import plain
from rlm_kernel.trajectory.notebook.normaliser import normalise_text
from rlm_kernel.trajectory.notebook.saved_outputs import bound_outputs

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from nbformat import NotebookNode

    from rlm_kernel.viewer.folder import Pair

NAME = "diff"

_FACTS = re.compile(r"^<small>.*</small>\n*| · \[log\]\([^()\n]*\)", re.MULTILINE)
"""Tokens, times and file names, which differ between any two runs."""
_SPENT = re.compile(r"(?<=\d) · .*(?=\n|$)")
_ASKED = re.compile(r"^rlm-[0-9a-f]{8}-")
"""Of the id of a cell: the digest of question and input. What is left is its place in the run."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("a", metavar="A", help="a log or a notebook")
    parser.add_argument("b", metavar="B", help="a log or a notebook")
    parser.add_argument("--web", action="store_true", help="show the two runs side by side in the browser")
    add_server_arguments(parser, port=0)
    parser.add_argument(
        "--sources", action="store_true", help="compare the sources of the cells only, not their outputs"
    )


def execute(args: Namespace) -> int:
    """Compare and print.

    Raises:
        ConfigError: nbdime is not installed.
        RecordingError: a log or notebook cannot be read.
    """
    if args.web and (pair := _pair(args)):
        return serve(args, pair, f"this page shows {args.a} and {args.b} side by side")
    what = "rlm diff --web of a notebook without a log" if args.web else "rlm diff without --web"
    check_extra(what, "nbdime", "notebooks")
    a, b = (_comparable(notebook_of_file(Path(file)), sources_only=args.sources) for file in (args.a, args.b))
    if args.web:
        return _show_in_browser(a, b)
    return _print(args, a, b)


def _pair(args: Namespace) -> Pair | None:
    """The logs of both runs, or None where a notebook has none."""
    from rlm_kernel.trajectory.log.reader import check_is_log, log_of
    from rlm_kernel.viewer.folder import Pair
    from rlm_kernel.viewer.log_source import split_place

    (a, of_a), (b, of_b) = split_place(args.a), split_place(args.b)
    try:
        left, right = (log_of(Path(file)).absolute() for file in (a, b))
    except RecordingError:
        if any(Path(file).suffix == ".ipynb" and Path(file).is_file() for file in (a, b)):
            return None
        raise
    for log in (left, right):
        check_is_log(log)
    return Pair(left, right, (of_a, of_b))


def _comparable(notebook: NotebookNode, *, sources_only: bool) -> NotebookNode:
    """The notebook without times, execution counts and names of files."""
    from rlm_kernel.trajectory.notebook.build import SETUP_TAG

    prepared = {SETUP_TAG, "parameters", "injected-parameters"}
    notebook.cells = [cell for cell in notebook.cells if not prepared & set(cell.metadata.get("tags", []))]
    notebook.metadata.clear()
    for cell in notebook.cells:
        cell.metadata.clear()
        if "id" in cell:  # since nbformat 4.5
            cell.id = _ASKED.sub("", cell.id)
        cell.source = _FACTS.sub("", plain(cell.source))
        if cell.cell_type == "code":
            cell.execution_count = None
            cell.outputs = [] if sources_only else [_comparable_output(output) for output in cell.outputs]
    return notebook


def _comparable_output(output: NotebookNode) -> NotebookNode:
    """What an output says, and nothing that acts in a browser.

    Of what we show of sub-calls it is the short form, without tokens and times.
    """
    from nbformat import from_dict

    if "execution_count" in output:
        output.execution_count = None
    if "rlm" in output.get("metadata", {}) and "text/plain" in output.data:
        output.data = {"text/plain": _SPENT.sub("", output.data["text/plain"])}
    harmless: NotebookNode = from_dict(_normal(*bound_outputs([output])))  # type: ignore[no-untyped-call]
    return harmless


def _normal(value: Any) -> Any:
    """The value after the normaliser, which also takes out the control sequences that a terminal would obey."""
    if isinstance(value, str):
        return normalise_text(value)
    if isinstance(value, dict):
        return type(value)({key: _normal(held) for key, held in value.items()})
    return [_normal(item) for item in value] if isinstance(value, list) else value


def _print(args: Namespace, a: NotebookNode, b: NotebookNode) -> int:
    from nbdime import diff_notebooks
    from nbdime.prettyprint import PrettyPrintConfig, pretty_print_notebook_diff

    difference = diff_notebooks(a, b)
    if not difference:
        terminal.print_result("The two runs are equal.")
        return exit_codes.OK
    config = PrettyPrintConfig(
        out=terminal.PlainStream(sys.stdout), use_color=sys.stdout.isatty(), use_git=False, use_diff=False
    )
    pretty_print_notebook_diff(args.a, args.b, a, difference, config)
    return exit_codes.DIFFERENT


def _show_in_browser(a: NotebookNode, b: NotebookNode) -> int:
    import nbformat
    from nbdime.webapp.nbdiffweb import main as show

    with tempfile.TemporaryDirectory() as folder:
        files = [str(Path(folder, name)) for name in ("a.ipynb", "b.ipynb")]
        for notebook, file in zip((a, b), files, strict=True):
            nbformat.write(notebook, file)  # type: ignore[no-untyped-call]
        return int(show(files) or exit_codes.OK)
