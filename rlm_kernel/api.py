"""The public API, `RLM`: from the documented arguments to the parts of the engine."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self, Unpack, cast

from rlm_kernel._async import Job
from rlm_kernel.engine.agent_tools import AGENT, names_only, place_of
from rlm_kernel.engine.argument_checks import (
    check_config,
    check_logger,
    check_logger_of_many,
    check_prompt,
    keys_of,
    models_of,
    opened,
    profile_of,
    schema_of,
)
from rlm_kernel.engine.budget import Limits
from rlm_kernel.engine.completion import Run
from rlm_kernel.engine.config import RunConfig
from rlm_kernel.engine.config_card import settings_card
from rlm_kernel.engine.gates import Gates, OnCell, OnTool
from rlm_kernel.engine.readable_arguments import ReadableArguments
from rlm_kernel.engine.record_access import Trust, Use, admitted
from rlm_kernel.engine.recorded import PriorRun, RecordedRun
from rlm_kernel.engine.recorded_config import record_arguments
from rlm_kernel.engine.repl import Repl
from rlm_kernel.engine.resumption import Resumption, prepare_resumption, prior_runs
from rlm_kernel.engine.streaming import stream_events
from rlm_kernel.engine.tools import servers_of, tools_of
from rlm_kernel.errors import ConfigError
from rlm_kernel.html.markup import Markup
from rlm_kernel.mcp.approval import Approvals, Approve
from rlm_kernel.prompts.profile import PromptProfile
from rlm_kernel.provisioners.kernelspecs import environment as find_environment
from rlm_kernel.trajectory.callbacks import Callbacks
from rlm_kernel.trajectory.events import Event, OnEvent
from rlm_kernel.trajectory.log.reader import read_log
from rlm_kernel.types import Input, Prompt, RLMChatCompletion, Shaped

if TYPE_CHECKING:
    from pathlib import Path, PurePath

    from rlm_kernel.batch.batch import Batch, BatchOptions
    from rlm_kernel.batch.results import TaskResult
    from rlm_kernel.batch.runs import Start
    from rlm_kernel.clients.base import LM, BaseLM
    from rlm_kernel.engine.shared_limits import Admission
    from rlm_kernel.mcp.server import ToolServer
    from rlm_kernel.trajectory.log.iteration_reader import TurnLogger
    from rlm_kernel.trajectory.log.logger import RLMLogger, RunLog


class RLM(ReadableArguments):
    """A Recursive Language Model: `completion(prompt)` in place of `llm.completion(prompt)`.

    Its arguments are its attributes; dicts among them are read-only views. Only `logger` and `verbose` may be assigned
    later.

    Args:
        backend: the root model's provider, or an `LM` of your own.
        backend_kwargs: arguments of the provider, e.g. ``{"model_name": "gpt-5-mini"}``.
        environment: where the model's code runs: ``"local"``, ``"docker"``, ``"modal"``, ``"prime"``, ``"daytona"``,
            ``"e2b"``, ``"jupyter"``, ``"ssh"``, an installed kernelspec, or ``"agent"``: the REPL of an agent, in the
            place that `environment_kwargs` names, local without one.
        environment_kwargs: `setup_code`, `env`, `cell_timeout` (seconds), `memory` (``"2g"``), and the options of the
            environment, such as `image`, `packages` and `mounts` of Docker.
        depth: of this RLM in a tree of them.
        max_depth: at `depth >= max_depth` a completion is one plain call; below it `rlm_query` starts children.
        max_iterations: turns before the model is asked for its final answer.
        custom_system_prompt: replaces the default one. A text written for `str.format`, with doubled braces and
            `{custom_tools_section}`, is formatted; any other is unchanged.
        other_backends: providers (or `LM`s) for sub-calls; the first is their default. Children of `rlm_query` run on
            the model of their parent, or on the one that the call names.
        other_backend_kwargs: their arguments, in the same order.
        logger: an `RLMLogger`, which keeps each completion as a log and a notebook; or any object with
            `log(iteration)`, which is called with each turn. What it raises ends the run.
        verbose: show the run live on stderr.
        max_budget: US dollars a completion may cost, where the cost is known.
        max_timeout: seconds a completion may take.
        max_tokens: input and output tokens a completion may use.
        max_errors: cells in a row that may raise.
        custom_tools: functions (called on the host), code and values for the REPL, by name; or
            ``{"tool": ..., "description": ...}``; or an `MCPServer`, whose tools are functions of that name:
            ``fs.read_file(...)``.
        custom_sub_tools: those of children; None: the same, ``{}``: none.
        persistent: keep one kernel over completions, with their inputs as `context_0`, `context_1`, …
        compaction: summarise the conversation when it fills the root model's window; all of it stays in `history`.
        compaction_threshold_pct: the filled share of the window, 0 to 1, at which that happens.
        max_concurrent_queries: plain sub-calls in flight, over the whole tree.
        max_concurrent_subcalls: children of one RLM that run at a time.
        max_kernels: live kernels in the tree of one completion, including its pool; further children wait. None: as
            many as fit into the free memory, at 200 MB each, and 32 at most. Concurrent completions have a limit each.
        max_calls: prompts of sub-calls in a completion, over the whole tree. Further ones raise in the cell, and the
            run continues.
        prompts: ``"large"``, ``"small"`` or a `PromptProfile`; None: chosen by the backend and the size of the model.
        sampling_args: fields of the root model's requests, e.g. ``{"temperature": 0}``.
        sub_sampling_args: the same for sub-calls: for the first of the `other_backends`, else for a second client of
            the root backend.
        on_iteration_start: called with depth and iteration, before each turn.
        on_iteration_complete: called with depth, iteration and seconds, after each turn.
        on_subcall_start: called with depth, model and the first 80 characters of the prompt, for each child that an
            `rlm_query` starts; the depth is the child's.
        on_subcall_complete: called with depth, model, seconds and the error or None, for each child.
        orchestrator: whether the system prompt says how to divide the work between code and sub-calls. None: the
            default one does, and a `custom_system_prompt` is not changed.
        user_prologue: a text for the root model at the end of its first message, such as advice about the task.
        on_cell: decides about each cell of a model before it runs: ``True``, ``Replace(code)`` or ``Refuse(reason)``.
        on_tool: the same for each call of a tool and each sub-call.
        approve: decides about each call of a tool of an MCP server: a function of a `ToolCall`; ``True``: all happen;
            ``False``: only those that are read-only. None: the others are asked about on the terminal, once for each
            tool, and refused if there is no terminal.

    Raises:
        ConfigError: an argument is missing, unknown or wrong.
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
        logger: RLMLogger | TurnLogger | None = None,
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
        max_kernels: int | None = None,
        max_calls: int | None = None,
        prompts: str | PromptProfile | None = None,
        sampling_args: Mapping[str, Any] | None = None,
        sub_sampling_args: Mapping[str, Any] | None = None,
        on_iteration_start: Callable[[int, int], object] | None = None,
        on_iteration_complete: Callable[[int, int, float], object] | None = None,
        on_subcall_start: Callable[[int, str, str], object] | None = None,
        on_subcall_complete: Callable[[int, str, float, str | None], object] | None = None,
        orchestrator: bool | None = None,
        user_prologue: str | None = None,
        on_cell: OnCell | None = None,
        on_tool: OnTool | None = None,
        approve: Approve | bool | None = None,
    ) -> None:
        given = locals()
        tools = (*tools_of(custom_tools), *(names_only() if environment == AGENT else ()))
        environment, environment_kwargs = place_of(environment, environment_kwargs)
        self._configuration = record_arguments(
            {**given, "environment": environment, "environment_kwargs": environment_kwargs}
        )
        self.verbose = verbose
        self._callbacks = Callbacks(
            depth, on_iteration_start, on_iteration_complete, on_subcall_start, on_subcall_complete
        )
        models, own_models = models_of(
            [backend, *(other_backends or ())],
            [backend_kwargs, *(other_backend_kwargs or ())],
            sampling_args,
            sub_sampling_args,
        )
        self._config = RunConfig(
            models=models,
            environment=find_environment(environment, environment_kwargs),
            profile=profile_of(prompts, backend),
            system_prompt=custom_system_prompt,
            orchestrator=orchestrator,
            prologue=user_prologue,
            max_iterations=max_iterations,
            depth=depth,
            max_depth=max_depth,
            max_concurrent_queries=max_concurrent_queries,
            max_concurrent_subcalls=max_concurrent_subcalls,
            max_kernels=max_kernels,
            limits=Limits(max_budget, max_timeout, max_tokens, max_errors, max_calls),
            tools=tools,
            persistent=persistent,
            compaction=compaction_threshold_pct if compaction else None,
            gates=Gates(on_cell, on_tool, Approvals(approve)),
            sub_tools=tools if custom_sub_tools is None else tools_of(custom_sub_tools, "custom_sub_tools"),
        )
        check_config(self._config, given)
        self._own(own_models)
        self.logger = logger
        self._keep_arguments(given, assignable=("logger", "verbose"))

    def _own(self, models: Sequence[BaseLM]) -> None:
        """Close with this object what it made: models, servers, a persistent kernel. `LM` objects belong to the caller."""
        self._before: str | None = None
        self._prior: tuple[PriorRun, ...] = ()
        self._repl: Repl | None = Repl(self._config) if self._config.persistent else None
        self._ours = (*models, *servers_of((*self._config.tools, *self._config.sub_tools)), *([self._repl] if self._repl else ()))
        if self._ours:
            weakref.finalize(self, _close_in_passing, self._ours).atexit = False

    @property
    def logger(self) -> RLMLogger | TurnLogger | None:
        """The logger of the next completions. It may be assigned."""
        return self._logger

    @logger.setter
    def logger(self, logger: RLMLogger | TurnLogger | None) -> None:
        check_logger(logger)
        self._logger = logger
        if (log_metadata := getattr(logger, "log_metadata", None)) is not None:
            from rlm_kernel.trajectory.log.iteration_reader import metadata_of
            from rlm_kernel.trajectory.log.redaction import without_secrets

            log_metadata(metadata_of(without_secrets(self._configuration), self._config.models.root.model))

    def __repr__(self) -> str:
        return f"RLM(model={self._config.models.root.model!r}, environment={self._config.environment.name!r})"

    def _repr_html_(self) -> Markup:
        return settings_card(self._config, self._logger)

    @property
    def system_prompt(self) -> str:
        """The `custom_system_prompt`, or the default of the model's prompts."""
        return self._config.system_prompt or self._config.profile.system

    @property
    def config(self) -> RunConfig:
        """The configuration."""
        return self._config

    def completion(
        self, prompt: Input | PurePath | Shaped, root_prompt: str | None = None, *, response_schema: Any = None
    ) -> RLMChatCompletion:
        """Answer a question over an input of any length.

        Args:
            prompt: the input, str, bytes, dict or list, or a table or an array of pandas, polars, pyarrow or numpy,
                alone or in a dict or list; it becomes the variable `context`. A `Path` is a file or a folder, read as
                by `rlm.inputs.load`; a local kernel reads a large text itself.
            root_prompt: the question; only the root model reads it. None: the prompt contains it.
            response_schema: a JSON Schema or a pydantic class; the answer is validated, and `parsed` is the object.

        Raises:
            ConfigError: the prompt is something else, holds something that no kernel can read, or cannot be read; or
                the schema is wrong.
            LMError, KernelError: the model or the kernel failed.
            LimitError: a limit was reached: `BudgetExceededError`, `AnswerSchemaError` (no answer fits the schema), …
            CancellationError: Ctrl-C; its `partial_answer` is the best answer so far.
        """
        return self._run(opened(prompt, self._config), root_prompt, schema=response_schema).wait()

    async def acompletion(
        self, prompt: Input | PurePath | Shaped, root_prompt: str | None = None, *, response_schema: Any = None
    ) -> RLMChatCompletion:
        """`completion` for asynchronous callers. Cancelling it stops the run and closes its kernel first."""
        given = await asyncio.to_thread(opened, prompt, self._config)
        return await self._run(given, root_prompt, schema=response_schema).wait_async()

    async def stream(
        self, prompt: Input | PurePath | Shaped, root_prompt: str | None = None, *, response_schema: Any = None
    ) -> AsyncGenerator[Event]:
        """The events of a completion as they happen; the last is `RunFinished`, with the completion in it.

        A reader that is slower than a cell misses pieces of its output (`CellOutput`); `CellFinished` has the outputs.
        Leaving the loop early stops the run. Raises what `acompletion` raises, after a last `RunFailed`.
        """
        given = await asyncio.to_thread(opened, prompt, self._config)
        stream = stream_events(lambda reader: self._run(given, root_prompt, reader, schema=response_schema))
        async with contextlib.aclosing(stream) as events:
            async for event in events:
                yield event

    def map(
        self, tasks: Iterable[Any] | str | PurePath, root_prompt: str | None = None, **options: Unpack[BatchOptions]
    ) -> Iterator[TaskResult]:
        """Complete many tasks, and iterate over their results as they come.

            for result in rlm.map(documents, "What is it about?", out="answers.jsonl"):
                print(result.id, result.answer)

        A task that fails has a result with an `error`. Leaving the loop stops what is in progress.

        Args:
            tasks: inputs; dicts with `id`, `question`, and `context` or `path`; a file of such rows (`.jsonl`, `.csv`,
                `.tsv`, `.parquet`); or a folder of inputs.
            root_prompt: the question about all inputs that have none of their own.
            options: see `BatchOptions`.

        Raises:
            ConfigError: a task or an option is wrong. No model was asked.
            LimitError: a limit of the whole batch was reached; raised by the iterator after the last result.
        """
        from rlm_kernel.batch.batch import iterate

        return iterate(self._batch(tasks, root_prompt, options).results())

    def amap(
        self, tasks: Iterable[Any] | str | PurePath, root_prompt: str | None = None, **options: Unpack[BatchOptions]
    ) -> AsyncGenerator[TaskResult]:
        """`map` for asynchronous callers."""
        return self._batch(tasks, root_prompt, options).results()

    def _batch(self, tasks: Any, question: str | None, options: BatchOptions) -> Batch:
        from rlm_kernel.batch.batch import Asking, batch_of

        if self._config.persistent:
            raise ConfigError("A persistent RLM has one kernel, which serves one run at a time: leave out persistent.")
        if (log_dir := getattr(self._keeper(), "log_dir", None)) is not None:
            options = {**options, "log_dir": options.get("log_dir") or log_dir}
        arguments = {name: dict(v) if isinstance(v, MappingProxyType) else v for name, v in self._arguments.items()}
        make = partial(self._start_elsewhere, arguments)
        batch = batch_of(
            tasks, question, options, Asking(self._start_task, make, self._configuration, keys_of(self._config))
        )
        check_logger_of_many(self._logger, batch.max_concurrent)
        return batch

    def _start_task(
        self,
        shared: Admission,
        prompt: Prompt,
        question: str | None,
        logger: RLMLogger | None,
        recorded: RecordedRun | None,
    ) -> Awaitable[RLMChatCompletion]:
        """Start one completion of a batch."""
        check_prompt(prompt, question)
        return Run(
            replace(self._config, shared=shared),
            self._callers(),
            prompt=prompt,
            question=question,
            log=None if logger is None else logger.start(self._configuration, keys_of(self._config)),
            trajectory=self._own_trajectory(),
            recorded=recorded,
        ).wait_async()

    @classmethod
    def _start_elsewhere(cls, arguments: Mapping[str, Any]) -> Start:
        """Make an `RLM` in a worker of a batch, and return what starts a completion of it."""
        rlm = cls(**arguments)
        return rlm._start_task

    @classmethod
    def resume(
        cls,
        path: str | Path,
        at: int | None = None,
        *,
        prompt: Prompt | PurePath | None = None,
        root_prompt: str | None = None,
        trust: Trust = False,
        **overrides: Any,
    ) -> RLMChatCompletion:
        """Resume a recorded run that was killed or has finished. No recorded question is asked again.

        The cells run again in a new kernel, with the recorded answers of models and tools, to rebuild its state.

        Args:
            path: the log, or its notebook in the same folder.
            at: the last iteration that counts; None: all of it.
            prompt: the input, if it is not in the log.
            root_prompt: a new question from this point on.
            trust: whether the record of another user may access this machine (a folder, the network), or a function
                that asks. What is not allowed is left out, with a warning. Your own records need no trust.
            overrides: arguments of `RLM`; keys, tools and logger must be given again, the others are recorded.

        Raises:
            RecordingError: the record cannot be resumed, or something is missing; the message says what.
            RLMError: as `completion`.
        """
        recorded = prepare_resumption(cls, path, at, prompt, root_prompt, overrides, trust)
        with cls(**recorded.arguments) as rlm:
            return rlm._run(recorded.prompt, recorded.question, recorded=recorded).wait()

    @classmethod
    async def aresume(
        cls,
        path: str | Path,
        at: int | None = None,
        *,
        prompt: Prompt | PurePath | None = None,
        root_prompt: str | None = None,
        trust: Trust = False,
        **overrides: Any,
    ) -> RLMChatCompletion:
        """`resume` for asynchronous callers."""
        recorded = await asyncio.to_thread(prepare_resumption, cls, path, at, prompt, root_prompt, overrides, trust)
        async with cls(**recorded.arguments) as rlm:
            return await rlm._run(recorded.prompt, recorded.question, recorded=recorded).wait_async()

    def _run(
        self,
        prompt: Input,
        question: str | None,
        reader: OnEvent | None = None,
        *,
        recorded: Resumption | None = None,
        schema: Any = None,
    ) -> Run:
        check_prompt(prompt, question)
        return Run(
            self._config,
            [*self._callers(), *([] if reader is None else [reader])],
            prompt=prompt,
            question=question,
            schema=schema_of(recorded.schema if recorded else schema),  # before the log: a wrong one leaves no file
            repl=self._repl,
            log=self._log(recorded, question or (prompt if isinstance(prompt, str) else "")),
            trajectory=self._own_trajectory(),
            recorded=recorded.recorded if recorded else RecordedRun(before=self._prior),
            verbose=self.verbose,
            live=self.verbose or reader is not None,
        )

    def _callers(self) -> list[OnEvent]:
        """The readers that call functions of the user: the callbacks, and a `log` of the user's own."""
        from rlm_kernel.trajectory.log.iteration_reader import IterationReader, wants_iterations
        from rlm_kernel.trajectory.log.logger import RLMLogger
        from rlm_kernel.trajectory.log.redaction import redactor_of

        callers: list[OnEvent] = [replace(self._callbacks)] if self._callbacks.any else []
        if wants_iterations(self._logger, RLMLogger):
            callers.append(IterationReader(self._logger, redactor_of(self._configuration, keys_of(self._config))))
        return callers

    def _own_trajectory(self) -> Callable[[], Any] | None:
        """The `get_trajectory` of a user's logger, or None."""
        from rlm_kernel.trajectory.log.logger import RLMLogger

        get = getattr(self._logger, "get_trajectory", None)
        is_ours = getattr(get, "__func__", None) is RLMLogger.get_trajectory
        return get if callable(get) and not is_ours else None

    def _keeper(self) -> RLMLogger | None:
        """The logger that keeps the runs; for a logger of turns, one that only remembers."""
        from rlm_kernel.trajectory.log.logger import RLMLogger

        if self._logger is None:
            return None
        keeper: Any = self._logger if hasattr(self._logger, "start") else RLMLogger()
        return cast("RLMLogger", keeper)

    def _log(self, recorded: Resumption | None, question: str) -> RunLog | None:
        if (logger := self._keeper()) is None:
            return None
        forked, before = (recorded.forked_from, recorded.continues) if recorded else (None, self._before)
        log = logger.start(self._configuration, keys_of(self._config), forked, before, question=question)
        if self._repl is not None:
            self._before = log.run_id
        return log

    def continue_from(
        self, path: str | Path, prompt: Input | PurePath | Shaped | None = None, *, trust: Trust = False
    ) -> None:
        """Go on, in the next completion, in the kernel of a recorded run: it is rebuilt from the record, at no cost.

        Args:
            path: the log, or its notebook in the same folder.
            prompt: the input of that run, if it is not in the log.
            trust: as of `resume`.

        Raises:
            ConfigError: the kernel of this `RLM` is not kept, or it has served a completion.
            RecordingError: the record cannot be used, or is not whole; the message says why.
        """
        if self._repl is None or self._before is not None or self._repl.contexts:
            raise ConfigError("To go on in the kernel of a recorded run, take a new RLM(persistent=True).")
        recording = admitted(read_log(path), Use(self._config.environment.name), trust)
        given = None if prompt is None else opened(prompt, self._config)
        self._prior, self._before = prior_runs(recording, given), recording.stem

    def close(self) -> None:
        """Close the connections of the models it built itself, MCP servers, and a persistent kernel.

        It can still be used: the next completion opens them again.
        """
        Job(_close(self._ours)).wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        closing = Job(_close(self._ours))
        if kind is not KeyboardInterrupt:  # Ctrl-C ends the wait for the connections, too
            closing.wait()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await Job(_close(self._ours)).wait_async()


async def _close(ours: Sequence[BaseLM | ToolServer | Repl]) -> None:
    for part in ours:
        await part.close()


def _close_in_passing(ours: Sequence[BaseLM | ToolServer | Repl]) -> None:
    """Close without waiting: called when an RLM is garbage-collected, in any thread."""
    Job(_close(ours))
