"""Run an RLM in a cell: wait for it, draw its view, stop it, and keep a partial answer."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from rlm_kernel._async import Job
from rlm_kernel.errors import CancellationError, LimitError
from rlm_kernel.html.markup import Element, h
from rlm_kernel.trajectory.events import OnEvent, RunFinished
from rlm_kernel.trajectory.log.logger import RLMLogger, RunLog
from rlm_kernel.types import Input, Prompt, RLMChatCompletion, held_fields
from rlm_magics.live_view import View
from rlm_magics.result import RLMResult, address

if TYPE_CHECKING:
    from rlm_kernel.api import RLM

Work = Callable[[], Coroutine[Any, Any, RLMChatCompletion]]


class WatchedLogger(RLMLogger):
    """A logger whose runs have further readers.

    Attributes:
        readers: of the runs that begin from now on.
    """

    readers: tuple[OnEvent, ...] = ()

    def start(self, *arguments: Any, **more: Any) -> RunLog:
        """Begin the log of a run."""
        log = super().start(*arguments, **more)
        log.readers += self.readers
        return log

    def forget_files(self) -> None:
        """The next run may not come to have files; those of the run before are not its own."""
        self._paths = None, None

    def record(self) -> Any:
        """The latest run, for the `metadata` of a result. That of a long run is a `StoredTrajectory`."""
        return None if self._latest is None else self._latest.record()


def completion_of(rlm: RLM, prompt: Input, question: str | None, schema: Any) -> Work:
    """A coroutine function that runs a completion with streaming, for the view."""

    async def work() -> RLMChatCompletion:
        done: RLMChatCompletion | None = None
        async for event in rlm.stream(prompt, question, response_schema=schema):
            if isinstance(event, RunFinished):
                done = event.completion
        assert done is not None, "a stream ends with RunFinished, or raises"
        return done

    return work


def run_with_view(
    work: Work, prompt: Prompt, view: View, logger: WatchedLogger, serve: Callable[[], object] = lambda: None
) -> RLMResult:
    """Wait for a run and draw its view. Always returns a result; a failed run has `error`.

    Args:
        work: the run.
        prompt: its input, for the result.
        view: of the run.
        logger: of the run.
        serve: called several times a second, in this thread.
    """
    logger.forget_files()
    logger.readers = (view,)
    view.link = lambda: _link(logger.notebook_path)
    with view:
        try:
            result = _result_of(_wait(work, view, serve), logger)
        except BaseException as error:  # noqa: BLE001 (an LM of the user may raise anything; the caller raises it again)
            view.progress.stop(error)
            result = _result_of_error(error, prompt, view, logger)
        view.finish(_link(result.notebook), None if result.partial else result.trajectory)
    return result


def _wait(work: Work, view: View, serve: Callable[[], object]) -> RLMChatCompletion:
    async def to_its_end() -> RLMChatCompletion:
        try:
            return await work()
        finally:
            view.end()

    job = Job(to_its_end())
    try:
        while view.wait():
            serve()
            view.draw()
        return job.wait()
    except (KeyboardInterrupt, CancelledError):
        if (done := _end(job, view)) is not None:
            return done
        view.progress.stop(KeyboardInterrupt())
        raise CancellationError(view.progress.draft, _stop_text(view)) from None
    finally:
        job.cancel()  # after any error here, no run continues unseen


def _end(job: Job[RLMChatCompletion], view: View) -> RLMChatCompletion | None:
    """Stop a run. Returns its answer if it had one already: then only its log is still written."""
    with suppress(KeyboardInterrupt, CancelledError):  # another interrupt ends only the waiting
        if view.progress.run.completion is not None:
            return job.wait()
        job.stop()
    return view.progress.run.completion


def _stop_text(view: View) -> str:
    kept = "The result holds the answer so far." if view.progress.draft is not None else "There was no answer yet."
    return f"The run was stopped after {view.progress.seconds:.1f} s. {kept}"


def _result_of(done: RLMChatCompletion, logger: WatchedLogger) -> RLMResult:
    return RLMResult(**held_fields(done), trajectory=logger.log_file_path, notebook=logger.notebook_path)


def _result_of_error(error: BaseException, prompt: Prompt, view: View, logger: WatchedLogger) -> RLMResult:
    partial = error.partial_answer if isinstance(error, LimitError | CancellationError) else None
    return RLMResult(
        root_model=view.progress.run.model,
        prompt=prompt,
        response=partial or view.progress.draft or "",
        usage_summary=view.progress.usage,
        execution_time=view.progress.seconds,
        metadata=logger.record(),
        trajectory=logger.log_file_path,
        notebook=logger.notebook_path,
        error=error,
    )


def _link(notebook: str | None) -> Element | None:
    return None if notebook is None else h("a", "notebook of the run", href=address(notebook))
