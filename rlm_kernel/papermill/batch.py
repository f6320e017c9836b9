"""A batch of notebooks: papermill executes one notebook for each row of parameters, in the pool of a batch.

A task has the parameters as its `context`, and a fingerprint of the cells as its `question`, so that a result counts as
long as neither changes.
"""

from __future__ import annotations

import ast
import hashlib
import json
import keyword
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rlm_kernel._async import run_in_thread
from rlm_kernel.batch.batch import (
    MAX_CONCURRENT,
    Batch,
    BatchOptions,
    check_options,
    log_dir_of,
    shared_limits_of,
)
from rlm_kernel.batch.results import TaskResult, failed
from rlm_kernel.batch.runs import batch_name, ends_batch, log_name
from rlm_kernel.batch.tasks import Task, Tasks, checked, id_of, rows_of_file
from rlm_kernel.engine.shared_limits import Admission
from rlm_kernel.errors import ConfigError, LMError
from rlm_kernel.papermill import parameters as notebook_parameters
from rlm_kernel.provisioners.kernelspecs import AVAILABLE
from rlm_kernel.text import one_line, plain, suggestion
from rlm_kernel.types import Usage, UsageSummary

if TYPE_CHECKING:
    from nbformat import NotebookNode

    from rlm_kernel.clients.base import BaseLM
    from rlm_kernel.clients.estimates import Bound
    from rlm_kernel.engine.budget import Receipt

ID = "id"
"""The column that names a task."""
_OURS = {*notebook_parameters.NAMES, "rlm_mode", "rlm_dir", "rlm_log"}
_DIGEST = 16
_QUIET = ["--IPKernelApp.log_level=ERROR"]
"""Else each kernel warns that TCP is not encrypted; it is open to this machine only."""


def tasks_of_notebook(notebook: Path, fixed: Mapping[str, Any], over: Path | None) -> Tasks:
    """The executions of a notebook.

    Args:
        notebook: its path.
        fixed: parameters of all executions.
        over: a file whose rows are the parameters of one execution each, with `id` as its name; or a folder, each file
            of which is the parameter `path`. None: one execution.

    Raises:
        ConfigError: a file cannot be read, or a row is wrong; as `tasks_of`.
    """
    cells, known = _read_whole(notebook)
    _check_names(fixed, known, "The parameters of all executions", "write it as in the notebook")
    read = partial(_task, cells, known, fixed)
    if over is None:
        return checked(lambda: [(str(notebook), partial(read, notebook.stem, {}, "the parameters"))])
    is_text = over.suffix.lower() in (".csv", ".tsv")
    rows = rows_of_file(over)
    return checked(
        lambda: (
            (f"{over}:{place}", partial(read, str(place), _typed(row) if is_text else row, f"{over}:{place}"))
            for place, row in rows()
        )
    )


def _task(cells: str, known: frozenset[str], fixed: Mapping[str, Any], default_id: str, row: Any, where: str) -> Task:
    if isinstance(row, ConfigError):
        raise row
    if not isinstance(row, Mapping):
        raise ConfigError(f"{where} is a {type(row).__name__}: give an object with parameters.")
    values = {name: str(value) if isinstance(value, Path) else value for name, value in row.items() if name != ID}
    _check_names(values, known, where, "rename the column")
    return Task(id_of(row.get(ID), default_id), cells, {**fixed, **values})


def _check_names(given: Mapping[str, Any], known: frozenset[str], where: str, way: str) -> None:
    """Check the names of parameters.

    Raises:
        ConfigError: one is not a parameter of the notebook. `where` and `way` are for the message.
    """
    for name in given.keys() - _OURS:
        if not name.isidentifier() or keyword.iskeyword(name):
            raise ConfigError(f"{where}: {name!r} is no name of a parameter: {way}.")
        if known and name not in known:
            raise ConfigError(f"{where}: the notebook has no parameter {name!r}{suggestion(name, known)}")


def _typed(row: Any) -> Any:
    """A row of a table, each text as the value that papermill's `-p` makes of it; the id stays a text."""
    from papermill.cli import _resolve_type

    if not isinstance(row, Mapping):
        return row
    return {name: value if name == ID else _resolve_type(value) for name, value in row.items()}


def _read_whole(notebook: Path) -> tuple[str, frozenset[str]]:
    """The fingerprint of the cells, and the parameters that the notebook declares.

    Raises:
        ConfigError: it is no notebook.
    """
    import nbformat
    from papermill import inspect_notebook

    known: frozenset[str] = frozenset()
    try:
        read = nbformat.read(notebook, as_version=4)  # type: ignore[no-untyped-call]
        cells = json.dumps([(cell.cell_type, cell.source) for cell in read.cells])
        with suppress(ValueError):  # it does not name its kernel; then -k does, and any parameter is taken
            known = frozenset(inspect_notebook(str(notebook)))
    except Exception as error:  # noqa: BLE001 (a file may be broken in any way)
        why = one_line(f"{type(error).__name__}: {error}")
        raise ConfigError(f"{notebook} cannot be read as a notebook: {why}. Open and save it in Jupyter.") from None
    return f"{notebook.name} {hashlib.sha256(cells.encode()).hexdigest()[:_DIGEST]}", known


def _arguments_of_kernel(notebook: Path, kernel: str | None) -> list[str]:
    """More arguments for the process of the kernel.

    Raises:
        ConfigError: there is no such kernel.
    """
    import nbformat
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
    from papermill.utils import nb_kernel_name

    try:
        name = nb_kernel_name(nbformat.read(notebook, as_version=4), kernel)  # type: ignore[no-untyped-call]
    except (ValueError, AttributeError):
        raise ConfigError(f"{notebook} does not name its kernel: give one with -k, such as rlm-local.") from None
    if name in AVAILABLE or name in AVAILABLE.values():
        return []
    specs = KernelSpecManager()
    try:
        spec = specs.get_kernel_spec(name)
    except NoSuchKernel:
        known = sorted({*specs.find_kernel_specs(), *AVAILABLE.values()})
        raise ConfigError(
            f"There is no kernel {name!r}{suggestion(name, known)} -k takes one of {', '.join(known)}."
        ) from None
    return _QUIET if any("ipykernel" in part for part in spec.argv) else []


def batch_of_notebook(
    notebook: Path, tasks: Tasks, options: BatchOptions, models: Mapping[str, Any], kernel: str | None = None
) -> Batch:
    """The batch of the executions of a notebook.

    Args:
        notebook: its path.
        tasks: made by `tasks_of_notebook`.
        options: as of `RLM.map`.
        models: parameters that name models and limits, for all executions.
        kernel: the name of another kernel than the notebook's.

    Raises:
        ConfigError: an option is wrong.
    """
    check_options(options)
    arguments = _arguments_of_kernel(notebook, kernel)
    out, log_dir = options.get("out"), options.get("log_dir")
    folder = log_dir_of(out, log_dir)
    name = batch_name(out, folder)
    return Batch(
        tasks,
        lambda _: NotebookRuns(notebook, models, kernel, arguments, folder, name),
        partial(shared_limits_of, options),
        None if out is None else Path(out),
        options.get("max_concurrent", MAX_CONCURRENT),
        options.get("ordered", False),
        options.get("progress", False),
    )


@dataclass(slots=True)
class NotebookRuns:
    """Executes the notebook of a batch.

    Attributes:
        notebook: its path.
        models: parameters that name models and limits, for all executions.
        kernel: the name of another kernel than the notebook's, or None.
        arguments: more arguments for the process of the kernel.
        folder: of the executed notebooks; None: they are not kept.
        batch: whose notebooks they are, see `batch_name`.
        stopped_by: the error after which no further execution is worth a try, or None.
    """

    notebook: Path
    models: Mapping[str, Any]
    kernel: str | None = None
    arguments: Sequence[str] = ()
    folder: Path | None = None
    batch: str = ""
    stopped_by: BaseException | None = field(default=None, init=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def __call__(self, task: Task, limits: Admission) -> TaskResult:
        """Execute it with the parameters of a task, in a thread. The limits hold for what our host answers."""
        return await run_in_thread(partial(self._execute, task, _Watched(limits, self._note)))

    def _note(self, error: LMError) -> None:
        self.stopped_by = self.stopped_by or error

    def _execute(self, task: Task, limits: Admission) -> TaskResult:
        started, digest = time.monotonic(), task.digest
        with self._output(f"{log_name(self.batch, task, digest)}.ipynb") as output:
            log = str(output) if self.folder is not None else None
            try:
                done = self._run(task, limits, output)
            except Exception as error:  # noqa: BLE001 (it is the result of the task)
                seconds = time.monotonic() - started
                return TaskResult(task.id, None, _words(error), _usage(_read(output)), seconds, log, digest)
        seconds = time.monotonic() - started
        return TaskResult(task.id, answer_of(done), None, _usage(done), seconds, log, digest)

    def _run(self, task: Task, limits: Admission, output: Path) -> NotebookNode:
        from papermill import execute_notebook

        assert isinstance(task.context, dict), "the parameters"
        done: NotebookNode = execute_notebook(
            str(self.notebook),
            str(output),
            {**task.context, **self.models},
            engine_name="rlm",
            kernel_name=self.kernel,
            progress_bar=False,
            shared=limits,
            extra_arguments=list(self.arguments),
        )
        return done

    @contextmanager
    def _output(self, name: str) -> Iterator[Path]:
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            yield self.folder / name
            return
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder) / name


@dataclass(frozen=True, slots=True)
class _Watched:
    """The limits of a batch. A cell may catch the error of a call, so it is seen here.

    Attributes:
        limits: of the batch.
        note: called with an error after which no further execution is worth a try.
    """

    limits: Admission
    note: Callable[[LMError], None]

    @property
    def counts_dollars(self) -> bool:
        """Whether the batch has a budget."""
        return self.limits.counts_dollars

    @asynccontextmanager
    async def call(self, lm: BaseLM, limit: Bound, receipt: Receipt) -> AsyncIterator[None]:
        """A context around one call of a model, which waits until the call is admitted.

        Raises:
            LimitError: nothing is left.
        """
        try:
            async with self.limits.call(lm, limit, receipt):
                yield
        except LMError as error:
            if ends_batch(error):
                self.note(error)
            raise

    def count(self, model: str, usage: Usage) -> None:
        """Count a call that is on record."""
        self.limits.count(model, usage)


def answer_of(notebook: NotebookNode) -> str:
    """The text that the last cell with an output shows: what it prints, and its value."""
    shown = (cell.outputs for cell in reversed(notebook.cells) if cell.cell_type == "code" and cell.outputs)
    return "".join(map(_text, next(shown, ()))).strip()


def _text(output: NotebookNode) -> str:
    if output.output_type == "stream":
        return str(output.text) if output.name == "stdout" else ""
    text = str(output.get("data", {}).get("text/plain", ""))
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    return value if isinstance(value, str) else text


def _words(error: Exception) -> str:
    """What went wrong: in a cell, its error without the traceback, which is in the notebook."""
    if hasattr(error, "ename"):
        return plain(f"{error.ename}: {getattr(error, 'evalue', '')} (in the cell {getattr(error, 'exec_count', '')})")
    return failed("", "", error, None, 0.0).error or ""


def _read(output: Path) -> NotebookNode | None:
    import nbformat

    try:
        return nbformat.read(output, as_version=4)  # type: ignore[no-any-return,no-untyped-call]
    except (OSError, ValueError):
        return None


def _usage(notebook: NotebookNode | None) -> UsageSummary:
    """What the calls cost that our host answered."""
    about = {} if notebook is None else notebook.metadata.get("rlm", {})
    usage = about.get("usage_of_this_execution")
    return UsageSummary() if usage is None else UsageSummary.from_dict(usage)
