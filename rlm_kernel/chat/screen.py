"""The chat on a terminal."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future

from prompt_toolkit.key_binding import KeyPress
from prompt_toolkit.keys import Keys
from rich.console import RenderableType
from rich.text import Text

from rlm_kernel.chat.commands import Commands, command_of, explain
from rlm_kernel.chat.conversation import STOPPED, Conversation, Turn
from rlm_kernel.chat.keys import TypedAhead, keys_to
from rlm_kernel.chat.prompt import LEAVE, make_prompt
from rlm_kernel.chat.questions import Questions
from rlm_kernel.chat.view import TurnView, after, draw_run, over
from rlm_kernel.errors import RLMError
from rlm_kernel.text import format_cost, one_line, plain
from rlm_kernel.trajectory.console import render
from rlm_kernel.trajectory.events import RunFinished
from rlm_kernel.untrusted.plain_console import PlainConsole

STOPPING = "stopping…"
SHOWS_RUN = "Ctrl-O shows the run"
_BEFORE = 3
"""Turns of a resumed conversation that are shown again."""


class ChatScreen:
    """Reads messages on the terminal, and draws the answers.

    Args:
        conversation: the chat.
        questions: are shown here.
        draft: what the first prompt begins with.
    """

    def __init__(self, conversation: Conversation, questions: Questions, draft: str = "") -> None:
        questions.desk = self
        self._chat = conversation
        # The size is the terminal's: what the environment says of it stays when the window changes.
        sizes = ("COLUMNS", "LINES")
        self._console = PlainConsole(_environ={k: v for k, v in os.environ.items() if k not in sizes})
        self._commands = Commands(conversation, self._show, self._show_run)
        self._typed = TypedAhead()
        self._draft = draft
        self._work: asyncio.Future[None] | None = None
        self._view: TurnView | None = None
        self._asked: Future[bool] | None = None

    def run(self) -> None:
        """Talk until the person leaves."""
        with contextlib.suppress(EOFError):
            asyncio.run(self._talk())

    def show(self, text: str, question: str, answer: Future[bool]) -> None:
        """Show a question during a turn. `y` is a yes, and any other key a no."""
        view = self._view
        if view is None or self._work is None:
            answer.set_result(False)
            return
        self._asked = answer
        if text:
            self._show(render.code(text, None))
        view.ask(f"{one_line(question)} [y/N]")
        answer.add_done_callback(lambda _: view.ask(""))

    async def _talk(self) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._stop)
        prompt = make_prompt(self._show_last_run, self._toolbar)
        self._greet()
        while not self._commands.over:
            draft, self._draft = self._draft + self._typed.take(), ""
            try:
                line = await prompt.prompt_async(default=draft, handle_sigint=False)
            except KeyboardInterrupt:
                self._show(Text(LEAVE, style="dim"))
                continue
            if not line.strip():
                continue
            command = command_of(line)
            if command is None:
                await self._answer(line)
            else:
                self._attempt(*command)

    def _greet(self) -> None:
        chat = self._chat
        context = f"{count:,} text{'s' * (count != 1)} in the context" if (count := len(chat.context)) else "no context"
        model = plain(chat.model) or "no model"
        self._show(Text.assemble(("rlm chat", "bold"), (f" · {model} · {context} · /help", "dim")))
        for turn in chat.turns[-_BEFORE:]:
            self._show(Text.assemble(("> ", "bold cyan"), plain(turn.message)))
            for part in over(turn):
                self._show(part)
        self._show("")

    def _toolbar(self) -> str:
        usage = self._chat.usage
        cost = f" · {format_cost(usage.total_cost)}" if usage.total_cost else ""
        return f"{one_line(self._chat.model)}{cost} · Ctrl-O shows the run · /help"

    def _attempt(self, name: str, argument: str) -> None:
        """Run a command. An error is a line, and the chat goes on."""
        try:
            with _interruptible():
                self._commands.run(name, argument)
        except (RLMError, OSError) as error:
            self._show(Text(f"✗ {explain(error)}", style="red"))
        except KeyboardInterrupt:
            self._show(Text(STOPPED, style="dim"))

    async def _answer(self, message: str) -> None:
        """Run a turn. Ctrl-C stops it."""
        turn, began = self._chat.begin(message), time.monotonic()
        with TurnView(self._console, turn, unfolded=self._commands.unfolded) as view, keys_to(self._pressed):
            self._view = view
            self._work = asyncio.ensure_future(self._run(turn, view))
            await asyncio.wait({self._work})
            self._end(turn, self._work, view)
        self._view = self._work = None
        turn.seconds = time.monotonic() - began
        for part in (*after(turn, key=SHOWS_RUN), ""):
            self._show(part)

    async def _run(self, turn: Turn, view: TurnView) -> None:
        agent = await asyncio.to_thread(self._chat.open)
        words = agent.words_of_next()
        async with contextlib.aclosing(agent.events(turn.message)) as events:
            async for event in events:
                try:
                    more = words.take(event)
                except RLMError as error:  # the answer is another one than the words so far
                    turn.error = explain(error)
                    more = f"\n\n{event.completion.response}" if isinstance(event, RunFinished) else ""
                turn.answer += more
                view.take(event, more)
                if isinstance(event, RunFinished):
                    turn.answer = event.completion.response

    def _end(self, turn: Turn, work: asyncio.Future[None], view: TurnView) -> None:
        """Keep how a turn ended."""
        turn.usage = view.usage
        if work.cancelled():
            turn.error = STOPPED
        elif (error := work.exception()) is not None:
            turn.error = explain(error)
            partial = getattr(error, "partial_answer", None)
            if partial and not turn.answer:
                turn.answer = str(partial)
                view.say(turn.answer)

    def _pressed(self, press: KeyPress) -> None:
        """Take a key that was pressed during a turn."""
        if press.key == Keys.ControlC:
            self._stop()
        elif self._asked is not None and not self._asked.done():
            self._asked.set_result(press.key in ("y", "Y"))
        elif press.key == Keys.ControlO and self._view is not None:
            self._view.toggle()
        else:
            self._typed.add(press)

    def _stop(self) -> None:
        """Stop the turn. What the kernel does is interrupted first, so this takes a moment."""
        if self._asked is not None and not self._asked.done():
            self._asked.set_result(False)
        if self._work is not None and not self._work.done():
            if self._view is not None:
                self._view.note(STOPPING)
            self._work.cancel()

    def _show_last_run(self) -> None:
        self._attempt("unfold", "")

    def _show_run(self, turn: Turn) -> None:
        draw_run(self._console, turn)

    def _show(self, what: RenderableType) -> None:
        self._console.print(what)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt in the block, which does not return to the loop."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
