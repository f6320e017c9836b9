"""The magics: `%%rlm` answers the question in a cell, `%rlm` runs commands."""

from __future__ import annotations

import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, no_var_expand
from IPython.display import HTML, Markdown, display

from rlm_kernel import terminal
from rlm_kernel.api import RLM
from rlm_kernel.engine.argument_checks import opened
from rlm_kernel.engine.confirmation import Confirmation
from rlm_kernel.engine.edits import EditedRecord
from rlm_kernel.engine.record_access import Use, admitted
from rlm_kernel.engine.resumption import check_iteration, recorded_context
from rlm_kernel.errors import RLMError
from rlm_kernel.mcp.approval import AskOnce
from rlm_kernel.mcp.config import servers_named
from rlm_kernel.text import one_line
from rlm_kernel.trajectory.log.file_names import stem_of
from rlm_kernel.trajectory.log.reader import Recording, read_log
from rlm_kernel.types import UsageSummary
from rlm_magics import arguments, commands, grammar, notebook_inputs, page, resume_arguments, settings, tab_completion
from rlm_magics.cell_run import WatchedLogger, Work, completion_of, run_with_view
from rlm_magics.desk import Desk
from rlm_magics.insertion import CELLS, cell_sources
from rlm_magics.latest import Asked, Kept
from rlm_magics.live_view import view
from rlm_magics.progress import Progress
from rlm_magics.queries import Asker
from rlm_magics.result import RLMResult

MAGICS = "RLMMagics"
REBUILT = "The kernel of the latest run is built again: its cells ran once more, with the recorded answers, at no cost."


@magics_class
class RLMMagics(Magics, settings.Settings):
    """Ask Recursive Language Models in a notebook; `%rlm config` shows these settings."""

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell)
        self.last: RLMResult | None = None
        self._seen: Progress | None = None
        self.context_name: str | None = None
        self.asker = Asker(shell, self._query_arguments)
        self._desk = Desk()
        self._usage: list[UsageSummary] = []
        self._kept: Kept | None = None
        self._asked: Asked | None = None
        self._expressions: dict[str, str] = {}  # of the inputs, by the name of the run

    @property
    def namespace(self) -> dict[str, Any]:
        """The variables of the notebook."""
        assert self.shell is not None, "made with a shell"
        names: dict[str, Any] = self.shell.user_ns
        return names

    # -- %%rlm

    @no_var_expand
    @cell_magic("rlm")  # type: ignore[arg-type]
    def ask_cell(self, line: str, cell: str) -> RLMResult | None:
        """Answer the question in the cell."""
        with _in_one_line():
            options = grammar.cell_grammar().read(line)
            if not (question := cell.strip("\n")).strip():
                raise UsageError("The cell has no question: write it below %%rlm.")
            asked = (self._followed if options.follow else self._asked_in)(options, question)
            schema = notebook_inputs.variable(options.schema, self.namespace, "--schema") if options.schema else None
            with self._rlm(asked, confirm=options.confirm, follows=options.follow) as (rlm, logger, notes):
                option = "--file" if options.file else "--context"
                prompt = opened(asked.prompt, rlm.config, option, max_bytes=options.max_context_bytes)
                work = completion_of(rlm, prompt, asked.question, schema)
                return self._run(work, asked, logger, options, (*notes, *asked.notes))

    def _asked_in(self, options: Namespace, question: str) -> Asked:
        """What a cell asks."""
        named = arguments.merge_settings(settings.values(self), options)
        where = named["environment"]
        given = notebook_inputs.read(options.context, options.file, self.namespace, where, options.max_context_bytes)
        if (given := given or self._own_context(where)) is None:
            return Asked(named, question, None, repr(question), mcp=tuple(options.mcp), yes=options.yes)
        about = given.prompt, question, given.expression, given.notes
        return Asked(named, *about, mcp=tuple(options.mcp), yes=options.yes)

    def _followed(self, options: Namespace, question: str) -> Asked:
        """What a cell asks about the latest run."""
        if options.context or options.file:
            raise UsageError("--follow asks about the input of the latest run: leave out -c and --file, or --follow.")
        if self._asked is None or self.last is None:
            raise UsageError(commands.NO_RUN)
        before = self._asked
        if not before.is_given:
            recording = read_log(commands.record_of(None, self.last))
            before = replace(before, prompt=recorded_context(recording), is_given=True)
        named = {**arguments.merge_settings(before.named, options), "persistent": True}
        mcp, yes = tuple(options.mcp) or before.mcp, options.yes or before.yes
        return replace(before, named=named, question=question, mcp=mcp, yes=yes)

    def _own_context(self, environment: str) -> notebook_inputs.Input | None:
        """In the RLM kernel the variable `context` is the input, unless it is empty."""
        if self.context_name is None:
            return None
        value = self.namespace.get(self.context_name)
        if value is None or (isinstance(value, Sized) and len(value) == 0):
            return None
        return notebook_inputs.read([self.context_name], (), self.namespace, environment)

    def _run(
        self,
        work: Work,
        asked: Asked,
        logger: WatchedLogger,
        options: Namespace,
        notes: tuple[str, ...],
        spent: Callable[[RLMResult], UsageSummary] = lambda done: done.usage,
    ) -> RLMResult:
        assert self.shell is not None, "made with a shell"
        with self._desk as desk:
            seen = view(self.shell, asked.named["view"], notes)
            result = run_with_view(work, asked.prompt, seen, logger, desk.serve)
        if seen.progress.run.started is not None:  # otherwise the latest run is still the one before
            self.last, self._asked, self._seen = result, asked, seen.progress
            if result.trajectory is not None:
                self._expressions[stem_of(Path(result.trajectory))] = asked.expression
            self._usage.append(spent(result))
            if self._kept is not None and self._kept.logger is logger:
                self._kept.last = result
        if options.output:
            self.namespace[options.output] = result
        if result.error is not None:
            if result.response:
                display(result)
            raise result.error
        return result

    @contextmanager
    def _rlm(
        self, asked: Asked, *, confirm: bool = False, follows: bool = False
    ) -> Iterator[tuple[RLM, WatchedLogger, list[str]]]:
        """The RLM for a cell, and its warnings. A persistent one is kept until options or keys change."""
        named, kept = asked.named, self._kept
        wanted = arguments.rlm_arguments(named, self.namespace)
        key = arguments.fingerprint(
            {**wanted, "log_dir": named["log_dir"], "confirm": confirm, "mcp": (asked.mcp, asked.yes)}
        )
        gate = Confirmation(self._desk.ask)
        gates: dict[str, Any] = {"on_cell": gate.on_cell, "on_tool": gate.on_tool} if confirm else {}
        if kept is not None and kept.key == key and (kept.last is self.last or not follows):
            yield kept.rlm, kept.logger, []
            return
        logger = WatchedLogger(named["log_dir"] or None)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always", UserWarning)
            rlm = RLM(**wanted, **gates, **self._servers(asked), logger=logger)
        notes = [str(warning.message) for warning in warned]
        if named["attachable"]:
            notes.append("While the run lasts, `rlm attach` in a terminal shows its REPL.")
        if follows:
            rlm.continue_from(commands.record_of(None, self.last), asked.prompt)
            notes.append(REBUILT)
        if named["persistent"]:
            self.close()
            self._kept = Kept(key, rlm, logger)
        with nullcontext() if named["persistent"] else rlm:
            arguments.fetch_weights(wanted)
            yield rlm, logger, notes

    def _servers(self, asked: Asked) -> dict[str, Any]:
        """The MCP servers of a cell, as arguments of an `RLM`. A person in front of the notebook is asked."""
        if not asked.mcp:
            return {}
        return {"custom_tools": servers_named(asked.mcp), "approve": True if asked.yes else AskOnce(self._desk.ask)}

    # -- %rlm

    @no_var_expand
    @line_magic("rlm")  # type: ignore[arg-type]
    def command(self, line: str) -> RLMResult | None:
        """Run a command of `%rlm`."""
        with _in_one_line():
            name, options = grammar.command_of(line)
            if not name:
                terminal.print_line(grammar.overview())
                return None
            run: Callable[[Any], RLMResult | None] = getattr(self, f"_do_{name}")
            return run(options)

    def _do_last(self, _: Namespace) -> RLMResult | None:
        if self.last is None:
            raise UsageError(commands.NO_RUN)
        if self._seen is not None:
            display(HTML(page.page(self._seen)))
        return self.last

    def _do_open(self, options: Namespace) -> None:
        display(Markdown(commands.links(commands.record_of(options.file, self.last))))

    def _do_trace(self, options: Namespace) -> None:
        display(HTML(commands.trace(commands.record_of(options.file, self.last))))

    def _do_usage(self, _: Namespace) -> None:
        display(Markdown(commands.usage(self._usage, self.asker.usage())))

    def _do_environments(self, _: Namespace) -> None:
        terminal.print_line(commands.environments(self.environment))

    def _do_attach(self, _: Namespace) -> None:
        terminal.print_line(commands.live_repls())

    def _do_model(self, options: Namespace) -> None:
        for name, value in (("backend", options.backend), ("base_url", options.base_url), ("model", options.name)):
            if value is not None:
                self._change(name, value)
        terminal.print_line(commands.describe_model(settings.values(self)))

    def _do_config(self, options: grammar.Setting) -> None:
        if options.name and options.value:
            self._change(options.name, options.value)
        if options.save:
            assert self.shell is not None, "made with a shell"
            terminal.print_line(f"Saved in {settings.save(self, self.shell)}")
        elif options.name:
            terminal.print_line(f"{options.name} = {settings.value(self, options.name)!r}")
        else:
            terminal.print_line(settings.render_settings(self))

    def _change(self, name: str, text: str) -> None:
        """Change a setting, if the value is one that runs can use."""
        before = settings.values(self)
        try:
            settings.change(self, name, text)
            arguments.check_setting(settings.values(self), name, self.namespace)
        except BaseException:
            for changed, value in before.items():
                setattr(self, changed, value)
            raise

    def _do_replay(self, options: Namespace) -> None:
        from rlm_kernel.replay.replayer import Mode, replay

        file = commands.record_of(options.file, self.last)
        mode: Mode = "live" if options.live else "replay"
        terminal.print_line(str(replay(file, mode=mode, environment=options.environment, trust=options.trust)))

    def _do_resume(self, options: Namespace) -> RLMResult:
        from rlm_kernel.papermill.live_notebook import edited_record

        assert self.shell is not None, "made with a shell"
        edited = None if options.file else edited_record(self.shell)
        file = edited or EditedRecord(Path(commands.record_of(options.file, self.last)))
        if options.file is None and edited is None and self._asked is not None:
            options = resume_arguments.with_objects(options, self._asked.named, self.namespace)
        # Options of the record are merged with those given here.
        known = admitted(read_log(file.path), Use(options.environment), options.trust)
        at = file.last_turn(known.trajectory) if options.at is None else options.at
        check_iteration(known, at)
        named = arguments.merge_settings(
            settings.values(self), resume_arguments.with_recorded_model(options, known.metadata, known.path)
        )
        logger = WatchedLogger(str(file.path.parent) if edited else named["log_dir"] or None)
        overrides = resume_arguments.overrides(options, named, known.metadata, self.namespace)

        again = self._input_again(known, options, edited is not None)

        def work() -> Any:
            given = {"root_prompt": options.question, "logger": logger, "trust": options.trust, **again, **overrides}
            return RLM.aresume(file, at, **given)

        expression = self._expressions.get(known.stem, "")
        asked = Asked(named, again.get("prompt", ""), expression=expression, is_given=bool(again))
        return self._run(work, asked, logger, options, (), lambda done: resume_arguments.newly_spent(done, known, at))

    _do_fork = _do_resume

    def _input_again(self, known: Recording, options: Namespace, edited: bool) -> dict[str, Any]:
        """The input of the latest run as `prompt=`, if its log holds it as a pickle, which is not opened."""
        is_latest = options.file is None and not edited and self._asked is not None and self._asked.is_given
        if not is_latest or known.context is None or known.context.encoding != "pickle":
            return {}
        assert self._asked is not None, "just checked"
        return {"prompt": self._asked.prompt}

    def _do_cells(self, options: Namespace) -> None:
        from rlm_kernel.replay.minimise import clean

        assert self.shell is not None, "made with a shell"
        recording = read_log(commands.record_of(options.file, self.last))
        cleaning = clean(recording, environment=options.environment, trust=options.trust)
        expression, has_names = self._expressions.get(recording.stem, ""), self.context_name is not None
        sources = cell_sources(recording, cleaning, expression, has_names=has_names)
        if options.data:
            display({CELLS: {"cells": sources}, "text/plain": ""}, raw=True)
            return
        self.shell.set_next_input("\n\n".join(sources))
        kept, dropped = len(cleaning.kept), len(cleaning.dropped)
        terminal.print_line(
            f"The cell below has {kept} of the {kept + dropped} cells of the run, which its answer needs."
        )

    # -- life cycle

    def close(self) -> None:
        """End a persistent kernel, and close connections."""
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.rlm.close()

    def _query_arguments(self) -> dict[str, Any]:
        """The arguments for `llm_query` in the notebook, whose user is one level above the root model."""
        wanted = arguments.rlm_arguments(settings.values(self), self.namespace)
        return {**wanted, "max_depth": wanted["max_depth"] + 1, "persistent": False}


vars(RLMMagics)["ask_cell"].__doc__ = grammar.cell_grammar().format_help()
vars(RLMMagics)["command"].__doc__ = grammar.overview()


def load(shell: InteractiveShell) -> RLMMagics:
    """Add the magics and the query functions to a shell."""
    magics = RLMMagics(shell)
    shell.register_magics(magics)
    taken = {"budget"} & shell.user_ns.keys()  # an ordinary name, which the user's variable keeps
    shell.push({name: made for name, made in magics.asker.names.items() if name not in taken}, interactive=False)
    tab_completion.install(shell)
    return magics


def loaded_magics(shell: InteractiveShell) -> RLMMagics | None:
    """The magics of a shell, if it has them."""
    found = shell.magics_manager.registry.get(MAGICS)
    return found if isinstance(found, RLMMagics) else None


def unload(shell: InteractiveShell) -> None:
    """Remove what `load` added."""
    magics = loaded_magics(shell)
    if magics is None:
        return
    magics.close()
    magics.asker.close()
    tab_completion.uninstall(shell)
    shell.drop_by_id(magics.asker.names)
    for kind in ("line", "cell"):
        shell.magics_manager.magics[kind].pop("rlm", None)
    del shell.magics_manager.registry[MAGICS]
    shell.configurables.remove(magics)  # type: ignore[arg-type]


@contextmanager
def _in_one_line() -> Iterator[None]:
    """Show an error of the library in one line, without its traceback."""
    try:
        yield
    except (RLMError, NotImplementedError) as error:
        line = f"{type(error).__name__}: {one_line(str(error))}"
        error._render_traceback_ = lambda: [line]  # type: ignore[method-assign,union-attr]
        raise
