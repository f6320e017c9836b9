"""The documented API (seed documents "API: RLM class", "Getting Started"): arguments in, engine parts out."""

from __future__ import annotations

import asyncio
import secrets
import warnings
import weakref
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from rlm_kernel._sync import Job
from rlm_kernel.arguments import check_limits, check_numbers, check_prompt, models_of, profile_of
from rlm_kernel.engine import Engine
from rlm_kernel.errors import CancellationError
from rlm_kernel.kernelspecs import environment as find_environment
from rlm_kernel.limits import Limits
from rlm_kernel.plan import Plan
from rlm_kernel.prompts import PromptProfile
from rlm_kernel.records import Prompt, RLMChatCompletion
from rlm_kernel.repl import Repl
from rlm_kernel.tools import tools_of
from rlm_kernel.trajectory.callbacks import Callbacks
from rlm_kernel.trajectory.events import Event, OnEvent, RunFailed, RunFinished

if TYPE_CHECKING:
    from rlm_kernel.clients.lm import LM

TRAJECTORY = "The trajectory is a notebook"
"""The title of the issue that brings `logger`."""


class RLM:
    """A Recursive Language Model: `completion(prompt)` in place of `llm.completion(prompt)`.

    Args:
        backend: the root model's provider, or an `LM` of your own.
        backend_kwargs: arguments of the provider, e.g. ``{"model_name": "gpt-5-mini"}``.
        environment: where the model's code runs; ``"local"``.
        environment_kwargs: `setup_code`, `env`, `cwd`, `cell_timeout` (seconds), `memory` (``"2g"``).
        depth: of this RLM in a tree of them.
        max_depth: at `depth >= max_depth` a completion is one plain call; `rlm_query` starts children above it.
        max_iterations: turns before the model is asked for its last word.
        custom_system_prompt: in place of ours, taken verbatim.
        other_backends: providers (or `LM`s) for sub-calls; the first is their default.
        other_backend_kwargs: their arguments, in the same order.
        logger: not built yet.
        verbose: show the run live on stderr.
        max_budget: US dollars a completion may cost, where the cost is known.
        max_timeout: seconds a completion may take.
        max_tokens: input and output tokens a completion may use.
        max_errors: cells in a row that may raise.
        custom_tools: functions (called on the host), code and values for the REPL, by name; or
            ``{"tool": ..., "description": ...}``.
        custom_sub_tools: those of children; None: the same, ``{}``: none.
        persistent: keep one kernel over completions, with their inputs as `context_0`, `context_1`, …
        compaction: summarise the conversation when it fills the root model's window; the whole stays in `history`.
        compaction_threshold_pct: the share of the window at which that happens.
        max_concurrent_queries: plain sub-calls in flight, over the whole tree.
        max_concurrent_subcalls: children of one RLM that run at a time.
        prompts: ``"large"``, ``"small"`` or a `PromptProfile`; chosen by the backend when None.
        sampling_args: fields of the root model's requests, e.g. ``{"temperature": 0}``.
        sub_sampling_args: the same for sub-calls, which then go to a second client of the root backend.
        on_iteration_start, on_iteration_complete, on_subcall_start, on_subcall_complete: see `Callbacks`.

    Raises:
        ConfigError: an argument is missing, unknown or wrong.
        NotImplementedError: an argument that a later issue brings; the message names both.
    """

    def __init__(
        self,
        backend: str | LM = "openai",
        backend_kwargs: Mapping[str, Any] | None = None,
        environment: str = "local",
        environment_kwargs: Mapping[str, Any] | None = None,
        depth: int = 0,
        max_depth: int = 1,
        max_iterations: int = 30,
        custom_system_prompt: str | None = None,
        other_backends: Sequence[str | LM] | None = None,
        other_backend_kwargs: Sequence[Mapping[str, Any] | None] | None = None,
        logger: Any = None,
        verbose: bool = False,
        max_budget: float | None = None,
        max_timeout: float | None = None,
        max_tokens: int | None = None,
        max_errors: int | None = None,
        persistent: bool = False,
        custom_tools: Mapping[str, Any] | None = None,
        custom_sub_tools: Mapping[str, Any] | None = None,
        compaction: bool = False,
        compaction_threshold_pct: float = 0.85,
        *,
        max_concurrent_queries: int = 16,
        max_concurrent_subcalls: int = 4,
        prompts: str | PromptProfile | None = None,
        sampling_args: Mapping[str, Any] | None = None,
        sub_sampling_args: Mapping[str, Any] | None = None,
        on_iteration_start: Callable[[int, int], object] | None = None,
        on_iteration_complete: Callable[[int, int, float], object] | None = None,
        on_subcall_start: Callable[[int, str, str], object] | None = None,
        on_subcall_complete: Callable[[int, str, float, str | None], object] | None = None,
    ) -> None:
        if logger is not None:
            raise NotImplementedError(f"logger= is not built yet: it comes with the issue “{TRAJECTORY}”.")
        check_limits(max_budget, max_timeout, max_tokens, max_errors)
        self.verbose = verbose
        self._callbacks = Callbacks(
            depth, on_iteration_start, on_iteration_complete, on_subcall_start, on_subcall_complete
        )
        tools = tools_of(custom_tools)
        models, own_models = models_of(
            [backend, *(other_backends or ())],
            [backend_kwargs, *(other_backend_kwargs or ())],
            sampling_args,
            sub_sampling_args,
        )
        self._plan = Plan(
            models=models,
            environment=find_environment(environment, environment_kwargs),
            profile=profile_of(prompts, backend),
            system_prompt=custom_system_prompt,
            max_iterations=max_iterations,
            depth=depth,
            max_depth=max_depth,
            max_concurrent_queries=max_concurrent_queries,
            max_concurrent_subcalls=max_concurrent_subcalls,
            limits=Limits(max_budget, max_timeout, max_tokens, max_errors),
            tools=tools,
            persistent=persistent,
            compaction=compaction_threshold_pct if compaction else None,
            seed=secrets.randbelow(2**32),
            sub_tools=tools if custom_sub_tools is None else tools_of(custom_sub_tools, "custom_sub_tools"),
        )
        check_numbers(self._plan, compaction_threshold_pct)
        # Models that were handed over belong to the caller. Ours give up their connections with us, closed or not.
        self._repl = Repl(self._plan) if persistent else None
        self._ours = (*own_models, *([self._repl] if self._repl else ()))
        if self._ours:
            weakref.finalize(self, _close_in_passing, self._ours).atexit = False

    def __repr__(self) -> str:
        return f"RLM(model={self._plan.models.root.model!r}, environment={self._plan.environment.name!r})"

    def completion(self, prompt: Prompt, root_prompt: str | None = None) -> RLMChatCompletion:
        """Answer a question over an input of any length.

        Args:
            prompt: the input, str, dict or list; it becomes the variable `context`.
            root_prompt: the question; only the root model reads it. None: the prompt holds it.

        Raises:
            ConfigError: the prompt is not str, dict or list, or cannot be sent to the kernel.
            LMError, KernelError: the model or the kernel failed.
            LimitError: a limit was reached: `BudgetExceededError`, `TimeoutExceededError`, …
            CancellationError: Ctrl-C; its `partial_answer` is the draft in `answer`, if there was one.
        """
        check_prompt(prompt)
        run = self._run()
        job = Job(run.completion(prompt, root_prompt))
        try:
            return job.wait()
        except KeyboardInterrupt:
            raise CancellationError(
                "The completion was stopped by Ctrl-C; its kernel is closed.",
                partial_answer=run.engine.partial_answer,
            ) from None

    async def acompletion(self, prompt: Prompt, root_prompt: str | None = None) -> RLMChatCompletion:
        """`completion` for asynchronous callers. Cancelling it stops the run and closes its kernel first."""
        check_prompt(prompt)
        return await Job(self._run().completion(prompt, root_prompt)).wait_async()

    async def stream(self, prompt: Prompt, root_prompt: str | None = None) -> AsyncIterator[Event]:
        """The events of a completion as they happen; the last is `RunFinished`, with the completion in it.

        Leaving the loop early stops the run. Raises what `acompletion` raises, after a last `RunFailed`.
        """
        check_prompt(prompt)
        here, arrived = asyncio.get_running_loop(), asyncio.Queue[Event]()

        def hand_over(event: Event) -> None:
            here.call_soon_threadsafe(arrived.put_nowait, event)

        job = Job(self._run(hand_over).completion(prompt, root_prompt))
        try:
            while True:
                event = await arrived.get()
                yield event
                if isinstance(event, RunFinished | RunFailed):
                    break
            await job.wait_async()
        finally:
            job.cancel()
            await job.ended_async()

    def _run(self, reader: OnEvent | None = None) -> _Run:
        readers: list[OnEvent] = [self._callbacks] if self._callbacks.any else []
        if reader is not None:
            readers.append(reader)
        live = self.verbose or reader is not None
        return _Run(self._plan, self._repl, readers, verbose=self.verbose, live=live)

    def close(self) -> None:
        """Give up the connections of the models it made itself, and a persistent kernel. It can still be used."""
        Job(_close(self._ours)).wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await Job(_close(self._ours)).wait_async()


class _Run:
    """One completion and those who watch it."""

    def __init__(self, plan: Plan, repl: Repl | None, readers: list[OnEvent], *, verbose: bool, live: bool) -> None:
        self._verbose = verbose
        self._readers = readers
        self.engine = Engine(plan, self._tell, live=live, repl=repl)

    async def completion(self, prompt: Prompt, question: str | None) -> RLMChatCompletion:
        if not self._verbose:
            return await self.engine.run(prompt, question)
        from rlm_kernel.trajectory.console import ConsoleView

        with ConsoleView() as view:
            self._readers.append(view)
            return await self.engine.run(prompt, question)

    def _tell(self, event: Event) -> None:
        for reader in list(self._readers):
            try:
                reader(event)
            except Exception as error:  # noqa: BLE001 (a reader that fails must not end the run)
                self._readers.remove(reader)
                warnings.warn(f"{reader!r} failed and is not told any more: {error!r}", RuntimeWarning, stacklevel=2)


async def _close(ours: Sequence[LM | Repl]) -> None:
    for part in ours:
        await part.close()


def _close_in_passing(ours: Sequence[LM | Repl]) -> None:
    """Close without waiting: called when an RLM is forgotten, wherever that is."""
    Job(_close(ours))
