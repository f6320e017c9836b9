"""Replay a recorded run, without a key and without a network, and report where it differs.

    report = replay("logs/rlm_2026-11-20_12-00-00_1f0c2a9b.ipynb")
    print(report)

The cells run in the recorded environment and get their recorded answers. From a notebook the cells are taken as they
are in the file, edited or not; with `mode="live"` models answer what is not on record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

from rlm_kernel._async import Job
from rlm_kernel.api import RLM
from rlm_kernel.engine.journal import RecordedResponder
from rlm_kernel.engine.record_access import Trust, Use, admitted
from rlm_kernel.engine.recorded_config import arguments_of
from rlm_kernel.errors import ConfigError
from rlm_kernel.kernel.session import Session
from rlm_kernel.provisioners.kernelspecs import Environment
from rlm_kernel.replay.live_models import LiveResponder
from rlm_kernel.replay.report import Divergence, Outcome, answer_given, compare_outputs, draft_of, outcome_of
from rlm_kernel.replay.responder import UnrecordedResponder, answers_of
from rlm_kernel.replay.setup import (
    Content,
    chain_of,
    context_of,
    environment_of,
    give_history,
    restore_kernel,
    start_event,
)
from rlm_kernel.replay.steps import Step, read_notebook, removed_cells, run_of, script_of_notebook, script_of_run
from rlm_kernel.trajectory.log.reader import Recording, read_log
from rlm_kernel.types import CellReport, CellResult, Prompt, UsageSummary
from rlm_kernel.untrusted import json_text

Mode = Literal["replay", "live"]
CLIPPED = "and what came after it is not replayed, because the log does not hold it whole: it reached its max_log_bytes"
_ASK_LIVE = " To ask models for what is not on record, replay it live: rlm replay --live, or mode='live'."


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """The result of a replay.

    Attributes:
        path: of the log.
        environment: the name of the environment in which the cells ran.
        results: of the cells, by number; without those of added cells.
        skipped: cells that were not run again, because they did not end by themselves.
        recalled: how many answers came from the record.
        divergences: the differences from the record, in order.
        answer: the answer of the replay, or None.
        usage: of the models in live mode.
    """

    path: Path
    environment: str
    results: Mapping[int, CellResult]
    skipped: tuple[int, ...]
    recalled: int
    divergences: tuple[Divergence, ...]
    answer: str | None
    usage: UsageSummary

    @property
    def equal(self) -> bool:
        """Whether there is no difference."""
        return not self.divergences

    def __str__(self) -> str:
        cells, answers = _count(len(self.results), "cell"), _count(self.recalled, "answer")
        ran = f"{cells} ran in {self.environment}, {answers} came from the record"
        if self.usage.total_calls:
            ran += f", {self.usage.total_calls} from models"
        if self.equal:
            return f"{ran}: equal to the recorded run."
        places = _count(len(self.divergences), "place")
        return "\n\n".join([f"{ran}: different in {places}.", *map(str, self.divergences)])


OnStep = Callable[[Step, int, int], object]
"""Called before a cell runs: the cell, its place from 1, the number of cells."""


def replay(
    source: Recording | str | Path,
    *,
    mode: Mode = "replay",
    environment: str | None = None,
    environment_kwargs: Mapping[str, Any] | None = None,
    context: Prompt | None = None,
    on_step: OnStep = lambda *_: None,
    trust: Trust = False,
    **live: Any,
) -> ReplayReport:
    """Run a recorded run once more.

    Args:
        source: a log, its notebook, or a recording.
        mode: ``"replay"``: answers come from the record only; ``"live"``: models answer what is not in the record.
        environment: where the cells run; None: the recorded environment.
        environment_kwargs: its options; None: the recorded ones, if no environment is named.
        context: the input; None: the recorded one.
        on_step: called before each cell.
        trust: whether the record of another user may use files and servers of this machine, or a function that is
            asked. Without trust they are left out, with a warning. The user's own records need no trust.
        live: for live mode, arguments of `RLM` that replace the recorded backend; keys are not in the record.

    Raises:
        RecordingError: the record cannot be read, its context is missing or altered, or it is another user's and would
            run without isolation.
        ConfigError: an argument is wrong.
        KernelError: the kernel did not start.
    """
    use = Use(environment, environment_kwargs, models=mode == "live", given=live)
    return Job(_replay(_admitted(source, use, trust), mode, use, context, on_step)).wait()


async def areplay(
    source: Recording | str | Path,
    *,
    mode: Mode = "replay",
    environment: str | None = None,
    environment_kwargs: Mapping[str, Any] | None = None,
    context: Prompt | None = None,
    on_step: OnStep = lambda *_: None,
    trust: Trust = False,
    **live: Any,
) -> ReplayReport:
    """`replay` for asynchronous callers; it takes the same arguments."""
    use = Use(environment, environment_kwargs, models=mode == "live", given=live)
    script = await asyncio.to_thread(_admitted, source, use, trust)
    return await Job(_replay(script, mode, use, context, on_step)).wait_async()


async def _replay(script: Script, mode: Mode, use: Use, context: Prompt | None, on_step: OnStep) -> ReplayReport:
    recording, steps, removed = script
    environment = environment_of(recording, use.environment, use.environment_kwargs)
    rlm = _models(recording, mode, use.given)
    try:
        live_responder = LiveResponder(rlm) if rlm else None
        replayer = Replayer(recording, environment, await context_of(recording, context), live_responder)
        await replayer.run(steps, on_step)
        return replayer.report(steps, removed)
    finally:
        if rlm is not None:
            await rlm.__aexit__()


def _admitted(source: Recording | str | Path, use: Use, trust: Trust) -> Script:
    """The record as it may be used, and its cells."""
    recording, steps, removed = script_of(source)
    return admitted(recording, replace(use, code=code_of_others(steps)), trust), steps, removed


def code_of_others(steps: Sequence[Step]) -> str:
    """Which cells of a notebook are not those of the record, as text; empty if all are."""
    edited = [step.number for step in steps if step.edited]
    added = sum(step.recorded is None for step in steps)
    changes = [f"cell {number} was edited" for number in edited] + [f"{_count(added, 'cell')} were added"] * bool(added)
    return f"in its notebook {', '.join(changes)}" if changes else ""


Script = tuple[Recording, tuple[Step, ...], tuple[int, ...]]
"""A record, the cells to run, and the numbers of those that were removed from the notebook."""


def script_of(source: Recording | str | Path) -> Script:
    """The record, the cells to run, and the numbers of those that were removed from the notebook, if it is one.

    Raises:
        RecordingError: it cannot be read.
    """
    if isinstance(source, Recording):
        return source, _whole(source, script_of_run(source.trajectory)), ()
    path, recording = Path(source), read_log(source)
    if path.suffix != ".ipynb":
        return recording, _whole(recording, script_of_run(recording.trajectory)), ()
    notebook = read_notebook(path)
    recording = run_of(recording, notebook.metadata.get("rlm", {}))
    run = recording.trajectory
    return recording, _whole(recording, script_of_notebook(notebook, run)), removed_cells(notebook, run)


def _whole(recording: Recording, steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The cells before the first one that the log does not hold whole."""
    end = recording.clipped_at
    return steps if end is None else tuple(takewhile(lambda step: step.number < end, steps))


class Replayer:
    """Runs recorded cells once, in a new kernel.

    Args:
        recording: the run.
        environment: of the kernel.
        context: the input.
        live_responder: answers what is not in the record, or None.

    Attributes:
        results: of the cells, by number.
        answer: of the replay, or None.
    """

    def __init__(
        self,
        recording: Recording,
        environment: Environment,
        context: Content,
        live_responder: LiveResponder | None = None,
    ) -> None:
        self.results: dict[int, CellResult] = {}
        self.answer: str | None = None
        self._draft: str | None = None
        self._recording = recording
        self._environment = environment
        self._context = context
        self._live_responder = live_responder
        self._chain = chain_of(recording)
        runs = [one.trajectory for one in self._chain]
        self._unrecorded = UnrecordedResponder(runs, live_responder, _ASK_LIVE)
        self._responder = RecordedResponder(answers_of(runs), self._unrecorded)
        self._histories = recording.trajectory.histories()
        self._expected: Outcome = outcome_of(recording.trajectory)
        self._divergences: list[Divergence] = []
        if recording.clipped_at is not None:
            self._expected = Outcome("none")
            self._divergences.append(Divergence("record", recording.clipped_at, CLIPPED))

    @property
    def divergences(self) -> Sequence[Divergence]:
        """The differences so far."""
        return self._divergences

    async def run(self, steps: Sequence[Step], on_step: OnStep = lambda *_: None) -> None:
        """Run the steps in order.

        Raises:
            KernelError: the kernel did not start.
        """
        seed = start_event(self._recording).seed
        runnable = [step for step in steps if step.can_run]
        async with await Session.open(self._environment, self._responder, seed=seed) as session:
            notes = await restore_kernel(session, self._chain, self._context, self._responder)
            self._divergences += (Divergence("scene", None, note) for note in notes)
            for place, step in enumerate(runnable, 1):
                on_step(step, place, len(runnable))
                if not await self._take(session, step):
                    return
            await self._conclude(session, runnable)

    def report(self, steps: Sequence[Step], removed: Sequence[int]) -> ReplayReport:
        """The result. `removed`: the numbers of the cells that are not in the notebook."""
        missing = (Divergence("removed", number, "is in the record and not in the notebook") for number in removed)
        return ReplayReport(
            path=self._recording.path,
            environment=self._environment.name,
            results=self.results,
            skipped=tuple(step.number for step in steps if not step.can_run),
            recalled=self._responder.recalled,
            divergences=(*self._divergences, *missing),
            answer=self.answer,
            usage=self._live_responder.usage if self._live_responder else UsageSummary(),
        )

    async def _take(self, session: Session, step: Step) -> bool:
        """Run a cell and compare it. Returns whether the kernel is still alive."""
        self._responder.begin_cell(step.number)
        await give_history(session, self._histories, step.number)
        noted = len(self._unrecorded.noted)
        result = await session.run(step.code)
        if step.recorded is not None:
            self.results[step.number] = result
        given = answer_given([result])
        self.answer = self.answer if given is None else given
        self._draft = draft_of([result]) or self._draft
        if step.edited:
            self._note("edited", step, "was edited since it was recorded")
        for missing in self._unrecorded.noted[noted:]:
            self._note("call", step, missing.problem)
        await self._compare(step, result)
        return result.kernel_alive

    async def _compare(self, step: Step, result: CellResult) -> None:
        recorded = step.recorded.result if step.recorded else None
        if recorded is not None:  # in a thread: a cell may show millions of characters
            diff = await asyncio.to_thread(compare_outputs, recorded.outputs, result.outputs)
            if diff:
                self._note("output", step, "shows something else", diff)
        if not result.kernel_alive:
            self._note("kernel", step, "ended the kernel, which it did not do when it was recorded")

    async def _conclude(self, session: Session, steps: Sequence[Step]) -> None:
        """Compare the answer."""
        expected = self._expected
        if expected.way == "variable" and expected.name is not None:
            report = await session.report(expected.name) or CellReport()
            same = _same_json(report.final_json or report.final, expected.text)
            self.answer = expected.text if same else report.final
        if expected.way == "words":
            self.answer = expected.text
        if expected.way == "draft":
            self.answer = self._draft
        if self.answer != expected.text and expected.way != "none":
            last = steps[-1].number if steps else None
            texts = (_as_output(expected.text), _as_output(self.answer))
            if diff := await asyncio.to_thread(compare_outputs, *texts):
                self._divergences.append(Divergence("answer", last, "leads to another answer", diff))

    def _note(self, kind: str, step: Step, what: str, diff: str = "") -> None:
        self._divergences.append(Divergence(kind, step.number, what, diff))


def _same_json(one: str | None, other: str | None) -> bool:
    """Whether two answers are the same value: one by a schema was written as JSON in another way."""
    try:
        return one is not None and other is not None and bool(json_text.loads(one) == json_text.loads(other))
    except ValueError:
        return False


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _as_output(text: str | None) -> list[dict[str, Any]]:
    return [{"output_type": "stream", "name": "stdout", "text": "(no answer)" if text is None else text}]


def _models(recording: Recording, mode: Mode, live: Mapping[str, Any]) -> RLM | None:
    """The models of live mode: those that are given, else the recorded ones."""
    if mode not in ("replay", "live"):
        raise ConfigError(f"mode must be 'replay' or 'live', not {mode!r}.")
    if mode == "replay" and live:
        raise ConfigError(f"{', '.join(live)}: models are asked in mode='live' only.")
    if mode == "replay":
        return None
    if "backend" in live:  # answers in the place of all recorded ones
        live = {"other_backends": None, "other_backend_kwargs": None, **live}
    return RLM(**arguments_of(recording, live, RLM))
