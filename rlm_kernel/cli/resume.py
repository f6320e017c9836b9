"""`rlm resume`: resume a recorded run, killed or finished."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlm_kernel import inputs, terminal
from rlm_kernel.cli import context_options, logs, model_options, run, trust_command
from rlm_kernel.clients import options
from rlm_kernel.errors import ConfigError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

NAME = "resume"
HELP = "go on from a recorded run"
DESCRIPTION = """\
Go on from a recorded run, killed or finished. Nothing that is on record is asked again; its cells run once more in
a new kernel with the recorded answers, and then the model takes over. The answer alone goes to stdout.

FILE is the log of a run (.jsonl) or its notebook (.ipynb). API keys come from the environment or a .env file.
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    add = parser.add_argument
    add("file", metavar="FILE", help="a log or its notebook")
    add("--at", type=int, metavar="TURN", help="the last turn that counts (default: all of them)")
    add("--question", help="another question from here on")
    context_options.add_arguments(add, "the input, when the log does not hold it")
    model_options.add_model_arguments(parser, "the recorded one")
    add("--environment", help="where the model's code runs (default: where it ran)")
    add("--max-iterations", type=int, metavar="N", help="turns of the root model (default: as recorded)")
    run.add_limits(parser)
    trust_command.add_option(parser)
    add("--json", action="store_true", help="one JSON object on stdout: answer, usage, cost, seconds, model, log")
    add("--quiet", action="store_true", help="do not show the run")
    logs.add_arguments(parser)


def execute(args: Namespace) -> int:
    """Go on and print the answer.

    Raises:
        RLMError: whatever `RLM.resume` raises.
    """
    from rlm_kernel.api import RLM

    logger = logs.logger(args)
    with logs.report_when_done(logger, quiet=args.quiet):
        completion = RLM.resume(
            args.file,
            args.at,
            prompt=inputs.of_arguments(args),
            root_prompt=args.question,
            trust=trust_command.trust_of(args),
            verbose=not args.quiet,
            logger=logger,
            **_overrides(args),
        )
    terminal.result(run.as_json(completion, logger) if args.json else completion.response)
    return 0


def _overrides(args: Namespace) -> dict[str, Any]:
    """The arguments that are not as recorded."""
    from rlm_kernel.trajectory.log.reader import read_log

    given: dict[str, Any] = {"environment": args.environment, "max_iterations": args.max_iterations, **run.limits(args)}
    if args.backend or args.model or args.base_url or args.backend_kwarg:
        recording = read_log(args.file)
        known = recording.metadata
        backend = args.backend or known.get("backend")
        if not isinstance(backend, str):
            raise ConfigError("The run asked a model that no log can hold: name a --backend.")
        recorded = options.recorded_model(known, recording.path) if backend == known.get("backend") else None
        model = args.model or recorded
        kwargs = options.backend_kwargs(backend, model, args.base_url, args.backend_kwarg)
        given |= {"backend": backend, "backend_kwargs": kwargs}
    return {name: value for name, value in given.items() if value is not None}
