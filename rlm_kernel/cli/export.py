"""Write a recorded run as a notebook, a page, a script or Markdown, or runs as training data.

Without --to, a notebook is written; with it, a page (html), a script (py) or Markdown (md).

--to sft writes JSON lines for supervised fine-tuning, of one run or of a folder of runs: each reply
of a root model with what it was written from. --per turn (default) writes "prompt" and
"completion", of which the completion is trained on; --per run writes "messages", where a weight
says which replies are.

--bundle writes one file that holds the log, the input and all else that a replay needs: a notebook
that runs anywhere (.ipynb), a page from which that notebook is saved (.html), or a ZIP archive with
the notebooks of the child runs, too (.zip). The ending of --output chooses.

--clean keeps only the cells that the answer needs. It removes one cell after another, from the
last to the first, and replays the rest each time to check that the answer is the same. No API key
is needed.

FILE is the log of a run (.jsonl) or its notebook (.ipynb); with --to sft also a folder of logs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_kernel import terminal
from rlm_kernel.cli import exit_codes, trust_command
from rlm_kernel.errors import ConfigError, RecordingError
from rlm_kernel.trajectory.states import STATES

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from nbformat import NotebookNode

    from rlm_kernel.replay.steps import Step

NAME = "export"

_FORMATS = ("html", "py", "md", "sft")
_OF_SFT = ("per", "only", "thumb", "tag", "no_children", "without_errors", "metadata")
_TRAINING_FILE = "rlm-sft.jsonl"
_BUNDLES = (".ipynb", ".html", ".zip")


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    add = parser.add_argument
    add("file", metavar="FILE", help="a log or its notebook")
    add("-o", "--output", metavar="OUT", help="the file to write (default: FILE with another suffix)")
    add("--clean", action="store_true", help="keep only the cells that the answer needs")
    add("--bundle", action="store_true", help="write one file that holds all that a replay needs")
    add("--to", choices=_FORMATS, help="write this format; html needs nbconvert")
    add("--environment", help="where --clean runs the cells (default: the recorded environment)")
    trust_command.add_option(parser)
    add = parser.add_argument_group("training data (--to sft)").add_argument
    add("--per", choices=("turn", "run"), help="a line for each turn (default), or for each run")
    add("--only", choices=STATES, metavar="STATE", help="runs that ended like this, such as answered")
    add("--thumb", choices=("up", "down"), help="runs with this thumb (rlm runs)")
    add("--tag", action="append", metavar="TAG", help="runs with this tag; may be given several times")
    add("--no-children", action="store_true", help="leave out the runs that an rlm_query started")
    add("--without-errors", action="store_true", help="do not train on replies whose code raised")
    add("--metadata", action="store_true", help="add the field rlm: run, model, state, turn, depth, thumb, tags")


def execute(args: Namespace) -> int:
    """Write the file and print its path.

    Raises:
        RLMError: the record cannot be read, or its replay does not give its answer.
    """
    if args.to == "sft":
        return _write_training_data(args)
    if given := [name for name in _OF_SFT if getattr(args, name)]:
        raise ConfigError(f"--{given[0].replace('_', '-')} belongs to --to sft.")
    output = _output(Path(args.file), args)
    notebook = _minimal(args) if args.clean else _notebook(Path(args.file))
    try:
        if args.bundle:
            _write_bundle(notebook, Path(args.file), output)
        else:
            _write(notebook, Path(args.file), args.to, output)
            if args.to in (None, "py"):
                _write_replay_code(Path(args.file).parent, output.parent)
    except OSError as error:
        raise ConfigError(f"{output} cannot be written: {error.strerror}.") from error
    terminal.print_result(str(output))
    return exit_codes.OK


def notebook_of_file(file: Path) -> NotebookNode:
    """The notebook in a file, or one built from a log."""
    if file.suffix == ".ipynb":
        from rlm_kernel.replay.steps import read_notebook

        return read_notebook(file)
    from rlm_kernel.trajectory.log.reader import read_log
    from rlm_kernel.trajectory.notebook.build import identity_of_recording, notebook_of

    recording = read_log(file)
    return notebook_of(recording.trajectory, identity_of_recording(recording))


def _write_training_data(args: Namespace) -> int:
    """Write the lines of a log, or of a folder of logs."""
    from rlm_kernel.trajectory.training_data import Selection, lines_of

    file, output = Path(args.file), Path(args.output or _TRAINING_FILE)
    folder = file if file.is_dir() else file.parent
    if args.clean or args.bundle:
        raise ConfigError(f"--{'clean' if args.clean else 'bundle'} does not go with --to sft.")
    if output.suffix == ".jsonl" and output.resolve().parent == folder.resolve() and args.output is None:
        output = output.with_suffix(".json")  # a .jsonl in a folder of logs would be one of them
    if output.resolve() == file.resolve() or (
        output.suffix == ".jsonl" and output.resolve().parent == folder.resolve()
    ):
        raise ConfigError(f"{output} would be taken for a log there: choose a file in another folder with --output.")
    selection = Selection(
        state=args.only or "",
        thumb=args.thumb or "",
        tags=tuple(args.tag or ()),
        children=not args.no_children,
        without_errors=args.without_errors,
    )
    skipped: list[str] = []
    lines = lines_of(file, per=args.per or "turn", selection=selection, metadata=args.metadata, skipped=skipped)
    count = _write_lines(lines, output)
    for sentence in skipped:
        terminal.print_note(f"rlm: {sentence}")
    terminal.print_note(f"rlm: {count:,} line{'s' * (count != 1)}")
    terminal.print_result(str(output))
    return exit_codes.OK


def _write_lines(lines: Iterator[dict[str, Any]], output: Path) -> int:
    """Write JSON lines, all or none. Returns how many."""
    partial, count = output.with_name(f".{output.name}.part"), 0
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="ascii") as file:
            for count, line in enumerate(lines, 1):  # noqa: B007 (counted)
                file.write(json.dumps(line) + "\n")
        partial.replace(output)
    except OSError as error:
        raise ConfigError(f"{output} cannot be written: {error.strerror}.") from error
    finally:
        partial.unlink(missing_ok=True)
    return count


def _output(file: Path, args: Namespace) -> Path:
    from rlm_kernel.trajectory.log.file_names import file_beside

    suffix = f".{args.to}" if args.to else ".ipynb"
    marks = "-clean" * args.clean + "-bundle" * args.bundle
    output = Path(args.output) if args.output else file_beside(file, f"{marks}{suffix}")
    if output.resolve() == file.resolve():
        raise ConfigError(f"{output} is the input: choose another file with --output.")
    if args.bundle and (output.suffix not in _BUNDLES or (args.to and output.suffix != suffix)):
        raise ConfigError(f"--bundle writes .ipynb, .html or .zip: {output} is none of these, or --to says otherwise.")
    if not args.bundle and output.suffix != suffix:
        raise ConfigError(f"--output must end with {suffix}, not {output.suffix!r}: --to sets the format.")
    return output


def _notebook(file: Path) -> NotebookNode:
    """The notebook of a run with the setup cell of this version."""
    from rlm_kernel.trajectory.notebook.build import renew_setup_cell

    notebook = notebook_of_file(file)
    if file.suffix == ".ipynb":
        if "rlm" not in notebook.metadata:
            raise RecordingError(
                f"{file} is not the notebook of a run. To convert other notebooks, use `jupyter nbconvert`."
            )
        renew_setup_cell(notebook)
    return notebook


def _minimal(args: Namespace) -> NotebookNode:
    from rlm_kernel.replay.minimise import clean

    def report(step: Step, place: int, count: int) -> None:
        terminal.print_note(f"rlm: trying without cell {step.number} ({place} of {count})")

    cleaning = clean(args.file, environment=args.environment, on_trial=report, trust=trust_command.trust_of(args))
    many = len(cleaning.kept) + len(cleaning.dropped)
    terminal.print_note(f"rlm: kept {len(cleaning.kept)} of {many} cells")
    return cleaning.notebook


def _write(notebook: NotebookNode, file: Path, kind: str | None, output: Path) -> None:
    if kind is not None:
        from rlm_kernel.replay.minimise import convert
        from rlm_kernel.replay.report import outcome_of
        from rlm_kernel.replay.steps import run_of
        from rlm_kernel.trajectory.log.reader import read_log

        run = run_of(read_log(file), notebook.metadata["rlm"])
        convert(notebook, kind, output, outcome=outcome_of(run.trajectory))
        return
    import nbformat

    output.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, output)  # type: ignore[no-untyped-call]


def _write_bundle(notebook: NotebookNode, file: Path, output: Path) -> None:
    """Write the run with all its files."""
    import nbformat

    from rlm_kernel.replay.minimise import convert
    from rlm_kernel.trajectory.log.reader import read_log
    from rlm_kernel.trajectory.notebook.bundle import bundled, write_archive

    recording = read_log(file)
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.suffix == ".zip":
        with output.open("wb") as target:
            write_archive(target, notebook, recording)
    elif output.suffix == ".html":
        text: str = nbformat.writes(bundled(notebook, recording))  # type: ignore[no-untyped-call]
        convert(notebook, "html", output, attached=text.encode("utf-8"))
    else:
        nbformat.write(bundled(notebook, recording), output)  # type: ignore[no-untyped-call]


def _write_replay_code(log_folder: Path, output_folder: Path) -> None:
    """Write the file that the setup cell runs where the cell looks for it: beside the notebook and beside the log."""
    from rlm_kernel.trajectory.notebook.setup_cell import write_replay_code

    write_replay_code(output_folder)
    with suppress(OSError):  # the folder of a log may be read-only
        write_replay_code(log_folder)
