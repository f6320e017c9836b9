"""The prompts of models that were trained to be RLMs, and of the reference: a conversation by a `Layout`.

The engine adds no advice of its own to such a conversation: a text that the model was never trained on is left out,
unless the run could not go on without it (a restarted kernel, an answer that does not fit the schema).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlm_kernel.errors import ConfigError
from rlm_kernel.prompts.context_preview import ContextFacts
from rlm_kernel.prompts.layout import Layout
from rlm_kernel.prompts.profile import TOOLS_FIELD, PromptProfile, filled_in
from rlm_kernel.types import CellResult, Message, Prompt


@dataclass(frozen=True, slots=True)
class TrainedProfile(PromptProfile):
    """All texts for a model that knows one conversation.

    Attributes:
        layout: its messages.
    """

    layout: Layout | None = None

    def __post_init__(self) -> None:
        if self.layout is None:
            raise ConfigError("A TrainedProfile needs a layout: Layout(facts=..., turn=..., block=..., last_word=...).")

    @property
    def _layout(self) -> Layout:
        assert self.layout is not None, "checked when it was made"
        return self.layout

    def opening(
        self,
        facts: ContextFacts,
        question: str,
        prompt: Prompt,
        *,
        system: str | None = None,
        tools: str = "",
        sub_window: int | None = None,  # noqa: ARG002 (the words of the layout say what a sub-call takes)
        orchestrator: bool | None = None,
        prologue: str | None = None,
        notes: Sequence[str] = (),
        max_iterations: int = 30,
    ) -> list[Message]:
        """The conversation before the model's first turn; see `PromptProfile.opening`."""
        layout, section = self._layout, f"\n{tools}" if tools else ""
        rules = self.system if system is None else system
        if system is not None or TOOLS_FIELD in rules:  # the doubled braces of a text without it are meant
            rules = filled_in(rules, section)
        if tools and tools not in rules:
            rules = f"{rules}\n\n{tools}"
        if layout.advice and orchestrator is not False:
            rules = f"{rules}\n\n{layout.advice}"
        return [
            {"role": "system", "content": rules},
            {"role": layout.facts_role, "content": layout.about(prompt, facts, question)},
            *_by_user((prologue, *notes)),
            *self.kept_before(1, max_iterations, question),
        ]

    def kept_before(self, iteration: int, max_iterations: int, question: str) -> list[Message]:
        """The message before a turn, if it stays in the conversation."""
        return self._before(iteration, max_iterations, question) if self._layout.keeps_turn else []

    def sent_with(self, iteration: int, max_iterations: int, question: str) -> list[Message]:
        """The message before a turn, if it is sent in this turn only."""
        return [] if self._layout.keeps_turn else self._before(iteration, max_iterations, question)

    def _before(self, iteration: int, max_iterations: int, question: str) -> list[Message]:
        return [{"role": "user", "content": self._layout.before(iteration, max_iterations, question)}]

    def after(
        self,
        results: Sequence[CellResult],
        *,
        notes: Sequence[str] = (),
        iteration: int,  # noqa: ARG002 (the message before the next turn says it)
        max_iterations: int,  # noqa: ARG002
        facts: ContextFacts | None = None,  # noqa: ARG002
    ) -> tuple[str, ...]:
        """The user messages after a reply's cells ran."""
        return (*self._layout.after(results, self.output_characters), *filter(None, notes))

    def closed(self, messages: Sequence[Message], question: str, *, by_schema: bool) -> list[Message]:  # noqa: ARG002
        """The messages after the last turn, with the request for an answer, which the assistant says."""
        return [*messages, {"role": "assistant", "content": self._layout.last_word}]

    # -- what is not said

    def no_code(self) -> str:
        """Nothing: the next turn begins."""
        return ""

    def no_text(self, cause: str) -> str:  # noqa: ARG002
        """Nothing."""
        return ""

    def no_code_again(self, times: int, facts: ContextFacts) -> str:  # noqa: ARG002
        """Nothing."""
        return ""

    def repeated(self, times: int, facts: ContextFacts, earlier: int = 0) -> str:  # noqa: ARG002
        """Nothing."""
        return ""

    def cut(self, reason: str = "length") -> str:  # noqa: ARG002
        """Nothing: the open block is no block."""
        return ""

    def answer_cut(self, reason: str = "length") -> str:  # noqa: ARG002
        """Nothing."""
        return ""

    def guess_ignored(self) -> str:
        """Nothing."""
        return ""

    def restored(self, names: Mapping[str, str | None]) -> str:  # noqa: ARG002
        """Nothing."""
        return ""


def _by_user(texts: Sequence[str | None]) -> list[Message]:
    return [{"role": "user", "content": text} for text in texts if text]
