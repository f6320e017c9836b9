"""The loop of one completion: ask the root model, run its cells, give back what they showed, until it answers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import replace

from rlm_kernel.clients.lm import OnText
from rlm_kernel.compaction import OLD_MESSAGE_CHARACTERS, SHORT_MESSAGE_CHARACTERS, Conversation, is_due
from rlm_kernel.errors import ContextOverflowError, LimitError
from rlm_kernel.limits import Ledger
from rlm_kernel.parsing import parse, without_thinking
from rlm_kernel.plan import Models, Plan
from rlm_kernel.prompts import describe
from rlm_kernel.records import Message, Prompt, Reply, RLMChatCompletion
from rlm_kernel.repl import Repl
from rlm_kernel.subcalls import Prompt as SubPrompt
from rlm_kernel.subcalls import SubCalls
from rlm_kernel.together import together
from rlm_kernel.tools import prompt_section
from rlm_kernel.trajectory import events
from rlm_kernel.trajectory.events import Event, OnEvent
from rlm_kernel.trajectory.stream import EventStream
from rlm_kernel.turns import Turns
from rlm_kernel.usage import UsageMeter


class Engine:
    """One completion. Make it, `run` it once.

    Args:
        plan: what the RLM was set up with.
        on_event: reads the stream of events.
        live: whether somebody watches, so that the root model's words are streamed.
        parent: the run whose `rlm_query` this one answers; it shares its ledger.
        repl: a persistent one, which stays open; None: one of its own.

    Attributes:
        ledger: what the tree has spent, and what is left.
        usage: the calls of this run and of its children.
    """

    def __init__(
        self,
        plan: Plan,
        on_event: OnEvent,
        *,
        live: bool = False,
        parent: Engine | None = None,
        repl: Repl | None = None,
    ) -> None:
        own = Ledger(plan.limits, plan.max_concurrent_queries)
        self.ledger: Ledger = own if parent is None else parent.ledger
        self.usage: UsageMeter = UsageMeter(None if parent is None else parent.usage)
        self._plan = plan
        self._emit = EventStream(on_event)
        self._live = live
        self._conversation = Conversation([])
        self._asked = 0.0
        self._ending = ""
        self._subcalls = SubCalls(
            models=plan.models,
            ledger=self.ledger,
            usage=self.usage,
            emit=self._emit,
            reply_tokens=plan.profile.sub_reply_tokens,
            most_children=plan.max_concurrent_subcalls,
            start_child=self._start_child if plan.depth + 1 < plan.max_depth else None,
            on_limit=self._interrupt,
            tools={tool.name: tool for tool in plan.tools if tool.kind == "function"},
        )
        self._repl = repl or Repl(plan)
        self._turns = Turns(plan, self._repl, self.ledger, self._emit)

    @property
    def partial_answer(self) -> str | None:
        """The best answer so far: the last content of `answer`, ready or not."""
        return self._repl.draft

    async def run(self, prompt: Prompt, question: str | None) -> RLMChatCompletion:
        """Answer a question over a context.

        Args:
            prompt: becomes `context`.
            question: what the root model is asked; None when the prompt asks itself.

        Raises:
            RLMError: a persistent kernel is in use by another run.
            LMError: the root model failed.
            LimitError: a limit was reached; it carries what is known until then.
            KernelError: the kernel did not start, or could not be started again.
            ConfigError: the context or the `setup_code` cannot be used.
        """
        self._announce(prompt, question)
        try:
            answer = await self._answer_and_close(prompt, question)
        except BaseException as error:
            if isinstance(error, LimitError):
                error.partial_answer, error.usage = self.partial_answer, self.usage.summary()
            self._emit(events.RunFailed, error=error)
            raise
        completion = RLMChatCompletion(
            self._plan.models.root.model, prompt, answer, self.usage.summary(), self._emit.seconds
        )
        self._emit(events.RunFinished, completion=completion)
        return completion

    # -- the loop

    async def _answer_and_close(self, prompt: Prompt, question: str | None) -> str:
        """The answer. Nothing happens after it: the kernel is closed, or a persistent one idle."""
        idle = False
        self._repl.attach(self._subcalls, self._emit)
        try:
            answer = await self._answer(prompt, question)
            if self._plan.persistent and self._repl.contexts:
                await self._repl.remember(f"history_{self._repl.contexts - 1}", self._conversation.whole[:-1])
                idle = True
        finally:
            if not idle:
                await self._repl.close()
            self._repl.release()
        return answer

    async def _answer(self, prompt: Prompt, question: str | None) -> str:
        """The answer, before the deadline. The kernel is killed after it: no cell outlives the run."""
        plain = self._plan.depth >= self._plan.max_depth
        try:
            async with asyncio.timeout(self.ledger.seconds_left) as deadline:
                return await (self._ask_plainly(prompt, question) if plain else self._loop(prompt, question))
        except TimeoutError:
            if deadline.expired():
                raise self.ledger.timed_out() from None
            raise

    async def _loop(self, prompt: Prompt, question: str | None) -> str:
        plan, facts = self._plan, describe(prompt)
        talk = self._conversation = Conversation(self._opening(prompt, question))
        # The first reply does not depend on the kernel: both are waited for at once.
        _, reply = await together(self._repl.open(prompt), self._ask_root(talk.messages, 1))
        for iteration in range(1, plan.max_iterations + 1):
            if iteration > 1:
                reply = await self._ask_within_window(iteration)
            turn = await self._turns.take(reply, iteration, facts)
            self._emit(events.IterationFinished, iteration=iteration, seconds=self._emit.seconds - self._asked)
            if turn.answer is not None:
                talk.add(reply, "")
                return turn.answer
            self._tell_unpriced()
            if iteration == plan.max_iterations:
                self._ending = "\n\n" + plan.profile.last_chance(question or "")
            talk.add(reply, turn.message + self._ending)
            if plan.compaction is not None and is_due(reply, plan.models.root.context_window, plan.compaction):
                await self._compact(iteration, OLD_MESSAGE_CHARACTERS)
        return await self._last_word()

    def _opening(self, prompt: Prompt, question: str | None) -> list[Message]:
        plan = self._plan
        messages = plan.profile.opening(
            describe(prompt),
            question or "",
            prompt,
            system=plan.system_prompt,
            tools=prompt_section(plan.tools),
            sub_window=plan.models.default.context_window,
        )
        if self._repl.contexts:
            messages[-1]["content"] += "\n\n" + plan.profile.continued(self._repl.contexts, self._repl.variables)
        return messages

    # -- the window

    async def _ask_within_window(self, iteration: int) -> Reply:
        """Ask the root model. When the provider finds the conversation too long, summarise it once and ask again."""
        try:
            return await self._ask_root(self._conversation.messages, iteration)
        except ContextOverflowError:
            if self._plan.compaction is None or not self._conversation.can_shrink:
                raise
        await self._compact(iteration, SHORT_MESSAGE_CHARACTERS)
        return await self._ask_root(self._conversation.messages, iteration)

    async def _compact(self, iteration: int, limit: int) -> None:
        profile, talk = self._plan.profile, self._conversation
        self._emit(events.Notice, message="The conversation fills the model's window: the model summarises it.")
        reply = await self._complete(talk.to_summarise(profile.summarise(), limit))
        self._emit(events.Compacted, iteration=iteration, reply=reply)
        await self._repl.remember("history", talk.whole)
        talk.shrink(without_thinking(reply.text).strip() or "(empty)", profile.compacted() + self._ending)

    # -- the models

    async def _ask_root(self, messages: Sequence[Message], iteration: int) -> Reply:
        self._asked = self._emit.seconds
        self._emit(events.IterationStarted, iteration=iteration)
        started = time.perf_counter()

        def on_text(text: str) -> None:
            self._emit(events.ModelText, iteration=iteration, text=text)

        reply = await self._complete(messages, on_text if self._live else None)
        seconds = time.perf_counter() - started
        self._emit(events.ModelReplied, iteration=iteration, reply=reply, seconds=seconds)
        return reply

    async def _complete(self, messages: Sequence[Message], on_text: OnText | None = None) -> Reply:
        """One call of the root model, on the ledger."""
        lm = self._plan.models.root
        async with self.ledger.call(lm.model, self.usage) as receipt:
            reply = await lm.complete(messages, max_tokens=self._plan.profile.reply_tokens, on_text=on_text)
            receipt.usage = reply.usage
        return reply

    async def _last_word(self) -> str:
        """The answer after the last turn: a variable, a FINAL(...), or whatever the model said."""
        reply = await self._ask_within_window(self._plan.max_iterations + 1)
        self._conversation.add(reply, "")
        parsed = parse(reply.text)
        if parsed.answer is not None:
            turn = await self._turns.text_answer(replace(parsed.answer, must_be_variable=False))
            return turn.answer or parsed.answer.text
        return without_thinking(reply.text).strip()

    async def _ask_plainly(self, prompt: Prompt, question: str | None) -> str:
        """One plain completion, no REPL: what an RLM is at its greatest depth."""
        text = prompt if isinstance(prompt, str) else json.dumps(prompt, ensure_ascii=False, default=str)
        content = f"{text}\n\n{question}" if question else text
        reply = await self._ask_root([{"role": "user", "content": content}], 1)
        return without_thinking(reply.text).strip()

    async def _start_child(self, prompt: SubPrompt) -> RLMChatCompletion:
        """An RLM with a kernel of its own for one prompt of an `rlm_query`; the prompt is its context."""

        def tell(event: Event) -> None:
            self._emit(events.ChildEvent, cell=prompt.cell, query=prompt.query.id, index=prompt.index, event=event)

        models = Models(prompt.lm, self._plan.models.others)
        plan = replace(
            self._plan, models=models, depth=self._plan.depth + 1, tools=self._plan.sub_tools, persistent=False
        )
        return await Engine(plan, tell, parent=self).run(prompt.text, None)

    def _interrupt(self) -> None:
        self._repl.interrupt()

    # -- the readers

    def _tell_unpriced(self) -> None:
        for model in self.ledger.take_unpriced():
            message = (
                f"The cost of {model} is unknown, so max_budget does not count it: give its prices in backend_kwargs."
            )
            self._emit(events.Notice, message=message)

    def _announce(self, prompt: Prompt, question: str | None) -> None:
        plan = self._plan
        self._emit(
            events.RunStarted,
            model=plan.models.root.model,
            sub_model=plan.models.default.model,
            environment=plan.environment.name,
            question=question,
            context_type=type(prompt).__name__,
            context_length=len(prompt),
            max_iterations=plan.max_iterations,
        )
