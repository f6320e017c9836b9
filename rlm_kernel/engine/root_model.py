"""The root model of a run: its conversation, its next reply, and keeping both inside its window.

A summary replaces the older turns of a long conversation. The whole conversation stays in the variable `history`, so
the model can still read all of it.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from rlm_kernel._async import process
from rlm_kernel.clients.base import BaseLM
from rlm_kernel.engine.billing import ModelCalls
from rlm_kernel.engine.config import RunConfig
from rlm_kernel.engine.recorded import RecordedRun
from rlm_kernel.errors import ContextOverflowError
from rlm_kernel.parsing import without_thinking
from rlm_kernel.schema.answer_schema import Repairs, Schema
from rlm_kernel.text import clip, not_blank
from rlm_kernel.trajectory import events
from rlm_kernel.trajectory.emitter import Emitter
from rlm_kernel.types import Message, Reply, Usage

OLD_MESSAGE_CHARACTERS = 2_000
"""What a message of an earlier turn keeps in the request for a summary."""

SHORT_MESSAGE_CHARACTERS = 300
"""The same, after the provider has refused the conversation as too long."""

_EMPTY = not_blank("")

Remember = Callable[[Sequence[Message]], Awaitable[None]]
"""Keeps the whole conversation in the REPL, before a summary takes its place."""


class Conversation:
    """What the root model reads next, and everything it has read.

    Args:
        opening: the messages before its first turn; they always stay.
    """

    def __init__(self, opening: Sequence[Message]) -> None:
        self._opening = list(opening)
        self._turns: list[Message] = []
        self._whole: list[Message] = []
        self._before: list[Message] = []
        self._replies: list[str] = []
        self._newest = 0  # where the latest turn begins

    def begin_again(self, reply: Reply, opening: Sequence[Message]) -> None:
        """Replace all that it reads next, after a reply that it does not read again."""
        self._before = [*self.whole, {"role": "assistant", "content": not_blank(reply.text)}]
        self._opening, self._turns, self._whole, self._newest = list(opening), [], [], 0

    @property
    def messages(self) -> list[Message]:
        """What it reads next."""
        return [*self._opening, *self._turns]

    @property
    def whole(self) -> list[Message]:
        """Everything since the first opening, what was summarised included."""
        return [*self._before, *self._opening, *self._whole]

    @property
    def replies(self) -> list[str]:
        """The texts of the model's replies since the opening that are not empty, the latest first."""
        return [text for text in reversed(self._replies) if text != _EMPTY]

    @property
    def unread(self) -> list[Message]:
        """The messages after the latest reply."""
        return self._turns[self._newest + 1 :] if self._turns else list(self._opening)

    @property
    def can_shrink(self) -> bool:
        """Whether there are turns that a summary could replace."""
        return self._newest > 0

    def add(self, reply: Reply, messages: Sequence[Message] = ()) -> None:
        """A turn: the reply of the model and the messages after it. Providers refuse a blank message."""
        said = not_blank(reply.text)
        turn: list[Message] = [{"role": "assistant", "content": said}, *messages]
        self._newest = len(self._turns)
        self._turns += turn
        self._whole += turn
        self._replies.append(said)

    def to_summarise(self, request: str, limit: int) -> list[Message]:
        """The conversation, its earlier turns cut to `limit` characters a message, and the request for a summary."""
        old, newest = self._turns[: self._newest], self._turns[self._newest :]
        short: list[Message] = [{"role": m["role"], "content": clip(m["content"], limit)} for m in old]
        last = newest[-1]["content"] if newest else ""
        last_message: Message = {"role": "user", "content": f"{clip(last, limit)}\n\n{request}"}
        return [*self._opening, *short, *newest[:-1], last_message] if newest else [*self._opening, last_message]

    def shrink(self, summary: str, messages: Sequence[Message]) -> None:
        """Replace all turns by a summary and the messages after it."""
        self._turns, self._newest = [{"role": "assistant", "content": summary}, *messages], 0


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
        ending: gives the messages after the last turn, with the request for an answer; before it, as they are.
        temperature: of the next replies, if the client was given a lower one; None: as the client was made.
        asked_at: the time of the last call, in seconds since the run started.
        latest: the text of its last reply that is not empty.
        given_up: calls that ended without a reply: the model, and the usage that was counted for it.
    """

    config: RunConfig
    calls: ModelCalls
    emit: Emitter
    recorded: RecordedRun
    remember: Remember
    live: bool
    conversation: Conversation = field(default_factory=lambda: Conversation([]))
    ending: Callable[[Sequence[Message]], Sequence[Message]] = list
    temperature: float | None = None
    asked_at: float | None = None
    latest: str = ""
    given_up: tuple[tuple[str, Usage], ...] = ()

    def begin(self, opening: Sequence[Message]) -> None:
        """What it reads before its first turn."""
        self.conversation = Conversation(opening)

    def begin_again(self, reply: Reply, opening: Sequence[Message]) -> None:
        """What it reads before its next turn, instead of all before it."""
        self.conversation.begin_again(reply, opening)
        self.asked_at = None

    async def ask(
        self,
        iteration: int,
        added: Sequence[Message] = (),
        schema: Schema | None = None,
        once: Sequence[Message] = (),
    ) -> Reply:
        """The next reply. When the provider finds the conversation too long, it is summarised once and asked again.

        Args:
            iteration: of the run.
            added: messages after those of the conversation.
            schema: what the reply has to fit, or None.
            once: messages at the end of the conversation that are not kept in it.

        Raises:
            LMError: the provider failed.
            LimitError: the limits admit no further call.
        """

        def on_text(text: str) -> None:
            self.emit(events.ModelText(iteration=iteration, text=text))

        may_shrink = self.config.compaction is not None
        while True:
            messages, started = [*self.conversation.messages, *once, *added], time.perf_counter()
            unread = self._unread(once, added)
            self.asked_at = self.emit.seconds
            self.emit(events.IterationStarted(iteration=iteration, messages=tuple(unread)))
            try:
                if self.recorded.summary_is_next:
                    raise self.recorded.overflow()
                reply = await self.calls.ask(
                    self._lm(),
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
                self.latest = reply.text if reply.text.strip() else self.latest
                self.emit(events.ModelReplied(iteration=iteration, reply=reply, seconds=seconds))
                return reply
            may_shrink = False
            await self._compact(iteration, SHORT_MESSAGE_CHARACTERS, ())

    def _lm(self) -> BaseLM:
        """The client, with the higher temperature if it takes one."""
        lm = self.config.models.root
        warmer = None if self.temperature is None else lm.warmer(self.temperature)
        if warmer is None:
            return lm
        self.emit(events.Notice(message=f"The model is asked with a temperature of {self.temperature}."))
        return warmer

    async def ask_by_schema(self, iteration: int, schema: Schema) -> str:
        """The answer as JSON that fits; each repair counts as an iteration.

        Raises:
            AnswerSchemaError: no reply did.
        """
        repairs = Repairs(schema)
        while True:
            reply = await self.ask(iteration, repairs.added, schema)
            if (text := await repairs.read(reply)) is not None:
                self.conversation.add(reply)
                return text
            iteration += 1

    def _unread(self, once: Sequence[Message], added: Sequence[Message]) -> list[Mapping[str, Any]]:
        """What the model has not read yet; those that are not kept are marked."""
        if any(message["role"] == "assistant" for message in added):
            return list(_after_last_reply(added))
        kept = self.conversation.messages if self.asked_at is None else self.conversation.unread
        return [*kept, *({**message, "kept": False} for message in once), *added]

    async def end_turn(
        self, reply: Reply, messages: Sequence[Message], iteration: int, before_next: Sequence[Message] = ()
    ) -> None:
        """End a turn: keep the reply and the messages after it, and summarise when they fill the window.

        Args:
            reply: of the model.
            messages: after it.
            iteration: the turn.
            before_next: messages before the next turn, which a summary does not replace.
        """
        self.conversation.add(reply, [*self.ending(messages), *before_next])
        if self._is_to_be_summarised(reply):
            await self._compact(iteration, OLD_MESSAGE_CHARACTERS, self.conversation.unread, before_next)

    def _is_to_be_summarised(self, reply: Reply) -> bool:
        """Whether the conversation fills the window; an earlier run knew its window, and is followed."""
        if self.recorded.replies:
            return self.recorded.summary_is_next
        share, window = self.config.compaction, self.config.models.root.context_window
        return share is not None and is_due(reply, window, share)

    async def _compact(
        self, iteration: int, limit: int, unread: Sequence[Message], before_next: Sequence[Message] = ()
    ) -> None:
        talk = self.conversation
        self.emit(events.Notice(message="The conversation fills the model's window: the model summarises it."))
        reply = await self.calls.ask(
            self.config.models.root,
            talk.to_summarise(self.config.profile.summarise(), limit),
            max_tokens=self.config.profile.reply_tokens,
            recorded=self._next_on_record(),
            on_failure=self._give_up,
        )
        self.emit(events.Compacted(iteration=iteration, reply=reply, messages=tuple(unread)))
        await self.remember(talk.whole)
        summary = (await process(len(reply.text), partial(without_thinking, reply.text))).strip()
        go_on: Message = {"role": "user", "content": self.config.profile.compacted()}
        talk.shrink(not_blank(summary), [*self.ending([go_on]), *before_next])

    def _next_on_record(self) -> Reply | None:
        return self.recorded.replies.popleft().reply if self.recorded.replies else None

    def _give_up(self, usage: Usage | None) -> None:
        if usage is not None:
            self.given_up = (*self.given_up, (self.config.models.root.model, usage))


def _after_last_reply(messages: Sequence[Message]) -> Sequence[Message]:
    """What the model has not read yet."""
    last = max((i for i, message in enumerate(messages) if message["role"] == "assistant"), default=-1)
    return messages[last + 1 :]


def is_due(reply: Reply, window: int | None, share: float) -> bool:
    """Whether the conversation with this reply fills that share of the window. False while the window is unknown.

    An estimate of tokens is an upper bound, several times too high: it says nothing of the window.
    """
    usage = reply.usage
    return window is not None and usage.input_tokens + usage.output_tokens - usage.estimated_tokens >= share * window
