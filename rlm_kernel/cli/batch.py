"""Answer many questions, or one over many inputs.

The results are lines of JSON in the file --out: id, answer, error, cost, seconds, usage, log. The
same command again asks only what has no answer yet, also after it was stopped or killed. What is
on record is not asked twice.

Without --out the results go to stdout and cannot be continued.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rlm_kernel import inputs, terminal
from rlm_kernel.batch.results import write_parquet
from rlm_kernel.cli import batch_notebooks, exit_codes, run, shared_options
from rlm_kernel.errors import ConfigError, LimitError, LMError, check_extra

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterator

    from rlm_kernel.batch.batch import BatchOptions
    from rlm_kernel.batch.results import TaskResult
    from rlm_kernel.batch.tasks import Tasks

NAME = "batch"


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    add = parser.add_argument
    help_ = (
        "rows with id, question, and context or path (.jsonl, .csv, .tsv, .parquet), a folder of inputs, or a notebook"
    )
    add("tasks", metavar="FILE|DIR", help=help_)
    add("--question", help="the question of all tasks that have none")
    shared_options.add_context(parser, "the input of all tasks that have none")
    add("--out", metavar="FILE", help="the file of results, .jsonl, or .parquet with a .jsonl of the same name")
    add("--log-dir", metavar="DIR", help="the folder of the logs (default: beside --out)")
    add("--max-concurrent", type=int, metavar="N", help="runs in progress (default: 16, or all threads of a cluster)")
    add("--engine", choices=("dask",), help="where the runs are made (default: in this process)")
    add("--scheduler", metavar="tcp://HOST:PORT", help="the scheduler of --engine dask; the workers hold the keys")
    add("--requests-per-minute", type=float, metavar="N", help="calls of each model")
    add("--tokens-per-minute", type=float, metavar="N", help="tokens of each model")
    add("--max-total-budget", type=float, metavar="USD", help="US dollars of all tasks together")
    add("--max-total-tokens", type=int, metavar="N", help="tokens of all tasks together")
    add("--sample", type=int, metavar="N", help="run only N tasks, chosen at random")
    add("--seed", type=int, metavar="N", help="of the choice (default: 0)")
    add(
        "--dry-run",
        action="store_true",
        help="estimate tokens and cost of what has no answer in --out yet, and ask nothing",
    )
    run.add_run_options(parser)
    batch_notebooks.add_arguments(parser)
    add("--quiet", action="store_true", help="no progress bar")


def execute(args: Namespace) -> int:
    """Run the tasks.

    Raises:
        RLMError: the tasks cannot be read, or a limit of the whole batch was reached.
    """
    is_notebook = batch_notebooks.is_notebook(args)
    tasks = _tasks(args, is_notebook=is_notebook)
    out, _ = _files(args.out)
    if is_notebook:
        return _execute_notebook(args, tasks, out)
    asks = not args.dry_run and args.engine is None  # else the workers ask, with their keys
    with run.rlm_of(args, asks=asks) as rlm:
        if args.dry_run:
            from rlm_kernel.batch.estimate import estimate
            from rlm_kernel.batch.results import answered_in

            tasks = tasks if out is None else tasks.without(answered_in(out))
            terminal.print_result(str(estimate(tasks, rlm.config.models.root, rlm.config.models.default)))
            return exit_codes.OK
        return _report(args, tasks, rlm.map(tasks, **_options(args, out)))


def _tasks(args: Namespace, *, is_notebook: bool) -> Tasks:
    from rlm_kernel.batch.tasks import tasks_of

    if args.seed is not None and args.sample is None:
        raise ConfigError(f"--seed {args.seed} is that of --sample: give both.")
    with _lines_of_errors():
        if is_notebook:
            tasks = batch_notebooks.tasks_of(args)
        else:
            tasks = tasks_of(args.tasks, args.question, inputs.of_arguments(args))
    return tasks if args.sample is None else tasks.sample(args.sample, args.seed or 0)


def _execute_notebook(args: Namespace, tasks: Tasks, out: Path | None) -> int:
    from rlm_kernel.batch.batch import iterate

    batch = batch_notebooks.batch_of(args, tasks, _options(args, out))
    if args.dry_run:
        terminal.print_result(
            f"{len(tasks):,} execution{'s' * (len(tasks) != 1)}. What their cells ask is not known before."
        )
        return exit_codes.OK
    return _report(args, tasks, iterate(batch.results()))


def _report(args: Namespace, tasks: Tasks, results: Iterator[TaskResult]) -> int:
    """Run the tasks, report their results, and return the exit code."""
    out, parquet = _files(args.out)
    failures = 0
    with _advice(out):
        for result in results:
            failures += result.error is not None
            if out is None:
                terminal.print_result(json.dumps(result.to_dict(), ensure_ascii=False))
    if parquet is not None and out is not None:
        write_parquet(out, parquet)
    if failures:
        again = " The same command asks them again." if out is not None else ""
        terminal.print_note(f"rlm: {failures:,} of {len(tasks):,} tasks have no answer; `error` says why.{again}")
    return exit_codes.SOME_FAILED if failures else exit_codes.OK


def _options(args: Namespace, out: Path | None) -> BatchOptions:
    given: BatchOptions = {} if args.max_concurrent is None else {"max_concurrent": args.max_concurrent}
    return {
        **given,
        "out": out,
        "log_dir": args.log_dir,
        "engine": args.engine,
        "scheduler": args.scheduler,
        "max_budget": args.max_total_budget,
        "max_tokens": args.max_total_tokens,
        "requests_per_minute": args.requests_per_minute,
        "tokens_per_minute": args.tokens_per_minute,
        "progress": not args.quiet,
    }


def _files(out: str | None) -> tuple[Path | None, Path | None]:
    """The file of lines, and the Parquet file that is made of it at the end.

    Raises:
        ConfigError: the name ends in something else, or pyarrow is not installed.
    """
    if out is None:
        return None, None
    path = Path(out)
    if path.suffix == ".parquet":
        check_extra("--out with .parquet", "pyarrow", "files")
        return path.with_suffix(".jsonl"), path
    if path.suffix != ".jsonl":
        raise ConfigError(f"--out {out} must end in .jsonl or .parquet.")
    return path, None


@contextmanager
def _lines_of_errors() -> Iterator[None]:
    """Show an error about many tasks as a line for each, and not as one long line."""
    try:
        yield
    except ConfigError as error:
        first, *lines = str(error).splitlines()
        for line in lines:
            terminal.print_note(f"rlm: {line}")
        raise ConfigError(first.removesuffix(":") + ".") if lines else error from None


@contextmanager
def _advice(out: Path | None) -> Iterator[None]:
    """Say how to go on if the batch does not reach its end."""
    try:
        yield
    except (LimitError, LMError, KeyboardInterrupt) as error:
        if out is not None:
            more = " with a higher --max-total-budget or --max-total-tokens" if isinstance(error, LimitError) else ""
            terminal.print_note(f"rlm: the answers so far are in {out}. To go on, run the same command again{more}.")
        raise
