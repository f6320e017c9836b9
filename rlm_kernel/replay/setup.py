"""Restore the kernel of a recorded run to its state before the first cell: environment, setup, tools, context."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rlm_kernel.engine.journal import RecordedResponder
from rlm_kernel.engine.kernel_steps import (
    CellRun,
    KernelStep,
    StoredValue,
    context_steps,
    prior_run_steps,
    take_step,
    tool_step,
)
from rlm_kernel.engine.recorded_config import without_hidden
from rlm_kernel.errors import RecordingError
from rlm_kernel.kernel.session import Session
from rlm_kernel.provisioners.kernelspecs import Environment
from rlm_kernel.provisioners.kernelspecs import environment as find_environment
from rlm_kernel.trajectory.events import RunStarted
from rlm_kernel.trajectory.log import context_store
from rlm_kernel.trajectory.log.reader import ContextEncoding, Recording, earlier_recordings
from rlm_kernel.trajectory.log.redaction import HIDDEN
from rlm_kernel.trajectory.notebook.cells import is_cut_off
from rlm_kernel.trajectory.tree import SETUP, History, take_history
from rlm_kernel.types import Prompt

Content = tuple[ContextEncoding, bytes]
_MISSING = object()


def start_event(recording: Recording) -> RunStarted:
    """The first event of the run.

    Raises:
        RecordingError: the record does not have it.
    """
    event = recording.trajectory.started
    if event is None:
        raise RecordingError(f"{recording.path} does not say how the run began.")
    return event


def environment_of(
    recording: Recording, name: str | None = None, kwargs: Mapping[str, Any] | None = None
) -> Environment:
    """The environment of the run, or another one.

    Args:
        recording: the run.
        name: of another environment; None: the recorded one.
        kwargs: its options; None: the recorded ones if no environment is named, else none: a log must not extend the
            access of an environment that the user chose.

    Raises:
        ConfigError: there is no such environment or option.
    """
    if kwargs is None and name is None:
        kwargs = without_hidden(recording.metadata.get("environment_kwargs"))
    # The recorded setup is among the cells that `restore_kernel` runs.
    return replace(
        find_environment(name or start_event(recording).environment, kwargs), setup_code=None, attachable=False
    )


async def context_of(recording: Recording, given: Prompt | None = None) -> Content:
    """The input of the run.

    Args:
        recording: the run.
        given: the input; None: the recorded one.

    Raises:
        RecordingError: it is missing or altered.
    """
    if given is not None:
        return await asyncio.to_thread(context_store.encode, given)
    return await asyncio.to_thread(context_store.load, recording.context, recording.path.parent)


def chain_of(recording: Recording) -> tuple[Recording, ...]:
    """The run, after the earlier runs in the same persistent kernel.

    Raises:
        RecordingError: the log of one of them is missing.
    """
    return (*earlier_recordings(recording), recording)


async def restore_kernel(
    session: Session, chain: Sequence[Recording], context: Content, responder: RecordedResponder
) -> tuple[str, ...]:
    """Bring a kernel into the state before the first cell of a run.

    Args:
        session: on a new kernel.
        chain: the run, and those before it in the same kernel, whose cells run again.
        context: the input of the run.
        responder: answers the cells.

    Returns:
        The differences from the run, a sentence each.
    """
    *earlier, last = chain
    notes = await _set_up(session, last)
    for index, recording in enumerate(earlier):
        run, value = recording.trajectory, _value(await context_of(recording))
        cells = [cell for cell in run.cells if not is_cut_off(cell)]
        for step in prior_run_steps(value, index, cells, run.histories(), run.conversation()):
            if isinstance(step, CellRun):
                responder.begin_cell(step.cell)
            await take_step(session, step)
    persistent = bool((last.metadata.get("configuration") or {}).get("persistent"))
    for step in context_steps(_value(context), len(earlier), persistent=persistent):
        await take_step(session, step)
    return tuple(notes)


def _value(content: Content) -> Any:
    """The input of a run for a kernel."""
    encoding, data = content
    return context_store.decode(encoding, data) if encoding == "json" else StoredValue(encoding, data)


async def give_history(session: Session, histories: dict[int, History], cell: int) -> None:
    """Set the `history` that a cell had in the run, if it differs from that of the cell before."""
    if (history := take_history(histories, cell)) is not None:
        await session.set("history", history)


def redacted_fields(known: Any, path: str = "") -> list[str]:
    """The paths of the redacted fields of a record that a kernel would see."""
    if isinstance(known, Mapping):
        options = ("environment_kwargs", "tools", "setup")
        inside = ((key, value) for key, value in known.items() if path or key in options)
        return [found for key, value in inside for found in redacted_fields(value, f"{path}[{key!r}]" if path else key)]
    if isinstance(known, list | tuple):
        return [found for index, value in enumerate(known) for found in redacted_fields(value, f"{path}[{index}]")]
    return [path] if isinstance(known, str) and HIDDEN in known else []


async def _set_up(session: Session, recording: Recording) -> list[str]:
    """Run the setup cells, and give the kernel its tools. Returns the differences from the run."""
    started = start_event(recording)
    notes = [f"{name} was redacted from the record." for name in redacted_fields(recording.metadata)]
    steps: list[tuple[str, KernelStep]] = [("The setup", CellRun(SETUP, code)) for code in started.setup]
    for tool in started.tools:
        name, content = tool["name"], tool.get("card" if tool["kind"] == "function" else "content", _MISSING)
        if content is _MISSING:
            notes.append(f"The value of the tool {name} is not in the record: cells that read it fail.")
        else:
            steps.append((f"The code of the tool {name}", tool_step(tool["kind"], name, content)))
    for what, step in steps:
        cell = await take_step(session, step)
        if cell is not None and cell.error is not None:
            notes.append(f"{what} raised: {cell.error.name}: {cell.error.message}")
    return notes
