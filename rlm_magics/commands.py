"""The output of the commands of `%rlm` that need no run, as text or Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce
from pathlib import Path
from typing import Any

from rlm_kernel.clients import registry
from rlm_kernel.errors import ConfigError, RLMError
from rlm_kernel.html.markup import Markup
from rlm_kernel.kernel import connection_files
from rlm_kernel.provisioners import kernelspecs
from rlm_kernel.text import format_cost
from rlm_kernel.trajectory.log import FOLDER
from rlm_kernel.trajectory.log.file_names import NOTEBOOK, file_beside
from rlm_kernel.trajectory.log.reader import log_of, read_log
from rlm_kernel.trajectory.notebook import markdown
from rlm_kernel.trajectory.tree import events_of
from rlm_kernel.types import UsageSummary
from rlm_magics import page
from rlm_magics.progress import Progress
from rlm_magics.queries import Spent, add_usage
from rlm_magics.result import RLMResult, address

NO_RUN = "There was no run in this session yet: run a %%rlm cell, or give a FILE."


def record_of(given: str | None, last: RLMResult | None) -> str:
    """The file of a recorded run: the one that is given, else that of the latest run.

    Raises:
        ConfigError: there is no run yet, or it has no log.
    """
    if given is not None:
        return str(Path(given).expanduser())
    if last is None:
        raise ConfigError(NO_RUN)
    if last.trajectory is None:
        raise ConfigError(f"The latest run was not logged: set a folder with %rlm config log_dir ./{FOLDER}")
    return last.trajectory


def links(file: str) -> str:
    """Links to the files of a run, as Markdown."""
    log = log_of(Path(file))
    notebook = file_beside(log, NOTEBOOK)
    found = [("Notebook", notebook)] * notebook.is_file() + [("Log", log)]
    return "\n".join(f"- {kind}: [{markdown.one_line(path.name)}]({address(str(path))})" for kind, path in found)


def trace(file: str) -> Markup:
    """A recorded run turn by turn, as HTML."""
    progress, run = Progress(), read_log(file).trajectory
    for event in events_of(run):
        progress(event)
    progress.run.lost = run.lost
    return page.page(progress)


def usage(runs: Iterable[UsageSummary], calls: Iterable[UsageSummary]) -> str:
    """The model calls of a session and their cost, as Markdown."""
    asked = [("`%%rlm`", model, one) for model, one in add_usage(runs).items()]
    asked += [("`llm_query`", model, one) for model, one in add_usage(calls).items()]
    if not asked:
        return "No model was asked in this session yet."
    rows = [_row(*one) for one in asked]
    if len(rows) > 1:
        rows.append(_row("**Total**", "", reduce(Spent.plus, (one for _, _, one in asked))))
    head = "| | model | calls | tokens in | tokens out | cost |\n|---|---|--:|--:|--:|--:|"
    return "\n".join([head, *rows])


def _row(name: str, model: str, spent: Spent) -> str:
    cost = format_cost(spent.cost, "unknown")
    if spent.cost is not None and spent.unpriced:
        cost += f" without {spent.unpriced:,} call{'s' * (spent.unpriced != 1)} (cost unknown)"
    numbers = " | ".join(f"{number:,}" for number in (spent.calls, spent.input_tokens, spent.output_tokens))
    return f"| {name} | {markdown.one_line(model)} | {numbers} | {markdown.escape_dollars(cost)} |"


def environment_names() -> list[str]:
    """The names of the environments: ours, and the installed kernelspecs."""
    ours = (*kernelspecs.AVAILABLE.values(), "rlm")
    return [*kernelspecs.AVAILABLE, *(name for name in kernelspecs.installed_names() if name not in ours)]


def environments(configured: str) -> str:
    """The environments, one per line; a star marks the configured one."""
    known = environment_names()
    width = max(map(len, known))
    return "\n".join(f"{'*' if name == configured else ' '} {name:{width}}  {_ready(name)}".rstrip() for name in known)


def _ready(name: str) -> str:
    """Whether an environment can be used here, as text. Does not connect to it."""
    try:
        kernelspecs.environment(name, {"env": {}} if name == "local" else None)
    except (RLMError, NotImplementedError) as error:
        return " ".join(str(error).split())
    if name == "local":
        return "ready"
    return "the Python packages for it are installed" if name in kernelspecs.AVAILABLE else "an installed kernelspec"


def live_repls() -> str:
    """The REPLs that can be inspected, and how."""
    found = connection_files.list_live()
    if not found:
        return (
            "There is no live REPL to inspect. To allow it for a run, use %%rlm --attachable; "
            "for all runs, %rlm config attachable True"
        )
    lines = [f"{repl.name}  {repl.environment}, since {repl.started}" for repl in found]
    folder = f"--ServerApp.external_connection_dir={connection_files.folder()}"
    lab = f"jupyter lab --ServerApp.allow_external_kernels=True {folder}"
    return "\n".join([*lines, "", "In a terminal:     rlm attach NAME", f"From JupyterLab:   {lab}"])


def describe_model(settings: Mapping[str, Any]) -> str:
    """The configured model in one line."""
    backend = registry.BACKENDS.get(settings["backend"])
    has_default = backend is not None and "model_name" not in backend.required
    model = settings["model"] or ("its default model" if has_default else "no model set")
    sub = settings["sub_model"] or settings["sub_backend"]
    return f"{settings['backend']}: {model}" + (f"; sub-calls: {sub}" if sub else "")
