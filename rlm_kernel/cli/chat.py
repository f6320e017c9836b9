"""Talk about files and folders, or about nothing, in a terminal.

The messages of a chat share one kernel: data, variables and earlier answers stay. /help lists the
commands of the chat. Without a terminal each line of stdin is a message, and only the answers go
to stdout.

API keys are read from the environment (OPENAI_API_KEY ...) or from a .env file.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_kernel import terminal
from rlm_kernel.cli import exit_codes, logs, resume, run, trust_command
from rlm_kernel.clients import options, registry
from rlm_kernel.errors import ConfigError
from rlm_kernel.inputs import add_limit

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from rlm_kernel.agent.agent import AgentRLM
    from rlm_kernel.chat.conversation import Conversation

NAME = "chat"

_HISTORY = 10_000
"""Messages that the host keeps."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    add = parser.add_argument
    add("paths", nargs="*", metavar="PATH", help="files and folders to talk about")
    help_ = "continue the last conversation of this folder, or the named one"
    add("--resume", nargs="?", const="", metavar="ID|FILE", help=help_)
    add_limit(add)
    run.add_run_options(parser)
    add = parser.add_argument_group("limits of the chat", "The limits above hold for each message.").add_argument
    add("--max-total-budget", type=float, metavar="USD", help="US dollars of all messages together")
    add("--max-total-tokens", type=int, metavar="N", help="tokens of all messages together")
    add("--max-total-timeout", type=float, metavar="SECONDS", help="seconds of all messages together")
    parser.add_argument("--confirm", action="store_true", help="ask before each cell of the model")
    trust_command.add_option(parser)
    logs.add_arguments(parser)


def execute(args: Namespace) -> int:
    """Talk until the person leaves, or stdin ends.

    Raises:
        RLMError: the chat cannot begin.
    """
    from rlm_kernel.chat.questions import Questions

    questions = Questions()
    chat, draft = _begin(args, {"on_cell": questions.on_cell} if args.confirm else {})
    failed: list[Exception] = []
    try:
        if _has_terminal():
            from rlm_kernel.chat.screen import ChatScreen

            ChatScreen(chat, questions, draft).run()
        else:
            from rlm_kernel.chat.lines import talk

            talk(chat, sys.stdin, failed.append)
    finally:
        _end(chat)
    return exit_codes.code_of(failed[-1]) if failed else exit_codes.OK


def _has_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def _begin(args: Namespace, more: dict[str, Any]) -> tuple[Conversation, str]:
    """The conversation, and the message that the first prompt begins with. `more`: arguments of the agent."""
    from rlm_kernel.chat import recorded
    from rlm_kernel.chat.conversation import Conversation

    if args.resume and Path(args.resume).is_dir():
        args.paths, args.resume = [args.resume, *args.paths], ""
    log = None if args.resume is None else recorded.find(args.resume, Path(args.log_dir))
    make = partial(_agent, args, **more) if log is None else partial(_resumed, args, log, **more)
    chat = Conversation(make, args.max_context_bytes)
    for path in args.paths:
        chat.add_path(path, "PATH")
    try:
        agent = chat.open()
    except ConfigError as error:
        _check_key_is_missing(args, log, error)
        return chat, ""
    if log is not None:
        chat.turns = recorded.turns_of(log)
    return chat, agent.interrupted_message or ""


def _check_key_is_missing(args: Namespace, log: Path | None, error: ConfigError) -> None:
    """Go on without an agent if only its key is missing: it can be put into `.env` meanwhile.

    Raises:
        ConfigError: something else is wrong.
    """
    if log is not None:
        raise error
    with registry.without_keys():
        _agent(args, fetch=False).close()
    terminal.print_note(f"rlm: {exit_codes.explain(error)}")


def _agent(args: Namespace, *, fetch: bool = True, **more: Any) -> AgentRLM:
    """The agent that the options describe."""
    from rlm_kernel.agent.agent import AgentRLM
    from rlm_kernel.agent.context import AgentContext

    arguments, models = run.arguments_of(args, attachable=False)
    for name, kwargs in models if fetch else ():
        options.fetch(name, kwargs)
    options_of_place = arguments.pop("environment_kwargs") or {}
    place = {**options_of_place, "place": arguments.pop("environment")}
    return AgentRLM(
        environment_kwargs=place,
        agent_context=AgentContext(max_history_size=_HISTORY),
        logger=logs.logger(args),
        max_cost=arguments.pop("max_budget", None),
        **_totals(args),
        **arguments,
        **more,
    )


def _totals(args: Namespace) -> dict[str, Any]:
    given = {
        "max_total_cost": args.max_total_budget,
        "max_total_tokens": args.max_total_tokens,
        "max_total_seconds": args.max_total_timeout,
    }
    return {name: value for name, value in given.items() if value is not None}


def _resumed(args: Namespace, log: Path, **more: Any) -> AgentRLM:
    """The agent of a recorded conversation, with the options that are given."""
    from rlm_kernel.agent.agent import AgentRLM

    args.file = str(log)
    given = resume.overrides(args)
    if "max_budget" in given:
        given["max_cost"] = given.pop("max_budget")
    if place := given.pop("environment", None):
        given["environment_kwargs"] = {"place": place}
    trust = trust_command.trust_of(args)
    return AgentRLM.resume(log, trust=trust, logger=logs.logger(args), **given, **_totals(args), **more)


def _end(chat: Conversation) -> None:
    """Close the conversation, and say where it is and how to continue it."""
    chat.close()
    notebook, log = chat.notebook, chat.log
    if notebook is not None and notebook.is_file():
        terminal.print_note(f"The notebook of this conversation: {os.path.relpath(notebook)}")
    if log is not None and log.is_file():
        terminal.print_note("To continue it: rlm chat --resume")
