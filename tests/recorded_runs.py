"""Runs of a scripted model in a real kernel, with their log and notebook.

    run = record(tmp_path, ["```repl\\nn = len(context)\\n```", "FINAL_VAR(n)"], context="abc")
    replay(run.notebook)

The replies are those of the root model; a sub-call gets `echo:` and its prompt.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from rlm import RLM
from rlm.logger import RLMLogger
from rlm_kernel.clients.scripted import ScriptedLM
from rlm_kernel.errors import RLMError
from rlm_kernel.trajectory.log.file_names import NOTEBOOK, RECORD, file_beside, stem_of


@dataclass(frozen=True)
class RecordedRun:
    """The files of a run, and the model that led it."""

    log: Path
    lm: ScriptedLM

    @property
    def notebook(self) -> Path:
        return notebook_beside(self.log)

    @property
    def name(self) -> str:
        return stem_of(self.log)

    def edit(self, old: str, new: str) -> Path:
        """Change the source of the cells that hold a text."""
        notebook = nbformat.read(self.notebook, as_version=4)
        found = [cell for cell in notebook.cells if cell.metadata["rlm"]["role"] == "code" and old in cell.source]
        assert found
        for cell in found:
            cell.source = cell.source.replace(old, new)
        nbformat.write(notebook, self.notebook)
        return self.notebook


def code(*lines: str) -> str:
    """A reply that is one cell."""
    return "```repl\n" + "\n".join(lines) + "\n```"


def model(replies: list[str]) -> ScriptedLM:
    """The root model says the replies in order, whichever run asks; a sub-call is echoed."""

    def script(messages):
        if len(messages) == 1:
            return f"echo: {messages[-1]['content']}"
        return replies[sum(message["role"] == "assistant" for message in messages)]

    return ScriptedLM(script)


def record(folder: Path, replies: list[str], context: Any = "some context", **arguments: Any) -> RecordedRun:
    """Run a completion and keep it in a folder."""
    lm, logger = model(replies), RLMLogger(str(folder))
    # The record of a run that failed is wanted, too.
    with RLM(lm, logger=logger, **arguments) as rlm, contextlib.suppress(RLMError):
        rlm.completion(context, root_prompt="What is in it?")
    return RecordedRun(record_file(logger), lm)


def record_file(logger: RLMLogger) -> Path:
    """The file with all events of the latest run of a logger."""
    return file_beside(Path(str(logger.log_file_path)), RECORD)


def notebook_beside(log: Path) -> Path:
    """The notebook of a log."""
    return file_beside(log, NOTEBOOK)
