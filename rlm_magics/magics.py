"""The magics: `%%rlm` asks the question in a cell, `%rlm` holds the commands around it."""

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
from rlm_kernel.engine.record_access import Use, admitted
from rlm_kernel.errors import RLMError
from rlm_kernel.text import one_line
from rlm_kernel.trajectory.log.reader import read_log
from rlm_kernel.types import UsageSummary
from rlm_magics import arguments, commands, grammar, notebook_inputs, resume_arguments, settings, tab_completion
from rlm_magics.cell_run import WatchedLogger, Work, ask, completion_of
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
            said = grammar.cell_grammar().read(line)
            if not (question := cell.strip("\n")).strip():
                raise UsageError("The cell holds no question: write it below %%rlm.")
            named = arguments.merge_settings(settings.values(self), said)
            where = named["environment"]
            given = self._given(said, where)
            schema = notebook_inputs.variable(said.schema, self.namespace, "--schema") if said.schema else None
            prompt, asked = (question, None) if given is None else (given.prompt, question)
            with self._rlm(named) as (rlm, logger, notes):
                work = completion_of(rlm, prompt, asked, schema)
                return self._ask(work, prompt, named, logger, said, (*notes, *(given.notes if given else ())))

    def _given(self, said: Namespace, environment: str) -> notebook_inputs.Input | None:
        """What the cell asks about."""
        named = notebook_inputs.read(said.context, said.file, self.namespace, environment, said.max_context_bytes)
        return named or self._own_context(environment)

    def _own_context(self, environment: str) -> notebook_inputs.Input | None:
        """In the RLM kernel the variable `context` is what is asked about, once something stands in it."""
        if self.context_name is None:
            return None
        value = self.namespace.get(self.context_name)
        if value is None or (isinstance(value, Sized) and len(value) == 0):
            return None
        return notebook_inputs.read([self.context_name], (), self.namespace, environment)

    def _ask(
        self,
        work: Work,
        prompt: Any,
        named: Mapping[str, Any],
        logger: WatchedLogger,
        said: Namespace,
        notes: tuple[str, ...],
        spent: Callable[[RLMResult], UsageSummary] = lambda done: done.usage,
    ) -> RLMResult:
        assert self.shell is not None, "made with a shell"
        self.last = result = ask(work, prompt, view(self.shell, named["view"], notes), logger)
        self._usage.append(spent(result))
        if said.output:
            self.namespace[said.output] = result
        if result.error is not None:
            if result.response:
                display(result)
            raise result.error
        return result

    @contextmanager
    def _rlm(self, named: Mapping[str, Any]) -> Iterator[tuple[RLM, WatchedLogger, list[str]]]:
        """The RLM for a cell, and what it warned of; a persistent one is kept as long as options and keys stay."""
        wanted = arguments.rlm_arguments(named, self.namespace)
        key = arguments.fingerprint({**wanted, "log_dir": named["log_dir"]})
        if self._persistent is not None and self._persistent[0] == key:
            yield self._persistent[1], self._persistent[2], []
            return
        logger = WatchedLogger(named["log_dir"] or None)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", UserWarning)
            rlm = RLM(**wanted, logger=logger)
        notes = [str(warning.message) for warning in told]
        if named["attachable"]:
            notes.append("While it runs, `rlm attach` in a terminal looks into its REPL.")
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
        """Carry out a command."""
        with _in_one_line():
            name, rest = grammar.command_of(line)
            if not name:
                terminal.say(grammar.overview())
                return None
            done: RLMResult | None = self._commands[name](rest)
            return done

    @property
    def _commands(self) -> Mapping[str, Callable[[str], RLMResult | None]]:
        return {
            "last": self._show_last,
            "open": self._open,
            "trace": self._trace,
            "usage": self._show_usage,
            "replay": self._replay,
            "resume": self._resume,
            "model": self._model,
            "environments": self._environments,
            "config": self._config,
            "attach": self._attach,
        }

    def _show_last(self, line: str) -> RLMResult | None:
        grammar.command_grammar("last").read(line)
        if self.last is None:
            raise UsageError(commands.NO_RUN)
        return self.last

    def _open(self, line: str) -> None:
        file = commands.record_of(grammar.command_grammar("open").read(line).file, self.last)
        display(Markdown(commands.links(file)))

    def _trace(self, line: str) -> None:
        file = commands.record_of(grammar.command_grammar("trace").read(line).file, self.last)
        display(HTML(commands.trace(file)))

    def _show_usage(self, line: str) -> None:
        grammar.command_grammar("usage").read(line)
        display(Markdown(commands.usage(self._usage, self.asker.usage())))

    def _environments(self, line: str) -> None:
        grammar.command_grammar("environments").read(line)
        terminal.say(commands.environments(self.environment))

    def _attach(self, line: str) -> None:
        grammar.command_grammar("attach").read(line)
        terminal.say(commands.live_repls())

    def _model(self, line: str) -> None:
        said = grammar.command_grammar("model").read(line)
        for name, value in (("backend", said.backend), ("base_url", said.base_url), ("model", said.name)):
            if value is not None:
                settings.change(self, name, value)
        terminal.say(commands.describe_model(settings.values(self)))

    def _config(self, line: str) -> None:
        said = grammar.setting_of(line)
        if said.name and said.value:
            settings.change(self, said.name, said.value)
        if said.save:
            assert self.shell is not None, "made with a shell"
            terminal.say(f"Kept in {settings.save(self, self.shell)}")
        elif said.name:
            terminal.say(f"{said.name} = {settings.value(self, said.name)!r}")
        else:
            terminal.say(settings.render_settings(self))

    def _replay(self, line: str) -> None:
        from rlm_kernel.replay.replayer import Mode, replay

        said = grammar.command_grammar("replay").read(line)
        file = commands.record_of(said.file, self.last)
        mode: Mode = "live" if said.live else "replay"
        terminal.say(str(replay(file, mode=mode, environment=said.environment, trust=said.trust)))

    def _resume(self, line: str) -> RLMResult:
        said = grammar.command_grammar("resume").read(line)
        file = commands.record_of(said.file, self.last)
        # Options of the record are merged with those given here.
        known = admitted(read_log(file), Use(said.environment), said.trust)
        named = arguments.merge_settings(
            settings.values(self), resume_arguments.with_recorded_model(said, known.metadata, known.path)
        )
        logger = WatchedLogger(named["log_dir"] or None)
        overrides = resume_arguments.overrides(said, named, known.metadata, self.namespace)

        def work() -> Any:
            return RLM.aresume(file, said.at, root_prompt=said.question, logger=logger, trust=said.trust, **overrides)

        return self._ask(
            work, "", named, logger, said, (), lambda done: resume_arguments.newly_spent(done, known, said.at)
        )

    # -- around them

    def close(self) -> None:
        """End a persistent kernel, and give up connections."""
        kept, self._persistent = self._persistent, None
        if kept is not None:
            kept[1].close()

    def _query_arguments(self) -> dict[str, Any]:
        """What `llm_query` in the notebook asks with: the person stands one level above the root model."""
        wanted = arguments.rlm_arguments(settings.values(self), self.namespace)
        return {**wanted, "max_depth": wanted["max_depth"] + 1, "persistent": False}


vars(RLMMagics)["ask_cell"].__doc__ = grammar.cell_grammar().format_help()
vars(RLMMagics)["command"].__doc__ = grammar.overview()


def load(shell: InteractiveShell) -> RLMMagics:
    """Give a shell the magics and the query functions."""
    magics = RLMMagics(shell)
    shell.register_magics(magics)
    shell.push(magics.asker.names, interactive=False)
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
    """Take back what `load` gave."""
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
    """Show an error of ours as one line: what it says is for the person, its traceback is not."""
    try:
        yield
    except (RLMError, NotImplementedError) as error:
        line = f"{type(error).__name__}: {one_line(str(error))}"
        error._render_traceback_ = lambda: [line]  # type: ignore[union-attr]
        raise
