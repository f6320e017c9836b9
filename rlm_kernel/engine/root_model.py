"""The root model of a run: its conversation, its next reply, and keeping both inside its window."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from rlm_kernel.engine.billing import ModelCalls
from rlm_kernel.engine.config import RunConfig
from rlm_kernel.engine.conversation import OLD_MESSAGE_CHARACTERS, SHORT_MESSAGE_CHARACTERS, Conversation, is_due
from rlm_kernel.engine.recorded import RecordedRun
from rlm_kernel.errors import ContextOverflowError
from rlm_kernel.parsing import without_thinking
from rlm_kernel.schema.answer_schema import Schema
from rlm_kernel.schema.retry import Repairs
from rlm_kernel.trajectory import events
from rlm_kernel.trajectory.emitter import Emitter
from rlm_kernel.types import Message, Reply, Usage

Remember = Callable[[Sequence[Message]], Awaitable[None]]
"""Keeps the whole conversation in the REPL, before a summary takes its place."""


@dataclass(slots=True)
class RootModel:
    """The root model of one run and its conversation.

    Attributes:
        config: the configuration of the RLM.
        calls: asks the model and counts the calls.
        emit: emits the events of the run.
        recorded: the replies of an earlier run, which are used instead of new ones.
        remember: see `Remember`.
        live: whether its replies are streamed.
        conversation: what it reads next, and everything it has read.
        ending: the end of every message after the last turn.
        asked_at: the time of the last call, in seconds since the run started.
        given_up: calls that ended without a reply: the model, and the usage that was counted for it.
    """

    config: RunConfig
    calls: ModelCalls
    emit: Emitter
    recorded: RecordedRun
    remember: Remember
    live: bool
    conversation: Conversation = field(default_factory=lambda: Conversation([]))
    ending: str = ""
    asked_at: float | None = None
    given_up: tuple[tuple[str, Usage], ...] = ()

    def begin(self, opening: Sequence[Message]) -> None:
        """What it reads before its first turn."""
        self.conversation = Conversation(opening)

    async def ask(self, iteration: int, added: Sequence[Message] = (), schema: Schema | None = None) -> Reply:
        """The next reply. When the provider finds the conversation too long, it is summarised once and asked again.

        Args:
            iteration: of the run.
            added: messages after those of the conversation.
            schema: what the reply has to fit, or None.

        Raises:
            LMError: the provider failed.
            LimitError: the limits admit no further call.
        """

        def on_text(text: str) -> None:
            self.emit(events.ModelText(iteration=iteration, text=text))

        may_shrink = self.config.compaction is not None
        while True:
            messages, started = [*self.conversation.messages, *added], time.perf_counter()
            told = messages if self.asked_at is None else _after_last_reply(messages)
            self.asked_at = self.emit.seconds
            self.emit(events.IterationStarted(iteration=iteration, told=tuple(told)))
            try:
                if self.recorded.summary_is_next:
                    raise self.recorded.overflow()
                reply = await self.calls.ask(
                    self.config.models.root,
                    messages,
                    schema,
                    max_tokens=self.config.profile.reply_tokens,
                    recorded=self._next_on_record(),
                    on_text=on_text if self.live else None,
                    on_failure=self._give_up,
                )
            except ContextOverflowError:
                if not (may_shrink and self.conversation.can_shrink):
                    raise
            else:
                seconds = time.perf_counter() - started
                self.emit(events.ModelReplied(iteration=iteration, reply=reply, seconds=seconds))
                return reply
            may_shrink = False
            await self._compact(iteration, SHORT_MESSAGE_CHARACTERS, told=())

    async def ask_by_schema(self, iteration: int, schema: Schema) -> str:
        """The answer as JSON that fits; each repair counts as an iteration.

        Raises:
            AnswerSchemaError: no reply did.
        """
        repairs = Repairs(schema)
        while True:
            reply = await self.ask(iteration, repairs.added, schema)
            if (text := await repairs.read(reply)) is not None:
                self.conversation.add(reply, "")
                return text
            iteration += 1

    async def end_turn(self, reply: Reply, message: str, iteration: int) -> None:
        """End a turn: keep the reply and the message after it, and summarise when they fill the window."""
        self.conversation.add(reply, message + self.ending)
        if self._is_to_be_summarised(reply):
            told = _after_last_reply(self.conversation.messages)
            await self._compact(iteration, OLD_MESSAGE_CHARACTERS, told)

    def _is_to_be_summarised(self, reply: Reply) -> bool:
        """Whether the conversation fills the window; an earlier run knew its window, and is followed."""
        if self.recorded.replies:
            return self.recorded.summary_is_next
        share, window = self.config.compaction, self.config.models.root.context_window
        return share is not None and is_due(reply, window, share)

    async def _compact(self, iteration: int, limit: int, told: Sequence[Message]) -> None:
        talk = self.conversation
        self.emit(events.Notice(message="The conversation fills the model's window: the model summarises it."))
        reply = await self.calls.ask(
            self.config.models.root,
            talk.to_summarise(self.config.profile.summarise(), limit),
            max_tokens=self.config.profile.reply_tokens,
            recorded=self._next_on_record(),
            on_failure=self._give_up,
        )
        self.emit(events.Compacted(iteration=iteration, reply=reply, told=tuple(told)))
        await self.remember(talk.whole)
        summary = (await asyncio.to_thread(without_thinking, reply.text)).strip()
        talk.shrink(summary or "(empty)", self.config.profile.compacted() + self.ending)

    def _next_on_record(self) -> Reply | None:
        return self.recorded.replies.popleft().reply if self.recorded.replies else None

    def _give_up(self, usage: Usage | None) -> None:
        if usage is not None:
            self.given_up = (*self.given_up, (self.config.models.root.model, usage))


def _after_last_reply(messages: Sequence[Message]) -> Sequence[Message]:
    """What the model has not read yet."""
    last = max((i for i, message in enumerate(messages) if message["role"] == "assistant"), default=-1)
    return messages[last + 1 :]
