"""The host of a notebook that papermill runs: it answers the calls of the cells with models, or from the record.

The notebook of a run gets its tools, its context and its recorded answers; any other notebook gets the query functions,
and models to answer them. The keys stay in this process.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rlm_kernel._async import Job
from rlm_kernel.api import RLM
from rlm_kernel.engine.journal import RecordedResponder
from rlm_kernel.engine.record_access import Use, admitted
from rlm_kernel.engine.recorded import RecordedAnswer
from rlm_kernel.engine.recorded_config import arguments_of
from rlm_kernel.engine.shared_limits import Admission
from rlm_kernel.errors import RecordingError
from rlm_kernel.kernel.shared_session import SharedSession
from rlm_kernel.papermill import parameters as notebook_parameters
from rlm_kernel.provisioners.kernelspecs import AVAILABLE, Environment, environment
from rlm_kernel.replay.live_models import LiveResponder
from rlm_kernel.replay.replayer import CLIPPED
from rlm_kernel.replay.responder import UnrecordedResponder, answers_of
from rlm_kernel.replay.setup import chain_of, context_of, environment_of, give_history, restore_kernel, start_event
from rlm_kernel.replay.steps import run_of
from rlm_kernel.trajectory.log.file_names import RECORD, TURNS, file_beside
from rlm_kernel.trajectory.log.notebook_metadata import restore_metadata
from rlm_kernel.trajectory.log.reader import Recording, read_log
from rlm_kernel.types import Answer, Output, Slot

if TYPE_CHECKING:
    from jupyter_client.connect import KernelConnectionInfo
    from jupyter_client.kernelspec import KernelSpec
    from nbformat import NotebookNode

_NO_MODEL = (
    " No model is named: give papermill -p backend … -p model …, or set RLM_BACKEND and RLM_MODEL, "
    "or write both into metadata.rlm of the notebook."
)
_NO_KEYS = (
    "The kernel {!r} gets no key of your environment: its cells ask with llm_query and rlm_query, which this process "
    "answers. A notebook that makes an RLM itself, as rlm_task.ipynb does, runs without --engine rlm."
)
_PLAIN = (
    "rlm_query is answered by one call of a model, as llm_query is: for a child RLM with a kernel of its own, give "
    "papermill -p max_depth 2."
)
_USAGE = "usage_of_this_execution"
_ASK_LIVE = " To ask models for what is not on record: papermill --engine rlm -p rlm_mode live."


class NotebookHost:
    """The host of one execution of a notebook. All settings are checked when it is made.

    Args:
        notebook: with papermill's parameters in it.
        kernel_name: the kernelspec, or the name of one of our environments.
        path: of the notebook, or None.
        given: the parameters of this execution; those in the notebook are untrusted.
        shared: the limits that it shares with other executions, or None.

    Attributes:
        recording: the run of the notebook, or None.
        arguments: the models that answer in the place of the recorded ones.

    Raises:
        ConfigError: a parameter is wrong.
        RecordingError: the notebook is that of a run, and its log cannot be read.
    """

    def __init__(
        self,
        notebook: NotebookNode,
        kernel_name: str,
        path: str | None,
        given: Mapping[str, Any] = MappingProxyType({}),
        shared: Admission | None = None,
    ) -> None:
        restore_metadata(notebook)
        parameters = notebook_parameters.parameters_of(notebook)
        self._notebook = notebook
        self._given = given
        self.recording = _recording_of(notebook, parameters, path)
        self.arguments: dict[str, Any] = {}
        self._notes: list[str] = []
        if self.recording is not None:
            self.recording = self._admitted(self.recording, kernel_name, parameters)
        live = self.recording is None or notebook_parameters.mode_of(parameters) == "live"
        self._is_ours = _name_of_ours(kernel_name) is not None
        self._environment = _environment(kernel_name, self.recording)
        self._rlm = self._model(parameters) if live else None
        self._notes += notes_about(notebook, kernel_name, self._rlm.config.max_depth if self._rlm else None)
        self._live_responder = LiveResponder(self._rlm, shared) if self._rlm else None
        self._chain = chain_of(self.recording) if self.recording else ()
        self._histories = self.recording.trajectory.histories() if self.recording else {}
        runs = [one.trajectory for one in self._chain]
        unrecorded = UnrecordedResponder(runs, self._live_responder, _NO_MODEL if live else _ASK_LIVE)
        self._responder = RecordedResponder(answers_of(runs), unrecorded)
        self._seed = start_event(self.recording).seed if self.recording else None
        self._session: SharedSession | None = None

    @property
    def answers(self) -> dict[Slot, RecordedAnswer]:
        """What models answered that is not on record."""
        return self._live_responder.answers if self._live_responder else {}

    @property
    def outcomes(self) -> dict[Slot, Answer]:
        """The same for tools."""
        return self._live_responder.outcomes if self._live_responder else {}

    @property
    def asked(self) -> Output | None:
        """What the running cell has asked models, folded; None: nothing."""
        return self._live_responder.shown() if self._live_responder else None

    @property
    def spec(self) -> KernelSpec:
        """The kernelspec. Those of Jupyter are started as an environment of a run is: without the user's keys."""
        spec = self._environment.load(self._seed)
        config = spec.metadata["kernel_provisioner"]["config"]
        if self.recording is None and "private_cwd" in config:  # a user's notebook finds its files
            config["private_cwd"] = False
        return spec

    def join(self, connection: KernelConnectionInfo) -> list[str]:
        """Put the guest into the kernel, and restore the recorded state before the first cell.

        Returns:
            The differences from the run, a sentence each.

        Raises:
            KernelError: the kernel does not answer.
            RecordingError: the context of the run is missing or altered.
        """
        return Job(self._join(connection)).wait()

    def leave(self) -> None:
        """Stop answering, before the kernel is ended."""
        session, self._session = self._session, None
        if session is not None:
            Job(session.leave()).wait()

    def close(self) -> None:
        """Write the usage of the models into the notebook, and close their connections."""
        self._notebook.metadata.get("rlm", {}).pop(_USAGE, None)  # of an earlier execution
        if self._live_responder is not None:
            self._notebook.metadata.setdefault("rlm", {})[_USAGE] = self._live_responder.usage.to_dict()
        if self._rlm is not None:
            self._rlm.close()

    def cell_starts(self, number: int, *, again: bool = True) -> None:
        """Use the recorded answers of this cell from now on; 0: a cell that is not in the record.

        `again`: whether they are used from the first one on.
        """
        self._responder.begin_cell(number, again=again)
        if self._live_responder is not None:
            self._live_responder.begin_cell(number)
        if self._session is not None:
            Job(give_history(self._session, self._histories, number)).wait()

    async def _join(self, connection: KernelConnectionInfo) -> list[str]:
        context = await context_of(self.recording) if self.recording else None
        session = await SharedSession.join(connection, self._environment, self._responder, seed=self._seed)
        self._session = session
        if context is None:
            await session.keep_plain_names()
            return self._notes
        return [*self._notes, *await restore_kernel(session, self._chain, context, self._responder)]

    def _admitted(self, recording: Recording, kernel_name: str, parameters: dict[str, Any]) -> Recording:
        """The record as it may be used. A parameter `rlm_trust` in the notebook itself is ignored."""
        ours = _name_of_ours(kernel_name)
        elsewhere = None if ours == start_event(recording).environment else ours or kernel_name
        live = notebook_parameters.mode_of(parameters) == "live"
        given = notebook_parameters.arguments_of(parameters, {}, {}) or {}
        use = Use(elsewhere, models=live, given=given)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            recording = admitted(recording, use, self._given.get("rlm_trust") is True)
        self._notes += [str(warning.message) for warning in warned]
        if recording.clipped_at is not None:
            self._notes.append(f"Cell {recording.clipped_at} {CLIPPED}.")
        return recording

    def _model(self, parameters: dict[str, Any]) -> RLM | None:
        if self.recording is not None:
            given = notebook_parameters.arguments_of(parameters, {}, {}, self._given) or {}
            if given:  # answers in the place of all recorded models
                given = {"other_backends": None, "other_backend_kwargs": None, **given}
            self.arguments = given
            return RLM(**arguments_of(self.recording, given, RLM))
        about = self._notebook.metadata.get("rlm", {})
        arguments = notebook_parameters.arguments_of(parameters, about, os.environ, self._given)
        if arguments is None:
            return None
        return RLM(environment=self._environment.name if self._is_ours else "local", **arguments)


def notes_about(notebook: NotebookNode, kernel_name: str, max_depth: int | None) -> list[str]:
    """What the author of a notebook may not expect, a sentence or two each.

    Args:
        notebook: with its cells.
        kernel_name: the kernelspec, or the name of one of our environments.
        max_depth: of the RLM that answers the cells; None: there is none.
    """
    asks_children = any("rlm_query" in cell.source for cell in notebook.cells if cell.cell_type == "code")
    is_plain = max_depth is not None and max_depth <= 1 and asks_children
    return [*([] if _name_of_ours(kernel_name) else [_NO_KEYS.format(kernel_name)]), *([_PLAIN] if is_plain else [])]


def _recording_of(notebook: NotebookNode, parameters: dict[str, Any], path: str | None) -> Recording | None:
    about = notebook.metadata.get("rlm", {})
    if "log" not in about:
        return None
    folders = [Path(path).parent, Path(path).absolute().parent.parent] if path else []  # of a child: beside the log
    folders += [Path(folder) for folder in (parameters.get("rlm_dir"), about.get("rlm_dir")) if folder]
    name = parameters.get("rlm_log") or about["log"]
    places = [file_beside(folder / name, ending) for ending in (RECORD, TURNS) for folder in folders]
    found = next(filter(Path.is_file, places), None)
    if found is None:
        raise RecordingError(
            f"The log {name!r} of this notebook is missing. Looked for it in "
            f"{', '.join(map(str, folders))}. Give its folder: papermill -p rlm_dir …"
        )
    return run_of(read_log(found), about)


def _environment(kernel_name: str, recording: Recording | None) -> Environment:
    """The environment of a kernel's name."""
    name = _name_of_ours(kernel_name) or kernel_name
    if recording is None:
        return environment(name, None)
    return environment_of(recording, None if name == start_event(recording).environment else name)


def _name_of_ours(kernel_name: str) -> str | None:
    """The name of our environment for a kernel's name, or None."""
    return next((name for name, spec in AVAILABLE.items() if kernel_name in (name, spec)), None)
