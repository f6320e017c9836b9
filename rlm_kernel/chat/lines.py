"""A chat without a terminal: each line of stdin is a message or a command.

Only answers go to stdout; everything else goes to stderr.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from rlm_kernel import terminal
from rlm_kernel.chat.commands import Commands, command_of, explain
from rlm_kernel.chat.conversation import Conversation
from rlm_kernel.chat.view import draw_run
from rlm_kernel.errors import CancellationError, RLMError
from rlm_kernel.untrusted.plain_console import PlainConsole


def talk(conversation: Conversation, lines: Iterable[str], tell: Callable[[Exception], None]) -> None:
    """Answer the lines one after the other. A message that fails does not stop those after it.

    Args:
        conversation: the chat.
        lines: of stdin.
        tell: called with the error of each message or command.

    Raises:
        CancellationError: Ctrl-C.
    """
    console = PlainConsole(stderr=True, force_terminal=False)
    commands = Commands(conversation, console.print, lambda turn: draw_run(console, turn))
    for line in lines:
        if commands.over:
            return
        try:
            if (command := command_of(line)) is not None and line.strip():
                commands.run(*command)
            elif line.strip():
                _answer(conversation, line.strip())
        except CancellationError:
            raise
        except (RLMError, OSError) as error:
            terminal.print_note(f"rlm: {explain(error)}")
            tell(error)


def _answer(conversation: Conversation, message: str) -> None:
    turn = conversation.begin(message)
    try:
        completion = conversation.open().completion(message)
    except RLMError as error:
        turn.error = explain(error)
        raise
    turn.answer, turn.usage = completion.response, completion.usage_summary
    turn.seconds = completion.execution_time
    terminal.print_result(completion.response)
