"""Resume a recorded run: what an `RLM` needs for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from rlm_kernel.engine.edits import EditedRecord
from rlm_kernel.engine.record_access import Trust, Use, admitted
from rlm_kernel.engine.recorded import PriorRun, RecordedRun, recorded_run_of
from rlm_kernel.engine.recorded_config import arguments_of, check_is_whole
from rlm_kernel.errors import RecordingError
from rlm_kernel.inputs import open_text
from rlm_kernel.trajectory.log import context_store
from rlm_kernel.trajectory.log.reader import Recording, earlier_recordings, read_log
from rlm_kernel.trajectory.tree import Turn
from rlm_kernel.types import Input, Prompt
from rlm_kernel.values import convert


@dataclass(frozen=True, slots=True)
class Resumption:
    """A run that resumes another.

    Attributes:
        arguments: of the `RLM`.
        recorded: the replies and answers that are not requested again.
        prompt: the input.
        question: the `root_prompt`.
        forked_from: which run it resumes, for the log.
        schema: the JSON Schema that the answer has to fit, or None.
        continues: the run before it in the same persistent kernel, by its name, or None.
    """

    arguments: dict[str, Any]
    recorded: RecordedRun
    prompt: Input
    question: str | None
    forked_from: dict[str, Any]
    schema: dict[str, Any] | None = None
    continues: str | None = None


def prepare_resumption(
    rlm: type,
    path: str | Path | EditedRecord,
    at: int | None,
    prompt: Input | PurePath | None,
    question: str | None,
    overrides: Mapping[str, Any],
    trust: Trust = False,
) -> Resumption:
    """Read a log and prepare to resume its run.

    Args:
        rlm: the class that is created with the arguments.
        path: the log, or the notebook in its folder; with changed cells, an `EditedRecord`.
        at: the last iteration that counts; None: all of it, or with changed cells up to the last of them.
        prompt: the input, if it is not in the log.
        question: another `root_prompt`.
        overrides: arguments of the `RLM` that replace recorded ones.
        trust: whether a stranger's record may access this machine, or a function that asks.

    Raises:
        RecordingError: there is nothing to resume, or something is missing.
    """
    edited = path if isinstance(path, EditedRecord) else EditedRecord(Path(path))
    recording = read_log(edited.path)
    run = recording.trajectory
    if run.started is None:
        raise RecordingError(f"{recording.path} holds no run.")
    if recording.metadata.get("agent") is not None:
        raise RecordingError(f"{recording.path.name} is the log of an agent: AgentRLM.resume(path) continues it.")
    at, overrides = edited.last_turn(run) if at is None else at, edited.arguments_with(overrides)
    check_iteration(recording, at)
    where, options = overrides.get("environment"), overrides.get("environment_kwargs")
    recording = admitted(recording, Use(where, options, models=True, given=overrides), trust)
    given: Input
    if isinstance(prompt, PurePath):
        given = open_text(prompt, in_kernel=False)
    elif prompt is not None:
        given = convert(prompt)
    else:
        given = context_store.decode(*context_store.load(recording.context, recording.path.parent))
    check_is_whole(recording, overrides)
    recorded = recorded_run_of(run, at)
    forked_from: dict[str, Any] = {"run_id": recording.stem, "log": str(recording.path), "at": at}
    if changed := edited.change(recorded, run, at):
        forked_from["edited_cells"] = changed
    recorded.before = tuple(_prior_run(recording))
    arguments = arguments_of(recording, overrides, rlm)
    question = question or run.started.question
    continues = recording.metadata.get("continues")
    return Resumption(arguments, recorded, given, question, forked_from, run.started.schema, continues)


def prior_runs(recording: Recording, context: Input | None = None) -> tuple[PriorRun, ...]:
    """A recorded run and those before it in its kernel, for a new kernel that goes on from their state.

    Args:
        recording: the run.
        context: its input; None: the recorded one.

    Raises:
        RecordingError: the record of a run, or its input, is missing or is not whole.
    """
    check_iteration(recording, None)
    given = recorded_context(recording) if context is None else context
    return (*_prior_run(recording), _as_prior(recording, given))


def _prior_run(recording: Recording) -> Iterator[PriorRun]:
    """The runs that the same persistent kernel served before, the first one first."""
    for earlier in earlier_recordings(recording):
        yield _as_prior(earlier, _context_before(earlier, recording))


def _as_prior(recording: Recording, context: Any) -> PriorRun:
    run = recording.trajectory
    last = max((cell.number for cell in run.cells), default=0)
    return PriorRun(context, run.conversation(), run.histories(), recorded_run_of(run), last)


def recorded_context(recording: Recording) -> Prompt:
    """The input of a recorded run.

    Raises:
        RecordingError: it is not in the record, or is a pickle.
    """
    return _context_before(recording, recording)


def _context_before(earlier: Recording, recording: Recording) -> Prompt:
    """The context of an earlier run of the same kernel.

    Raises:
        RecordingError: the host cannot read it from the record, and the caller cannot pass it.
    """
    stored = earlier.context
    if stored is None or stored.redacted or stored.encoding == "pickle":
        raise RecordingError(
            f"{recording.path.name} continued in the kernel of {earlier.path.name}, whose context is a pickle, held a "
            f"secret or was not stored. It cannot be resumed: resume {earlier.path.name} with its prompt given again."
        )
    return context_store.decode(*context_store.load(stored, earlier.path.parent))


def check_iteration(recording: Recording, at: int | None) -> None:
    """Check that a run can be resumed after an iteration. `at`: the last one that counts; None: all of it.

    Raises:
        RecordingError: there is no such iteration, or its record is not whole.
    """
    ended = [turn.iteration for turn in recording.trajectory.turns if turn.finished is not None]
    if at is not None and at not in ended:
        known = f"1 to {ended[-1]}" if ended else "none, the run was ended in its first turn"
        raise RecordingError(f"at={at!r} is not a finished iteration of {recording.stem}: there are {known}.")
    if (clipped_at := recording.clipped_at) is not None:
        turns = recording.trajectory.turns
        whole = [turn.iteration for turn in turns if all(cell.number < clipped_at for cell in turn.cells)]
        whole = [turn for turn in whole if turn in ended and turn < _turn_of(turns, clipped_at)]
        if at is None or at not in whole:
            do = f"resume it with at={whole[-1]} or less" if whole else "start a new run"
            raise RecordingError(
                f"The log {recording.path} is not whole from cell {clipped_at} on, because it reached "
                f"max_log_bytes: {do}."
            )


def _turn_of(turns: Sequence[Turn], cell: int) -> int:
    """The turn of a cell; for a cell that is not in the record, the turn after the last."""
    found = (turn.iteration for turn in turns if any(one.number >= cell for one in turn.cells))
    return next(found, max((turn.iteration for turn in turns), default=0) + 1)
