"""`rlm_mode = 'live'` in JupyterLab: models answer what the cells of a recorded run ask and what is not on record.

The setup cell calls `begin` in the kernel of the notebook, which is the host: it has the keys. The cells run in a
second kernel, in the recorded environment, which gets the recorded state first. This kernel sends each cell there and
shows what comes back. The cells that ran with other code are kept in `rlm_record`: `RLM.resume(rlm_record)` goes on
from them with the root model.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_kernel._async import Job
from rlm_kernel.api import RLM
from rlm_kernel.engine.edits import EditedRecord
from rlm_kernel.errors import ConfigError
from rlm_kernel.kernel.process import manager_of
from rlm_kernel.papermill.host import NotebookHost
from rlm_kernel.papermill.own_cells import is_own
from rlm_kernel.papermill.parameters import NAMES
from rlm_kernel.provisioners.environ import scrub_environ
from rlm_kernel.replay.setup import start_event
from rlm_kernel.trajectory.log.file_names import TURNS, stem_of
from rlm_kernel.trajectory.log.logger import RLMLogger
from rlm_kernel.trajectory.log.reader import read_log
from rlm_kernel.trajectory.notebook.build import OUR_ENVIRONMENTS
from rlm_kernel.trajectory.notebook.replay_record import CELL_ID, is_same

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell
    from jupyter_client.manager import AsyncKernelManager

START_SECONDS = 60

_SETUP = ("# Answers what", "# The files of")
"""The beginning of the cells that have called `begin`."""

_NO_KEY = (
    "rlm_mode = 'live' asks models, and this kernel has no model to ask: {}\n"
    "Choose a kernel that has your keys (Kernel > Change Kernel… > RLM), or name backend and model in the cell above. "
    "The cells of the run get a kernel of their own, without keys."
)


class CellError(Exception):
    """A cell has raised; the traceback is that of its kernel."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        super().__init__(f"{content.get('ename')}: {content.get('evalue')}")
        self._lines = [str(line) for line in content.get("traceback", [])]

    def _render_traceback_(self) -> list[str]:
        return self._lines


def begin(
    shell: InteractiveShell, log: Path, names: Mapping[str, Any], record: Any, folded: Mapping[int, dict[str, str]]
) -> None:
    """Send the cells below to a kernel of the recorded run.

    Args:
        shell: of the notebook.
        log: the record.
        names: the parameters of the notebook.
        record: the cells of the run, as the setup cell has read them.
        folded: the recorded sub-calls of the cells, as they are shown.

    Raises:
        ConfigError: a parameter is wrong, or there is no key.
        RecordingError: the record cannot be used.
        KernelError: the kernel did not start.
    """
    end(shell)
    kernel = LiveKernel(shell, _host(log, names), record, folded)
    shell.rlm_live = kernel  # type: ignore[attr-defined]
    shell.input_transformers_cleanup.append(kernel.sent)
    atexit.register(kernel.close)
    if "rlm" not in shell.magics_manager.magics["line"]:
        shell.run_line_magic("load_ext", "rlm_magics")
    shell.push({"RLM": RLM, "rlm_record": kernel.edited}, interactive=False)  # type: ignore[no-untyped-call]
    print(
        f"Live: {log.name}. The cells below run in a kernel of their own, and models answer what is not on record.\n"
        "The model goes on from the cells that you edited and ran: %rlm resume, or RLM.resume(rlm_record). "
        "From another turn: %rlm fork TURN, or RLM.resume(rlm_record, at=TURN)."
    )


def end(shell: InteractiveShell) -> None:
    """Undo `begin`."""
    kernel: LiveKernel | None = vars(shell).pop("rlm_live", None)
    if kernel is not None:
        shell.input_transformers_cleanup[:] = [
            one for one in shell.input_transformers_cleanup if getattr(one, "__self__", None) is not kernel
        ]
        kernel.close()


def edited_record(shell: InteractiveShell) -> EditedRecord | None:
    """The run of this notebook with the cells that were edited, in live mode; else None."""
    kernel: LiveKernel | None = getattr(shell, "rlm_live", None)
    return None if kernel is None else kernel.edited


def _host(log: Path, names: Mapping[str, Any]) -> NotebookHost:
    import nbformat

    recording = read_log(log)
    place = start_event(recording).environment
    given = {name: names[name] for name in NAMES if name in names} | {"rlm_mode": "live"}
    source = "\n".join(f"{name} = {value!r}" for name, value in given.items())
    child = names.get("rlm_child")
    about = {"log": f"{stem_of(log)}{TURNS}", "rlm_dir": str(log.parent), **({"child": child} if child else {})}
    notebook = nbformat.v4.new_notebook(metadata={"rlm": about})  # type: ignore[no-untyped-call]
    notebook.cells = [nbformat.v4.new_code_cell(source, metadata={"tags": ["parameters"]})]  # type: ignore[no-untyped-call]
    try:
        return NotebookHost(notebook, f"rlm-{place}" if place in OUR_ENVIRONMENTS else place, str(log))
    except ConfigError as error:
        raise ConfigError(_NO_KEY.format(error)) from error


async def _start(manager: AsyncKernelManager) -> None:
    await manager.start_kernel(env=scrub_environ(os.environ))


async def _interrupt(manager: AsyncKernelManager) -> None:
    await manager.interrupt_kernel()


async def _shut_down(manager: AsyncKernelManager) -> None:
    await manager.shutdown_kernel(now=True)


class LiveKernel:
    """The kernel in which the cells of the run run, and its host.

    Args:
        shell: of the notebook.
        host: answers the cells.
        record: see `begin`.
        folded: see `begin`.

    Attributes:
        edited: the run, with the cells that ran with other code.
    """

    def __init__(
        self, shell: InteractiveShell, host: NotebookHost, record: Any, folded: Mapping[int, dict[str, str]]
    ) -> None:
        from jupyter_client.blocking.client import BlockingKernelClient
        from jupyter_client.kernelspec import KernelSpecManager

        assert host.recording is not None, "made for a run"
        self._shell, self._host, self._record, self._folded = shell, host, record, folded
        self._expected, self._latest = min(record.cells, default=1), 0
        ran = [] if shell.history_manager is None else shell.history_manager.input_hist_raw
        self._setup = {cell.strip() for cell in ran if cell.startswith(_SETUP)}
        lines = (line.strip() for cell in record.cells.values() for line in cell.code.splitlines())
        self._recorded_lines = frozenset(filter(None, lines))
        self._made = ""
        self._has_ids = False  # whether this client sends those of the run
        self._sources: dict[int, dict[str, str]] = defaultdict(dict)
        self._codes: dict[int, str] = {}
        arguments = {**host.arguments, "logger": RLMLogger(str(host.recording.path.parent))}
        self.edited = EditedRecord(host.recording.path, self._codes, host.answers, host.outcomes, arguments)
        spec = host.spec or KernelSpecManager().get_kernel_spec(start_event(host.recording).environment)
        self._manager = manager_of(spec)
        Job(_start(self._manager)).wait()
        self._client = BlockingKernelClient()
        self._client.load_connection_info(self._manager.get_connection_info())
        self._client.start_channels()
        self._client.wait_for_ready(timeout=START_SECONDS)
        for note in host.join(self._manager.get_connection_info()):
            print(note, file=sys.stderr)

    def close(self) -> None:
        """End the kernel. Idempotent."""
        atexit.unregister(self.close)
        self._host.leave()
        self._client.stop_channels()
        Job(_shut_down(self._manager)).wait()
        self._host.close()

    def sent(self, lines: list[str]) -> list[str]:
        """The code of this kernel for a cell: to send it. Applied to what it has made, it changes nothing."""
        source = "".join(lines)
        if not source.strip() or source == self._made or self._runs_here(source):
            return lines
        self._made = f"get_ipython().rlm_live.run({source!r})\n"
        return [self._made]

    def _runs_here(self, source: str) -> bool:
        """Whether the cell is for this kernel, which has the keys. One that has a line of a recorded cell never is."""
        if source.strip() in self._setup:
            return not any(is_same(cell.code, source) for cell in self._record.cells.values())
        return is_own(source) and self._recorded_lines.isdisjoint(map(str.strip, source.splitlines()))

    def run(self, source: str) -> None:
        """Run a cell in the kernel of the run.

        Raises:
            CellError: it raised, and did not raise in the run.
        """
        number, added = self._place_of(source)
        self._expected, self._latest = number + 1, number
        self._host.cell_starts(number, again=not added)
        recorded: Any = None if added else self._record.cells.get(number)
        unchanged = recorded is not None and is_same(recorded.code, source)
        self._keep(number, added, source)
        if unchanged and recorded.was_cut_off:
            print("Not run again: in the run this cell did not end by itself.")
            return
        try:
            reply = self._client.execute_interactive(source, allow_stdin=False, output_hook=self._show)["content"]
        except KeyboardInterrupt:
            Job(_interrupt(self._manager)).wait()
            raise
        asked = self._host.asked
        folded = self._folded.get(number) if unchanged else asked and asked["data"]
        if folded:
            self._shell.display_pub.publish(folded, {"rlm": {"role": "calls"}})
        if reply["status"] == "ok":
            return
        if not (unchanged and recorded.raised):
            raise CellError(reply)
        print("\n".join(reply["traceback"]), file=sys.stderr)

    def _place_of(self, source: str) -> tuple[int, str]:
        """The number of the running cell in the run, and its id if a person added it below that cell."""
        cell_id = (self._shell.get_parent().get("metadata") or {}).get("cellId") or ""  # type: ignore[attr-defined]
        self._has_ids |= (is_recorded := CELL_ID.fullmatch(cell_id) is not None)
        is_known = is_recorded or any(is_same(cell.code, source) for cell in self._record.cells.values())
        if self._has_ids and self._latest and not is_known:
            return self._latest, cell_id
        return self._record.find(source.rstrip("\n"), cell_id, self._expected), ""

    def _keep(self, number: int, added: str, source: str) -> None:
        """Keep the code of a cell. What is added below a cell belongs to it. `added`: the id of an added cell."""
        recorded = self._record.cells.get(number)
        if recorded is None:
            return
        parts = self._sources[number]
        parts[added] = source.strip("\n")
        code = "\n\n".join([parts.get("", recorded.code), *(part for id_, part in parts.items() if id_)])
        if code == recorded.code.strip("\n"):
            self._codes.pop(number, None)
        else:
            self._codes[number] = code

    def _show(self, message: dict[str, Any]) -> None:
        """Show an output of the kernel in this notebook."""
        kind, content = message["msg_type"], message["content"]
        if kind == "stream":
            (sys.stderr if content["name"] == "stderr" else sys.stdout).write(content["text"])
        elif kind in ("display_data", "execute_result"):
            self._shell.display_pub.publish(content["data"], content["metadata"])
