"""Restore the kernel of a recorded run to its state before the first cell: environment, setup, tools, context."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rlm_kernel.engine.journal import initial_variables
from rlm_kernel.engine.recorded_config import without_hidden
from rlm_kernel.errors import RecordingError
from rlm_kernel.kernel.session import Session
from rlm_kernel.provisioners.kernelspecs import Environment
from rlm_kernel.provisioners.kernelspecs import environment as find_environment
from rlm_kernel.replay.responder import RecordedResponder
from rlm_kernel.trajectory.events import RunStarted
from rlm_kernel.trajectory.log import context_store
from rlm_kernel.trajectory.log.reader import ContextEncoding, Recording, earlier_recordings
from rlm_kernel.trajectory.log.redaction import HIDDEN
from rlm_kernel.trajectory.notebook.cells import is_cut_off
from rlm_kernel.trajectory.tree import History, take_history
from rlm_kernel.types import Prompt

Content = tuple[ContextEncoding, bytes]


def start_event(recording: Recording) -> RunStarted:
    """How the run began.

    Raises:
        RecordingError: the record does not tell.
    """
    event = recording.trajectory.started
    if event is None:
        raise RecordingError(f"{recording.path} does not tell how the run began.")
    return event


def environment_of(
    recording: Recording, name: str | None = None, kwargs: Mapping[str, Any] | None = None
) -> Environment:
    """Where the cells ran, or another environment.

    Args:
        recording: the run.
        name: of another environment; None: the recorded one.
        kwargs: its options; None: the recorded ones where no environment is named, else none. Who names one wants to
            know what it may reach, which a log must not widen.

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
        given: the input, where it is not to be taken from the record.

    Raises:
        RecordingError: it is missing or altered.
    """
    if given is not None:
        return await asyncio.to_thread(context_store.encode, given)
    return await asyncio.to_thread(context_store.load, recording.context, recording.path.parent)


def chain_of(recording: Recording) -> tuple[Recording, ...]:
    """The run, and before it those that the same persistent kernel served.

    Raises:
        RecordingError: the log of one of them is missing.
    """
    return (*earlier_recordings(recording), recording)


async def restore_kernel(
    session: Session, chain: Sequence[Recording], context: Content, responder: RecordedResponder
) -> tuple[str, ...]:
    """Make a kernel what it was before the first cell of a run.

    Args:
        session: on a new kernel.
        chain: the run, and those before it in the same kernel, whose cells run again.
        context: the input of the run.
        responder: answers the cells.

    Returns:
        What is not as it was, in sentences.
    """
    notes = await _set_up(session, chain[-1])
    *earlier, last = chain
    for index, recording in enumerate(earlier):
        await _give_context(session, recording, index, await context_of(recording))
        histories = recording.trajectory.histories()
        for cell in recording.trajectory.cells:
            if not is_cut_off(cell):
                responder.begin_cell(cell.number)
                await give_history(session, histories, cell.number)
                await session.run(cell.code)
        await session.set(f"history_{index}", recording.trajectory.conversation())
    await _give_context(session, last, len(earlier), context)
    return tuple(notes)


async def give_history(session: Session, histories: dict[int, History], cell: int) -> None:
    """Give a kernel the `history` that a cell found, if it is another than the cell before it found."""
    if (history := take_history(histories, cell)) is not None:
        await session.set("history", history)


def redacted_fields(known: Any, path: str = "") -> list[str]:
    """Where the fields stand that were taken out of a record, as far as a kernel would see them."""
    if isinstance(known, Mapping):
        options = ("environment_kwargs", "tools", "setup")
        inside = ((key, value) for key, value in known.items() if path or key in options)
        return [found for key, value in inside for found in redacted_fields(value, f"{path}[{key!r}]" if path else key)]
    if isinstance(known, list | tuple):
        return [found for index, value in enumerate(known) for found in redacted_fields(value, f"{path}[{index}]")]
    return [path] if isinstance(known, str) and HIDDEN in known else []


async def _set_up(session: Session, recording: Recording) -> list[str]:
    """Run the cells of the setup, and give the kernel its tools."""
    notes = [
        f"{name} was redacted from the record, and is not as it was." for name in redacted_fields(recording.metadata)
    ]
    for code in start_event(recording).setup:
        cell = await session.run(code)
        if cell.error is not None:
            notes.append(f"The setup raised: {cell.error.name}: {cell.error.message}")
    for tool in start_event(recording).tools:
        notes += await _provide(session, tool)
    return notes


async def _provide(session: Session, tool: Mapping[str, Any]) -> list[str]:
    """Give the kernel a tool of the record. What a function returned is on record as well."""
    name = tool["name"]
    if tool["kind"] == "function":
        await session.define(tool["card"])
    elif "content" not in tool:
        return [f"The value of the tool {name} is not in the record: cells that read it fail."]
    elif tool["kind"] == "value":
        await session.set(name, tool["content"])
    elif (cell := await session.run(tool["content"])).error is not None:
        return [f"The code of the tool {name} raised: {cell.error.name}: {cell.error.message}"]
    return []


async def _give_context(session: Session, recording: Recording, index: int, content: Content) -> None:
    """Begin a run, as `Repl` does."""
    for given in initial_variables() if index else ():
        await session.set(given.name, given.value)
    persistent = (recording.metadata.get("configuration") or {}).get("persistent")
    for name in ([f"context_{index}"] if persistent else []) + ["context"]:
        await _give(session, name, content)


async def _give(session: Session, name: str, content: Content) -> None:
    """Give the kernel a value as it was stored. A pickle is opened there and nowhere else."""
    encoding, data = content
    if encoding == "json":
        await session.set(name, context_store.decode(encoding, data))
    else:
        await session.put(name, encoding, data)
