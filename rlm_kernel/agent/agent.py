"""`AgentRLM`: a conversation whose memory is a live kernel."""

from __future__ import annotations

import asyncio
import inspect
import weakref
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import aclosing
from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Self

from rlm_kernel._async import Job
from rlm_kernel.agent.context import AgentContext, AgentMessage
from rlm_kernel.agent.enforcement import check_environment
from rlm_kernel.agent.note import note
from rlm_kernel.agent.outbox import Outbox
from rlm_kernel.agent.past import Interrupted, Past, RecordedConversation, read_conversation
from rlm_kernel.agent.record import ConversationRecord
from rlm_kernel.agent.words import Words
from rlm_kernel.api import RLM
from rlm_kernel.engine.agent_tools import AGENT, OWN_NAMES, TAKE_MESSAGE, agent_tools, place_of
from rlm_kernel.engine.argument_checks import check_number, keys_of, schema_of
from rlm_kernel.engine.budget import Limits
from rlm_kernel.engine.completion import Run
from rlm_kernel.engine.config import ChatMessage
from rlm_kernel.engine.record_access import Trust
from rlm_kernel.engine.repl import Repl
from rlm_kernel.engine.streaming import stream_events
from rlm_kernel.engine.tools import Tool
from rlm_kernel.errors import (
    BudgetExceededError,
    ConfigError,
    LimitError,
    RLMEnforcementError,
    RLMError,
    TimeoutExceededError,
    TokenLimitExceededError,
    TurnLimitExceededError,
)
from rlm_kernel.inputs import open_text
from rlm_kernel.text import suggestion
from rlm_kernel.trajectory.events import Event, OnEvent
from rlm_kernel.types import Input, RLMChatCompletion, Shaped, UsageSummary

if TYPE_CHECKING:
    from pathlib import Path

    from rlm_kernel.clients.base import LM
    from rlm_kernel.trajectory.log.logger import RLMLogger, RunLog

_NOT_TAKEN = {
    "persistent": "its kernel always stays", "depth": "it leads its tree", "max_budget": "write max_cost",
}  # fmt: skip
MIN_ROOM = 1_000
"""Characters of earlier messages in the opening."""


class AgentRLM(RLM):
    """A conversation with a Recursive Language Model: one kernel, one log and one notebook for all messages.

    Each message is a run of the engine. Variables, the context and earlier messages are in the kernel when the next one
    comes. Messages that are sent at once are answered one after the other.

    Args:
        backend: as of `RLM`.
        backend_kwargs: as of `RLM`.
        environment: ``"agent"``.
        environment_kwargs: `place`, the environment of the kernel (``"local"`` without one), and the options of that.
        max_depth: as of `RLM`; an agent always has a kernel, so 0 is taken as 1.
        max_iterations: turns of a message.
        logger: keeps the conversation as one log and one notebook.
        verbose: show the runs live on stderr.
        agent_context: the memory, with data and messages of before; None: a new one.
        enable_tools: whether tools may be registered.
        enable_streaming: whether `chat` gives the words as they are written; if not, in one piece.
        max_tokens: input and output tokens of a message.
        max_cost: US dollars of a message; the `max_budget` of `RLM`.
        max_total_tokens: input and output tokens of the conversation.
        max_total_cost: US dollars of the conversation.
        max_total_seconds: of all its runs together.
        max_messages: of the user.
        compaction: as of `RLM`, for the turns of one message.
        rlm: further arguments of `RLM`.

    Raises:
        RLMEnforcementError: another environment.
        ConfigError: an argument is missing, unknown or wrong.
    """

    agent_context: AgentContext
    enable_tools: bool
    enable_streaming: bool

    def __init__(
        self,
        backend: str | LM = "openai",
        backend_kwargs: Mapping[str, Any] | None = None,
        environment: str = AGENT,
        environment_kwargs: Mapping[str, Any] | None = None,
        max_depth: int = 1,
        max_iterations: int = 30,
        logger: RLMLogger | None = None,
        verbose: bool = False,
        agent_context: AgentContext | None = None,
        enable_tools: bool = True,
        enable_streaming: bool = True,
        max_tokens: int | None = None,
        max_cost: float | None = None,
        *,
        max_total_tokens: int | None = None,
        max_total_cost: float | None = None,
        max_total_seconds: float | None = None,
        max_messages: int | None = None,
        compaction: bool = True,
        **rlm: Any,
    ) -> None:
        check_environment(environment, type(self).__name__)
        _check_names(type(self), rlm)
        place, options = place_of(environment, environment_kwargs)
        super().__init__(
            backend,
            backend_kwargs,
            place,
            options,
            max_depth=max_depth or 1,
            max_iterations=max_iterations,
            logger=logger,
            verbose=verbose,
            max_tokens=max_tokens,
            compaction=compaction,
            max_budget=max_cost,
            **rlm,
        )
        self._total = _checked_totals(max_total_cost, max_total_seconds, max_total_tokens)
        check_number("max_messages", max_messages, none="no limit")
        if not isinstance(agent_context, AgentContext | None):
            raise ConfigError(f"agent_context is an AgentContext, not {type(agent_context).__name__}.")
        self.agent_context = agent_context or AgentContext()
        self.enable_tools = enable_tools
        self.enable_streaming = enable_streaming
        self._max_messages = max_messages
        self._outbox = Outbox(self.agent_context, messages=self.agent_context.conversation_history)
        own_tools = agent_tools(self._outbox.news, self._outbox.keep)
        self._config = replace(
            self._config, persistent=True, conversation=True, tools=(*self._config.tools, *own_tools)
        )
        self._repl: Repl = Repl(self._config)
        self._record = ConversationRecord(self._start_log())
        self._ours = (*self._ours, self._repl, self._record)
        self._turn = asyncio.Lock()
        self._first_context: dict[str, Any] | None = None
        self._past: Past | None = None
        self._interrupted: Interrupted | None = None
        self._is_closed = False
        weakref.finalize(self, _close_in_passing, self._repl, self._record).atexit = True

    def __repr__(self) -> str:
        return f"AgentRLM(model={self._config.models.root.model!r}, messages={self._record.messages})"

    # -- the memory

    def register_tool(self, name: str, function: Callable[..., Any]) -> None:
        """Give the agent a function, sync or async. The model calls it by its name; it runs here, on the host.

        Raises:
            ConfigError: the name cannot be used, it is no function, or `enable_tools` is false.
        """
        if not self.enable_tools:
            raise ConfigError("This agent takes no tools: make it with enable_tools=True.")
        self.agent_context.register_tool(name, function)

    def add_context(self, key: str, value: Any) -> None:
        """Give the agent data: `context[key]` in its kernel from the next message on.

        Raises:
            ConfigError: the value is not plain data.
        """
        self.agent_context.add_context(key, value)

    def get_conversation_history(self) -> list[AgentMessage]:
        """The newest messages of both sides, oldest first, each with role, content, timestamp and metadata."""
        return self.agent_context.conversation_history

    def save_context(self, path: str | Path) -> None:
        """Write messages, context and metadata to a JSON file, without code.

        Raises:
            OSError: it cannot be written.
        """
        self.agent_context.save(path)

    def load_context(self, path: str | Path) -> None:
        """Replace messages and context by those of a JSON file, which may be anyone's: nothing in it runs.

        Raises:
            RecordingError: it is not the memory of an agent.
            OSError: it cannot be read.
        """
        self.agent_context.load(path)
        self._outbox.messages = self.agent_context.conversation_history
        self._outbox.reset = True

    @property
    def interrupted_message(self) -> str | None:
        """Of a resumed agent: the message without an answer. Send it again, and its run goes on from its record."""
        return None if self._interrupted is None else self._interrupted.text

    @classmethod
    def resume(  # type: ignore[override]  # a run has one answer, a conversation goes on
        cls,
        path: str | Path,
        *,
        tools: Mapping[str, Callable[..., Any]] | None = None,
        trust: Trust = False,
        **overrides: Any,
    ) -> Self:
        """The agent of a record, which continues the conversation. Nothing that was answered is asked again.

        Its kernel is rebuilt at the next message, from the recorded cells and answers.

        Args:
            path: the log, or its notebook in the same folder.
            tools: its functions, which a record does not hold.
            trust: as of `RLM.resume`.
            overrides: arguments of the agent; keys and the logger must be given again, the others are recorded.

        Raises:
            RecordingError: it is not the log of an agent, or something is missing; the message says what.
        """
        found = read_conversation(cls, path, overrides, trust)
        agent = cls(**{"agent_context": found.memory, **found.arguments})
        agent._take_over(found)
        for name, function in (tools or {}).items():
            agent.register_tool(name, function)
        return agent

    def use_model(self, name: str) -> None:
        """Ask another model of the same provider, from the next message on. The record says which one answered.

        Raises:
            ConfigError: the provider has no other models, or cannot take the name.
        """
        models = self._config.models
        other = models.for_child(name, has_repl=True)
        if other is None:
            raise ConfigError(
                f"{name!r} is not a model that {models.root.backend!r} can be asked for; known: "
                f"{', '.join(models.names)}. AgentRLM.resume(log, backend=…) continues with another provider."
            )
        self._config = replace(self._config, models=replace(models, root=other))

    @property
    def model(self) -> str:
        """The root model that answers the next message."""
        return self._config.models.root.model

    @property
    def usage(self) -> UsageSummary:
        """Tokens and cost of the conversation so far, those of its record included."""
        return self._past.usage if self._past and not self._record.messages else self._record.usage

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The tools that the user gave it."""
        given = (tool for tool in self._config.tools if tool.name not in OWN_NAMES)
        return (*given, *self.agent_context.tools.values())

    @property
    def total_limits(self) -> Limits:
        """The limits of the conversation; those of each message are `config.limits`."""
        return self._total

    def words_of_next(self, context: Any = None) -> Words:
        """What reads the `events` of the next message, and gives the words of its answer as `chat` does.

        Args:
            context: data that comes with the message.
        """
        return Words(must_look=self._must_look(context))

    def _take_over(self, found: RecordedConversation) -> None:
        self._first_context, self._past, self._interrupted = found.first_context, found.past, found.interrupted
        self._repl.variables = found.variables
        if found.model not in ("", self.model):
            self.use_model(found.model)
        self._outbox.messages = found.unsaid
        self._outbox.took_context()
        self._record = ConversationRecord(self._start_log(found.forked_from))
        self._ours = (*self._ours, self._record)
        weakref.finalize(self, self._record.close_now)

    # -- messages

    async def chat(
        self,
        message: str,
        context: str | list[Any] | Mapping[str, Any] | None = None,
        tools: Mapping[str, Callable[..., Any]] | None = None,
        stream: bool = True,
    ) -> AsyncGenerator[str]:
        """The answer to a message, in the words of the model as it writes them.

        Args:
            message: of the user.
            context: data that comes with it: a dict by key; anything else gets the key ``"input"``.
            tools: further functions of the agent, from now on.
            stream: whether the answer comes in pieces; if not, as one.

        Raises:
            RLMError: as `RLM.completion`; `partial_answer` is what was sent.
        """
        words, pieces = self.words_of_next(context), stream and self.enable_streaming
        try:
            async with aclosing(self.events(message, context, tools)) as events:
                async for event in events:
                    words_now = words.take(event)
                    if words_now and pieces:
                        yield words_now
        except RLMError as error:
            error.partial_answer = words.sent or error.partial_answer
            raise
        if not pieces:
            yield self._record.answer

    def events(
        self,
        message: str,
        context: str | list[Any] | Mapping[str, Any] | None = None,
        tools: Mapping[str, Callable[..., Any]] | None = None,
    ) -> AsyncGenerator[Event]:
        """The events of the run that answers a message, as `RLM.stream`; the arguments are those of `chat`."""
        return stream_events(lambda reader: Job(self._answer(message, context, tools, reader=reader)))

    def completion(
        self, prompt: Input | PurePath | Shaped, root_prompt: str | None = None, *, response_schema: Any = None
    ) -> RLMChatCompletion:
        """Send a message, and wait for the answer.

        Args:
            prompt: the message; with a `root_prompt`, data that comes with it.
            root_prompt: the message.
            response_schema: as of `RLM.completion`.

        Raises:
            RLMError: as `RLM.completion`.
        """
        return Job(self._answer(*_message_and_context(prompt, root_prompt), schema=response_schema)).wait()

    async def acompletion(
        self, prompt: Input | PurePath | Shaped, root_prompt: str | None = None, *, response_schema: Any = None
    ) -> RLMChatCompletion:
        """`completion` for asynchronous callers."""
        job = Job(self._answer(*_message_and_context(prompt, root_prompt), schema=response_schema))
        return await job.wait_async()

    def stream(
        self, prompt: Input | PurePath | Shaped, root_prompt: str | None = None, *, response_schema: Any = None
    ) -> AsyncGenerator[Event]:
        """The events of the run that answers a message; the arguments are those of `completion`."""
        message, context = _message_and_context(prompt, root_prompt)
        return stream_events(lambda reader: Job(self._answer(message, context, reader=reader, schema=response_schema)))

    async def _answer(
        self,
        message: str,
        context: Any = None,
        tools: Mapping[str, Callable[..., Any]] | None = None,
        *,
        reader: OnEvent | None = None,
        schema: Any = None,
    ) -> RLMChatCompletion:
        """Answer a message when the one before it has its answer. Runs in the engine's loop."""
        if not isinstance(message, str) or not message.strip():
            raise ConfigError('The message is empty, or not a str: agent.chat("What is it about?").')
        async with self._turn:
            for name, function in (tools or {}).items():
                self.register_tool(name, function)
            past = self._take_past(message)
            must_look = self._must_look(context)
            for key, value in _by_key(context).items():
                self.add_context(key, value)
            self._outbox.check()
            run = self._begin(message, reader, past, schema, must_look=must_look)
            try:
                completion = await run.wait_async()
            finally:
                self._record.usage = self._record.usage.plus(run.engine.usage.summary())
            self._outbox.messages.append(self.agent_context.add_message("assistant", completion.response))
            return completion

    def _begin(self, message: str, reader: OnEvent | None, past: Past | None, schema: Any, *, must_look: bool) -> Run:
        if self._is_closed:
            raise RLMError("The agent is closed: AgentRLM.resume(its log) continues the conversation.")
        limits, memory, opening = self._limits_left(), self.agent_context, self._note(message)
        if self._first_context is None:
            self._first_context = dict(memory.context_data)
            self._outbox.took_context()
        if past is None or not past.recorded.cells:  # else it is among the messages of the record
            self._outbox.messages.append(memory.add_message("user", message))
        self._record.begin(message, self.model)
        mine = tuple(memory.tools.values())
        config = replace(
            self._config,
            limits=limits,
            tools=(*self._config.tools, *mine),
            sub_tools=(*self._config.sub_tools, *mine),
        )
        readers = (self._record, self._outbox.on_event, *self._callers(), reader)
        return Run(
            config,
            [r for r in readers if r],
            prompt=dict(memory.context_data),
            question=message,
            repl=self._repl,
            schema=schema_of(schema),
            recorded=None if past is None else past.recorded,
            verbose=self.verbose,
            live=self.verbose or reader is not None,
            message=ChatMessage(opening, TAKE_MESSAGE, self._first_context, has_new_context=must_look),
        )

    def _note(self, message: str) -> str:
        """What the model reads about the conversation."""
        memory, profile = self.agent_context, self._config.profile
        return note(
            message,
            memory.get_recent_history(),
            count=memory.dropped + len(memory.conversation_history),
            context=memory.context_data,
            variables=self._repl.variables,
            room=max(MIN_ROOM, profile.preview_characters),
            style=profile.style,
        )

    def _must_look(self, context: Any) -> bool:
        """Whether the model has to run a cell first: a message brings data, or a small model would guess."""
        is_first, is_small = self._first_context is None, self._config.profile.style != "full"
        return bool(context) or ((is_first or is_small) and bool(self.agent_context.context_data))

    def _take_past(self, message: str) -> Past | None:
        """What the next run starts from, as long as no kernel of this agent has lived through it."""
        if self._past is None or self._repl.contexts:
            return None
        if not self._record.messages:
            if self._interrupted is not None and self._interrupted.text == message:
                self._past = self._interrupted.past
            self._record.repeat(self._past.events)
            self._record.usage = self._past.usage
        self._interrupted = None
        return self._past

    def _limits_left(self) -> Limits:
        """The limits of a message, within what is left of those of the conversation.

        Raises:
            LimitError: nothing is left.
        """
        mine, total, record = self._config.limits, self._total, self._record
        used = record.usage.total
        cost, tokens = used.cost or 0.0, used.input_tokens + used.output_tokens
        error: LimitError | None = None
        if total.max_budget is not None and cost >= total.max_budget:
            error = BudgetExceededError(spent=cost, budget=total.max_budget, estimated=used.estimated_cost)
        elif total.max_tokens is not None and tokens >= total.max_tokens:
            error = TokenLimitExceededError(tokens_used=tokens, token_limit=total.max_tokens)
        elif total.max_timeout is not None and record.seconds >= total.max_timeout:
            error = TimeoutExceededError(elapsed=record.seconds, timeout=total.max_timeout)
        elif self._max_messages is not None and record.messages >= self._max_messages:
            error = TurnLimitExceededError(max_messages=self._max_messages)
        if error is not None:
            error.usage = record.usage
            raise error
        return Limits(
            _least(mine.max_budget, total.max_budget, cost),
            _least(mine.max_timeout, total.max_timeout, record.seconds),
            _least(mine.max_tokens, total.max_tokens, tokens),
            mine.max_errors,
            mine.max_calls,
        )

    def _start_log(self, forked_from: Mapping[str, Any] | None = None) -> Callable[[], RunLog] | None:
        logger, configuration, keys = self._keeper(), self._configuration, keys_of(self._config)
        about = {"agent_id": self.agent_context.agent_id}
        return None if logger is None else lambda: logger.start(configuration, keys, forked_from, agent=about)

    # -- the end

    def close(self) -> None:
        """End the kernel, and complete the log and the notebook. Idempotent."""
        self._is_closed = True
        super().close()

    async def __aexit__(self, *error: object) -> None:
        self._is_closed = True
        await super().__aexit__(*error)


def create_enforced_agent(backend: Any = "openai", backend_kwargs: Any = None, **kwargs: Any) -> AgentRLM:
    """An `AgentRLM` of which each answer comes out of a run of the engine, never from a bare call of a model.

    Args:
        backend: as of `AgentRLM`.
        backend_kwargs: as of `AgentRLM`.
        kwargs: further arguments of `AgentRLM`.

    Raises:
        RLMEnforcementError: the arguments would make something else.
        ConfigError: an argument is wrong.
    """
    check_environment(kwargs.get("environment", AGENT), "create_enforced_agent")
    for name in ("enable_tools", "enable_streaming"):
        if not kwargs.get(name, True):
            raise RLMEnforcementError(f"An enforced agent has {name}=True: leave it out, or make an AgentRLM.")
    return AgentRLM(backend, backend_kwargs, **kwargs)


def _check_names(kind: type, given: Collection[str]) -> None:
    """Check the names of the further arguments of an agent: they are those of an `RLM`."""
    if taken := sorted(_NOT_TAKEN.keys() & set(given)):
        raise ConfigError(" ".join(f"An agent takes no {name}: {_NOT_TAKEN[name]}." for name in taken))
    known = [*inspect.signature(AgentRLM).parameters, *inspect.signature(RLM).parameters]
    for name in given:
        if name not in known:
            allowed = ", ".join(sorted({*known} - {"rlm", *_NOT_TAKEN}))
            raise ConfigError(f"{kind.__name__} has no argument {name!r}{suggestion(name, known)} Allowed: {allowed}.")


def _checked_totals(cost: float | None, seconds: float | None, tokens: int | None) -> Limits:
    """The limits of a conversation."""
    check_number("max_total_cost", cost, None, none="no limit")
    check_number("max_total_seconds", seconds, None, none="no limit")
    check_number("max_total_tokens", tokens, none="no limit")
    return Limits(cost, seconds, tokens)


def _message_and_context(prompt: Input | PurePath | Shaped, root_prompt: str | None) -> tuple[str, Any]:
    if isinstance(prompt, PurePath):
        prompt = open_text(prompt, "prompt", in_kernel=False)
    if root_prompt is not None:
        return root_prompt, prompt
    if not isinstance(prompt, str):
        raise ConfigError("A message is a str; data goes with it as completion(data, message).")
    return prompt, None


def _by_key(context: Any) -> dict[str, Any]:
    if context is None:
        return {}
    return dict(context) if isinstance(context, Mapping) else {"input": context}


def _least(mine: Any, total: Any, used: Any) -> Any:
    left = None if total is None else total - used
    return left if mine is None else mine if left is None else min(mine, left)


def _close_in_passing(repl: Repl, record: ConversationRecord) -> None:
    """Close without waiting for the kernel: the agent was garbage-collected, or the process ends."""
    Job(repl.close())
    record.close_now()
