"""One conversation of a client: an `AgentRLM`, its record, and the turn that is under way."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import acp
from acp import schema

from rlm_kernel.acp.commands import write_notebook
from rlm_kernel.acp.failures import failure, wrong
from rlm_kernel.acp.files import Files
from rlm_kernel.acp.permissions import ASK, MODES, Permissions
from rlm_kernel.acp.prompts import Block, Message, read_prompt
from rlm_kernel.acp.settings import Settings
from rlm_kernel.acp.storage import MAX_TITLE, Facts, Stored
from rlm_kernel.acp.updates import Updates, said
from rlm_kernel.agent.agent import AgentRLM
from rlm_kernel.errors import LimitError, NoAnswerError, RLMError, TokenLimitExceededError, TurnLimitExceededError
from rlm_kernel.text import one_line, plain
from rlm_kernel.trajectory import events
from rlm_kernel.trajectory.log.logger import RLMLogger
from rlm_kernel.trajectory.log.reader import events_of_log
from rlm_kernel.types import UsageSummary

MODEL = "model"
"""The id of the option for the model."""
GOES_ON = "(This message has no answer yet. Send it again, and it goes on where it was.)"


class Session:
    """A conversation of a client.

    Args:
        stored: its folder.
        files: what it may read.
        client: the other end.
        settings: of `rlm acp`.
        tools: further tools of the REPL, such as the servers that the client names.

    Attributes:
        id: as the client knows it.
        used_at: the loop's time of the latest prompt.
    """

    def __init__(
        self, stored: Stored, files: Files, client: acp.Client, settings: Settings, tools: dict[str, Any]
    ) -> None:
        self.id = stored.id
        self.stored = stored
        self.facts = stored.facts()
        self.permissions = Permissions(client, stored.id)
        self.used_at = asyncio.get_running_loop().time()
        self._files = files
        self._client = client
        self._settings = settings
        self._tools = tools
        self._agent: AgentRLM | None = None
        self._messages = 0
        self._turn: asyncio.Task[acp.PromptResponse] | None = None
        self._tokens_in_context = 0

    # -- the agent

    @property
    def is_live(self) -> bool:
        """Whether it has an agent, and so perhaps a kernel."""
        return self._agent is not None

    @property
    def is_busy(self) -> bool:
        """Whether a prompt is being answered."""
        return self._turn is not None

    async def open(self) -> AgentRLM:
        """The agent: a new one, or the one of the record.

        Raises:
            RLMError: it cannot be made; a key is missing, for example.
        """
        if self._agent is None:
            self._agent = await asyncio.to_thread(self._make)
        return self._agent

    async def rest(self) -> None:
        """End the kernel. The next prompt makes another one, from the record."""
        agent, self._agent = self._agent, None
        if agent is not None:
            await asyncio.to_thread(agent.close)

    async def close(self) -> None:
        """Stop what is under way, and end the kernel. Idempotent."""
        await self.cancel()
        await self.rest()
        self._files.close()

    def _make(self) -> AgentRLM:
        arguments = self._settings.arguments(self.facts.model)
        given = {
            **arguments,
            "logger": RLMLogger(self.stored.folder),
            "on_cell": self.permissions.on_cell if self._settings.asks else None,
            "approve": self.permissions.approve if self._settings.asks else True,
            "custom_tools": {**self._files.tools(), **self._tools},
        }
        log = self.stored.log
        return AgentRLM(**given) if log is None else AgentRLM.resume(log, **given)

    # -- what a client chooses

    def choices(self) -> dict[str, Any]:
        """Modes and options, as `session/new` and `session/load` answer them."""
        return {"modes": self._modes(), "config_options": self.options()}

    def _modes(self) -> schema.SessionModeState | None:
        if not self._settings.asks:
            return None
        return schema.SessionModeState(current_mode_id=self.permissions.mode, available_modes=list(MODES))

    def options(self) -> list[schema.SessionConfigOptionSelect | schema.SessionConfigOptionBoolean]:
        """The options: the model."""
        models = self._settings.models
        if not models:
            return []
        shown = [schema.SessionConfigSelectOption(value=name, name=name) for name in models]
        current = self.facts.model if self.facts.model in models else models[0]
        return [
            schema.SessionConfigOptionSelect(
                id=MODEL, name="Model", category="model", type="select", current_value=current, options=shown
            )
        ]

    def choose_model(self, name: str) -> None:
        """Take another model from the next prompt on.

        Raises:
            RequestError: it is not among those of `rlm acp`.
        """
        if name not in self._settings.models:
            raise wrong(
                f"There is no model {name!r}: {', '.join(self._settings.models)}. rlm acp --also-model adds one."
            )
        if self._agent is not None and name != self._agent.model:
            try:
                self._agent.use_model(name)
            except RLMError as error:
                raise failure(error) from error
        self._keep(replace(self.facts, model=name))

    def choose_mode(self, name: str) -> None:
        """Ask about each cell, or not.

        Raises:
            RequestError: there is no such mode.
        """
        if not self._settings.asks or name not in [mode.id for mode in MODES]:
            raise wrong(f"There is no mode {name!r}: {', '.join(mode.id for mode in MODES)}.")
        self.permissions.mode = ASK if name == ASK else MODES[0].id

    def _keep(self, facts: Facts) -> None:
        self.facts = facts
        self.stored.keep(facts)

    # -- turns

    async def answer(self, blocks: Sequence[Block]) -> acp.PromptResponse:
        """Answer a prompt. A prompt that comes while another one is being stopped waits for that.

        Raises:
            RequestError: the prompt is wrong, another one is being answered, or the run failed.
        """
        before = self._turn
        if before is not None and not before.cancelling():
            raise wrong("This session is answering another prompt: session/cancel stops that.")
        self.used_at = asyncio.get_running_loop().time()
        turn = self._turn = asyncio.create_task(self._take_turn(blocks, before))
        try:
            await asyncio.wait({turn})
        except asyncio.CancelledError:  # the connection ends
            turn.cancel()
            await asyncio.wait({turn})
            raise
        finally:
            if self._turn is turn:
                self._turn = None
        return acp.PromptResponse(stop_reason="cancelled") if turn.cancelled() else turn.result()

    async def cancel(self) -> None:
        """Stop the prompt that is being answered, and wait until it has stopped."""
        if (turn := self._turn) is not None:
            turn.cancel()
            await asyncio.wait({turn})

    async def _take_turn(
        self, blocks: Sequence[Block], before: asyncio.Task[acp.PromptResponse] | None
    ) -> acp.PromptResponse:
        if before is not None:
            await asyncio.wait({before})
        message = await read_prompt(blocks, self._files)
        if message.text.partition(" ")[0] == "/notebook":
            return await self._write_notebook(message)
        try:
            agent = await self.open()
            if not self.facts.title:
                self._keep(replace(self.facts, title=one_line(plain(message.text), MAX_TITLE)))
                await self._send(schema.SessionInfoUpdate(session_update="session_info_update", title=self.facts.title))
            await self._run(agent, message)
        except LimitError as error:
            return await self._limited(error)
        except (RLMError, OSError) as error:
            raise failure(error) from error
        await self._tell_usage(agent)
        return acp.PromptResponse(stop_reason="end_turn", usage=_usage(agent.usage))

    async def _run(self, agent: AgentRLM, message: Message) -> None:
        self._messages += 1
        context = message.context or None
        translated = Updates(self._messages, agent.words_of_next(context), self.permissions.asked)
        self.permissions.asked.clear()
        try:
            async with aclosing(agent.events(message.text, context)) as happened:
                async for event in happened:
                    if isinstance(event, events.ModelReplied):
                        usage = event.reply.usage
                        self._tokens_in_context = usage.input_tokens + usage.output_tokens
                    for update in translated.take(event):
                        await self._send(update)
        finally:
            with contextlib.suppress(ConnectionError):
                for update in translated.end():
                    await self._send(update)

    async def _limited(self, error: LimitError) -> acp.PromptResponse:
        """A limit is a reason to stop: the client shows what there is."""
        reason = "max_turn_requests"
        if isinstance(error, TokenLimitExceededError):
            reason = "max_tokens"
        elif not isinstance(error, NoAnswerError | TurnLimitExceededError):
            raise failure(error) from error
        await self._send(said(f"\n({error})"))
        return acp.PromptResponse(stop_reason=reason)  # type: ignore[arg-type]  # checked when the model is made

    async def _tell_usage(self, agent: AgentRLM) -> None:
        """The filled part of the root model's window, and the cost of the conversation."""
        window, cost = agent.config.models.root.context_window, agent.usage.total.cost
        if window:
            paid = None if cost is None else schema.Cost(amount=cost, currency="USD")
            await self._send(
                schema.UsageUpdate(session_update="usage_update", used=self._tokens_in_context, size=window, cost=paid)
            )

    async def _write_notebook(self, message: Message) -> acp.PromptResponse:
        try:
            written = await asyncio.to_thread(write_notebook, self.stored, self._files, message)
        except (RLMError, OSError, ValueError) as error:
            raise failure(error) from error
        name = self._files.name(self._files.place(str(written)))
        await self._send(said(f"The notebook of this conversation: {name}"))
        return acp.PromptResponse(stop_reason="end_turn")

    # -- the past

    async def tell_past(self) -> None:
        """Send the conversation on record as updates.

        Raises:
            RLMError: the record cannot be read.
        """
        if (log := self.stored.log) is None:
            return
        translated, is_open = Updates(), False
        for event in await asyncio.to_thread(events_of_log, log):
            for update in translated.take(event):
                await self._send(update)
            is_open = isinstance(event, events.MessageStarted) or (
                is_open and not isinstance(event, events.MessageFinished)
            )
            self._messages += isinstance(event, events.MessageStarted)
        for update in translated.end():
            await self._send(update)
        if is_open:
            await self._send(said(GOES_ON))

    async def _send(self, update: Any) -> None:
        await self._client.session_update(self.id, update)


def _usage(usage: UsageSummary) -> schema.Usage:
    """The tokens of all messages, as the protocol counts them."""
    total = usage.total
    return schema.Usage(
        total_tokens=total.input_tokens + total.output_tokens,
        input_tokens=total.input_tokens,
        output_tokens=total.output_tokens,
        cached_read_tokens=total.cached_tokens,
    )
