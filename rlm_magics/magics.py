"""The magics: `%%rlm` answers the question in a cell, `%rlm` runs commands."""

from __future__ import annotations

import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sized
from contextlib import contextmanager, nullcontext
from typing import Any

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, no_var_expand
from IPython.display import HTML, Markdown, display

from rlm_kernel import terminal
from rlm_kernel.api import RLM
from rlm_kernel.engine.argument_checks import opened
from rlm_kernel.engine.confirmation import Confirmation
from rlm_kernel.engine.record_access import Use, admitted
from rlm_kernel.errors import RLMError
from rlm_kernel.text import one_line
from rlm_kernel.trajectory.log.reader import read_log
from rlm_kernel.types import UsageSummary
from rlm_magics import arguments, commands, grammar, notebook_inputs, resume_arguments, settings, tab_completion
from rlm_magics.cell_run import WatchedLogger, Work, completion_of, run_with_view
from rlm_magics.desk import Desk
from rlm_magics.live_view import view
from rlm_magics.queries import Asker
from rlm_magics.result import RLMResult

MAGICS = "RLMMagics"


@magics_class
class RLMMagics(Magics, settings.Settings):
    """Ask Recursive Language Models in a notebook; `%rlm config` shows these settings."""

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell)
        self.last: RLMResult | None = None
        self.context_name: str | None = None
        self.asker = Asker(shell, self._query_arguments)
        self._desk = Desk()
        self._usage: list[UsageSummary] = []
        self._persistent: tuple[str, RLM, WatchedLogger] | None = None

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
            named = arguments.merge_settings(settings.values(self), options)
            where = named["environment"]
            given = self._given(options, where)
            schema = notebook_inputs.variable(options.schema, self.namespace, "--schema") if options.schema else None
            prompt, root_prompt = (question, None) if given is None else (given.prompt, question)
            with self._rlm(named, confirm=options.confirm) as (rlm, logger, notes):
                option = "--file" if options.file else "--context"
                given_prompt = opened(prompt, rlm.config, option, max_bytes=options.max_context_bytes)
                work = completion_of(rlm, given_prompt, root_prompt, schema)
                return self._run(work, prompt, named, logger, options, (*notes, *(given.notes if given else ())))

    def _given(self, options: Namespace, environment: str) -> notebook_inputs.Input | None:
        """The input that the cell names; None if it names none."""
        named = notebook_inputs.read(
            options.context, options.file, self.namespace, environment, options.max_context_bytes
        )
        return named or self._own_context(environment)

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
        prompt: Any,
        named: Mapping[str, Any],
        logger: WatchedLogger,
        options: Namespace,
        notes: tuple[str, ...],
        spent: Callable[[RLMResult], UsageSummary] = lambda done: done.usage,
    ) -> RLMResult:
        assert self.shell is not None, "made with a shell"
        with self._desk as desk:
            seen = view(self.shell, named["view"], notes)
            self.last = result = run_with_view(work, prompt, seen, logger, desk.serve)
        self._usage.append(spent(result))
        if options.output:
            self.namespace[options.output] = result
        if result.error is not None:
            if result.response:
                display(result)
            raise result.error
        return result

    @contextmanager
    def _rlm(
        self, named: Mapping[str, Any], *, confirm: bool = False
    ) -> Iterator[tuple[RLM, WatchedLogger, list[str]]]:
        """The RLM for a cell, and its warnings. A persistent one is kept until options or keys change."""
        wanted = arguments.rlm_arguments(named, self.namespace)
        key = arguments.fingerprint({**wanted, "log_dir": named["log_dir"], "confirm": confirm})
        asked = Confirmation(self._desk.ask)
        gates: dict[str, Any] = {"on_cell": asked.on_cell, "on_tool": asked.on_tool} if confirm else {}
        if self._persistent is not None and self._persistent[0] == key:
            yield self._persistent[1], self._persistent[2], []
            return
        logger = WatchedLogger(named["log_dir"] or None)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always", UserWarning)
            rlm = RLM(**wanted, **gates, logger=logger)
        notes = [str(warning.message) for warning in warned]
        if named["attachable"]:
            notes.append("While the run lasts, `rlm attach` in a terminal shows its REPL.")
        if named["persistent"]:
            self.close()
            self._persistent = key, rlm, logger
        with nullcontext() if named["persistent"] else rlm:
            arguments.fetch_weights(wanted)
            yield rlm, logger, notes

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
        file = commands.record_of(options.file, self.last)
        # Options of the record are merged with those given here.
        known = admitted(read_log(file), Use(options.environment), options.trust)
        named = arguments.merge_settings(
            settings.values(self), resume_arguments.with_recorded_model(options, known.metadata, known.path)
        )
        logger = WatchedLogger(named["log_dir"] or None)
        overrides = resume_arguments.overrides(options, named, known.metadata, self.namespace)

        def work() -> Any:
            return RLM.aresume(
                file, options.at, root_prompt=options.question, logger=logger, trust=options.trust, **overrides
            )

        return self._run(
            work, "", named, logger, options, (), lambda done: resume_arguments.newly_spent(done, known, options.at)
        )

    # -- life cycle

    def close(self) -> None:
        """End a persistent kernel, and close connections."""
        kept, self._persistent = self._persistent, None
        if kept is not None:
            kept[1].close()

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
    for key, complete in (("%%rlm", tab_completion.of_cell), ("%rlm", tab_completion.of_command)):
        shell.set_hook(
            "complete_command",
            lambda _, event, complete=complete: complete(shell.user_ns, event.line, event.symbol),
            str_key=key,
        )
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
