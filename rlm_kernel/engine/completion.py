"""One completion of an `RLM`, and the readers of its events."""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rlm_kernel._async import Job, shielded
from rlm_kernel.engine.config import RunConfig
from rlm_kernel.engine.loop import Engine
from rlm_kernel.engine.recorded import RecordedRun
from rlm_kernel.engine.repl import Repl
from rlm_kernel.errors import CancellationError
from rlm_kernel.schema.answer_schema import Schema
from rlm_kernel.trajectory.events import Event, Notice, OnEvent, RunFailed, RunFinished
from rlm_kernel.types import Prompt, RLMChatCompletion

if TYPE_CHECKING:
    from rlm_kernel.trajectory.log.logger import RunLog


class Run:
    """Make it, await its `completion` once.

    Args:
        config: what the RLM was set up with.
        readers: of the stream of events.
        repl: a persistent one, or None.
        log: keeps the run, or None.
        recorded: of an earlier run, which this one goes on from.
        schema: what the answer has to fit, or None.
        verbose: whether to show it live.
        live: whether somebody reads the root model's words while they are written.
    """

    def __init__(
        self,
        config: RunConfig,
        readers: Sequence[OnEvent],
        *,
        repl: Repl | None = None,
        log: RunLog | None = None,
        recorded: RecordedRun | None = None,
        schema: Schema | None = None,
        verbose: bool = False,
        live: bool = False,
    ) -> None:
        self._verbose = verbose
        self._log = log
        self._task: asyncio.Task[Any] | None = None
        self._stop: BaseException | None = None
        self._readers = [*(log.readers if log else ()), *readers]
        self.engine = Engine(
            config, self._tell, live=live, repl=repl, recorded=recorded, record=self.record, schema=schema
        )

    async def completion(self, prompt: Prompt, question: str | None) -> RLMChatCompletion:
        """The outcome. When it is there, the log is written. A reader's `sys.exit()` stops it, and is raised."""
        self._task = asyncio.current_task()
        try:
            return await self._run_with_log(prompt, question)
        except asyncio.CancelledError:
            if self._stop is None:
                raise
            raise self._stop from None

    def record(self) -> dict[str, Any] | None:
        """The run so far, when it is logged."""
        return None if self._log is None else self._log.metadata()

    async def _run_with_log(self, prompt: Prompt, question: str | None) -> RLMChatCompletion:
        try:
            return await self._run_with_readers(prompt, question)
        finally:
            if self._log is not None:
                await shielded(asyncio.to_thread(self._log.close))

    async def _run_with_readers(self, prompt: Prompt, question: str | None) -> RLMChatCompletion:
        if not self._verbose:
            return await self.engine.run(prompt, question)
        from rlm_kernel.trajectory.console.live_display import ConsoleView

        with ConsoleView() as view:
            self._readers.append(view)
            return await self.engine.run(prompt, question)

    def _tell(self, event: Event) -> None:
        """Tell every reader of an event, and then of what went wrong with it: a log that may not grow any more, say."""
        wrong: list[str] = []
        for reader in list(self._readers):
            try:
                reader(event)
            except (SystemExit, KeyboardInterrupt) as stop:
                self._stop_with(stop)
            except Exception as error:  # noqa: BLE001 (a reader that fails must not end the run)
                self._readers.remove(reader)
                wrong.append(f"{reader!r} failed and is not told any more; the run goes on: {error!r}")
        wrong += self._log.take_untold() if self._log else ()
        for message in wrong:
            with contextlib.suppress(RuntimeWarning):  # where warnings are errors
                warnings.warn(message, RuntimeWarning, stacklevel=2)
            if not isinstance(event, RunFinished | RunFailed):  # after which there is nothing more
                self._tell(Notice(time=event.time, message=message))

    def _stop_with(self, stop: BaseException) -> None:
        """End the run from whatever task the event came from."""
        self._stop = self._stop or stop
        if self._task is not None:
            self._task.cancel()


def wait(run: Run, prompt: Prompt, question: str | None) -> RLMChatCompletion:
    """Block until a run is over. Ctrl-C stops it.

    Raises:
        CancellationError: it did.
    """
    job = Job(run.completion(prompt, question))
    try:
        return job.wait()
    except KeyboardInterrupt:
        error = CancellationError(
            "The completion was stopped by Ctrl-C; its kernel is closed.", partial_answer=run.engine.partial_answer
        )
        error.usage, error.trajectory = run.engine.usage.summary(), run.record()
        raise error from None
