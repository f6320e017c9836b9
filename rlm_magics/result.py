"""The result of a `%%rlm` cell: the completion, its files, and how it is displayed."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rlm_kernel.text import format_duration, plain
from rlm_kernel.trajectory.notebook import markdown
from rlm_kernel.trajectory.states import ending_of
from rlm_kernel.types import RLMChatCompletion, UsageSummary


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class RLMResult(RLMChatCompletion):
    """A completion of `%%rlm`. `str()` of it is the answer.

    Attributes:
        trajectory: the path of the log, or None when there is none.
        notebook: the path of the notebook of the run, or None.
        error: why the run ended early, or None; `response` is then the best answer so far, which may be empty.
    """

    trajectory: str | None = None
    notebook: str | None = None
    error: BaseException | None = field(default=None, compare=False)  # type: ignore[assignment]

    @property
    def answer(self) -> str:
        """The answer."""
        return self.response

    @property
    def usage(self) -> UsageSummary:
        """Calls, tokens and cost by model."""
        return self.usage_summary

    @property
    def partial(self) -> bool:
        """Whether the run ended before it had its answer."""
        return self.error is not None

    def __str__(self) -> str:
        return self.response

    _repr_html_ = None  # type: ignore[assignment]  # a front end would prefer it to the Markdown

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:  # noqa: ARG002
        """The answer as inactive Markdown, and below it the cost and links to the files of the run."""
        facts = f"{markdown.one_line(self.facts)}{''.join(f' · {link}' for link in self._links())}"
        answer = markdown.prose(self.response, breaks=True) or "*No answer.*"
        return {
            "text/markdown": f"{answer}\n\n{markdown.small(facts)}",
            "text/plain": plain(f"{self.response}\n\n{self.facts}"),
        }

    @property
    def facts(self) -> str:
        """Model, time, calls, tokens and cost in one line."""
        ended = f"{ending_of(self.error)}, the best answer so far · " if self.error is not None else ""
        return f"{ended}{self.root_model} · {format_duration(self.execution_time)} · {self.usage_summary.facts}"

    def _links(self) -> list[str]:
        named = [("notebook", self.notebook), ("log", self.trajectory)]
        return [f"[{name}]({address(path)})" for name, path in named if path is not None]


def address(path: str) -> str:
    """A path as a link in the notebook: relative where it lies below the working directory."""
    return quote(Path(os.path.relpath(path)).as_posix())
