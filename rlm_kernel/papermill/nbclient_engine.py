"""`papermill --engine rlm`: notebooks whose cells call `llm_query`, and the notebooks of recorded runs.

nbclient runs the cells, as in papermill's own engine, so progress bar, autosave, timeouts and error reports are
papermill's. Our session is a second client of the same kernel and answers the questions of the cells.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine
from papermill.log import logger
from papermill.utils import remove_args

from rlm_kernel.engine.shared_limits import Admission
from rlm_kernel.kernel.process import manager_of
from rlm_kernel.papermill.host import NotebookHost
from rlm_kernel.provisioners.environ import scrub_environ
from rlm_kernel.trajectory.notebook.build import fingerprint
from rlm_kernel.trajectory.notebook.cells import CUT_OFF, RAISES

if TYPE_CHECKING:
    from jupyter_client.manager import AsyncKernelManager
    from nbformat import NotebookNode
    from papermill.engines import NotebookExecutionManager

_LOGGERS_OF_CALLS = ("httpx", "httpx2", "LiteLLM")
_OURS = ("input_path", "timeout", "startup_timeout")


class RLMEngine(NBClientEngine):  # type: ignore[misc]
    """The engine `rlm`. See `rlm_kernel.papermill.parameters` for the parameters that it reads."""

    @classmethod
    def execute_notebook(cls, nb: NotebookNode, kernel_name: str, **options: Any) -> NotebookNode:
        """Keep the outputs of the notebook: papermill removes them, and some are not made by running cells."""
        shown = {cell.id: list(cell.outputs) for cell in nb.cells if cell.cell_type == "code" and "id" in cell}
        given = _parameters_now(nb)
        return super().execute_notebook(nb, kernel_name, shown=shown, given=given, **options)  # type: ignore[no-any-return]

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: NotebookExecutionManager,
        kernel_name: str,
        log_output: bool = False,
        stdout_file: Any = None,
        stderr_file: Any = None,
        start_timeout: int = 60,
        execution_timeout: int | None = None,
        shown: Mapping[str, list[NotebookNode]] = MappingProxyType({}),
        given: Mapping[str, Any] = MappingProxyType({}),
        shared: Admission | None = None,
        **options: Any,
    ) -> NotebookNode:
        """Execute the notebook; the signature is that of papermill's own engine, and the limits of a batch.

        Raises:
            ConfigError: a parameter is wrong.
            RecordingError: the notebook is of a run whose record cannot be read.
        """
        host = NotebookHost(nb_man.nb, kernel_name, options.get("input_path"), given, shared)
        client = HostedClient(
            nb_man,
            host=host,
            shown=shown,
            kernel_name=kernel_name,
            timeout=execution_timeout or options.get("timeout"),
            startup_timeout=start_timeout,
            log=logger,
            log_output=log_output,
            stdout_file=stdout_file,
            stderr_file=stderr_file,
            **remove_args(_OURS, **options),
        )
        with closing(host), _without_lines_of_calls():
            done: NotebookNode = client.execute()
        return done


class HostedClient(PapermillNotebookClient):  # type: ignore[misc]
    """The client of papermill, with our host.

    Args:
        nb_man: of papermill.
        host: answers the cells.
        shown: the earlier outputs of the cells, by id.
        options: those of papermill's client.
    """

    def __init__(
        self,
        nb_man: NotebookExecutionManager,
        *,
        host: NotebookHost,
        shown: Mapping[str, list[NotebookNode]],
        **options: Any,
    ) -> None:
        super().__init__(nb_man, **options)
        self._host = host
        self._shown = shown

    def create_kernel_manager(self) -> AsyncKernelManager:
        """The manager of the kernel."""
        manager: AsyncKernelManager = manager_of(self._host.spec)
        self.km = manager
        return manager

    @contextmanager
    def setup_kernel(self, **options: Any) -> Iterator[None]:
        """Start the kernel without keys, with the guest in it before the first cell."""
        with super().setup_kernel(**options, env=scrub_environ(os.environ)):
            try:
                for note in self._host.join(self.km.get_connection_info()):
                    self.log.warning(note)
                yield
            finally:
                self._host.leave()

    def execute_cell(self, cell: NotebookNode, cell_index: int, **options: Any) -> NotebookNode:
        """Run a cell."""
        if self._host.recording is not None and cell.cell_type == "code":
            return self._execute_recorded(cell, cell_index, **options)
        ran: NotebookNode = super().execute_cell(cell, cell_index, **options)
        return ran

    def _execute_recorded(self, cell: NotebookNode, cell_index: int, **options: Any) -> NotebookNode:
        """Run a cell of a recorded run, unless it did not end by itself in the run and was not edited."""
        about, tags = cell.metadata.get("rlm", {}), cell.metadata.get("tags", [])
        before = self._shown.get(cell.get("id", ""), [])
        edited = about.get("sha256") not in (None, fingerprint(cell.source))
        if edited:
            self.log.warning("Cell %s was edited since it was recorded.", about.get("cell"))
        elif CUT_OFF in tags:
            cell.outputs = before
            return cell
        self._host.cell_starts(about.get("cell") or 0)
        ran: NotebookNode = super().execute_cell(cell, cell_index, **options)
        if RAISES in tags:
            ran.outputs = [_without_error(output) for output in ran.outputs]
        if not edited:
            ran.outputs += [output for output in before if "rlm" in output.get("metadata", {})]
        return ran


@contextmanager
def _without_lines_of_calls() -> Iterator[None]:
    """Hide the log lines for each request to a model: papermill's command shows those of all libraries."""
    loggers = [logging.getLogger(name) for name in _LOGGERS_OF_CALLS]
    levels = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(one.level or logging.WARNING)
    try:
        yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)


def _parameters_now(notebook: NotebookNode) -> dict[str, Any]:
    """The parameters of this execution. Those of an earlier one are in the file, which is untrusted.

    papermill marks every cell that it reads, and then adds one with the parameters that it is given.
    """
    added = (cell for cell in notebook.cells if "papermill" not in cell.metadata)
    if not any("injected-parameters" in cell.metadata.get("tags", []) for cell in added):
        return {}
    return dict(notebook.metadata.papermill["parameters"])


def _without_error(output: NotebookNode) -> NotebookNode:
    """A traceback as text on stderr, because papermill stops at an error output."""
    if output.output_type != "error":
        return output
    from nbformat import from_dict

    text = "\n".join(output.traceback) + "\n"
    return from_dict({"output_type": "stream", "name": "stderr", "text": text})  # type: ignore[no-untyped-call,no-any-return]
