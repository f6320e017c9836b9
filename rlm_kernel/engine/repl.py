"""The REPL of a run: a session with the context. If its kernel is lost, the state is rebuilt in a new one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from rlm_kernel.engine.config import RunConfig
from rlm_kernel.engine.gates import CellRequest, Refuse
from rlm_kernel.engine.journal import Journal, RebuildFallback, RecordedResponder, Recovery, reason_of
from rlm_kernel.engine.kernel_steps import CellRun, VariableSet, context_steps, prior_run_steps, take_step, tool_step
from rlm_kernel.engine.recorded import PriorRun, RecordedRun
from rlm_kernel.engine.subcalls import SubCalls
from rlm_kernel.engine.tools import Tool
from rlm_kernel.errors import ConfigError, KernelError, RLMError
from rlm_kernel.trajectory import events
from rlm_kernel.trajectory.emitter import Emitter
from rlm_kernel.trajectory.tree import SETUP, Cell
from rlm_kernel.types import Answer, CellError, CellReport, CellResult, Input, Message, Output, Query, Slot, ToolCall

if TYPE_CHECKING:
    from rlm_kernel.kernel.comm import Responder
    from rlm_kernel.kernel.session import Session

RESPONSE_SECONDS = 5.0
"""Time in which a rebuilt kernel must run an empty cell. If not, it is rebuilt without the latest cell."""

FULL = (
    "The answers of this run need more memory than is reserved for them. Answers from now on are lost if the kernel "
    "has to be started again."
)

_MISSING = (
    "The kernel lacks {names}: a table arrives there as a list of dicts, an array as a list. "
    "environment_kwargs={{'packages': [...]}} installs packages in a container."
)
LEFT = (
    "The kernel is started again, because the question before left {left} that did not end. Variables of cells that "
    "start that again are lost."
)


class Repl:
    """One kernel with the REPL's functions. A persistent one serves one run after another.

    Attributes:
        cells: how many cells ran.
        contexts: how many inputs it got.
        asked: the sum of the hashes of all that cells have asked: the same questions add the same, in any order.
        draft: the last content of `answer` after a cell of this run, or None.
        variables: the user's variables after the last cell, name to type.
    """

    def __init__(self, config: RunConfig) -> None:
        self.cells = 0
        self.contexts = 0
        self.asked = 0
        self.draft: str | None = None
        self.variables: dict[str, str] = {}
        self._config = config
        self._subcalls: SubCalls | None = None
        self._emit: Emitter | None = None
        self._recorded = RecordedRun()
        self._replay: Responder | None = None
        self._session: Session | None = None
        self._journal = Journal()
        self._ended = 0  # the last cell of the questions before
        self._was_ready = self._is_set_up = self._is_working = False
        self._told_missing: set[str] = set()

    @asynccontextmanager
    async def serve(self, subcalls: SubCalls, emit: Emitter, recorded: RecordedRun) -> AsyncIterator[None]:
        """Serve a run. Its kernel is closed afterwards, except a persistent one after a run without an error.

        That of a conversation also stays if the run ended while its kernel was idle: when the model wrote, or its
        provider failed. A cell that was stopped has left variables that the record does not have, so that kernel ends.

        Args:
            subcalls: answers the questions of the cells.
            emit: emits the events of the run.
            recorded: its cells are run again for their effects in the kernel; their events are those of the record.

        Raises:
            RLMError: the REPL serves another run.
        """
        if self._subcalls is not None:
            raise RLMError(
                "persistent=True keeps one kernel, and another completion of this RLM is using it: wait until that one "
                "has ended, or make a second RLM."
            )
        self._subcalls, self._emit, self._recorded, self.draft = subcalls, emit, recorded, None
        if recorded.before and not self.variables:
            latest = list(recorded.before[-1].recorded.cells.values())[-1:]
            self.variables = {k: v for cell in latest if cell.result for k, v in cell.result.report.variables.items()}
        if recorded.before and not self._was_ready:
            self._journal.answers.update(recorded.before[0].recorded.recorded(SETUP))
        stays = False
        try:
            yield
            stays = self._config.persistent and self.contexts > 0
        finally:
            is_idle = self._config.conversation and self.contexts > 0 and not self._is_working
            self._is_working = False
            try:
                if not (stays or is_idle):
                    await self.close()
            finally:
                self._subcalls = None

    @contextmanager
    def _working(self) -> Iterator[None]:
        """The kernel works; if this is left with an error, nobody knows whether it still does."""
        self._is_working = True
        yield
        self._is_working = False

    @property
    def earlier(self) -> int:
        """How many runs it served before this one."""
        return max(self.contexts, len(self._recorded.before))

    @property
    def missing_libraries(self) -> frozenset[str]:
        """Libraries of tables that its kernel lacks."""
        return frozenset() if self._session is None else self._session.missing_libraries

    async def open(self, context: Input) -> None:
        """Start the kernel, unless it runs already, and give it the context.

        Raises:
            KernelError: it did not start.
            ConfigError: the context or the `setup_code` cannot be used.
        """
        started = time.perf_counter()
        try:
            with self._working():
                await self._open(context)
        except BaseException:
            if not self._was_ready:  # this run's log is not read with that of the next, which asks again
                self._journal.forget_answers(SETUP)
            raise
        self._was_ready = True
        python = "" if self._session is None else self._session.python
        self._tell(events.KernelReady(seconds=time.perf_counter() - started, python=python))

    async def _open(self, context: Input) -> None:
        self._ended = self.cells
        if self._session is None or not self._session.alive:
            if not self.contexts:  # what an earlier start began is begun again
                self._journal.steps.clear()
            await self._start()
            await self._rebuild()
        else:
            await self._end_question()
        for before in self._recorded.before[self.contexts :]:
            await self._live_through(before)
        if self._config.conversation and self.contexts:
            return  # its first cell takes what is new
        for step in context_steps(context, self.contexts, persistent=self._config.persistent):
            try:
                await self._give(step)
            except KernelError:  # it died meanwhile; an input that is too large ends the next one, too
                await self.revive()
                await self._give(step)
        self.contexts += 1

    async def run(self, code: str, iteration: int, *, is_ours: bool = False) -> CellResult:
        """Run a cell of a turn, as `on_cell` decides.

        Args:
            code: its source. The result has the source that ran.
            iteration: the turn.
            is_ours: whether the engine wrote it, so that nobody is asked.
        """
        self.cells += 1
        cell, recorded = self.cells, self._recorded.cells.get(self.cells)
        if recorded is not None and code in (recorded.code, recorded.replaced):
            with self._working():
                return await self._relive(recorded)
        decided = code if is_ours else await self._config.gates.cell(CellRequest(code, iteration, self._config.depth))
        if isinstance(decided, Refuse):
            return self._refuse(code, iteration, decided.reason)
        written, code = None if decided == code else code, decided
        self._tell(events.CellStarted(iteration=iteration, cell=cell, code=code, replaced=written))
        if written is not None:
            self._tell(events.Notice(message=f"Cell {cell} was changed before it ran. The model wrote:\n{written}"))
        assert self._subcalls is not None, "only a run runs cells"
        with self._working():
            result = await self._live.run(code, room=self._subcalls.calls.ledger.outputs)
        if result.status in ("ok", "error"):
            self._journal.steps.append(CellRun(cell, code))
        self._take(result)
        self._tell(events.CellFinished(iteration=iteration, cell=cell, result=result))
        return result

    def _refuse(self, code: str, iteration: int, reason: str) -> CellResult:
        """Keep a cell that does not run."""
        error = CellError("Refused", reason, f"The user refused this cell, so it did not run: {reason}")
        result = CellResult(code, "refused", error=error, report=CellReport(variables=self.variables))
        self._tell(events.CellStarted(iteration=iteration, cell=self.cells, code=code))
        self._tell(events.CellFinished(iteration=iteration, cell=self.cells, result=result))
        return result

    async def _live_through(self, before: PriorRun) -> None:
        """Repeat an earlier run of a persistent kernel."""
        cells = before.recorded.cells
        for step in prior_run_steps(before.context, self.contexts, cells.values(), before.histories, before.history):
            if isinstance(step, VariableSet):
                await self._give(step)
            elif isinstance(step, CellRun):
                await self._run_recorded(cells[step.cell], before.recorded)
        self.cells = max(self.cells, before.cells)
        self.contexts += 1
        await self._end_question()

    async def _end_question(self) -> None:
        """End what the cells of the last question started. What does not end is left behind with its kernel.

        The new one has the variables of the record. A cell that starts again what does not end is left out.
        """
        self._ended = self.cells
        if left := await self._live.end_question():
            self._tell(events.Notice(message=LEFT.format(left=left)))
            await self._start()
            await self._rebuild()

    async def _relive(self, cell: Cell) -> CellResult:
        """Repeat what a recorded cell did to the kernel. Its outputs are those of the record."""
        assert self._subcalls is not None, "attached before it is opened"
        assert cell.result is not None, "only cells that ended are in a past"
        self._subcalls.relive(cell)
        self._note_asked(self._recorded.recorded(cell.number))
        await self._run_recorded(cell, self._recorded)
        return cell.result

    async def _run_recorded(self, cell: Cell, recorded: RecordedRun) -> None:
        """Run a recorded cell again with its answers, unless it was stopped."""
        assert cell.result is not None, "only cells that ended are in a past"
        if cell.result.status in ("ok", "error"):
            self._journal.answers.update(recorded.recorded(cell.number))
            self._journal.steps.append(step := CellRun(cell.number, cell.code))
            if not await self._run_again(step):
                self._journal.forget(step)
                await self._start()
                await self._rebuild()
        self._take(cell.result)

    def _take(self, result: CellResult) -> None:
        """Store the variables and the draft that a cell reported. A kernel that is broken may report nothing."""
        if result.status in ("ok", "error") and result.report != CellReport():
            self.variables = result.report.variables
        self.draft = result.report.draft or self.draft

    async def answer(self, question: Query | ToolCall) -> Sequence[Answer]:
        """The `Responder` of the session: the run's sub-calls, which are recorded, or the record during a rebuild."""
        if self._replay is not None:
            return await self._replay.answer(question)
        if self._subcalls is None:
            raise RLMError("no completion is running")
        slots = self._journal.slots(self.cells if self._is_set_up else SETUP, question)
        self._note_asked(slots)
        if not self._is_set_up and (known := self._journal.recorded_answers(slots)) is not None:
            return known  # models answer the questions of the setup only once
        answers = await self._subcalls.answer(replace(question, slots=slots))
        was_full = self._journal.is_full
        self._journal.record(slots, answers)
        if self._journal.is_full and not was_full:
            self._tell(events.Notice(message=FULL))
        return answers

    def _note_asked(self, slots: Iterable[Slot]) -> None:
        self.asked += sum(hash((slot.key, slot.occurrence)) for slot in slots)

    @property
    def died(self) -> bool:
        """Whether the kernel has died, in a cell or between two."""
        return self._session is not None and not self._session.alive

    def interrupt(self) -> None:
        """Interrupt the running cell, if there is a kernel to run one."""
        if self._session is not None and self._session.alive:
            self._session.interrupt()

    async def read(self, name: str) -> CellReport | None:
        """The value of a variable as the `final` of a report, which is None if there is no such variable.

        Returns None if the kernel did not give it: it has died, or the variable's `__str__` did not end.
        """
        with self._working():
            return await self._live.report(name)

    async def remember(self, name: str, messages: Sequence[Message], seconds: float | None = None) -> None:
        """Store a conversation in a variable; if the kernel has died, in the next one.

        Args:
            name: of the variable.
            messages: the conversation.
            seconds: limit, after which the kernel is ended; None: the environment's `cell_timeout`. The next kernel
                does not run the last cell again, which left this one unusable.
        """
        step = VariableSet(name, [dict(message) for message in messages])
        try:
            async with asyncio.timeout(seconds or self._config.environment.cell_timeout):
                with self._working():
                    await self._give(step)
        except (KernelError, TimeoutError) as error:
            if isinstance(error, TimeoutError):
                self._journal.forget_last_cell()
                await self.close()
            self._journal.steps.append(step)

    async def end_run(self, conversation: Sequence[Message], seconds: float) -> None:
        """Leave a persistent kernel idle after a run, with the conversation in `history_N`.

        `seconds`: as of `remember`.
        """
        if self._config.persistent and self.contexts:
            with self._working():
                await self._live.quiet()
            if self._config.conversation:
                return
            await self.remember(f"history_{self.contexts - 1}", conversation, seconds)

    async def revive(self, ended: CellResult | None = None) -> Recovery:
        """Start a new kernel after the old one died, and rebuild the state of the finished cells in it.

        Args:
            ended: the cell in which it died; None: it died between two cells.

        Raises:
            KernelError: it did not start.
        """
        reason = reason_of(ended)
        why = f" {self._live.why_it_died}".rstrip()
        self._tell(events.Notice(message=f"The kernel is started again, because {reason}.{why}"))
        before = self.variables
        with self._working():
            await self._start()
            await self._rebuild()
        kept, lost = ([n for n in before if (n in self.variables) == there] for there in (True, False))
        return Recovery(f"{reason} ({why.strip().rstrip('.')})" if why else reason, tuple(kept), tuple(lost))

    async def close(self) -> None:
        """End the kernel. Idempotent."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    @property
    def _live(self) -> Session:
        if self._session is None:
            raise RLMError("The REPL was closed while a completion used it: close it after its completions.")
        return self._session

    async def _start(self) -> None:
        from rlm_kernel.kernel.session import Session  # imports Jupyter

        await self.close()
        self._is_set_up = False
        self._journal.begin_again(SETUP)
        self._session = await Session.open(self._config.environment, self, self._on_output, seed=self._config.seed)
        for tool in self._config.tools:
            await self._provide(tool)
        if self._config.profile.setup_code:
            await self._live.run(self._config.profile.setup_code)
        if self._config.persistent:
            await self._live.end_question()
        self._is_set_up = True

    async def _rebuild(self) -> None:
        """Repeat every step, except cells that end this kernel, too, or leave it unusable."""
        while (culprit := await self._retake()) is not None:
            self._journal.forget(culprit)
            await self._start()

    async def _retake(self) -> CellRun | None:
        """Repeat every step. Returns the cell after which the kernel was lost, or None."""
        self.variables, latest = {}, None
        for step in self._journal.steps:
            if isinstance(step, VariableSet):
                await take_step(self._live, step)
            elif not await self._run_again(latest := step) or not await self._ended_with(step):
                return latest
        return latest if latest is not None and not await self._responds() else None

    async def _ended_with(self, step: CellRun) -> bool:
        """End what a cell of an earlier question has started again. Returns whether that has ended."""
        return step.cell > self._ended or not await self._live.end_question()

    async def _run_again(self, step: CellRun) -> bool:
        """Run a finished cell with its recorded answers. Returns whether the kernel is still alive."""
        self._replay = RecordedResponder(self._journal.answers, RebuildFallback(), step.cell)
        try:
            result = await self._live.run(step.code)
        finally:
            self._replay = None
        self.variables = result.report.variables
        return result.kernel_alive

    async def _responds(self) -> bool:
        """Whether the kernel can still run a cell: a cell may end without an error and break it."""
        if not self._live.alive:
            return False
        result = await self._live.run("", RESPONSE_SECONDS)
        return result.kernel_alive and result.status != "error"

    async def _give(self, step: VariableSet) -> None:
        await take_step(self._live, step)
        self._journal.steps.append(step)
        if missing := self._live.missing_libraries - self._told_missing:
            self._told_missing |= missing
            self._tell(events.Notice(message=_MISSING.format(names=", ".join(sorted(missing)))))

    async def _provide(self, tool: Tool) -> None:
        content = tool.card() if tool.kind == "function" else tool.content
        cell = await take_step(self._live, tool_step(tool.kind, tool.name, content))
        if cell is not None and cell.error is not None:
            raise ConfigError(f"custom_tools[{tool.name!r}]: its code raised in the kernel:\n{cell.error.traceback}")

    def _on_output(self, output: Output) -> None:
        if self._replay is None:
            self._tell(events.CellOutput(cell=self.cells, output=output))

    def _tell(self, event: events.Event) -> None:
        assert self._emit is not None, "attached before it is opened"
        self._emit(event)
