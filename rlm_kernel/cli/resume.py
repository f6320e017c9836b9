"""Continue a recorded run.

The run may have been stopped, or it may have finished. Its cells run again in a new kernel with
the recorded answers, and then the model continues. No recorded question is asked again. Only the
answer goes to stdout.

In the log of an agent the message that has no answer gets it, or that of --question is sent.

FILE is the log of a run (.jsonl) or its notebook (.ipynb). API keys are read from the environment
or from a .env file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlm_kernel import inputs, terminal
from rlm_kernel.cli import logs, run, shared_options, trust_command
from rlm_kernel.clients import options
from rlm_kernel.errors import ConfigError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from rlm_kernel.types import RLMChatCompletion

NAME = "resume"


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    add = parser.add_argument
    add("file", metavar="FILE", help="a log or its notebook")
    add("--at", type=int, metavar="TURN", help="the last turn to keep (default: all)")
    add("--question", help="a new question from this turn on")
    shared_options.add_context(parser, "the input, if it is not stored with the log")
    shared_options.add_model(parser, "the recorded one")
    add("--environment", help="where the code of the model runs (default: the recorded environment)")
    add("--max-iterations", type=int, metavar="N", help="maximum turns of the root model (default: as recorded)")
    shared_options.add_limits(parser)
    trust_command.add_option(parser)
    add("--json", action="store_true", help="print a JSON object: answer, usage, cost, seconds, model, log")
    add("--quiet", action="store_true", help="do not show the run on stderr")
    logs.add_arguments(parser)


def execute(args: Namespace) -> int:
    """Continue the run and print the answer.

    Raises:
        RLMError: the record, the arguments, the model or the kernel failed.
    """
    from rlm_kernel.api import RLM

    logger = logs.logger(args)
    given = {"trust": trust_command.trust_of(args), "verbose": not args.quiet, "logger": logger, **overrides(args)}
    with logs.report_when_done(logger, quiet=args.quiet):
        if _is_of_agent(args.file):
            completion = _send(args, given)
        else:
            prompt = inputs.of_arguments(args)
            completion = RLM.resume(args.file, args.at, prompt=prompt, root_prompt=args.question, **given)
    terminal.print_result(run.as_json(completion, logger) if args.json else completion.response)
    return 0


def _is_of_agent(file: str) -> bool:
    from rlm_kernel.trajectory.log.reader import read_log

    return read_log(file).metadata.get("agent") is not None


def _send(args: Namespace, given: dict[str, Any]) -> RLMChatCompletion:
    """Send the next message of a recorded conversation."""
    from rlm_kernel.agent.agent import AgentRLM

    if args.at is not None:
        raise ConfigError("--at is for the log of a completion: a conversation goes on at its end.")
    if place := given.pop("environment", None):
        given["environment_kwargs"] = {"place": place}
    given["max_cost"] = given.pop("max_budget", None)
    with AgentRLM.resume(args.file, **{name: value for name, value in given.items() if value is not None}) as agent:
        message = args.question or agent.interrupted_message
        if message is None:
            raise ConfigError("Each message of this conversation has its answer: give the next one, --question TEXT.")
        data = inputs.of_arguments(args)
        return agent.completion(message) if data is None else agent.completion(data, message)


def overrides(args: Namespace) -> dict[str, Any]:
    """The arguments that replace recorded ones."""
    from rlm_kernel.trajectory.log.reader import read_log

    given: dict[str, Any] = {"environment": args.environment, "max_iterations": args.max_iterations}
    given |= shared_options.limits(args)
    if shared_options.names_model(args):
        recording = read_log(args.file)
        known = recording.metadata
        backend = args.backend or known.get("backend")
        if not isinstance(backend, str):
            raise ConfigError("The recorded model was a Python object, which a log cannot hold: give --backend.")
        recorded = options.recorded_model(known, recording.path) if backend == known.get("backend") else None
        model = args.model or recorded
        kwargs = options.backend_kwargs(backend, model, args.base_url, args.backend_kwarg)
        given |= {"backend": backend, "backend_kwargs": kwargs}
    return {name: value for name, value in given.items() if value is not None}
