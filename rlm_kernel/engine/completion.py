"""One completion of an `RLM`, and the readers of its events."""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rlm_kernel._async import Job, run_in_thread, shielded
from rlm_kernel.engine.config import ChatMessage, RunConfig
from rlm_kernel.engine.loop import Engine
from rlm_kernel.engine.recorded import RecordedRun
from rlm_kernel.engine.repl import Repl
from rlm_kernel.errors import CancellationError
from rlm_kernel.schema.answer_schema import Schema
from rlm_kernel.trajectory.events import Event, Notice, OnEvent, RunFailed, RunFinished
from rlm_kernel.types import Input, RLMChatCompletion

if TYPE_CHECKING:
    from rlm_kernel.trajectory.log.logger import RunLog


class Run(Job[RLMChatCompletion]):
    """A completion that has started in the engine's loop. Its result is available when the log is written.

    A reader's `sys.exit()` stops it, and is raised; so is every error of a reader with a true `ends_run`.

    Args:
        config: the configuration of the RLM.
        readers: of the stream of events.
        prompt: becomes `context`.
        question: the `root_prompt`; None: the prompt contains the question.
        repl: a persistent one, or None.
        log: keeps the run, or None.
        trajectory: gives the `metadata` of the outcome instead of the log, or None.
        recorded: of an earlier run, which this one resumes.
        schema: what the answer has to fit, or None.
        message: of a conversation, or None.
        verbose: whether to show it live.
        live: whether the root model's replies are streamed.
    """

    def __init__(
        self,
        config: RunConfig,
        readers: Sequence[OnEvent],
        *,
        prompt: Input,
        question: str | None,
        repl: Repl | None = None,
        log: RunLog | None = None,
        trajectory: Callable[[], Any] | None = None,
        recorded: RecordedRun | None = None,
        schema: Schema | None = None,
        message: ChatMessage | None = None,
        verbose: bool = False,
        live: bool = False,
    ) -> None:
        self._verbose = verbose
        self._log = log
        self._trajectory = trajectory
        self._exit: BaseException | None = None
        self._readers = [*(log.readers if log else ()), *readers]
        self.engine = Engine(
            config,
            self._tell,
            live=live,
            repl=repl,
            recorded=recorded,
            record=self._record,
            schema=schema,
            message=message,
            end_logs=self._end_logs,
        )
        super().__init__(self._complete(prompt, question))

    def wait(self) -> RLMChatCompletion:
        """Block until it is over. Ctrl-C stops it.

        Raises:
            CancellationError: Ctrl-C did.
        """
        try:
            return super().wait()
        except KeyboardInterrupt:
            error = CancellationError(
                self.engine.partial_answer, "The completion was stopped by Ctrl-C; its kernel is closed."
            )
            error.usage, error.trajectory = self.engine.usage.summary(), self._record()
            raise error from None

    async def _complete(self, prompt: Input, question: str | None) -> RLMChatCompletion:
        try:
            async with contextlib.AsyncExitStack() as stack:
                if (log := self._log) is not None:
                    stack.push_async_callback(lambda: shielded(run_in_thread(log.close)))
                if self._verbose:
                    from rlm_kernel.trajectory.console.live_display import ConsoleView

                    self._readers.append(stack.enter_context(ConsoleView()))
                completion = await self.engine.run(prompt, question)
                await self._end_logs()
                return completion
        except asyncio.CancelledError:
            if self._exit is None:
                raise
            raise self._exit from None

    def _record(self) -> Any:
        """The run so far, when it is logged: a dict, or a `StoredTrajectory`, which the outcome reads on use."""
        if self._trajectory is not None:
            return self._trajectory()
        return None if self._log is None else self._log.record()

    def _tell(self, event: Event) -> None:
        """Pass an event to every reader, then report failures: a log that has reached its limit, for example."""
        wrong: list[str] = []
        for reader in list(self._readers):
            try:
                reader(event)
            except (SystemExit, KeyboardInterrupt) as stop:
                self._exit_with(stop)
            except Exception as error:  # noqa: BLE001 (a reader that fails must not end the run)
                self._readers.remove(reader)
                if getattr(reader, "ends_run", False):
                    self._exit_with(error)
                    continue
                wrong.append(f"{reader!r} failed and gets no further events; the run goes on: {error!r}")
        wrong += self._log.take_untold() if self._log else ()
        for message in wrong:
            with contextlib.suppress(RuntimeWarning):  # where warnings are errors
                warnings.warn(message, RuntimeWarning, stacklevel=2)
            if not isinstance(event, RunFinished | RunFailed):  # the last event of a run
                self._tell(Notice(time=event.time, message=message))

    async def _end_logs(self) -> None:
        """Wait for the loggers of the user. What one raises ends the run."""
        for reader in [reader for reader in self._readers if hasattr(reader, "end_log")]:
            try:
                await reader.end_log()
            except (SystemExit, KeyboardInterrupt, Exception) as error:  # noqa: BLE001 (of the user's code)
                self._readers.remove(reader)
                self._exit_with(error)
                await asyncio.sleep(0)  # here the run is cancelled

    def _exit_with(self, stop: BaseException) -> None:
        """End the run, from any task that emits an event."""
        self._exit = self._exit or stop
        if self._task is not None:
            self._task.cancel()
